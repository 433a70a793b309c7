"""Integer ranges and initialisation strategies: the vocabulary of a recipe's quantisers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

InitStrategy = Literal["minmax", "mse", "percentile"]
"""How a scale follows from observed values: the largest magnitude; the least squared error among the
power-of-two scales; the 99.99th percentile of the magnitude."""


class QRange(BaseModel):
    """A run of consecutive integers, given by its number of levels and where it starts.

    Exactly one of `bitwidth` B (2^B levels), `limpbitwidth` B (2^B - 1 levels, symmetric about zero when
    signed) and `n_levels`; and `signed` (true: starts at -(n_levels // 2); false: starts at 0).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bitwidth: Annotated[int, Field(ge=2, le=8)] | None = None
    limpbitwidth: Annotated[int, Field(ge=2, le=8)] | None = None
    n_levels: Annotated[int, Field(ge=3, le=256)] | None = None
    signed: bool = True

    @model_validator(mode="after")
    def _exactly_one_size(self) -> Self:
        given = [k for k in ("bitwidth", "limpbitwidth", "n_levels") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(f"a range takes exactly one of bitwidth, limpbitwidth, n_levels; got {given or 'none'}")
        return self

    @property
    def levels(self) -> int:
        """Number of integers in the range."""
        if self.n_levels is not None:
            return self.n_levels
        if self.bitwidth is not None:
            return int(2**self.bitwidth)
        assert self.limpbitwidth is not None
        return int(2**self.limpbitwidth) - 1

    @property
    def lo(self) -> int:
        """Smallest integer of the range."""
        return -(self.levels // 2) if self.signed else 0

    @property
    def hi(self) -> int:
        """Largest integer of the range."""
        return self.lo + self.levels - 1
