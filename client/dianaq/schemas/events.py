"""What a running job tells: an append-only sequence of typed events.

The pipeline emits event *bodies*; whoever records them (the service's database, a terminal) adds the sequence
number, the time and the attempt, which makes an `Event`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from dianaq.errors import Problem

State = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
TERMINAL_STATES: frozenset[State] = frozenset({"succeeded", "failed", "cancelled"})

Stage = Literal[
    "import",
    "canonicalise",
    "float",
    "fake_quantised",
    "hardware_mapped",
    "hardware_exact",
    "integerise",
    "export",
    "verify",
]
"""The stages of the pipeline, in their order. `verify` comes last: it runs the exported files."""

Iteration = Literal["float", "fake_quantised", "hardware_mapped", "hardware_exact"]
ITERATIONS: tuple[Iteration, ...] = ("float", "fake_quantised", "hardware_mapped", "hardware_exact")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StateBody(_Body):
    """The job entered a state; `error` says why when the state is `failed`."""

    type: Literal["state"] = "state"
    state: State
    error: Problem | None = None


class StageBody(_Body):
    """A stage started, or finished after `seconds`."""

    type: Literal["stage"] = "stage"
    stage: Stage
    status: Literal["started", "finished"]
    seconds: float | None = None


class ProgressBody(_Body):
    """`step` of `total` of what `label` names within a stage (for example `epoch 2/3`)."""

    type: Literal["progress"] = "progress"
    stage: Stage
    label: str
    step: int
    total: int


class MetricsBody(_Body):
    """Measured figures. Accuracies are fractions in 0..1; names say on which split they were measured."""

    type: Literal["metrics"] = "metrics"
    stage: Stage
    epoch: int | None = None
    values: dict[str, float]


class LogBody(_Body):
    """A line for the reader."""

    type: Literal["log"] = "log"
    level: Literal["info", "warning"] = "info"
    message: str


EventBody = Annotated[StateBody | StageBody | ProgressBody | MetricsBody | LogBody, Field(discriminator="type")]


class Event(BaseModel):
    """An event body with its place in the job's history.

    `seq` starts at 1 and grows with every event; numbers whose event was superseded by a newer one, such as progress,
    are missing. `attempt` is the attempt of the job that wrote it (0 before the first).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seq: int
    time: datetime
    attempt: int
    body: EventBody
