"""What an exported network takes and gives: files, golden vectors, report and accuracy under each interface."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from dianaq.errors import InvalidSpec, VerificationError
from dianaq_quant import pipeline
from dianaq_quant import quantise as quantise_module
from dianaq_quant.export.dory import build_dory
from dianaq_quant.export.htvm import build_htvm
from dianaq_quant.export.layers import IntegerNetwork
from dianaq_quant.verify import sample_inputs, verify

from .builder import ModelBuilder
from .support import Outcome, quantise, run_onnx

NORMALISED = {"mean": [0.45, 0.5, 0.55], "std": [0.2, 0.3, 0.25]}
SIDE = 6
"""Of an image."""


def classifier() -> onnx.ModelProto:
    """A padded network, whose names are as torch exports them."""
    b = ModelBuilder((3, SIDE, SIDE), seed=2)
    y = b.relu(b.batch_norm(b.conv(b.input, 4, pads=(1, 1, 1, 1), bias=False, name="/net/net.0/Conv")))
    y = b.relu(b.add(b.conv(y, 4, pads=(1, 1, 1, 1), name="/net/net.3/Conv"), y, name="/net/Add"))
    y = b.flatten(b.global_pool(y, name="mean"))
    return b.build(b.gemm(y, 3, name="head"))


def images(count: int = 40) -> np.ndarray:
    """uint8, channels last."""
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.uint8)


def labels(count: int = 40) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 3, count)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The bundle of a job for an input and an output, made once."""

    @cache
    def made(fed: str, given: str) -> Outcome:
        folder = tmp_path_factory.mktemp(f"{fed}-{given}")
        interface = {"input": fed, "output": given}
        arrays = {"x_train": images(), "y_train": labels(), "x_test": images(), "y_test": labels()}
        return quantise(classifier(), arrays, folder, preprocessing=NORMALISED, interface=interface)

    return made


def file(outcome: Outcome) -> onnx.ModelProto:
    return onnx.load(outcome.folder / "htvm/model.onnx")


def golden(outcome: Outcome) -> tuple[np.ndarray, np.ndarray]:
    return np.load(outcome.folder / "htvm/input.npy"), np.load(outcome.folder / "htvm/output.npy")


def text(path: Path) -> np.ndarray:
    """The integers of a golden text file."""
    lines = path.read_text().splitlines()
    return np.array([int(line.rstrip(",")) for line in lines if not line.startswith("#")])


ALL = [(fed, given) for fed in ("float", "int8", "pixels") for given in ("float", "int8")]


@pytest.mark.parametrize(("fed", "given"), ALL)
def test_golden_vectors_are_what_is_fed_and_comes_out(bundle: Any, fed: str, given: str) -> None:
    outcome = bundle(fed, given)
    x, y = golden(outcome)
    assert (x.dtype, y.dtype) == (
        np.float32 if fed == "float" else np.int8,
        np.float32 if given == "float" else np.int8,
    )
    assert x.shape == (1, 3, SIDE, SIDE)
    np.testing.assert_array_equal(run_onnx(file(outcome), x.astype(np.float32)), y)
    last = text(outcome.folder / "dory" / f"out_layer{len(list(outcome.folder.glob('dory/out_layer*'))) - 1}.txt")
    interface = outcome.report["interface"]
    scale = interface["output"]["scale"] if given == "float" else 1
    classes, padding = interface["output"]["shape"][0], interface["output"]["padding"]
    assert y.shape == (1, classes + padding["htvm"])
    assert len(last) == classes + padding["dory"]
    np.testing.assert_array_equal(y.flatten()[:classes], last[:classes] * scale)
    assert (last[classes:] == -128).all()
    if fed != "float":
        stored = text(outcome.folder / "dory/input.txt")
        np.testing.assert_array_equal(x.flatten().view(np.uint8), stored[: x.size])
        assert len(stored) == x.size // 3 * (3 + interface["input"]["padding"]["dory"])
        assert not stored[x.size :].any()
    assert len(outcome.report["verification"]["executions"]) == 6


