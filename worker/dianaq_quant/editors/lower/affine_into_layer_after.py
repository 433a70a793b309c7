"""An affine map goes into the layers after it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn

from dianaq_quant.editors.lower.disjoint import disjoint
from dianaq_quant.editors.lower.linear import Layer, affine_inputs
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import bypass, calls, module_of, set_module, tied_nodes
from dianaq_quant.modules.structure import (
    Affine,
    AvgPool2d,
    Ceiling,
    Conv2d,
    Flatten,
    GlobalAvgPool2d,
    MaxPool2d,
    Pad2d,
)


@dataclass
class _Reach:
    """The layers that read an affine map, with what it is there; the ceilings on the way; every node passed."""

    layers: list[tuple[fx.Node, Tensor, Tensor]] = field(default_factory=list)
    ceilings: list[tuple[fx.Node, float]] = field(default_factory=list)
    passed: list[fx.Node] = field(default_factory=list)


class AffineIntoLayerAfter(Editor):
    """`W (s * x + t) + b -> (W s) x + (W t + b)` in every layer that reads it.

    A shift must meet no zero padding: the padding is around what the map gives. Between the two may stand what lets it
    pass: ReLUs (positive factors without a shift; for one value ceilings, which are divided), max pools (positive
    factors), averages and flattens.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        yield from disjoint(self._candidates(network))

    def _candidates(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        tied = tied_nodes(network)
        for node, affine in calls(network, Affine):
            assert isinstance(affine, Affine)
            reach = _Reach()
            why = _follow(network, node, affine.scale, affine.shift, reach) if affine.dim == 1 else "not per channel"
            if why:
                yield Rejection(node, why)
                continue
            layers = [layer for layer, _, _ in reach.layers]
            names = ", ".join(layer.name for layer in layers)
            apart = f"became a part of {names}, whose parameters are no longer tied to those of other calls"
            yield Point((node, *layers, *reach.passed), apart if tied & set(layers) else "")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        node = point.nodes[0]
        affine, reach = module_of(network, node), _Reach()
        assert isinstance(affine, Affine)
        _follow(network, node, affine.scale, affine.shift, reach)
        for layer, scale, shift in reach.layers:
            module = module_of(network, layer)
            assert module is not None
            affine_inputs(module, scale, shift)
        for passed, factor in reach.ceilings:
            ceiling = module_of(network, passed)
            assert isinstance(ceiling, Ceiling)
            set_module(network, passed, Ceiling(float(ceiling.max_val) / factor))
        bypass(network, node)


def _follow(network: fx.GraphModule, node: fx.Node, scale: Tensor, shift: Tensor, reach: _Reach) -> str:
    """Find every layer that reads a value; why one cannot take the map in, or nothing."""
    for user in node.users:
        module = module_of(network, user)
        if isinstance(module, Layer):
            padded = isinstance(module, Conv2d) and any(module.pads)
            if padded and bool((shift != 0).any()):
                return f"{user.name} pads with zeros, which its shift would move"
            reach.layers.append((user, scale, shift))
            continue
        if module is None or not _passes(module, scale, shift):
            return f"{user.name} reads it, which does not let it pass"
        if isinstance(module, Ceiling):
            reach.ceilings.append((user, float(scale)))
        reach.passed.append(user)
        inner = (scale, shift)
        if isinstance(module, Flatten):
            inner = (_flattened(scale, node.meta["shape"]), _flattened(shift, node.meta["shape"]))
        if why := _follow(network, user, *inner, reach):
            return why
    return "" if node.users else "nothing reads it"


def _passes(module: nn.Module, scale: Tensor, shift: Tensor) -> bool:
    """Whether `module(affine(x)) = affine(module(x))`, but for a ceiling's value and how many values a flatten has."""
    positive, still = bool((scale > 0).all()), bool((shift == 0).all())
    if isinstance(module, nn.ReLU):
        return positive and still
    if isinstance(module, Ceiling):
        return positive and still and len(scale) == 1
    if isinstance(module, MaxPool2d):
        return positive
    if isinstance(module, AvgPool2d):
        return still or not any(module.pads)
    if isinstance(module, Pad2d):
        return still and not any(module.channels)
    return isinstance(module, GlobalAvgPool2d | Flatten)


def _flattened(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """One value per element of a flattened map from one per channel."""
    return values if len(values) == 1 else values.repeat_interleave(torch.Size(shape[1:]).numel())
