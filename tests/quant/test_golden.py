"""Golden vectors: the integers of every layer, in every form, and the sums that DORY computes of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from dianaq.errors import InvalidSpec
from dianaq.executor import load_model
from dianaq.executor.compare import layer_outputs
from dianaq.schemas.ranges import QRange
from dianaq.schemas.spec import MAX_GOLDEN_SAMPLES, parse_spec
from dianaq_quant.export.golden import _file_names, checksum, weights_checksum
from dianaq_quant.modules.integer import IntegerAnalogConv2d, IntegerLinear, Shift
from dianaq_quant.modules.structure import Geometry

from .support import Outcome, quantise, run_onnx
from .test_export import mixed_model

SAMPLES = 3
LAYERS = [
    "stem",
    "depthwise",
    "pointwise",
    "add_relu_sum",
    "add_relu",
    "second",
    "add",
    "max",
    "down",
    "mean",
    "square",
    "head",
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of every operation of the digital core, with golden vectors of several samples."""
    return _quantised(tmp_path_factory.mktemp("golden"), SAMPLES).folder


def _data(count: int = 8) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (count, 3, 8, 8)).astype(np.float32)


def _quantised(folder: Path, samples: int) -> Outcome:
    return quantise(mixed_model(), {"x_train": _data()}, folder, golden={"samples": samples})


def sums(bundle: Path) -> dict:
    return json.loads((bundle / "golden" / "checksums.json").read_text())


def as_dory_reads(path: Path) -> np.ndarray:
    """The first column of numbers, and of each its lowest byte."""
    return np.loadtxt(path, delimiter=",", dtype=np.int64, usecols=[0]).ravel() & 255


def test_arrays_are_the_layers_integers(bundle: Path) -> None:
    golden = bundle / "golden"
    model = load_model(bundle / "htvm" / "model.onnx")
    run = model.run(np.load(golden / "htvm_input.npy"))
    stored = dict(zip(["input", *LAYERS], layer_outputs(model), strict=True))
    for name, tensor in stored.items():
        array = np.load(golden / ("input.npy" if name == "input" else f"layers/{name}.npy"))
        assert array.dtype == np.int8
        assert len(array) == SAMPLES
        other = run.tensors[tensor]
        channels = min(array.shape[1], other.shape[1])  # compilers want different padding
        assert np.array_equal(array[:, :channels].reshape(SAMPLES, -1), other[:, :channels].reshape(SAMPLES, -1)), name
        assert len({sample.tobytes() for sample in array}) == SAMPLES  # no sample stands for another
    assert {p.name for p in (golden / "layers").iterdir()} == {f"{name}.npy" for name in LAYERS}
    assert np.load(golden / "layers" / "stem.npy").shape == (SAMPLES, 16, 8, 8)


def test_samples_are_the_first_of_the_calibration_data_in_order(bundle: Path) -> None:
    golden = bundle / "golden"
    x = np.load(golden / "htvm_input.npy")
    assert x.dtype == np.float32
    data = _data()
    order = [int(np.flatnonzero((data == sample).all((1, 2, 3)))[0]) for sample in x]
    assert len(set(order)) == SAMPLES
    assert np.array_equal(x[:1], np.load(bundle / "htvm" / "input.npy"))
    expected = run_onnx(onnx.load(str(bundle / "htvm" / "model.onnx")), x)
    assert np.array_equal(np.load(golden / "htvm_output.npy"), expected)
    assert np.array_equal(expected[:1], np.load(bundle / "htvm" / "output.npy"))


def test_htvms_folder_still_holds_two_arrays_alone(bundle: Path) -> None:
    assert {p.name for p in (bundle / "htvm").iterdir()} == {"model.onnx", "input.npy", "output.npy"}
    assert np.load(bundle / "htvm" / "input.npy").shape == (1, 3, 8, 8)


def test_text_files_of_the_first_sample_are_those_that_dory_finds(bundle: Path) -> None:
    first, found = bundle / "golden" / "dory" / "0", bundle / "dory"
    names = {p.name for p in first.iterdir()}
    assert (
        names
        == {p.name for p in found.glob("*.txt")}
        == {"input.txt", *(f"out_layer{i}.txt" for i in range(len(LAYERS)))}
    )
    for name in names:
        assert (first / name).read_bytes() == (found / name).read_bytes()