@pytest.mark.parametrize(("fed", "given"), ALL)
def test_what_htvm_wants_at_both_ends_is_there(bundle: Any, fed: str, given: str) -> None:
    """A requantisation first and a division last; by 1 where integers go in and come out."""
    graph = file(bundle(fed, given)).graph
    assert [node.op_type for node in graph.node[:4]] == ["Div", "Floor", "Max", "Min"]
    assert [node.op_type for node in graph.node[-4:]] == ["Floor", "Max", "Min", "Div"]
    assert (graph.node[0].input[0], graph.node[-1].output[0]) == ("input", "output")
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    first, last = (values[graph.node[i].input[1]] for i in (0, -1))
    assert first.shape == last.shape == (1,)
    assert (first[0] == 1) == (fed != "float")
    assert (last[0] == 1) == (given == "int8")


def test_pixels_are_bytes_less_128(bundle: Any) -> None:
    outcome = bundle("pixels", "int8")
    x, _ = golden(outcome)
    pixels = images().transpose(0, 3, 1, 2).astype(int) - 128
    assert any(np.array_equal(x[0], image) for image in pixels)  # calibration samples are in random order
    interface = outcome.report["interface"]["input"]
    assert interface["formula"] == "q = pixel - 128"
    assert interface["range"] == [-128, 127]
    np.testing.assert_allclose(interface["scale"], [1 / 51, 1 / 76.5, 1 / 63.75])
    np.testing.assert_allclose(
        interface["offset"], [(128 / 255 - m) / s for m, s in zip(*NORMALISED.values(), strict=True)]
    )


def test_integers_are_what_the_reports_formula_gives(bundle: Any) -> None:
    outcome, real = bundle("int8", "float"), bundle("float", "float")
    found = outcome.report["interface"]["input"]
    factor, bias = (np.array(found[name], np.float32).reshape(-1, 1, 1) for name in ("factor", "bias"))
    x, _ = golden(real)
    stored = images().transpose(0, 3, 1, 2).astype(np.float32) * factor + bias
    assert any(np.array_equal(x[0], image) for image in stored)
    q = np.clip(np.floor(x / np.float32(found["scale"])), *found["range"])
    np.testing.assert_array_equal(q, golden(outcome)[0])


def test_integers_in_and_out_leave_the_network_as_it_is(bundle: Any) -> None:
    plain, both = bundle("float", "float"), bundle("int8", "int8")
    for name in ("dory/model.onnx", "dory/input.txt", "dory/out_layer0.txt"):
        assert (plain.folder / name).read_bytes() == (both.folder / name).read_bytes()
    assert plain.report["accuracy"] == both.report["accuracy"]


@pytest.mark.parametrize("given", ["float", "int8"])
def test_the_file_has_the_reported_accuracy_on_bytes(bundle: Any, given: str) -> None:
    outcome = bundle("pixels", given)
    x = (images().astype(int) - 128).transpose(0, 3, 1, 2).astype(np.float32)
    right = run_onnx(file(outcome), x).argmax(1) == labels()
    assert right.mean() == outcome.report["accuracy"][-1]["top1"]
    assert outcome.report["accuracy"][-1]["stage"] == "integerise"


@pytest.mark.parametrize("fed", ["float", "pixels"])
def test_the_network_is_close_to_the_float_one(bundle: Any, fed: str) -> None:
    """Untrained, of a few layers; the border of pixels differs by up to 13 steps of 255."""
    outcome = bundle(fed, "float")
    mean, std = (np.array(v, np.float32).reshape(3, 1, 1) for v in NORMALISED.values())
    raw = images().transpose(0, 3, 1, 2).astype(np.float32)
    x = (raw / 255 - mean) / std
    expected = run_onnx(classifier(), x)
    found = run_onnx(file(outcome), raw - 128 if fed == "pixels" else x)
    error = found[:, : expected.shape[1]] - expected
    assert np.sqrt(np.mean(error**2)) < 0.08 * np.sqrt(np.mean(expected**2))


