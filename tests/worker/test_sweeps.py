"""A sweep from the command line to its table, on the real stack with the real pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from quant.jobs import write_files

from dianaq import Client
from dianaq.cli import main
from dianaq_worker.embedded import LocalStack


def test_from_the_command_line_to_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_files(tmp_path)
    job = {"preprocessing": {"mean": [0.5], "std": [0.5]}, "recipe": {"preset": "ptq"}}
    grid = {"mapping.layers": [{}, {"second": "analog"}]}
    sweep_file = tmp_path / "sweep.yaml"
    sweep_file.write_text(yaml.safe_dump({"job": job, "grid": grid}))
    with LocalStack(tmp_path / "data") as stack, Client(stack.url, stack.key) as client:
        monkeypatch.setenv("DIANAQ_URL", stack.url)
        monkeypatch.setenv("DIANAQ_KEY", stack.key)
        files = ["--model", str(tmp_path / "model.onnx"), "--data", str(tmp_path / "data.npz")]
        assert main(["sweep", "submit", str(sweep_file), *files, "--follow"]) == 0
        printed = capsys.readouterr().out.splitlines()
        assert "  2 jobs: 2 succeeded" in printed
        (found,) = client.sweeps()
        table = client.sweep(found.id).table()
        assert [row.job in line for row, line in zip(table.rows, printed[-2:], strict=True)] == [True, True]
        for row, job_handle in zip(table.rows, client.sweep(found.id).jobs(), strict=True):
            report = job_handle.report()
            assert report.cost is not None
            assert report.memory is not None
            assert row.costs is not None
            assert (row.costs.latency_s, row.costs.energy_j) == (report.cost.latency_s, report.cost.energy_j)
            assert row.costs.total_bytes == report.memory.total_bytes
            assert row.figures["integerise"]["accuracy_test"] == report.stages["integerise"].top1
        digital, analog = (row.costs for row in table.rows)
        assert digital != analog
