"""`dianaq compare`: equal networks are equal, in either dialect; of others the first layer that differs is named."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dianaq.cli import main
from dianaq.executor import compare_models, open_source, read_model
from dianaq.executor.compare import layer_outputs

from .integer_files import FileBuilder, floats, integers, small_htvm


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    try:
        status = main(["compare", *map(str, arguments)])
    except SystemExit as stop:
        status = int(stop.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def small_dory(seed: int = 1) -> FileBuilder:
    """`small_htvm` in DORY's dialect."""
    source = small_htvm(seed)
    layers = [n for n in source.nodes if n.op_type in ("Conv", "Gemm")]
    weights = {n.name.split("/")[0]: [source.constants[c] for c in n.input[1:]] for n in layers}
    b = FileBuilder((3, 6, 6), opset=10, input="0")

    def requantise(x: str, shift: int, lo: float) -> str:
        x = number("Div", number("Mul", x, np.float32(1)), np.float32(2.0**shift))
        return number("Clip", number("Floor", x), min=lo, max=127.0, out_bits=8)

    def number(op: str, *inputs: object, **attributes: object) -> str:
        return b.add(op, inputs, str(len(b.nodes) + 1), **attributes)

    conv = {"pads": [1, 1, 1, 1], "weight_bits": 8}
    x = requantise(number("Conv", "0", *weights["stem"], **conv), 9, 0.0)
    y = requantise(number("Conv", x, *weights["block"], **conv), 9, -128.0)
    x = requantise(number("Add", y, x, in1_mul=1), 1, -128.0)
    # Its ReLU is a convolution of its own.
    channels = len(weights["block"][1])
    identity, zeros = np.eye(channels, dtype=np.float32)[:, :, None, None], np.zeros(channels, np.float32)
    x = requantise(number("Conv", x, identity, zeros, weight_bits=8), 0, 0.0)
    x = number("Flatten", number("Floor", number("GlobalAveragePool", x)))
    weight, bias = weights["head"]
    requantise(number("Gemm", x, weight.T.copy(), bias, transB=0), 4, -128.0)
    return b


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Path]:
    """Makes bundles: both dialects with their golden inputs, and a report."""

    def make(name: str, change: Callable[[onnx.ModelProto], None] | None = None, seed: int = 1) -> Path:
        folder = tmp_path / name
        model = small_htvm(seed).model()
        if change is not None:
            change(model)
        (folder / "htvm").mkdir(parents=True)
        onnx.save(model, str(folder / "htvm" / "model.onnx"))
        x = np.random.default_rng(9).normal(0, 16, (3, 3, 6, 6)).astype(np.float32)
        np.save(folder / "htvm" / "input.npy", x)
        small_dory(seed).save(folder / "dory" / "model.onnx")
        golden = np.clip(np.floor(x[0] / 0.25), -128, 127).astype(int).ravel().tolist()
        (folder / "dory" / "input.txt").write_text("".join(f"{v & 0xFF},\n" for v in golden))
        return folder

    return make


def change_weight(node: str, amount: float) -> Callable[[onnx.ModelProto], None]:
    """Adds to the first weight of a node."""

    def change(model: onnx.ModelProto) -> None:
        name = next(n.input[1] for n in model.graph.node if n.name == node)
        tensor = next(t for t in model.graph.initializer if t.name == name)
        array = numpy_helper.to_array(tensor).copy()
        array.flat[0] += amount
        tensor.CopyFrom(numpy_helper.from_array(array, name))

    return change


def test_what_a_layer_stores_is_compared_in_either_dialect() -> None:
    htvm, dory = read_model(small_htvm().model()), read_model(small_dory().model())
    assert layer_outputs(htvm) == [
        "input/min",
        "stem/min",
        "block/min",
        "join/min",
        "join/relu",
        "mean/min",
        "head/min",
    ]
    assert layer_outputs(dory) == ["0", "5", "10", "15", "20", "22", "28"]


def test_a_converters_output_is_inside_its_layer() -> None:
    b = FileBuilder((4, 3, 3))
    x = b.requantise(b.add("Conv", ["input", floats(6, 4, 1, 1, lo=-1, hi=1)], "a/conv"), "a/adc", 3, -32.0, 31.0)
    x = b.add("Add", [b.add("Mul", [x, floats(6, 1, 1)], "a/mul"), floats(6, 1, 1)], "a/add")
    x = b.requantise(x, "a", 5)
    tiled = b.requantise(
        b.add("Conv", [x, floats(4, 3, 1, 1, lo=-1, hi=1)], "b/conv", group=2), "b/adc", 1, -32.0, 31.0
    )
    x = b.add("ReduceSum", [b.add("Reshape", [tiled, np.array([1, 2, 2, 3, 3])]), np.array([1])], "b/sum", keepdims=0)
    b.requantise(b.add("Mul", [x, floats(2, 1, 1)]), "b", 5)
    assert layer_outputs(read_model(b.model())) == ["input", "a/min", "b/min"]


