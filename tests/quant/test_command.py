"""`python -m dianaq_quant`: what it hands to the pipeline, and what it refuses before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dianaq.schemas.spec import JobSpec, ZooModel
from dianaq_quant import __main__ as command
from dianaq_quant import pipeline

ZOO = ("--zoo", "resnet8", "--input-shape", "3", "8", "8", "--classes", "10")
RANDOM = (*ZOO, "--epochs", "float=1")
STATE_DICT = b"PK\x03\x04 looked into by the job"
HEADER = b"\x10\0\0\0\0\0\0\0{ and so on"


class Runs(list[dict[str, Any]]):
    """What the pipeline was called with."""

    def __call__(self, spec: JobSpec, **arguments: Any) -> None:
        self.append({"spec": spec, **arguments})


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    runs = Runs()
    monkeypatch.setattr(pipeline, "run", runs)
    monkeypatch.chdir(tmp_path)
    for name, content in (
        ("net.onnx", b"\x08\x09 a network"),
        ("best.pt", STATE_DICT),
        ("data.npz", b"PK"),
        ("best.safetensors", HEADER),
    ):
        Path(name).write_bytes(content)
    Path("earlier/checkpoints").mkdir(parents=True)
    Path("earlier/checkpoints/float.pt").write_bytes(b"checkpoint")
    return runs


def run(*arguments: str) -> int:
    return command.main([*arguments, "--data", "data.npz", "-o", "out"])


def test_an_onnx_file(runs: Runs) -> None:
    assert run("net.onnx") == 0
    assert (runs[0]["model_path"], runs[0]["start_from"]) == (Path("net.onnx"), None)
    assert runs[0]["spec"].model == "net.onnx"


def test_a_network_of_the_zoo(runs: Runs) -> None:
    network = ZooModel(architecture="resnet8", input_shape=(3, 8, 8), classes=10)
    assert run(*RANDOM) == 0
    assert (runs[0]["model_path"], runs[0]["spec"].model) == (None, network)
    assert run("best.pt", *ZOO) == 0
    assert runs[1]["model_path"] == Path("best.pt")
    assert runs[1]["spec"].model == network.model_copy(update={"weights": "best.pt"})


def test_weights_that_the_recipe_names(runs: Runs) -> None:
    Path("r.yaml").write_text("model: {architecture: ds_cnn, input_shape: [1, 10, 49], classes: 12, weights: best.pt}")
    assert run("--recipe", "r.yaml") == 0
    assert runs[0]["model_path"] == Path("best.pt")


def test_a_start(runs: Runs) -> None:
    assert run("net.onnx", "--start-from", "earlier/float") == 0
    assert runs[0]["start_from"] == Path("earlier/checkpoints/float.pt")
    assert runs[0]["spec"].start_from == "earlier/float"


def test_a_resumable_run_and_a_profile(runs: Runs) -> None:
    assert run("net.onnx") == 0
    assert (runs[0]["snapshots"], runs[0]["spec"].profile) == (None, False)
    assert run("net.onnx", "--resumable", "kept", "--profile") == 0
    assert (runs[1]["snapshots"], runs[1]["spec"].profile) == (Path("kept"), True)


@pytest.mark.parametrize(
    ("options", "words"),
    [((), "nothing was written"), (("--resumable", "kept"), "the same command goes on after the last whole epoch")],
)
def test_an_interrupt_says_what_is_left(
    runs: Runs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    words: str,
) -> None:
    def interrupted(*arguments: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run", interrupted)
    assert run("net.onnx", *options) == 130
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no network is given"),
        (("none.onnx",), "no such file: none.onnx"),
        (("best.safetensors",), "holds weights (safetensors), not a network"),
        (("net.onnx", *ZOO), "the weights of resnet8 must be safetensors"),
        (ZOO, "model.weights is missing"),
        (("net.onnx", "--start-from", "earlier"), "start_from"),
        (
            ("net.onnx", "--start-from", "nowhere/float"),
            "no such bundle folder (nowhere/checkpoints/float.pt)",
        ),
        (("net.onnx", "--start-from", "earlier/hardware_exact"), "it has no such checkpoint"),
    ],
)
def test_refusals(runs: Runs, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str) -> None:
    assert run(*arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert words in err
    assert runs == []
