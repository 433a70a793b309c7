"""Parts of files through a whole job, from the command and from a notebook; weights in a file beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from dianaq.errors import InvalidModel, InvalidSpec
from dianaq.schemas.spec import NetworkPart, parse_spec
from dianaq_quant import __main__ as command
from dianaq_quant import quantise
from dianaq_quant.checkpoint import load
from dianaq_quant.importers import import_onnx
from dianaq_quant.pipeline.starting import origin_of

from .builder import ModelBuilder

SAMPLES = 24


def two_headed() -> onnx.ModelProto:
    """(N, 3, 6, 6), scaled by what no core computes, to three classes `logits` and to an operator of no core."""
    b = ModelBuilder((3, 6, 6), seed=4)
    y = b.relu(b.conv(b.node("Sin", [b.input], (3, 6, 6), name="front"), 8, pads=(1, 1, 1, 1), name="first"))
    flat = b.flatten(b.global_pool(y))
    logits = b.gemm(flat, 3, name="head")
    model = b.build(b.node("Sin", [b.gemm(flat, 4, name="other")], (4,), name="angles"))
    model.graph.output.append(helper.make_tensor_value_info(logits.name, TensorProto.FLOAT, ["N", 3]))
    return model


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """The model, its weights in a file beside it, and data."""
    onnx.save(two_headed(), str(tmp_path / "net.onnx"), save_as_external_data=True, location="w", size_threshold=0)
    random = np.random.default_rng(0)
    x = random.normal(0, 0.5, (SAMPLES, 3, 6, 6)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x_train=x, y_train=random.integers(0, 3, SAMPLES))
    return tmp_path / "net.onnx", tmp_path / "data.npz"


def test_the_command_quantises_a_part(files: tuple[Path, Path], tmp_path: Path) -> None:
    model, data = files
    front = onnx.load(str(model)).graph.node[0].output[0]
    arguments = [str(model), "--data", str(data), "-o", str(tmp_path / "out"), "--from", front, "--to", "head"]
    assert command.main(arguments) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["spec"]["part"] == {"from": front, "to": "head"}
    assert {layer["name"] for layer in report["layers"]} > {"first", "head"}
    readme = (tmp_path / "out" / "README.md").read_text()
    assert f"its input is `{front}` in that network, and its output is `head` in that network" in readme
    origin = load(tmp_path / "out" / "checkpoints" / "float.pt").origin
    assert origin.part == NetworkPart.model_validate({"from": front, "to": "head"})


def test_a_whole_network_that_is_refused_says_that_a_part_may_do(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = files
    assert command.main([str(model), "--data", str(data), "-o", str(tmp_path / "out")]) == 1
    err = capsys.readouterr().err
    assert "exactly one output" in err
    assert "--to TENSOR" in err
    assert command.main([str(model), "--data", str(data), "-o", str(tmp_path / "out"), "--to", "heat"]) == 1
    assert "did you mean 'head'" in capsys.readouterr().err
    (tmp_path / "w").unlink()
    assert command.main([str(model), "--data", str(data), "-o", str(tmp_path / "out")]) == 1
    assert "external_data=False" in capsys.readouterr().err


def test_a_notebook_quantises_a_part_and_goes_on_with_it(files: tuple[Path, Path], tmp_path: Path) -> None:
    model, data = files
    part: dict[str, Any] = {"from": "first", "to": "head"}
    first = quantise(model, data, tmp_path / "a", part=part)
    assert first.report["spec"]["part"] == part
    start = f"{tmp_path / 'a'}/float"
    assert quantise(model, data, tmp_path / "b", part=part, start_from=start).report["started_from"]
    with pytest.raises(InvalidSpec, match=r"the part to 'head', but the checkpoint of the part from 'first' to 'head'"):
        quantise(model, data, tmp_path / "c", part={"to": "head"}, start_from=start)
    with pytest.raises(InvalidModel, match="exactly one output"):
        quantise(model, data, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_checkpoint_of_a_checkpoint_keeps_its_part() -> None:
    spec = parse_spec({"model": "m", "dataset": "d", "part": {"to": "head"}})
    assert origin_of(spec, (3, 6, 6), None).part == spec.part


def test_the_part_is_imported_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    model = two_headed()
    onnx.save(model, str(path))
    front = model.graph.node[0].output[0]
    network = import_onnx(path, part=NetworkPart.model_validate({"from": front, "to": "head"}))
    assert (network.input_name, network.input_shape) == (front, (3, 6, 6))
    x = np.random.default_rng(1).normal(0, 1, (4, 3, 6, 6)).astype(np.float32)
    expected = onnxruntime.InferenceSession(str(path)).run(None, {"x": x})[1]
    with torch.no_grad():
        found = network.graph(torch.from_numpy(np.sin(x))).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_module_has_no_parts(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="a module made in Python"):
        quantise(torch.nn.Flatten(), {"x_train": np.zeros((4, 3), np.float32)}, tmp_path / "out", part={"to": "a"})
