"""The written files keep the rules of their dialects, and the verification notices when they compute something else."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from dianaq.errors import VerificationError
from dianaq_quant.editors import integerise
from dianaq_quant.export import export_dory, export_htvm
from dianaq_quant.export.dory import without_annotations
from dianaq_quant.export.layers import IntegerNetwork, read_layers, run_recording
from dianaq_quant.graph import run_editors
from dianaq_quant.graph.shapes import record_shapes
from dianaq_quant.verify import sample_inputs, verify

from .builder import ModelBuilder
from .stages import exact_network, remedied


def mixed_model() -> onnx.ModelProto:
    """A residual network with every operation of the chip: conv, depthwise, add with and without ReLU, pools, FC."""
    b = ModelBuilder((3, 8, 8), seed=3)
    stem = b.relu(b.batch_norm(b.conv(b.input, 8, pads=(1, 1, 1, 1), bias=False, name="stem")))
    inner = b.relu(b.conv(stem, 8, pads=(1, 1, 1, 1), group=8, name="depthwise"))
    block = b.relu(b.add(b.conv(inner, 8, (1, 1), name="pointwise"), stem, name="add_relu"))
    signed = b.add(b.conv(block, 8, (1, 1), name="second"), block, name="add")
    pooled = b.pool("MaxPool", signed, (2, 2), stride=(2, 2), name="max")
    down = b.relu(b.conv(pooled, 8, pads=(0, 0, 1, 1), stride=(2, 2), name="down"))
    flat = b.flatten(b.global_pool(down, name="mean"))
    return b.build(b.gemm(b.relu(b.gemm(flat, 8, name="square")), 4, name="head"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory):
    """The exact network, its integer form, both written models, their folder, and inputs to verify on."""
    exact, data, shape = exact_network(mixed_model())
    network = torch.fx.GraphModule(exact, exact.graph)
    run_editors(network, integerise.EDITORS)
    record_shapes(network, shape)
    exact, _, _ = exact_network(mixed_model())
    integer = read_layers(network)
    folder = tmp_path_factory.mktemp("bundle")
    golden = run_recording(integer, data[:1])
    split = remedied(integer, "htvm", relu_after_add=True)
    htvm = export_htvm(split, folder / "htvm", data[:1], golden["output"])
    dory = export_dory(integer, folder / "dory", golden)
    inputs, _, _ = sample_inputs(data, integer.entrance.scale, 0)
    return exact, integer, htvm, dory, folder, inputs, {"htvm": split, "dory": integer}


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def users_of(model: onnx.ModelProto, tensor: str) -> list[onnx.NodeProto]:
    return [n for n in model.graph.node if tensor in n.input]


def test_htvm_layers_are_followed_by_the_one_requantisation_that_is_recognised(written) -> None:
    model = onnx.load(written[4] / "htvm" / "model.onnx")
    values = constants(model)
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm", "Add"):
            continue
        (following,) = users_of(model, node.output[0])
        if following.op_type == "Div":
            divisor = values[following.input[1]]
            assert divisor.shape == (1,)
            assert float(np.log2(divisor[0])) in range(32)
            (following,) = users_of(model, following.output[0])
        chain = []
        while following.op_type in ("Floor", "Max", "Min"):
            chain.append(following)
            if following.op_type == "Min":
                break
            (following,) = users_of(model, following.output[0])
        assert [n.op_type for n in chain] == ["Floor", "Max", "Min"]
        bounds = tuple(float(values[n.input[1]].item()) for n in chain[1:])
        assert bounds in {(0.0, 127.0), (-128.0, 127.0)}
        assert all(values[n.input[1]].ndim == 1 for n in chain[1:])


def test_htvm_layers_have_integer_weights_and_a_bias(written) -> None:
    model = onnx.load(written[4] / "htvm" / "model.onnx")
    values = constants(model)
    layers = [n for n in model.graph.node if n.op_type in ("Conv", "Gemm")]
    assert len(layers) == 7
    for node in layers:
        weight, bias = (values[name] for name in node.input[1:])
        assert weight.dtype == bias.dtype == np.float32
        assert bias.ndim == 1
        assert np.array_equal(weight, np.round(weight))
        assert np.array_equal(bias, np.round(bias))
        assert weight.min() >= -128
        assert weight.max() <= 127


def test_htvm_relu_after_an_addition_is_a_clip_of_its_own(written) -> None:
    model = onnx.load(written[4] / "htvm" / "model.onnx")
    values = constants(model)
    clips = [n for n in model.graph.node if n.op_type == "Clip"]
    assert len(clips) == 1
    assert [float(values[name]) for name in clips[0].input[1:]] == [0.0, 127.0]
    (producer,) = [n for n in model.graph.node if clips[0].input[0] in n.output]
    assert producer.op_type == "Min"
    assert float(values[producer.input[1]].item()) == 127
    (lower,) = [n for n in model.graph.node if producer.input[0] in n.output]
    assert lower.op_type == "Max"
    assert float(values[lower.input[1]].item()) == -128  # the requantisation itself is signed


def test_htvm_model_quantises_its_float_input_and_ends_in_a_division(written) -> None:
    model = onnx.load(written[4] / "htvm" / "model.onnx")
    assert [n.op_type for n in model.graph.node[:4]] == ["Div", "Floor", "Max", "Min"]
    assert model.graph.input[0].name == "input"
    assert model.graph.node[-1].op_type == "Div"
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 8, 8]
    pool = next(n for n in model.graph.node if n.op_type == "GlobalAveragePool")
    following = [pool]
    while following[-1].op_type != "Min":
        following.append(users_of(model, following[-1].output[0])[0])
    assert [n.op_type for n in following] == ["GlobalAveragePool", "Flatten", "Floor", "Max", "Min"]


def test_htvm_folder_holds_the_model_and_two_arrays_only(written) -> None:
    folder = written[4] / "htvm"
    assert {p.name for p in folder.iterdir()} == {"model.onnx", "input.npy", "output.npy"}
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"input": np.load(folder / "input.npy")})
    assert np.array_equal(output, np.load(folder / "output.npy"))


def test_dory_names_are_decimal_and_strictly_increasing(written) -> None:
    model = onnx.load(written[4] / "dory" / "model.onnx")
    assert [o.version for o in model.opset_import] == [10]
    assert model.graph.input[0].name == "0"
    outputs = [int(n.output[0]) for n in model.graph.node]
    assert outputs == sorted(set(outputs))
    assert model.graph.node[0].op_type == "Conv"
    assert model.graph.node[-1].op_type == "Clip"
    known = {v.name for v in [*model.graph.value_info, *model.graph.output]}
    assert known == {n.output[0] for n in model.graph.node}


def test_dory_declares_the_shapes_that_onnx_infers(written) -> None:
    plain = without_annotations(written[3].proto)
    declared = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in plain.graph.value_info}
    del plain.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(plain, strict_mode=True, data_prop=True).graph.value_info
    assert declared == {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in inferred}


def test_dory_layers_carry_the_attributes_that_its_front_end_reads(written) -> None:
    model = onnx.load(written[4] / "dory" / "model.onnx")
    values = constants(model)
    for node in model.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type in ("Conv", "Gemm"):
            assert (attributes["weight_bits"], attributes["bias_bits"]) == (8, 32)
            assert "weight" in node.input[1]
            assert "bias" not in node.input[1]
            assert "bias" in node.input[2]
        if node.op_type == "Conv":
            assert {"kernel_shape", "strides", "pads", "dilations", "group"} <= attributes.keys()
        if node.op_type == "Gemm":
            assert attributes["transB"] == 0
        if node.op_type == "Add":
            for side in ("in1", "in2", "out"):
                found = [attributes[f"{side}_{key}"] for key in ("mul", "add", "shift", "n_levels", "rq")]
                assert found == [1, 0, 0, 256, 0]
            assert {"add_bits", "out_signed", "weight_bits"} <= attributes.keys()
        if node.op_type == "Mul":
            assert values[node.input[1]].shape == ()
            assert values[node.input[1]] == 1.0
        if node.op_type == "Div":
            assert float(np.log2(values[node.input[1]])) in range(32)
        if node.op_type == "Clip":
            assert attributes["out_bits"] == 8
            assert (attributes["min"], attributes["max"]) in {(0.0, 127.0), (-128.0, 127.0)}


def test_dory_square_fully_connected_weights_are_stored_in_by_out(written) -> None:
    """DORY would transpose a square matrix with transB = 1 silently."""
    integer: IntegerNetwork = written[1]
    model = onnx.load(written[4] / "dory" / "model.onnx")
    layer = next(entry for entry in integer.layers if entry.original == "square")
    gemm = next(n for n in model.graph.node if n.op_type == "Gemm")
    stored = constants(model)[gemm.input[1]]
    assert np.array_equal(stored, layer.module.weight.numpy().T)
    assert not np.array_equal(stored, stored.T)


def test_dory_golden_files_are_one_per_fused_layer(written) -> None:
    _, integer, _, dory, folder, _, _ = written
    golden = run_recording(integer, torch.from_numpy(np.load(folder / "htvm" / "input.npy")))
    files = {p.name for p in (folder / "dory").glob("*.txt")}
    assert files == {"input.txt", *(f"out_layer{i}.txt" for i in range(len(dory.fused)))}
    assert len(dory.fused) == 11  # 5 convolutions, 2 additions, 2 pools, 2 fully connected layers
    for name, layer in [("input", "input"), *((f"out_layer{i}", layer) for i, layer in enumerate(dory.fused))]:
        lines = (folder / "dory" / f"{name}.txt").read_text().splitlines()
        assert lines[0].startswith("#")
        assert all(line.endswith(",") for line in lines[1:])
        values = np.array([int(line[:-1]) for line in lines[1:]])
        expected = golden[layer].flatten().numpy().astype(int)
        assert np.array_equal(values, expected & 0xFF if name == "input" else expected)


def test_dory_configuration(written) -> None:
    config = json.loads((written[4] / "dory" / "dory.json").read_text())
    weights = sum(v.size for v in constants(onnx.load(written[4] / "dory" / "model.onnx")).values())
    assert config["code reserved space"] > weights + 3 * 8 * 8
    assert {k: config[k] for k in ("BNRelu_bits", "onnx_file", "n_inputs", "input_bits", "input_signed")} == {
        "BNRelu_bits": 32,
        "onnx_file": "model.onnx",
        "n_inputs": 1,
        "input_bits": 8,
        "input_signed": True,
    }


def test_every_execution_agrees(written) -> None:
    exact, integer, htvm, dory, _, inputs, deployed = written
    assert len(inputs) == 128
    executions = verify(integer, exact, htvm, dory, inputs, deployed)
    assert executions[-2:] == (
        "htvm/model.onnx in numpy, integers only (32 of the samples)",
        "dory/model.onnx in numpy, integers only (32 of the samples)",
    )
    assert len(executions) == 6


def tampered(model, tensor: str, change):
    """A copy of a written model with one initialiser changed."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for entry in proto.graph.initializer:
        if entry.name == tensor:
            entry.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(entry).copy()), tensor))
            break
    else:
        raise AssertionError(f"no {tensor}")
    return type(model)(**{**model.__dict__, "proto": proto})