def test_equal_bundles(bundle: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    a, b = bundle("a"), bundle("b")
    assert run(capsys, a, b) == (0, "equal: 23 tensors, 3 samples\n", "")


def test_both_dialects_of_a_network_are_equal_layer_by_layer(
    bundle: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    a = bundle("a")
    dory = a / "dory" / "model.onnx"
    assert run(capsys, a, dory) == (0, "equal: 7 tensors, 3 samples\n", "")
    assert run(capsys, dory, a) == (0, "equal: 7 tensors, 1 sample\n", "")  # DORY's golden input is one sample
    assert run(capsys, dory, dory)[1] == "equal: 24 tensors, 1 sample\n"


@pytest.mark.parametrize(
    ("node", "amount", "layer", "before"),
    [("stem/conv", 40, "stem", 3), ("block/conv", 40, "block", 7), ("head/gemm", 3, "head", 19)],
)
def test_the_first_layer_that_a_changed_weight_changes_is_named(
    bundle: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    node: str,
    amount: float,
    layer: str,
    before: int,
) -> None:
    a, b = bundle("a"), bundle("b", change_weight(node, amount))
    status, out, err = run(capsys, a, b, "--json")
    found = json.loads(out)
    assert (status, err) == (1, "")
    assert (found["a"], found["b"], found["equal"], found["samples"]) == (str(a), str(b), False, 3)
    first = found["difference"]
    assert (first["layer"], first["tensors"]) == (layer, [node, node])
    x, y = (
        read_model(onnx.load(str(f / "htvm" / "model.onnx"))).run(np.load(a / "htvm" / "input.npy")).tensors[node]
        for f in (a, b)
    )
    assert (first["values"], first["of"]) == (int((x != y).sum()), x.size)
    assert first["largest"] == np.abs(x - y).max()
    assert first["sample"] == int((x != y).reshape(3, -1).any(1).argmax())
    assert found["equal_tensors"] == before

    status, out, _ = run(capsys, a, b)
    assert status == 1
    assert out.startswith(f"different at {layer}: {first['values']:,} of {first['of']:,} values, by up to ")
    assert out.endswith(f"({node})\ntensors equal before it: {before}, 3 samples\n")


def test_the_layer_is_named_across_the_dialects(
    bundle: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = bundle("a"), bundle("b", change_weight("block/conv", 90))
    _, out, _ = run(capsys, a / "dory" / "model.onnx", b)
    assert out.startswith("different at block: ")
    assert "(10 and block/min)\ntensors equal before it: 2, 1 sample\n" in out


def test_the_users_layers_are_named_where_a_report_does(
    bundle: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = bundle("a"), bundle("b", change_weight("block/conv", 90))
    tensors = {"htvm": {"stem/min": "features.0", "block/min": "features.1"}, "dory": {"5": "one", "10": "two"}}
    (b / "report.json").write_text(json.dumps({"tensors": tensors}))
    assert run(capsys, a, b)[1].startswith("different at features.1: ")  # at block/conv, inside the layer
    (b / "report.json").write_text(json.dumps({"tensors": ["no map"]}))
    assert run(capsys, a, b)[1].startswith("different at block: ")
    (b / "report.json").write_text("no report")
    assert run(capsys, a, b)[0] == 1
    (a / "report.json").write_text(json.dumps({"tensors": tensors}))
    assert run(capsys, a / "dory" / "model.onnx", b)[1].startswith("different at two: ")


def test_a_zip_is_a_bundle(bundle: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    a = bundle("a")
    (a / "report.json").write_text(json.dumps({"tensors": {"htvm": {"stem/min": "features.0"}}}))
    path = Path(shutil.make_archive(str(tmp_path / "bundle"), "zip", a))
    assert run(capsys, path, a) == (0, "equal: 23 tensors, 3 samples\n", "")
    changed = bundle("b", change_weight("stem/conv", 40))
    assert run(capsys, changed, path)[1].startswith("different at features.0: ")


def test_other_scales_at_the_ends_differ_there(bundle: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    a = bundle("a")
    status, out, _ = run(capsys, a, bundle("b", change_weight("output", 8)))
    assert status == 1
    assert out.startswith("different at output: ")
    status, out, _ = run(capsys, a, bundle("c", change_weight("input/div", 0.25)))
    assert out.startswith("different at input: ")


def test_inputs_can_be_given(bundle: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    a, b = bundle("a"), bundle("b", change_weight("stem/conv", 40))
    np.save(tmp_path / "zeros.npy", np.zeros((7, 3, 6, 6)))
    assert run(capsys, a, b, "--input", tmp_path / "zeros.npy") == (0, "equal: 23 tensors, 7 samples\n", "")
    np.save(tmp_path / "x.npy", integers(5, 3, 6, 6))
    dory = a / "dory" / "model.onnx"
    for options in (["--quantised"], []):
        assert run(capsys, a, dory, "--input", tmp_path / "x.npy", *options)[1] == "equal: 7 tensors, 5 samples\n"
    assert run(capsys, a, dory, "--input", a / "dory" / "input.txt")[1] == "equal: 7 tensors, 1 sample\n"


def test_without_any_golden_input_the_same_random_integers_are_taken(
    bundle: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    a = small_htvm().save(tmp_path / "a" / "a.onnx")
    b = small_dory().save(tmp_path / "b" / "b.onnx")
    assert run(capsys, a, b) == (0, "equal: 7 tensors, 16 samples\n", "")
    other = small_dory(seed=2).save(tmp_path / "c" / "c.onnx")
    assert run(capsys, a, other)[1] == run(capsys, a, other)[1]
    (tmp_path / "b" / "input.npy").write_bytes((bundle("g") / "htvm" / "input.npy").read_bytes())
    assert run(capsys, a, b)[1] == "equal: 7 tensors, 3 samples\n"  # the second's golden input


def test_networks_of_other_structure_differ_where_it_begins(
    bundle: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def cut(outputs: int, layers: int = 1) -> Path:
        b = FileBuilder((4,))
        x = "input"
        for i in range(layers):
            x = b.requantise(b.add("Gemm", [x, floats(outputs, 4)], f"fc{i}/gemm", transB=1), f"fc{i}", 6)
        return b.save(tmp_path / f"{outputs}_{layers}" / "m.onnx")

    status, out, _ = run(capsys, cut(3), cut(5))
    assert status == 1
    assert out.startswith("different at fc0: shapes [3] and [5] (fc0/gemm)")
    status, out, _ = run(capsys, cut(4), cut(4, layers=2))
    assert status == 1
    assert out == "different at fc1: shapes None and [4] (none and fc1/min)\ntensors equal before it: 2, 16 samples\n"


def test_analog_layers_of_dorys_dialect_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    b = FileBuilder((4, 2, 2), opset=10)
    b.add("Conv", ["input", floats(2, 4, 1, 1)], "1", weight_bits=2)
    path = b.save(tmp_path / "m.onnx")
    status, out, _ = run(capsys, path, path)
    assert status == 0
    assert out.count("weight_bits = 2 selects the analog core") == 2


def test_what_cannot_be_compared_ends_with_two_and_one_line(
    bundle: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    a = bundle("a")
    other = FileBuilder((3, 6, 7))
    other.add("Max", ["input", [0.0]])
    other.save(tmp_path / "other.onnx")
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 6, 7)))
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("readme", "nothing")
    deep = bundle("b", change_weight("stem/conv", 2.0**30))
    for arguments, words in (
        ((a, tmp_path / "none"), "there is no"),
        ((a, tmp_path), "is no bundle: it has no htvm/model.onnx"),
        ((a, tmp_path / "empty.zip"), "is no bundle: it has no htvm/model.onnx"),
        ((a, tmp_path / "other.onnx"), "takes inputs of [3, 6, 6]"),
        ((a, a, "--input", tmp_path / "x.npy"), "accepted is [N, 3, 6, 6]"),
        ((a, a, "--input", tmp_path / "y.npy"), "there is no file"),
        ((a, deep), "stem/conv (Conv) reaches"),
    ):
        status, out, err = run(capsys, *arguments)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert words in err
    assert run(capsys, a)[0] == 2


def test_from_python(bundle: Callable[..., Path]) -> None:
    found = compare_models(open_source(bundle("a")), open_source(bundle("b", change_weight("head/gemm", 3))))
    assert found.difference is not None
    assert (found.difference.layer, found.samples, found.notes) == ("head", 3, ())