def test_the_readme_tells_what_to_feed(bundle: Any) -> None:
    for fed, words in (("float", "takes real numbers"), ("int8", "Quantise it before"), ("pixels", "each less 128")):
        outcome = bundle(fed, "int8")
        readme = (outcome.folder / "README.md").read_text()
        assert words in readme
        assert f"scale {outcome.report['interface']['output']['scale']!r}" in readme
        assert ("normalisation in the first layer's" in readme) == (fed == "pixels")
    assert "3 x 6 x 6 values, CHW" in readme


def test_a_border_that_differs_is_noted_only_for_pixels(bundle: Any) -> None:
    assert not any("zero padding" in note for note in bundle("int8", "float").report["notes"])
    (note,) = (note for note in bundle("pixels", "float").report["notes"] if "zero padding" in note)
    assert note.startswith("/net/net.0/Conv: ")
    assert "pixel 114.8, 127.5, 140.2 in the float network" in note


def test_layers_keep_the_users_names_and_tensors_are_told_apart(bundle: Any) -> None:
    outcome = bundle("float", "float")
    model, dory = file(outcome), onnx.load(outcome.folder / "dory/model.onnx")
    names = {node.output[0] for node in model.graph.node} | {t.name for t in model.graph.initializer}
    expected = {
        "/net/net.0/Conv.weight",
        "/net/net.0/Conv/conv",
        "/net/Add/relu",
        "head.bias",
        "head/gemm",
        "mean/mean",
    }
    assert expected <= names
    tensors = outcome.report["tensors"]
    for path, graph in (("htvm/model.onnx", model.graph), ("dory/model.onnx", dory.graph)):
        assert list(tensors[path]) == [node.output[0] for node in graph.node]
    assert tensors["htvm/model.onnx"]["/net/Add/relu"] == "/net/Add"
    assert tensors["htvm/model.onnx"]["input/div"] == "input"
    assert tensors["dory/model.onnx"]["1"] == tensors["dory/model.onnx"]["5"] == "/net/net.0/Conv"


def test_names_that_would_clash_or_cannot_be_written_are_made_plain(tmp_path: Path) -> None:
    b = ModelBuilder((2, 4, 4))
    y = b.conv(b.input, 4, name="a")
    y = b.conv(y, 4, (1, 1), name="a/adc")
    y = b.conv(y, 4, (1, 1), name="two words")
    y = b.conv(y, 4, (1, 1), name="output")
    y = b.conv(y, 4, (1, 1), name="k.1")
    x = np.random.default_rng(0).normal(0, 1, (8, 2, 4, 4)).astype(np.float32)
    outcome = quantise(b.build(b.flatten(y, name="flat")), {"x_train": x}, tmp_path)
    weights = [t.name for t in file(outcome).graph.initializer if t.name.endswith(".weight")]
    assert weights == ["a.weight", "a_adc.weight", "two_words.weight", "output_layer.weight", "k.1.weight"]
    originals = outcome.report["tensors"]["htvm/model.onnx"]
    assert originals["two_words/conv"] == "two words"


@pytest.mark.parametrize("fed", ["int8", "pixels"])
def test_the_verification_feeds_the_file_as_firmware_does(tmp_path: Path, fed: str) -> None:
    """A file that quantises once more, as the one for real numbers does, is found out."""
    result = _run(tmp_path, fed)
    network = result.integer
    assert isinstance(network, IntegerNetwork)
    data = result.loaded
    entrance = network.entrance
    x, _, random = sample_inputs(data.normalise(data.test.x), entrance.scale, 0, entrance.origin)
    drawn = entrance(x[-random:])
    assert (drawn.amin((0, 2, 3)) == -128).all()
    assert (drawn.amax((0, 2, 3)) == 127).all()
    htvm, dory = build_htvm(network), build_dory(network)
    assert len(verify(network, result.network, htvm, dory, x)) == 6
    (divisor,) = (t for t in htvm.proto.graph.initializer if t.name == "input/divisor")
    divisor.CopyFrom(numpy_helper.from_array(np.array([2.0], np.float32), divisor.name))
    with pytest.raises(VerificationError, match=r"htvm/model\.onnx differs .* at input"):
        verify(network, result.network, htvm, dory, x)


