"""`dianaq inspect`, and what a job makes of the checks."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import save_file

from dianaq.errors import InvalidModel, UnsupportedOperator, VerificationError
from dianaq_quant.contracts import breaches, check_contracts
from dianaq_quant.export.check import check_file
from dianaq_quant.inspect_command import LISTED, register

from .builder import ModelBuilder
from .check_samples import copy_of, exported, node, set_attribute, small_map


def inspect(*args: object) -> int:
    """The command's exit status."""
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    parsed = parser.parse_args(["inspect", *map(str, args)])
    status: int = parsed.run(parsed)
    return status


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """An HTVM bundle whose first convolution is padded on one axis, and whose input lacks."""
    path = copy_of("htvm", tmp_path)
    model = onnx.load(str(path))
    set_attribute(node(model, "Conv", 4), "pads", [1, 0, 1, 0])
    path.write_bytes(model.SerializeToString())
    (path.parent / "input.npy").unlink()
    return path


def test_a_clean_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(exported() / "htvm" / "model.onnx") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["layer", "kind", "core", "in", "out", "kernel", "stride", "range", "shift", "placement"]
    stem = next(line for line in lines if line.startswith("stem/conv"))
    assert stem.split()[1:8] == ["conv", "digital", "3x16x16", "16x16x16", "3x3", "1x1", "0..127"]
    assert stem.endswith("offloaded")
    assert "analog" in next(line for line in lines if line.startswith("analog/conv"))
    assert "9 of 9 layers (pools apart) run on the accelerators; it keeps every rule" in lines[-1]