def test_text_files_hold_the_bytes_of_every_sample_channel_by_channel(bundle: Path) -> None:
    golden = bundle / "golden"
    assert {p.name for p in (golden / "dory").iterdir()} == {"0", "1", "2"}
    for sample in range(SAMPLES):
        folder = golden / "dory" / str(sample)
        for index, name in enumerate(LAYERS):
            expected = np.load(golden / "layers" / f"{name}.npy")[sample].ravel()  # C order: CHW
            assert np.array_equal(as_dory_reads(folder / f"out_layer{index}.txt"), expected.view(np.uint8)), name
            assert (folder / f"out_layer{index}.txt").read_text().startswith(f"# {name}\n")
        lines = (folder / "input.txt").read_text().splitlines()[1:]
        stored = np.load(golden / "input.npy")[sample].ravel()
        assert stored.min() < 0
        assert [int(line.removesuffix(",")) for line in lines] == stored.view(np.uint8).tolist()


def test_checksums_are_the_sums_of_bytes_of_the_text_files(bundle: Path) -> None:
    found = sums(bundle)
    assert [entry["layer"] for entry in found["layers"]] == LAYERS
    assert len(found["samples"]) == SAMPLES
    for sample, entry in enumerate(found["samples"]):
        folder = bundle / "golden" / "dory" / str(sample)
        assert entry["input"] == as_dory_reads(folder / "input.txt").sum()
        assert list(entry["layers"]) == LAYERS
        for layer in found["layers"]:
            assert entry["layers"][layer["layer"]] == as_dory_reads(folder / layer["text"]).sum()
            assert (bundle / "golden" / layer["array"]).is_file()
    assert len({entry["layers"]["stem"] for entry in found["samples"]}) > 1


def test_checksums_of_weights_are_the_sums_of_the_bytes_of_weights_and_biases(bundle: Path) -> None:
    """From the file that DORY reads."""
    model = onnx.load(str(bundle / "dory" / "model.onnx"))
    values = {t.name: numpy_helper.to_array(t).astype(np.int64) for t in model.graph.initializer}
    expected = []
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            weight, bias = (values[name].ravel() for name in node.input[1:])
            parts = [weight & 255, *(bias >> shift & 255 for shift in (0, 8, 16, 24))]
            expected.append(int(sum(part.sum() for part in parts)))
    found = {entry["layer"]: entry["weights"] for entry in sums(bundle)["layers"]}
    others = ("add_relu_sum", "add", "max", "mean")
    assert [found[name] for name in LAYERS if name not in others] == expected
    assert {found[name] for name in others} == {0}


def test_a_checksum_by_hand() -> None:
    assert checksum(np.array([[1, -1], [-128, 127]], np.int8)) == 1 + 255 + 128 + 127
    qrange = QRange(bitwidth=8, signed=True)
    layer = IntegerLinear(torch.tensor([[1.0, -2.0]]), torch.tensor([-3.0]), Shift(0, qrange))
    assert weights_checksum(layer) == 1 + 254 + 253 + 3 * 255


def test_dory_computes_no_checksum_of_analog_weights() -> None:
    one, geometry = torch.ones(2), Geometry((1, 1), (0, 0, 0, 0), (1, 1), 1)
    shift = Shift(0, QRange(bitwidth=8, signed=True))
    assert weights_checksum(IntegerAnalogConv2d(torch.ones(2, 3, 1, 1), one, one, 1, shift, geometry)) == 0


def test_files_of_layers_have_names_that_file_systems_take_and_tell_apart() -> None:
    names = _file_names(["a", "net.0", "a/b", "a:b", "A", "é"])
    assert names == ["a.npy", "net.0.npy", "a_b.npy", "a_b_3.npy", "A_4.npy", "_.npy"]


def test_one_sample_by_default_and_fewer_where_there_are_fewer(tmp_path: Path) -> None:
    outcome = _quantised(tmp_path, 20)
    assert len(sums(outcome.folder)["samples"]) == len(_data())
    assert "golden.samples is 20, and there are 8 calibration samples to take them from" in outcome.report["notes"]
    assert parse_spec({"model": "m", "dataset": "d"}).golden.samples == 1


@pytest.mark.parametrize("samples", [0, -1, MAX_GOLDEN_SAMPLES + 1, 1.5])
def test_the_number_of_samples_is_bounded(samples: float) -> None:
    with pytest.raises(InvalidSpec, match=r"golden\.samples"):
        parse_spec({"model": "m", "dataset": "d", "golden": {"samples": samples}})
    assert parse_spec({"model": "m", "dataset": "d", "golden": {"samples": MAX_GOLDEN_SAMPLES}}).golden.samples == 64