def _run(folder: Path, fed: str) -> Any:
    from dianaq.schemas.spec import JobSpec

    onnx.save(classifier(), str(folder / "m.onnx"))
    np.savez(folder / "d.npz", x_train=images(), x_test=images(), y_test=labels())
    spec = {"model": "m", "dataset": "d", "preprocessing": NORMALISED, "interface": {"input": fed}}
    paths = {"model_path": folder / "m.onnx", "dataset_path": folder / "d.npz", "out_dir": folder / "out"}
    return pipeline.run(JobSpec.model_validate(spec), **paths, emit=lambda _: None)


def test_flattened_images_are_fed_as_pixels(tmp_path: Path) -> None:
    b = ModelBuilder((16,), seed=4)
    model = b.build(b.gemm(b.relu(b.gemm(b.input, 8)), 3))
    x = np.random.default_rng(0).integers(0, 256, (30, 4, 4)).astype(np.uint8)
    interface = {"input": "pixels", "output": "int8"}
    outcome = quantise(model, {"x_train": x}, tmp_path, preprocessing={"mean": [0.2]}, interface=interface)
    fed, _ = golden(outcome)
    assert any(np.array_equal(fed[0], image.flatten().astype(int) - 128) for image in x)
    raw = x.reshape(30, 16).astype(np.float32)
    expected = run_onnx(model, raw / 255 - np.float32(0.2))
    found = run_onnx(file(outcome), raw - 128) * outcome.report["interface"]["output"]["scale"]
    assert np.abs(found[:, :3] - expected).max() < 0.06 * np.abs(expected).max()


def test_the_analog_core_takes_integers_and_no_pixels(tmp_path: Path) -> None:
    arrays, mapping = {"x_train": images()}, {"layers": {"/net/net.0/Conv": "analog"}}
    (tmp_path / "int8").mkdir()
    outcome = quantise(classifier(), arrays, tmp_path / "int8", mapping=mapping, interface={"input": "int8"})
    assert outcome.report["interface"]["input"]["range"] == [-63, 63]
    fed, _ = golden(outcome)
    assert np.abs(fed.astype(int)).max() <= 63
    with pytest.raises(InvalidSpec, match=r"/net/net.0/Conv reads the input on the analog core"):
        quantise(classifier(), arrays, tmp_path, mapping=mapping, interface={"input": "pixels"})


def test_only_bytes_are_pixels(tmp_path: Path) -> None:
    arrays = {"x_train": images().transpose(0, 3, 1, 2).astype(np.float32)}
    with pytest.raises(InvalidSpec, match=r"x_train is float32; pixels are uint8.*'float' or 'int8'") as caught:
        quantise(classifier(), arrays, tmp_path, interface={"input": "pixels"})
    assert caught.value.param == "interface.input"


def test_in_a_notebook_both_networks_take_normalised_values(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten())
    data = {"x_train": images().transpose(0, 3, 1, 2)}
    interface = {"input": "pixels", "output": "int8"}
    found = quantise_module(net, data, tmp_path / "out", preprocessing={"mean": [0.5]}, interface=interface)
    x = torch.from_numpy(data["x_train"][:2]).float() / 255 - 0.5
    assert torch.equal(found.exact(x), found.integer(x))
    assert found.report["interface"]["input"]["kind"] == "pixels"
