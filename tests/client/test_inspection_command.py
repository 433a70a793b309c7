"""`python -m dianaq.inspection`: one JSON object, whatever the file is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dianaq.inspection import __main__ as command

from .onnx_samples import classifier, save


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    status = command.main(list(arguments))
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    return status, json.loads(out)


def test_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, answer = run(capsys, "model", str(save(classifier(), tmp_path)))
    assert (status, list(answer)) == (0, ["info"])
    assert answer["info"]["output"] == {"name": "fc", "shape": [10]}


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    status, answer = run(capsys, kind, str(tmp_path / "file"))
    assert (status, list(answer)) == (1, ["problem"])
    assert answer["problem"]["type"] == f"invalid-{kind}"
    assert "empty" in answer["problem"]["detail"]
    assert str(tmp_path) not in answer["problem"]["detail"]


@pytest.mark.parametrize(
    ("raised", "words"), [(MemoryError(), "more memory"), (RecursionError("too deep"), "RecursionError: too deep")]
)
def test_whatever_a_parser_raises_is_a_problem(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, raised: Exception, words: str
) -> None:
    def explode(path: str, part: object) -> None:
        raise raised

    monkeypatch.setattr(command, "inspect_upload", explode)
    status, answer = run(capsys, "model", "whatever")
    assert status == 1
    assert words in answer["problem"]["detail"]
