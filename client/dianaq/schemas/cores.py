"""What a job says of the chip's two cores: which layers run where, and what the analog one offers and suffers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from dianaq.schemas.quantisers import Core
from dianaq.schemas.ranges import QRange
from dianaq.schemas.strict import StrictModel


class CoreMapping(StrictModel):
    """Which core each linear layer runs on."""

    default: Literal["digital", "analog", "auto"] = "digital"
    """`analog` takes every layer that the analog core can run, `auto` every one that is faster there by the cost
    model; what it cannot run (fully connected, grouped and depthwise layers among others) stays digital."""
    ends: Core = "digital"
    """The first and the last linear layer, whatever the default: ternary weights cost most there and save least."""
    layers: dict[str, Core] = Field(default_factory=dict)
    """Exceptions, by the layer's name in the model or a pattern of it. An impossible one is an error."""


class Target(StrictModel):
    """What the analog core offers, where sources differ."""

    batch_norm_bits: Literal[8, 16] = 8
    """Magnitude of the integers `k` and `l` that BatchNorm becomes: 8 bits as in the hardware; HTVM takes int16."""


class AnalogWeights(StrictModel):
    """A step on the way of the analog layers' weights to ternary."""

    range: QRange
    epochs: Annotated[int, Field(ge=0, le=10_000)]

    @field_validator("range")
    @classmethod
    def _can_be_trained(cls, qrange: QRange) -> QRange:
        if qrange.is_free or qrange.step != 1 or not qrange.lo < 0 < qrange.hi:
            raise ValueError(
                f"analog weights pass through ranges that hold -1, 0 and 1, such as bitwidth 4, signed; got {qrange}"
            )
        return qrange


class Noise(StrictModel):
    """The analog core's imperfections, in steps of its converter (LSB); no public model exists, so that this one is an
    assumption: output-referred Gaussian noise of every conversion, and a gain and an offset error of every column."""

    gaussian: Annotated[float, Field(ge=0, le=16)] = 0.0
    """Standard deviation of a conversion's noise, in LSB."""
    column_gain: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Standard deviation of a column's relative gain error."""
    column_offset: Annotated[float, Field(ge=0, le=16)] = 0.0
    """Standard deviation of a column's offset, in LSB."""

    @property
    def silent(self) -> bool:
        """Whether there is none."""
        return not (self.gaussian or self.column_gain or self.column_offset)


class NoiseSweep(StrictModel):
    """Accuracies of the finished network under Gaussian noise, as mean and standard deviation over draws."""

    gaussian: tuple[Annotated[float, Field(ge=0, le=16)], ...] = (0.0, 0.25, 0.5, 1.0)
    draws: Annotated[int, Field(ge=1, le=1000)] = 10