def bump(array: np.ndarray) -> np.ndarray:
    array.flat[0] += 40
    return array


@pytest.mark.parametrize("dialect", ["htvm", "dory"])
def test_a_changed_weight_is_noticed_and_its_layer_named(written, dialect: str) -> None:
    exact, integer, htvm, dory, _, inputs, deployed = written
    models = {"htvm": htvm, "dory": dory}
    first = next(n for n in models[dialect].proto.graph.node if n.op_type == "Conv")
    models[dialect] = tampered(models[dialect], first.input[1], bump)
    with pytest.raises(VerificationError, match=rf"{dialect}/model.onnx differs .* at stem") as caught:
        verify(integer, exact, models["htvm"], models["dory"], inputs, deployed)
    assert caught.value.param == "stem"


@pytest.mark.parametrize("dialect", ["htvm", "dory"])
def test_a_fraction_in_a_bias_is_noticed_and_its_layer_named(written, dialect: str) -> None:
    """Half a step of the head's output: its requantisation may hide less, but not in 128 samples."""
    exact, integer, htvm, dory, _, inputs, deployed = written
    models = {"htvm": htvm, "dory": dory}
    last = [n for n in models[dialect].proto.graph.node if n.op_type == "Gemm"][-1]
    half = 0.5 * 2 ** integer.layers[-1].module.shift.shift + 0.25
    models[dialect] = tampered(models[dialect], last.input[2], lambda a: a + half)
    with pytest.raises(VerificationError, match=rf"{dialect}/model.onnx differs .* at head") as caught:
        verify(integer, exact, models["htvm"], models["dory"], inputs, deployed)
    assert caught.value.param == "head"


