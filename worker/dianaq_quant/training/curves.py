"""The curves of a training, and their TensorBoard file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

EVENTS = "events.out.tfevents"
"""Name of the file in a training's folder. TensorBoard takes every file for events whose name has `tfevents` in it."""

POINTS = 1000
"""Points that the curve of a figure by step has at most: TensorBoard shows as many unless it is told otherwise."""


@dataclass
class Curves:
    """Figures by step: (tag, step, value), in the order in which they were measured."""

    points: list[tuple[str, int, float]] = field(default_factory=list)

    def add(self, tag: str, step: int, value: float) -> None:
        """A figure after so many steps of the training."""
        self.points.append((tag, step, value))

    def write(self, path: Path) -> None:
        """Write an event file. The same curves give the same bytes: the time of a figure is its step, in seconds."""
        from tensorboardX.record_writer import RecordWriter  # here, because it takes as long to import as a small job

        path.parent.mkdir(parents=True, exist_ok=True)
        writer = RecordWriter(str(path))
        try:
            for record in self._records():
                writer.write(record)
        finally:
            writer.close()

    def _records(self) -> Iterator[bytes]:
        """Serialised events: the format's version, and one for each point."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        yield Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString(deterministic=True)
        for tag, step, value in self.points:
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            yield Event(wall_time=float(step), step=step, summary=summary).SerializeToString(deterministic=True)
