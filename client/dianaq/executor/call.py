"""One node as it is executed: its operands as integers, its attributes, and errors that name it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dianaq.errors import AccumulatorOverflow, InvalidModel
from dianaq.executor.arithmetic import INT32, Integers, fits
from dianaq.inspection.network import Node

MAX_SHIFT = 31
"""The chip shifts by 0 to 31 bits."""


@dataclass(frozen=True)
class Value:
    """A tensor during execution, `integers / divisor`. A divisor beyond 1 waits for the `Floor` that resolves it."""

    integers: Integers
    divisor: int = 1
    divided_by: str = ""
    """The node that divides."""


@dataclass(frozen=True)
class Call:
    """A node, the tensors that were computed before it, and the file's constants."""

    node: Node
    values: Mapping[str, Value]
    constants: Mapping[str, NDArray[Any]]

    def refuse(self, what: str) -> InvalidModel:
        """The error for a node that cannot be executed in integers."""
        return InvalidModel(f"node {self.node.name!r} ({self.node.operator}) {what}", param=self.node.name)

    def is_constant(self, index: int) -> bool:
        return self.node.input(index) in self.constants

    def value(self, index: int = 0) -> Value:
        """An operand that may still wait for its `Floor`."""
        name = self.node.input(index)
        if name not in self.values:
            raise self.refuse(f"needs a computed tensor as input {index}, and has {name or 'none'!r}")
        return self.values[name]

    def tensor(self, index: int = 0) -> Integers:
        """An operand's integers."""
        value = self.value(index)
        if value.divisor != 1:
            raise self.refuse(
                f"reads {self.node.input(index)!r}, which {value.divided_by!r} divides by {value.divisor} and no Floor "
                "rounds; accepted is a Floor directly behind the division"
            )
        return value.integers

    def constant(self, index: int) -> Integers:
        """A constant operand's integers, int32; int64 where the file says so and they need it, as the bounds of a
        Slice may."""
        array = self._whole(index)
        if array.size and not fits(math.floor(array.min()), math.floor(array.max())):
            if array.dtype == np.int64:
                return array
            raise self.refuse(f"takes the constant {self.node.input(index)!r}, which holds integers beyond 32 bits")
        return array.astype(np.int32)

    def scalar(self, index: int) -> int:
        """A constant of one element, of any size."""
        array = self._whole(index)
        if array.size != 1:
            raise self.refuse(f"has a constant of shape {array.shape}; accepted is one element")
        return int(array.item())

    def _whole(self, index: int) -> NDArray[Any]:
        """A constant operand that holds nothing but integers, in the type that the file has it in."""
        name = self.node.input(index)
        if name not in self.constants:
            raise self.refuse(f"needs a constant as input {index}, and has {name or 'none'!r}")
        array = self.constants[name]
        if array.dtype.kind not in "iuf":
            raise self.refuse(f"takes the constant {name!r} of type {array.dtype}; accepted are numbers")
        whole = np.isfinite(array) & (array == np.floor(array))
        if not whole.all():
            raise self.refuse(
                f"takes the constant {name!r}, which holds {array[~whole].flat[0]:g}; accepted are integers between "
                "the network's ends"
            )
        return array

    def operand(self, index: int) -> Integers:
        """A computed tensor, or a constant that broadcasts over the batch."""
        if not self.is_constant(index):
            return self.tensor(index)
        constant, other = self.constant(index), self.tensor(1 - index)
        if constant.ndim > other.ndim or (constant.ndim == other.ndim and constant.shape[0] != 1):
            raise self.refuse(f"has a constant of shape {constant.shape}, which does not broadcast over the batch")
        return constant

    def numbers(self, index: int, attribute: str, default: Sequence[int] | None = None) -> list[int]:
        """Integers that newer opsets have as an input, and older ones as an attribute."""
        if self.node.input(index):
            return [int(v) for v in self.constant(index).ravel()]
        found = self.attribute(attribute, default)
        if found is None:
            raise self.refuse(f"has neither input {index} nor an attribute {attribute}")
        return list(found)

    def attribute(self, name: str, default: Any) -> Any:
        return self.node.attributes.get(name, default)

    def only(self, **accepted: Any) -> None:
        """Refuse attributes of other values than these."""
        for name, value in accepted.items():
            found = self.attribute(name, value)
            if found != value:
                shown = found.decode(errors="replace") if isinstance(found, bytes) else found
                wanted = value.decode() if isinstance(value, bytes) else value
                raise self.refuse(f"has {name} = {shown}; accepted is {wanted}")

    def accumulated(self, sums: Integers) -> Integers:
        """Sums that the chip holds in 32 bits.

        Raises:
            AccumulatorOverflow: one of them is beyond.
        """
        if sums.dtype == np.int32:
            return sums
        lo, hi = int(sums.min()), int(sums.max())
        if not fits(lo, hi):
            worst = lo if -lo > hi else hi
            sample = int(np.argwhere(sums == worst)[0, 0])
            raise self.overflow(f"{worst:,} (in sample {sample})")
        return sums.astype(np.int32)

    def overflow(self, worst: str) -> AccumulatorOverflow:
        """The error for a sum that is, or may be, too large."""
        return AccumulatorOverflow(
            f"{self.node.name} ({self.node.operator}) reaches {worst}, beyond the 32 bits of an accumulator, "
            f"[{INT32[0]:,}, {INT32[1]:,}]",
            param=self.node.name,
        )
