"""`python -m dianaq.run`: what it prints and writes, and one line for every error."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from dianaq.run import main

from .integer_files import FileBuilder, floats, integers, run_onnx, small_htvm


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture
def htvm(tmp_path: Path) -> Path:
    """A folder as HTVM has it."""
    path = small_htvm().save(tmp_path / "htvm" / "model.onnx")
    x = np.random.default_rng(3).normal(0, 20, (2, 3, 6, 6)).astype(np.float32)
    np.save(path.parent / "input.npy", x)
    return path.parent


@pytest.fixture
def dory(tmp_path: Path) -> Path:
    """A folder as DORY has it: no quantiser, attributes of its own, golden input as bytes."""
    b = FileBuilder((4,), opset=10, input="0")
    y = b.add("Gemm", ["0", floats(4, 3), floats(3)], "1", transB=0, weight_bits=8, bias_bits=32)
    y = b.add("Mul", [y, np.float32(1)], "2")
    y = b.add("Floor", [b.add("Div", [y, np.float32(64)], "3")], "4")
    b.add("Clip", [y], "5", min=-128.0, max=127.0, out_bits=8)
    path = b.save(tmp_path / "dory" / "model.onnx")
    (path.parent / "input.txt").write_text("# input\n255,\n128,\n 7,\n-3\n")
    return path.parent


def test_output_of_htvms_file(htvm: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "y"
    status, printed, err = run(capsys, htvm / "model.onnx", htvm / "input.npy", "-o", out)
    assert (status, err) == (0, "")
    (expected,) = run_onnx(onnx.load(str(htvm / "model.onnx")), np.load(htvm / "input.npy"))
    written = np.load(out)
    assert written.dtype == np.float32
    assert np.array_equal(written, expected)
    logits = (expected * 8).astype(int)
    lines = printed.splitlines()
    assert lines[0] == f"output [2, 5], integers in [{logits.min()}, {logits.max()}], scale 0.125"
    assert lines[1:] == [
        f"sample {i}: argmax {row.argmax()}  {' '.join(map(str, row.tolist()))}" for i, row in enumerate(logits)
    ]


def test_dorys_file_with_its_golden_text(dory: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, printed, _ = run(
        capsys, dory / "model.onnx", dory / "input.txt", "--all", tmp_path / "all", "-o", tmp_path / "y.npy"
    )
    assert status == 0
    x = np.array([[-1, -128, 7, -3]])
    expected = np.clip((x @ floats(4, 3).astype(int) + floats(3).astype(int)) >> 6, -128, 127)
    assert np.array_equal(np.load(tmp_path / "y.npy"), expected)
    assert np.load(tmp_path / "y.npy").dtype == np.int32
    files = sorted(p.name for p in (tmp_path / "all").iterdir())
    assert files == ["0000_0.npy", "0001_1.npy", "0002_2.npy", "0003_4.npy", "0004_5.npy"]
    assert np.load(tmp_path / "all" / "0000_0.npy").tolist() == x.tolist()
    assert f"5 tensors in {tmp_path / 'all'}" in printed


def test_text_and_quantised_arrays_pass_the_quantiser_by(
    htvm: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    x = integers(1, 3, 6, 6)
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "x.txt").write_text("".join(f"{v & 0xFF},\n" for v in x.ravel().tolist()))
    np.save(tmp_path / "real.npy", x * 0.25)
    outputs = [
        run(capsys, htvm / "model.onnx", tmp_path / "x.npy", "--quantised"),
        run(capsys, htvm / "model.onnx", tmp_path / "x.txt"),
        run(capsys, htvm / "model.onnx", tmp_path / "real.npy"),
    ]
    assert outputs[0] == outputs[1] == outputs[2]
    assert outputs[0] != run(capsys, htvm / "model.onnx", tmp_path / "x.npy")


def test_a_file_name_per_tensor_that_any_file_system_takes(
    htvm: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(capsys, htvm / "model.onnx", htvm / "input.npy", "--all", tmp_path)[0] == 0
    assert np.load(tmp_path / "0003_stem.conv.npy").shape == (2, 4, 6, 6)


def test_long_outputs_are_cut_short(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    b = FileBuilder((20,))
    b.add("Max", ["input", [0.0]])
    np.save(tmp_path / "x.npy", np.arange(20))
    _, printed, _ = run(capsys, b.save(tmp_path / "m.onnx"), tmp_path / "x.npy")
    assert printed.splitlines()[1] == f"sample 0: argmax 19  {' '.join(map(str, range(16)))} ..."


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.npy", None, "there is no file"),
        ("x.npy", b"text", r"x.npy is no .npy file \(a text file is told by its name, .txt\)"),
        ("x.npy", b"", "x.npy is no .npy file"),
        ("x.txt", b"1,\n# note\n\nx,\n", "x.txt, line 4: 'x' is no byte; accepted are -128 to 255"),
        ("x.txt", b"256,\n", "line 1: '256' is no byte"),
        ("x.txt", b"1.0,\n", "'1.0' is no byte"),
        ("x.txt", b"1,\n2,\n", r"shape \[2\]; accepted is \[N, 3, 6, 6\]"),
    ],
)
def test_errors_are_one_line(
    htvm: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
    content: bytes | None,
    words: str,
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    status, out, err = run(capsys, htvm / "model.onnx", tmp_path / name)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: ")
    assert re.search(words, err)


def test_an_archive_of_arrays_is_refused(htvm: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros(3))
    assert "holds several arrays" in run(capsys, htvm / "model.onnx", tmp_path / "x.npz")[2]


def test_an_unreadable_model_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(capsys, tmp_path / "m.onnx", tmp_path / "x.npy") == (
        1,
        "",
        "error: the model file cannot be read: No such file or directory\n",
    )


def test_analog_layers_of_dorys_file_are_noted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    b = FileBuilder((1, 2, 2), opset=10)
    b.add("Conv", ["input", np.ones((1, 1, 1, 1))], "1", weight_bits=2)
    np.save(tmp_path / "x.npy", integers(1, 1, 2, 2))
    status, _, err = run(capsys, b.save(tmp_path / "m.onnx"), tmp_path / "x.npy")
    assert status == 0
    assert err.startswith("note: 1: weight_bits = 2 selects the analog core")


@pytest.mark.parametrize("package", ["numpy", "onnx"])
@pytest.mark.parametrize(
    "code",
    [
        "from dianaq.run import main; exit(main(['m', 'x']))",
        "from dianaq.cli import main; exit(main(['compare', 'a', 'b']))",
    ],
)
def test_missing_packages_are_named_with_what_to_install(package: str, code: str) -> None:
    script = f"import sys; sys.modules[{package!r}] = None; {code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2)
    why = f"running an exported network needs {package}, which is not installed"
    assert done.stderr == f'error: {why}: pip install "dianaq[inspection]"\n'
