"""The curves of a training as TensorBoard reads them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from dianaq.schemas.events import MetricsBody
from dianaq.schemas.recipe import Training
from dianaq_quant.training.curves import POINTS, Curves
from dianaq_quant.training.loop import train

from .classes import data, network


def crc32c(content: bytes) -> int:
    """The Castagnoli checksum, bit by bit (RFC 3720, appendix B.4)."""
    value = 0xFFFFFFFF
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def masked(content: bytes) -> int:
    value = crc32c(content)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(content: bytes) -> Iterator[bytes]:
    """The records of a TFRecord file: length, its checksum, data, their checksum."""
    while content:
        length, check = struct.unpack("<QI", content[:12])
        data, (data_check,) = content[12 : 12 + length], struct.unpack("<I", content[12 + length : 16 + length])
        assert (check, data_check) == (masked(content[:8]), masked(data))
        yield data
        content = content[16 + length :]


def read(path: Path) -> list[tuple[str, int, float]]:
    """The points of an event file, whose form is checked."""
    first, *events = [Event.FromString(record) for record in records(path.read_bytes())]
    assert (first.file_version, first.wall_time) == ("brain.Event:2", 0)
    assert all(event.wall_time == event.step for event in events)
    return [(value.tag, event.step, value.simple_value) for event in events for value in event.summary.value]


def test_the_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_points_come_back(tmp_path: Path) -> None:
    curves = Curves()
    curves.add("epoch/loss", 3, 0.5)
    curves.add("epoch/accuracy_val", 3, 0.25)
    curves.write(tmp_path / "run" / "events.out.tfevents")
    assert read(tmp_path / "run" / "events.out.tfevents") == [("epoch/loss", 3, 0.5), ("epoch/accuracy_val", 3, 0.25)]


def curves_of(settings: Training) -> tuple[Curves, list[MetricsBody]]:
    told: list[MetricsBody] = []

    def emit(body: object) -> None:
        told.extend([body] if isinstance(body, MetricsBody) else [])

    found = train(network(), settings, data(), iteration="float", seed=0, emit=emit, should_stop=lambda: False)
    return found, told


def test_a_training_has_its_losses_rates_and_figures(tmp_path: Path) -> None:
    curves, told = curves_of(Training(epochs=3, learning_rate=0.1, batch_size=64))  # 4 steps an epoch
    curves.write(tmp_path / "events")
    points = read(tmp_path / "events")
    for name in ("loss", "accuracy_val", "loss_val"):
        found = [(step, value) for tag, step, value in points if tag == f"epoch/{name}"]
        assert [step for step, _ in found] == [4, 8, 12]
        assert [value for _, value in found] == pytest.approx([body.values[name] for body in told])
    losses = [value for tag, _, value in points if tag == "step/loss"]
    assert sum(losses[:4]) / 4 == pytest.approx(told[0].values["loss"])
    rates = [(step, value) for tag, step, value in points if tag == "step/learning_rate"]
    assert [step for step, _ in rates] == list(range(1, 13))
    assert rates[0][1] == pytest.approx(0.1)
    assert rates[6][1] == pytest.approx(0.05)


def test_long_trainings_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dianaq_quant.training.course.POINTS", 5)
    curves, _ = curves_of(Training(epochs=3, learning_rate=0.1, batch_size=64))
    assert [step for tag, step, _ in curves.points if tag == "step/loss"] == [3, 6, 9, 12]
    assert POINTS == 1000


def test_without_epochs_there_are_none() -> None:
    assert curves_of(Training())[0].points == []