def test_a_broken_file(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(broken) == 1
    out = capsys.readouterr().out
    assert "wrong     htvm.same-on-one-axis  down/conv" in out
    assert "rejected  htvm.golden-missing    input.npy" in out
    assert "1 breach by which it is refused, 1 breach by which it is computed wrongly" in out
    assert inspect(broken, "--no-golden") == 1
    assert "golden" not in capsys.readouterr().out


def test_json(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(broken, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["file"], found["dialect"], found["ok"]) == (str(broken), "htvm", False)
    assert [layer["name"] for layer in found["layers"]][:2] == ["stem/conv", "depthwise/conv"]
    assert found["layers"][0]["kernel"] == [3, 3]
    finding = next(f for f in found["findings"] if f["rule"] == "htvm.same-on-one-axis")
    assert (finding["node"], finding["severity"]) == ("down/conv", "wrong")
    assert "[1, 0, 1, 0]" in finding["message"]
    assert "one axis only" in finding["says"]


def test_the_dialect_is_told_from_the_file_unless_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(exported() / "dory" / "model.onnx") == 1  # constraints of the chip
    assert "for DORY; 4 of 9 layers (pools apart) run as the file says on Diana_SoC" in capsys.readouterr().out
    assert inspect(exported() / "dory" / "model.onnx", "--dialect", "htvm", "--no-golden") == 1
    out = capsys.readouterr().out
    assert "for HTVM" in out
    assert "htvm.clip-operator" in out


def float_model(folder: Path, *, opset: int = 13, operator: str = "Relu") -> Path:
    b = ModelBuilder((3, 8, 8), opset=opset)
    y = b.node(operator, [b.conv(b.input, 4, name="first")], (4, 6, 6))
    path = folder / "float.onnx"
    onnx.save(b.build(b.gemm(b.flatten(y), 2, name="head")), str(path))
    return path


def test_a_float_network_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = float_model(tmp_path)
    assert inspect(path) == 0
    out = capsys.readouterr().out
    assert "a float network that `dianaq quantise` takes" in out
    assert "x, 3x8x8" in out
    assert "first, head" in out
    assert "1 Conv, 1 Flatten, 1 Gemm, 1 Relu" in out
    assert inspect(path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["dialect"] is None
    assert found["holds"]["parameters"] == 4 * 27 + 4 + 2 * 144 + 2
    assert check_file(path).dialect is None
    assert [f.severity for f in check_file(path).findings] == ["note"]


def test_a_float_network_whose_tensors_are_numbered_is_none_for_dory(tmp_path: Path) -> None:
    """As old exporters number them; and a ReLU6 of theirs has its bounds as attributes."""
    b = ModelBuilder((3, 8, 8), opset=10)
    model = b.build(b.gemm(b.flatten(b.relu6(b.conv(b.input, 4))), 2))
    for n in model.graph.node:
        n.input[:] = [name.replace("t", "1") if name.startswith("t") else name for name in n.input]
        n.output[:] = [name.replace("t", "1") for name in n.output]
    model.graph.output[0].name = model.graph.node[-1].output[0]
    onnx.save(model, str(tmp_path / "old.onnx"))
    assert check_file(tmp_path / "old.onnx").dialect is None


def test_weights_are_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"a": np.zeros((4, 3), np.float32)}, tmp_path / "net.safetensors")
    assert inspect(tmp_path / "net.safetensors") == 0
    assert "weights of a zoo network (safetensors), 1 tensors, 48 B" in capsys.readouterr().out


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(InvalidModel, match="the file is text; a network is given as ONNX"):
        inspect(tmp_path / "text.onnx")
    with pytest.raises(InvalidModel, match="cannot be read"):
        inspect(tmp_path / "missing.onnx")


def test_a_network_that_is_refused_as_a_whole_shows_where_to_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = float_model(tmp_path, operator="Sin")
    assert inspect(path) == 1
    out = capsys.readouterr().out
    assert "does not take as a whole: node 'sin1' (Sin): no core computes it" in out
    assert "--to TENSOR" in out
    assert [line.split() for line in out.splitlines()[-5:]] == [
        ["node", "operator", "output", "shape"],
        ["first", "Conv", "t0", "4x6x6"],
        ["sin1", "Sin", "t1", "4x6x6"],
        ["flatten2", "Flatten", "t2", "144"],
        ["head", "Gemm", "t3", "2"],
    ]
    assert inspect(path, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["holds"]["refusal"]["type"] == "unsupported-operator"
    assert found["nodes"][1] == {"name": "sin1", "operator": "Sin", "output": "t1", "shape": [2, 4, 6, 6]}
    assert inspect(path, "--from", "t1") == 0
    assert "a float network, from 't1' of which `dianaq quantise` takes" in capsys.readouterr().out
    with pytest.raises(UnsupportedOperator, match="Sin"):
        inspect(path, "--to", "t1")


def test_a_long_table_shows_its_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    b = ModelBuilder((3, 4, 4))
    y = b.input
    for _ in range(LISTED + 10):
        y = b.relu(y)
    path = tmp_path / "long.onnx"
    onnx.save(b.build(b.flatten(y)), str(path))
    assert inspect(path) == 0
    out = capsys.readouterr().out
    assert "(11 more: --json)" in out
    assert "relu0 " in out
    assert f"flatten{LISTED + 10}" in out
    assert f"relu{LISTED // 2} " not in out


def test_weights_in_the_file_beside_it_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx.load(str(float_model(tmp_path)))
    path = tmp_path / "beside.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="beside.onnx.data", size_threshold=0)
    assert inspect(path) == 0
    assert "first, head" in capsys.readouterr().out
    (tmp_path / "beside.onnx.data").unlink()
    with pytest.raises(InvalidModel, match=r"beside\.onnx\.data.*external_data=False"):
        inspect(path)


def test_the_command_loads_no_torch() -> None:
    path = exported() / "htvm" / "model.onnx"
    script = (
        "import argparse, sys\n"
        "from dianaq_quant.inspect_command import register\n"
        "assert not {'numpy', 'onnx', 'torch'} & set(sys.modules)\n"
        "parser = argparse.ArgumentParser()\n"
        "register(parser.add_subparsers())\n"
        f"args = parser.parse_args(['inspect', {str(path)!r}])\n"
        "assert args.run(args) == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_onnx_the_command_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dianaq_quant.inspect_command.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError) as caught:
        register(argparse.ArgumentParser().add_subparsers())
    assert caught.value.name == "onnx"


# What a job makes of it.


def bundle(folder: Path) -> Path:
    for dialect in ("htvm", "dory"):
        copy_of(dialect, folder)
    return folder


def test_a_job_takes_our_files_and_notes_what_the_chip_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    htvm, dory = check_contracts(bundle(tmp_path))
    assert breaches(htvm) == []
    notes = breaches(dory)
    assert len(notes) == len({f.rule for f in dory.failures})
    (note,) = [n for n in notes if "soc.relu-after-add" in n]
    assert note == (
        "dory/model.onnx is taken and computed wrongly by rule soc.relu-after-add (ReLU after Add is dropped by the "
        "HAL) at Add_16"
    )
    monkeypatch.setattr("dianaq_quant.contracts.NAMED", 1)
    assert any(note.endswith("at Conv_1 and 2 more") for note in breaches(dory))


def test_a_file_that_breaks_its_form_fails_the_job(tmp_path: Path) -> None:
    path = bundle(tmp_path) / "dory" / "model.onnx"
    model = onnx.load(str(path))
    set_attribute(node(model, "Add"), "out_shift", None)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(VerificationError, match=r"dory/model.onnx breaks the rule dory.add-attributes .*out_shift"):
        check_contracts(tmp_path)


def test_a_golden_file_that_lacks_fails_the_job(tmp_path: Path) -> None:
    (bundle(tmp_path) / "htvm" / "output.npy").unlink()
    with pytest.raises(VerificationError, match=r"htvm.golden-missing at output.npy"):
        check_contracts(tmp_path)


def test_a_layer_that_a_compiler_does_not_take_fails_no_job(tmp_path: Path) -> None:
    path = bundle(tmp_path) / "dory" / "model.onnx"
    model = onnx.load(str(path))
    depthwise = node(model, "Conv", 1)
    set_attribute(depthwise, "group", 4)
    weight = next(t for t in model.graph.initializer if t.name == depthwise.input[1])
    whole = onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(onnx.numpy_helper.from_array(np.repeat(whole, 4, axis=1), weight.name))
    path.write_bytes(model.SerializeToString())
    _, dory = check_contracts(tmp_path)
    assert [f.severity for f in dory.findings if f.rule == "soc.groups"] == ["rejected"]
    assert any("refused by rule soc.groups" in note for note in breaches(dory))


def test_hazards_fail_no_job(tmp_path: Path) -> None:
    for dialect in ("htvm", "dory"):
        copy_of(dialect, tmp_path, small_map)
    htvm, _ = check_contracts(tmp_path)
    assert ["htvm.no-code" in note for note in breaches(htvm)] == [True]
