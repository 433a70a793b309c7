"""The benchmarks of training run, and see what they are to see; how fast is their own affair."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])


def test_every_step_is_timed_and_weighed_against_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import step

    monkeypatch.setattr(step, "BATCH", 4)
    monkeypatch.setitem(step.NETWORKS, "resnet8", ((3, 8, 8), 0.5))
    rows = step.measure("resnet8", 2, with_peers=False, device=torch.device("cpu"))
    assert {row[1] for row in rows} == {step.PLAIN, "float, channels last", *step.LIMITS}
    ratios = {row[1]: float(row[3]) for row in rows}
    assert ratios[step.PLAIN] == 1.0
    assert all(ratio > 0 for ratio in ratios.values())
    memory = {row[1]: float(row[5]) for row in rows}
    assert memory[step.PLAIN] == 1.0
    assert memory["exact, digital"] < memory["fake_quantised"]  # no BatchNorm keeps its input
    assert all(row[4].endswith(("met", "MISSED")) for row in rows if row[1] in step.LIMITS)


def operations(outputs: Tensor) -> tuple[Counter[str], Counter[Tensor]]:
    """What a backward pass from these outputs does, and how often it comes to each parameter."""
    seen, left = set(), [outputs.grad_fn]
    uses: Counter[Tensor] = Counter()
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        following = [n for n, _ in node.next_functions if n is not None]
        uses.update(n.variable for n in following if hasattr(n, "variable"))
        left += following
    return Counter(node.name() for node in seen), uses


def test_a_step_quantises_everything_once_and_in_one_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A digital step has the float step's operations, but for ReLUs, which are part of the quantisers behind them."""
    import step

    monkeypatch.setattr(step, "BATCH", 4)
    monkeypatch.setitem(step.NETWORKS, "resnet8", ((3, 8, 8), 0.5))
    networks, x = step.variants("resnet8")
    plain, _ = operations(networks[step.PLAIN](x))
    for name in step.LIMITS:
        found, uses = operations(networks[name].train()(x))
        assert "ReluBackward0" not in found
        weights = [p for key, p in networks[name].named_parameters() if key.endswith(".weight") and p.dim() > 1]
        assert [uses[weight] for weight in weights] == [1] * 10  # of 9 convolutions and a fully connected layer
        if name in ("fake_quantised", "mapped, digital"):
            # The weights; the input; behind 9 convolutions, 3 additions and the last layer. A pool keeps its scale.
            assert found - plain == Counter(StraightThroughBackward=10 + 1 + 9 + 3 + 1)
            assert plain - found == Counter(ReluBackward0=7)


def test_the_feed_is_timed_against_the_plain_step(monkeypatch: pytest.MonkeyPatch) -> None:
    import feed

    monkeypatch.setattr(feed, "BATCH", 4)
    small = [("resnet8", feed.Case((3, 16, 16), 40, 0.5, True, feed.PHOTOGRAPHS))]
    small += [("ds_cnn", feed.Case((1, 10, 49), 40, 0.5, False, feed.SPECTROGRAMS))]
    for name, case in small:
        assert all(milliseconds > 0 for milliseconds in feed.measure(name, case, 3, torch.device("cpu")))


def test_results_are_written_in_place_of_the_same_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import results

    monkeypatch.setattr(results, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(results, "COMMIT", "abc")
    results.record("Other", "old")
    header = ["network", "job", "took"]
    results.record_rows("Jobs", "A note.", header, [["b", "ptq", "1 s"], ["a", "qat", "2 s"]])
    monkeypatch.setattr(results, "COMMIT", "def")
    results.record_rows("Jobs", "A note.", header, [["b", "ptq", "3 s"]])
    results.record("Other", "new")
    text = (tmp_path / "RESULTS.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith(("| a", "| b"))]
    assert [(row[0], row[2], row[3][-5:-2]) for row in rows] == [("| a", "2 s", "abc"), ("| b", "3 s", "def")]
    assert text.index("## Jobs") < text.index("## Other")
    assert "old" not in text
    assert "commit def" in text
    assert "CPU threads" in text
    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")
    assert (results.titled("Jobs", gpu), results.titled("Jobs", cpu)) == ("Jobs, GPU", "Jobs")


def test_hostile_files_are_inspected_within_the_memory_of_ordinary_ones(tmp_path: Path) -> None:
    import parsing

    rows = [parsing.measure(name, make(), tmp_path, 1)[0] for name, make in parsing.HOSTILE.items()]
    assert [row[0] for row in rows] == list(parsing.HOSTILE)
    assert not [row for row in rows if not row[-1].endswith("met")]
    assert {row[3].partition(":")[0] for row in rows} == {"taken", "refused"}
