"""Integer ranges: which integers a quantised tensor may hold."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from dianaq.schemas.strict import StrictModel

_WORDS: dict[str, dict[str, int]] = {
    "binary": {"n_levels": 2, "offset": -1, "step": 2},
    "ternary": {"n_levels": 3, "offset": -1},
}
"""Ranges that have a name: the signs {-1, 1}, and {-1, 0, 1}."""

LARGEST_MAGNITUDE = 255
"""No range may leave [-255, 255]: the chip stores 8 bits, signed or not, so nothing further out could be mapped."""


class QRange(StrictModel):
    """A run of consecutive integers, or the signs {-1, 1}.

    Exactly one of `bitwidth` B (2^B levels), `limpbitwidth` B (2^B - 1 levels, symmetric when signed) and `n_levels`;
    at most one of `offset` (the smallest integer) and `signed` (true: it is -(n_levels // 2); false: 0). With
    neither, the offset is *free*: it follows from the data when the quantiser is initialised. Also accepted are the
    words `"binary"` ({-1, 1}) and `"ternary"` ({-1, 0, 1}), and the integers themselves, as `[-1, 0, 1]`.
    """

    bitwidth: Annotated[int, Field(ge=1, le=8)] | None = None
    limpbitwidth: Annotated[int, Field(ge=2, le=8)] | None = None
    n_levels: Annotated[int, Field(ge=2, le=256)] | None = None
    offset: int | None = None
    signed: bool | None = None
    step: Literal[1, 2] = 1
    """Distance of neighbours: 2 for the signs {-1, 1}, and 1 for everything else."""

    @model_validator(mode="before")
    @classmethod
    def _from_words(cls, data: Any) -> Any:
        if isinstance(data, str):
            if data not in _WORDS:
                raise ValueError(f"a range's name is {' or '.join(map(repr, _WORDS))}, not {data!r}")
            return _WORDS[data]
        return _from_integers(list(data)) if isinstance(data, list | tuple) else data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = [k for k in ("bitwidth", "limpbitwidth", "n_levels") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(f"a range takes exactly one of bitwidth, limpbitwidth, n_levels; got {given or 'none'}")
        if self.offset is not None and self.signed is not None:
            raise ValueError(
                f"a range takes at most one of offset and signed; got offset {self.offset} and signed {self.signed}"
            )
        if self.step == 2 and (self.levels, self.offset) != (2, -1):
            raise ValueError('step 2 is only for the signs {-1, 1}: write the range as "binary"')
        if not self.is_free and not (-LARGEST_MAGNITUDE <= self.lo < self.hi <= LARGEST_MAGNITUDE):
            raise ValueError(
                f"the range [{self.lo}, {self.hi}] leaves [-{LARGEST_MAGNITUDE}, {LARGEST_MAGNITUDE}], "
                "which the chip's 8 bits can never hold"
            )
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        whole = handler.resolve_ref_schema(handler(schema))
        names: JsonSchemaValue = {"type": "string", "enum": list(_WORDS)}
        integers: JsonSchemaValue = {"type": "array", "items": {"type": "integer"}, "minItems": 2}
        return {"anyOf": [whole, names, integers]}

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
    def is_free(self) -> bool:
        """Whether the smallest integer is still to be learned from data."""
        return self.offset is None and self.signed is None

    @property
    def lo(self) -> int:
        """Smallest integer of the range.

        Raises:
            ValueError: the offset is free, and no data have fixed it yet.
        """
        if self.offset is not None:
            return self.offset
        if self.signed is None:
            raise ValueError("the range's offset is free: it is known once the quantiser has seen data")
        return -(self.levels // 2) if self.signed else 0

    @property
    def hi(self) -> int:
        """Largest integer of the range."""
        return self.lo + (self.levels - 1) * self.step

    @property
    def integers(self) -> tuple[int, ...]:
        """The range's integers, in order."""
        return tuple(range(self.lo, self.hi + 1, self.step))

    def starting_at(self, offset: int) -> QRange:
        """The range of as many integers that starts elsewhere."""
        return QRange(n_levels=self.levels, offset=offset)

    def __eq__(self, other: object) -> bool:
        """Ranges of the same integers are equal, however they were written."""
        return isinstance(other, QRange) and self._meaning() == other._meaning()

    def __hash__(self) -> int:
        return hash(self._meaning())

    def _meaning(self) -> tuple[int, int | None, int]:
        return self.levels, None if self.is_free else self.lo, self.step

    def __str__(self) -> str:
        return f"{self.levels} levels" if self.is_free else f"[{self.lo}, {self.hi}]"


def _from_integers(integers: list[Any]) -> dict[str, int]:
    """The range that holds just these integers."""
    whole = all(isinstance(i, int) and not isinstance(i, bool) for i in integers)
    if whole and integers == [-1, 1]:
        return _WORDS["binary"]
    if not whole or len(integers) < 2 or integers != list(range(integers[0], integers[0] + len(integers))):
        raise ValueError(f"a range's integers must be consecutive and ascending, or [-1, 1]; got {integers!r:.100}")
    return {"n_levels": len(integers), "offset": integers[0]}