def test_a_wider_clip_is_noticed(written) -> None:
    exact, integer, htvm, dory, _, inputs, deployed = written
    wide = tampered(htvm, "constant_127", lambda a: a + 100)
    with pytest.raises(VerificationError, match="outside its range"):
        verify(integer, exact, wide, dory, inputs, deployed)


def test_a_missing_floor_is_noticed_as_a_fraction(written) -> None:
    exact, integer, htvm, dory, _, inputs, deployed = written
    proto = onnx.ModelProto()
    proto.CopyFrom(dory.proto)
    floor = next(n for n in proto.graph.node if n.op_type == "Floor")
    floor.op_type = "Identity"
    with pytest.raises(VerificationError, match="fractional"):
        verify(integer, exact, htvm, type(dory)(**{**dory.__dict__, "proto": proto}), inputs, deployed)


def test_a_hardware_exact_network_that_differs_is_noticed(written) -> None:
    _, integer, htvm, dory, _, inputs, deployed = written
    other, _, _ = exact_network(mixed_model())
    with torch.no_grad():
        other.get_submodule("head").bias += 1.0
    with pytest.raises(VerificationError, match="hardware-exact"):
        verify(integer, other, htvm, dory, inputs, deployed)


def test_inputs_are_topped_up_with_random_samples() -> None:
    x, real, random = sample_inputs(torch.zeros(5, 3), 0.5, 0)
    assert (len(x), real, random) == (128, 5, 123)
    assert float(x[5:].min()) < -128 * 0.5
    assert float(x[5:].max()) > 127 * 0.5
