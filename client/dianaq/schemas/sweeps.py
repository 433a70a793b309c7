"""A sweep: one submission of a job for every point of a grid over its fields, and one table of what they reached."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

from pydantic import ValidationError, model_validator

from dianaq.errors import InvalidSpec
from dianaq.schemas.events import TERMINAL_STATES, State
from dianaq.schemas.resources import Resource
from dianaq.schemas.spec import JobSpec, invalid_spec, parse_spec
from dianaq.schemas.strict import StrictModel
from dianaq.schemas.sweep_table import Point

MAX_JOBS = 256
"""Of a sweep. They are checked and stored in one transaction, which takes a few milliseconds for each and holds other
submissions up meanwhile."""

_MAX_PARTS = 8
"""Of a path; no field of a job specification lies deeper."""

_MAX_NAME = 60
"""Characters of an unknown field that are compared; no field has half as many."""

_FIELDS = tuple(JobSpec.model_fields)


class SweepSpec(StrictModel):
    """A job and the values to try. The last path of the grid varies fastest.

    Example:
        >>> SweepSpec(
        ...     job={"model": "mdl_1", "dataset": "dat_1", "recipe": {"preset": "qat-fast"}},
        ...     grid={"recipe.hardware_mapped.learning_rate": [0.01, 0.02], "recipe.seed": [0, 1, 2]},
        ... )
    """

    job: dict[str, Any]
    """A job specification as it is written in JSON or YAML; what the grid sets may be missing. A `JobSpec` will do."""
    grid: dict[str, tuple[Any, ...]]
    """Values by dotted path into the specification: `recipe.seed`, `recipe.hardware_mapped.learning_rate`,
    `mapping.default`. A value takes the place of whatever the job has there, mappings and lists included."""

    @model_validator(mode="before")
    @classmethod
    def _plain_job(cls, data: Any) -> Any:
        """A `JobSpec` as what its author wrote, without defaults, so that a preset of the grid can fill them in."""
        job = data.get("job") if isinstance(data, Mapping) else None
        if not isinstance(job, JobSpec):
            return data
        if job.recipe.preset is not None and "recipe.preset" in (data.get("grid") or ()):
            raise ValueError(
                f"grid sets recipe.preset, but the job's recipe was already filled in from the preset "
                f"{job.recipe.preset!r}; make the job without a preset"
            )
        return {**data, "job": job.model_dump(mode="json", by_alias=True, exclude_unset=True)}

    @model_validator(mode="after")
    def _usable_grid(self) -> Self:
        if not self.grid:
            raise ValueError("grid is empty; it takes one path or more, such as recipe.seed: [0, 1, 2]")
        for path, values in self.grid.items():
            parts = path.split(".")
            if parts[0] not in _FIELDS or not all(parts) or len(parts) > _MAX_PARTS:
                close = difflib.get_close_matches(parts[0][:_MAX_NAME], _FIELDS, 1)
                hint = f"; did you mean {close[0]!r}?" if close and parts[0] not in _FIELDS else ""
                raise ValueError(
                    f"grid has the path {path!r}; a path starts with a field of the job specification "
                    f"({', '.join(_FIELDS)}) and goes down with dots, as in recipe.seed{hint}"
                )
            if not values:
                raise ValueError(f"grid has no values for {path}; it takes one or more")
            for i, value in enumerate(values):
                if value in values[:i]:
                    raise ValueError(f"grid has the value {value!r} for {path} twice")
            for other in self.grid:
                if other.startswith(f"{path}."):
                    raise ValueError(f"grid sets {path} and {other}, which is a part of it; leave one of them out")
        if self.size > MAX_JOBS:
            lengths = " x ".join(str(len(values)) for values in self.grid.values())
            raise ValueError(f"grid has {self.size:,} points ({lengths}); a sweep has at most {MAX_JOBS} jobs")
        return self

    @property
    def size(self) -> int:
        """The number of jobs."""
        return math.prod(len(values) for values in self.grid.values())

    def points(self) -> list[Point]:
        """The points of the grid."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]

    def jobs(self) -> list[tuple[Point, JobSpec]]:
        """Every point and its job.

        Raises:
            InvalidSpec: names the point, and the offending field, its value and what would be accepted.
        """
        return [(point, self._job(number, point)) for number, point in enumerate(self.points(), 1)]

    def where(self, number: int, point: Point) -> str:
        """A point in an error: `point 2 of 6 (recipe.seed: 1)`."""
        settings = ", ".join(f"{path}: {value!r:.80}" for path, value in point.items())
        return f"point {number} of {self.size} ({settings})"

    def _job(self, number: int, point: Point) -> JobSpec:
        try:
            data: Mapping[str, Any] = self.job
            for path, value in point.items():
                data = _with(data, path, value)
            return parse_spec(data)
        except InvalidSpec as error:
            raise InvalidSpec(f"{self.where(number, point)}: {error.detail}", param=error.param) from None


def parse_sweep(data: Any) -> SweepSpec:
    """A sweep from plain data, or with a `JobSpec` as its job.

    Raises:
        InvalidSpec: names the offending field, its value and what would be accepted.
    """
    try:
        return SweepSpec.model_validate(data)
    except ValidationError as error:
        raise invalid_spec(error, SweepSpec) from None


def _with(data: Mapping[str, Any], path: str, value: Any) -> Mapping[str, Any]:
    """A copy of nested mappings in which the entry at a path is another."""
    *above, last = path.split(".")
    changed = at = dict(data)
    for key in above:
        below = at.get(key)
        if below is not None and not isinstance(below, Mapping):
            raise InvalidSpec(f"grid sets {path}, but what the job has at {key} is {below!r:.80}", param=path)
        at[key] = at = dict(below or {})
    at[last] = value
    return changed


class Sweep(Resource):
    """A sweep as the service knows it. `states` counts its jobs."""

    id: str
    created: datetime
    spec: SweepSpec
    states: dict[State, int]

    @property
    def ended(self) -> bool:
        """Whether all jobs have."""
        return TERMINAL_STATES.issuperset(self.states)


class SweepJob(Resource):
    """A job of a sweep; the whole of it is at `/v1/jobs/{id}`."""

    id: str
    state: State
    point: Point


class SweepWithJobs(Sweep):
    """A sweep and its jobs, in the order of the grid's points."""

    jobs: list[SweepJob]
