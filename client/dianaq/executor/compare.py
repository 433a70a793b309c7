"""Where two exported networks first compute something else on the same inputs, by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dianaq.errors import InvalidModel
from dianaq.executor.model import Execution, IntegerModel
from dianaq.executor.operators import SHAPE_OPERATORS
from dianaq.executor.source import Source
from dianaq.inspection.network import Node

SAMPLES = 16
SEED = 0
"""Random inputs where no others are given: one batch, the same in every comparison."""


@dataclass(frozen=True)
class Difference:
    """The first tensors that differ. Where one network has no such tensor, its name is None."""

    layer: str
    tensors: tuple[str | None, str | None]
    shapes: tuple[list[int] | None, list[int] | None]
    """Without the batch."""
    values: int
    """How many differ over all samples; all of them where the shapes hold different numbers of values."""
    of: int
    largest: float | None
    """The largest difference of two values, None where they cannot be subtracted."""
    sample: int
    """The first that differs."""


@dataclass(frozen=True)
class Comparison:
    """How many pairs of tensors are equal, and the first that is not."""

    samples: int
    equal_tensors: int
    difference: Difference | None
    notes: tuple[str, ...]


def compare_models(a: Source, b: Source, x: NDArray[Any] | None = None, *, quantised: bool = False) -> Comparison:
    """Run two networks on the same inputs and compare them tensor by tensor.

    Files of one dialect whose tensors have the same names are compared in every tensor, others in the output of every
    layer. A network that takes integers gets those that the other's quantiser makes. Where one of two tensors has more
    channels, of one value, they are padding for its compiler: zeros at the input.

    Args:
        x: inputs; by default the golden input of either, or else random integers.
        quantised: x holds integers as they are behind the quantiser.

    Raises:
        InvalidModel: the networks take inputs of different shapes, or one cannot be executed.
        InvalidDataset: x does not fit.
    """
    if a.model.input_shape[1:] != b.model.input_shape[1:]:
        raise InvalidModel(
            f"{a.name} takes inputs of {list(a.model.input_shape)}, {b.name} of {list(b.model.input_shape)}; networks "
            "of one input shape can be compared"
        )
    if x is None:
        x, quantised = _inputs(a, b)
    runs = _run_both(a.model, b.model, x, quantised)
    equal, difference = _first_difference(a, b, *runs)
    notes = tuple(f"{source.name}: {note}" for source in (a, b) for note in source.model.notes)
    return Comparison(len(runs[0].logits), equal, difference, notes)


def layer_outputs(model: IntegerModel) -> list[str]:
    """The tensors that a chip stores, in order: the input's integers, and what every layer leaves behind its
    saturation or pooling. A converter's output is inside its layer; an addition's is stored, even if its ReLU follows
    as a Clip of its own."""
    readers: dict[str, list[Node]] = {}
    for node in model.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)

    def is_inside(tensor: str, giver: str) -> bool:
        own = ("Max", "Min", "Mul", "ReduceSum", *(["Clip"] if giver == "Floor" else []))
        return any(
            node.operator in own or (node.operator in SHAPE_OPERATORS and is_inside(node.outputs[0], giver))
            for node in readers.get(tensor, [])
        )

    ends = ("Clip", "Max", "Min", "Floor", "MaxPool")
    found = [n.outputs[0] for n in model.nodes if n.operator in ends and not is_inside(n.outputs[0], n.operator)]
    return found if model.quantiser is not None else [model.input, *found]


def _inputs(a: Source, b: Source) -> tuple[NDArray[Any], bool]:
    for source in (a, b):
        if source.golden is not None:
            return source.golden, source.golden_is_quantised
    random = np.random.default_rng(SEED)
    return random.integers(-128, 128, (SAMPLES, *a.model.input_shape), dtype=np.int32), True


def _run_both(a: IntegerModel, b: IntegerModel, x: NDArray[Any], quantised: bool) -> tuple[Execution, Execution]:
    if (a.quantiser is None) == (b.quantiser is None):
        return a.run(_fitted(x, a), quantised=quantised), b.run(_fitted(x, b), quantised=quantised)
    first, second = (b, a) if a.quantiser is None else (a, b)
    one = first.run(_fitted(x, first), quantised=quantised)
    other = second.run(_fitted(one.tensors[layer_outputs(first)[0]], second))
    return (other, one) if a.quantiser is None else (one, other)


def _fitted(x: NDArray[Any], model: IntegerModel) -> NDArray[Any]:
    """Inputs with the channels of the network that pads fewer, or more."""
    missing = model.input_shape[0] - x.shape[1] if x.shape[2:] == model.input_shape[1:] else 0
    if missing <= 0:
        return x[:, : model.input_shape[0]] if missing else x
    return np.pad(x, [(0, 0), (0, missing), *[(0, 0)] * (x.ndim - 2)])


def _first_difference(a: Source, b: Source, one: Execution, other: Execution) -> tuple[int, Difference | None]:
    if list(one.tensors) == list(other.tensors):
        pairs: list[tuple[str | None, str | None]] = [(name, name) for name in one.tensors]
    else:
        left, right = layer_outputs(a.model), layer_outputs(b.model)
        length = max(len(left), len(right))
        pairs = [(left[i] if i < len(left) else None, right[i] if i < len(right) else None) for i in range(length)]
    for index, (name, twin) in enumerate(pairs):
        arrays = (None if name is None else one.tensors[name], None if twin is None else other.tensors[twin])
        if (found := _differ(_label(a, b, name, twin), (name, twin), *arrays)) is not None:
            return index, found
    if a.model.exit is not None and b.model.exit is not None:
        ends = (a.model.output, b.model.output)
        return len(pairs), _differ("output", ends, one.output, other.output)
    return len(pairs), None


def _differ(
    layer: str, tensors: tuple[str | None, str | None], x: NDArray[Any] | None, y: NDArray[Any] | None
) -> Difference | None:
    """Two tensors as rows of values per sample: a mean's shape differs between the dialects, its values do not.

    Channels that only one of them has are padding, and left out, if they hold one value.
    """
    shapes = tuple(None if array is None else list(array.shape[1:]) for array in (x, y))
    if x is not None and y is not None and x[0, 0].size == y[0, 0].size:
        channels = min(x.shape[1], y.shape[1])
        rest = [array[:, channels:] for array in (x, y) if array.shape[1] > channels]
        if all(np.array_equal(padding, np.broadcast_to(padding.flat[0], padding.shape)) for padding in rest):
            x, y = x[:, :channels], y[:, :channels]
    if x is None or y is None or x[0].size != y[0].size:
        count = max(0 if array is None else array.size for array in (x, y))
        return Difference(layer, tensors, (shapes[0], shapes[1]), count, count, None, 0)
    rows = x.reshape(len(x), -1) != y.reshape(len(y), -1)
    if not rows.any():
        return None
    wide = np.int64 if x.dtype.kind == y.dtype.kind == "i" else np.float64
    apart = np.abs(x.reshape(len(x), -1).astype(wide) - y.reshape(len(y), -1).astype(wide)).max()
    sample = int(rows.any(1).argmax())
    return Difference(layer, tensors, (shapes[0], shapes[1]), int(rows.sum()), rows.size, float(apart), sample)


def _label(a: Source, b: Source, name: str | None, twin: str | None) -> str:
    """The layer of a pair of tensors: as a report names it, else as the tensor of a file for HTVM does, else the node
    that gives it."""
    given = [(a, name), (b, twin)]
    for source, tensor in given:
        if tensor is not None and (layer := _layer_in_report(source, tensor)) is not None:
            return layer
    for _, tensor in given:
        if tensor is not None and "/" in tensor:
            return tensor.rpartition("/")[0].removesuffix("/adc")
    if all(tensor in (None, source.model.input) for source, tensor in given):
        return "input"
    for source, tensor in given:
        for node in source.model.nodes:
            if tensor in node.outputs:
                return node.name
    return str(name or twin)


def _layer_in_report(source: Source, tensor: str) -> str | None:
    """The layer whose output comes at a tensor or next behind it: what is computed on the way belongs to it."""
    names = [node.outputs[0] for node in source.model.nodes]
    behind = [tensor, *(names[names.index(tensor) + 1 :] if tensor in names else [])]
    return next((source.layers[name] for name in behind if name in source.layers), None)
