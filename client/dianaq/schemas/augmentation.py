"""How training samples are changed at random, so that the network cannot learn them by heart."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from dianaq.schemas.strict import StrictModel

OF_MAPS = ("flip", "crop", "rotation", "cutout", "time_shift")
"""Augmentations that move or hide parts of a map; `mixup` and `noise` take inputs of any shape."""

MOVING = ("flip", "crop", "rotation", "time_shift")
"""Augmentations after which things are elsewhere in a map: labels that say where they are would be wrong."""

_SIDES = {"crop": (1, 2), "cutout": (1, 2), "time_shift": (2,)}
"""The sides of a map (channels, height, width) that an augmentation is a fraction of."""


class Augmentation(StrictModel):
    """What is done to the samples of a training batch, each anew; nothing by default.

    Maps have the dimensions (channels, height, width); of a spectrogram, the width is time. What comes in from outside
    a map is 0, the value that the normalisation centres on. Also accepted are the words `"none"`, `"flip"` and
    `"flip_crop"` (`flip`, and `crop` by an eighth, as is usual for CIFAR-10: He et al., 2016).
    """

    flip: bool = False
    """Half of the maps are mirrored left to right."""
    crop: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Each map is cut out of itself padded by this fraction of its height and width: it is shifted by at most that."""
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Degrees by which a map is turned at most, either way."""
    cutout: Annotated[float, Field(ge=0, le=1)] = 0.0
    """A rectangle of this fraction of the height and width is set to 0; part of it may lie outside the map (DeVries and
    Taylor, 2017)."""
    mixup: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Each sample is mixed with another one of its batch, and the loss with that of the other's label (of a regression,
    the label with the other's); the share is drawn from Beta(`mixup`, `mixup`) (Zhang et al., 2018, who take 0.1 to 0.4
    for photographs)."""
    time_shift: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Each map is shifted in time, its last dimension, by at most this fraction of it."""
    noise: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of Gaussian noise that is added to the normalised input."""

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, data: Any) -> Any:
        if not isinstance(data, str):
            return data
        if data not in _WORDS:
            names = ", ".join(map(repr, _WORDS))
            raise ValueError(f"an augmentation's name is one of {names}, not {data!r}; or give a mapping")
        # Every field, so that a word laid over the augmentations of a preset replaces all of them.
        return {name: field.default for name, field in cls.model_fields.items()} | _WORDS[data]

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        whole = handler.resolve_ref_schema(handler(schema))
        words: JsonSchemaValue = {"type": "string", "enum": list(_WORDS)}
        return {"anyOf": [whole, words]}

    @property
    def active(self) -> tuple[str, ...]:
        """Names of the augmentations that do something."""
        return tuple(name for name in type(self).model_fields if getattr(self, name))

    @property
    def moves(self) -> str | None:
        """The first active augmentation after which things are elsewhere in a map; None if there is none."""
        return next((name for name in self.active if name in MOVING), None)

    def fault(self, shape: tuple[int, ...]) -> tuple[str, str] | None:
        """The first augmentation that inputs of a shape (without batch) do not take, and why; None if there is none."""
        for name in self.active:
            value = getattr(self, name)
            if name in OF_MAPS and len(shape) != 3:
                return name, "which takes maps (channels, height, width)"
            if name in _SIDES and not any(extent(value, shape[side]) for side in _SIDES[name]):
                least = 1 / max(shape[side] for side in _SIDES[name])
                return (
                    name,
                    f"which is not a whole pixel of any side; {_rounded_up(least)} is the least that does something",
                )
        return None


def extent(fraction: float, side: int) -> int:
    """Whole pixels of a side that a fraction covers."""
    # A fraction such as 1 / 49 is not exact: times 49, it shall be 1.
    return math.floor(fraction * side + 1e-6)


def _rounded_up(value: float) -> float:
    return math.ceil(value * 1e4) / 1e4


_WORDS: dict[str, dict[str, Any]] = {"none": {}, "flip": {"flip": True}, "flip_crop": {"flip": True, "crop": 0.125}}
"""Augmentations that have a name."""
