"""The integer executor as the judge of a job: what it finds is an error of the job that names the layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from dianaq.errors import VerificationError
from dianaq.executor import compare_models, open_source, read_model
from dianaq_quant.export.dory import build_dory
from dianaq_quant.export.htvm import build_htvm
from dianaq_quant.export.layers import run_recording
from dianaq_quant.verify import verify

from .test_mixed_networks import NETWORKS, Recipe, inputs, integer_network, residual, row_tiles


@pytest.mark.parametrize("recipe", NETWORKS, ids=lambda r: r.__name__)
def test_networks_on_both_cores_are_computed_as_in_torch(recipe: Recipe) -> None:
    """Converters, k and l, row tiles, additions with a ReLU of their own, pools."""
    network, _ = integer_network(recipe)
    x = inputs(network)[::4]
    htvm = build_htvm(network)
    expected, found = run_recording(network, x), read_model(htvm.proto).run(x.numpy())
    assert np.array_equal(found.output, expected["output"].numpy())
    assert np.array_equal(found.logits, expected[network.sink].numpy())
    for layer, tensor in htvm.tensors.items():
        if not tensor.endswith("/mean"):
            assert np.array_equal(found.tensors[tensor], expected[layer].numpy()), layer


def test_row_tiles_are_summed_as_integers() -> None:
    network, _ = integer_network(row_tiles)
    model = read_model(build_htvm(network).proto)
    (total,) = [node.outputs[0] for node in model.nodes if node.operator == "ReduceSum"]
    sums = model.run(inputs(network)[:4].numpy()).tensors[total]
    assert sums.max() > 31  # more than one converter gives
    assert sums.dtype == np.int32


@pytest.mark.parametrize("dialect", ["htvm", "dory"])
def test_an_accumulator_that_overflows_fails_the_job_by_the_layers_name(dialect: str) -> None:
    """The sums stay beyond the clipping bound in float32, so that no other execution notices."""
    network, _ = integer_network(residual)
    layer = network.layers[-1]
    layer.module.bias.fill_(2**31 - 128)  # the largest int32 that is a float32
    layer.module.weight.fill_(127)
    htvm, dory = build_htvm(network), build_dory(network)
    if dialect == "dory":  # as if it had no analog layers
        dory = replace(dory, tensors={"input": "0", layer.name: dory.tensors[layer.name]}, ranges={}, converters={})
        htvm = replace(htvm, proto=_without_overflow(htvm.proto))
    with pytest.raises(VerificationError, match=rf"{dialect}/model.onnx in numpy, integers only: {layer.name}: ") as e:
        verify(network, network.graph, htvm, dory, inputs(network)[:8])
    assert "beyond the 32 bits of an accumulator" in e.value.detail
    assert e.value.param == layer.name


def _without_overflow(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same results from a bias that leaves room for the sum."""
    name = next(n.input[2] for n in proto.graph.node if n.op_type == "Gemm")
    tensor = next(t for t in proto.graph.initializer if t.name == name)
    bias = onnx.numpy_helper.to_array(tensor) - np.float32(2**27)
    tensor.CopyFrom(onnx.numpy_helper.from_array(bias, name))
    return proto


def test_a_file_that_only_float_arithmetic_can_run_fails_the_job() -> None:
    """Nearly an integer: the requantisation hides it from onnxruntime's results."""
    network, exact = integer_network(residual)
    htvm, dory = build_htvm(network), build_dory(network)
    name = next(n.input[2] for n in htvm.proto.graph.node if n.op_type == "Gemm")
    tensor = next(t for t in htvm.proto.graph.initializer if t.name == name)
    bias = onnx.numpy_helper.to_array(tensor) + np.float32(2**-7)
    tensor.CopyFrom(onnx.numpy_helper.from_array(bias, name))
    words = r"in numpy, integers only: .* which holds .* accepted are integers"
    with pytest.raises(VerificationError, match=words) as e:
        verify(network, exact, htvm, dory, inputs(network)[:8])
    assert e.value.param == network.layers[-1].name


def test_of_both_dialects_the_first_analog_layer_differs_and_the_file_says_why(tmp_path: Path) -> None:
    """Where a converter saturates or rounds, DORY's file computes something else."""
    network, _ = integer_network(residual)
    x = inputs(network)[:8].numpy()
    for name, model in (("htvm", build_htvm(network)), ("dory", build_dory(network))):
        (tmp_path / name).mkdir()
        onnx.save(model.proto, str(tmp_path / name / "model.onnx"))
    found = compare_models(
        open_source(tmp_path / "htvm" / "model.onnx"), open_source(tmp_path / "dory" / "model.onnx"), x
    )
    assert found.difference is not None
    assert found.equal_tensors == 1  # the input
    assert found.difference.layer == network.layers[0].name
    assert "weight_bits = 2 selects the analog core" in found.notes[0]


def test_a_quarter_of_the_samples_runs_in_integers_and_the_report_says_so() -> None:
    network, exact = integer_network(residual)
    x = torch.cat([inputs(network)] * 3)[:128]
    executions = verify(network, exact, build_htvm(network), build_dory(network), x)
    assert executions[-1] == "htvm/model.onnx in numpy, integers only (32 of the samples)"
