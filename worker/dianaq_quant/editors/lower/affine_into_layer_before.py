"""An affine map goes into the layer before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from dianaq_quant.editors.lower.disjoint import disjoint
from dianaq_quant.editors.lower.linear import Layer, Norm, affine_outputs
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import bypass, calls, module_of, only_user, set_module, tied_nodes
from dianaq_quant.modules.structure import (
    Affine,
    AvgPool2d,
    Ceiling,
    Flatten,
    GlobalAvgPool2d,
    MaxPool2d,
    Pad2d,
)


@dataclass
class _Way:
    """The nodes from an affine map back to a layer, and what the map is there."""

    nodes: list[fx.Node]
    scale: Tensor
    shift: Tensor


class AffineIntoLayerBefore(Editor):
    """`s * (W x + b) + t -> (s W) x + (s b + t)`, and likewise `gamma`, `beta` of a BatchNorm.

    Also through what stands between, if nothing else reads it: a positive factor without a shift through a ReLU
    (`s * relu(x) = relu(s * x)`; for one value also through a ceiling, which is multiplied), any positive factor
    through max pools, any through averages (a shift only without padding) and flattens of what is the same for a whole
    channel.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        yield from disjoint(self._candidates(network))

    def _candidates(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        tied = tied_nodes(network)
        for node, _ in calls(network, Affine):
            way = _way(network, node)
            if isinstance(way, str):
                yield Rejection(node, way)
                continue
            layer = way.nodes[-1]
            apart = f"became a part of {layer.name}, whose parameters are no longer tied to those of other calls"
            yield Point((node, *way.nodes), apart if layer in tied else "")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        node = point.nodes[0]
        way = _way(network, node)
        assert isinstance(way, _Way)
        for passed in way.nodes[:-1]:
            ceiling = module_of(network, passed)
            if isinstance(ceiling, Ceiling):
                set_module(network, passed, Ceiling(float(ceiling.max_val) * float(way.scale)))
        layer = module_of(network, way.nodes[-1])
        assert layer is not None
        affine_outputs(layer, way.scale, way.shift)
        bypass(network, node)


def _way(network: fx.GraphModule, node: fx.Node) -> _Way | str:
    """The way to the layer that can take an affine map in, or why there is none."""
    affine = module_of(network, node)
    assert isinstance(affine, Affine)
    if affine.dim != 1:
        return f"differs along dimension {affine.dim}, not along the channels"
    way = _Way([], affine.scale, affine.shift)
    reader = node
    while True:
        source = reader.args[0]
        assert isinstance(source, fx.Node)
        module = module_of(network, source)
        if module is None:
            return "no layer before it"
        if only_user(source) is None:
            return f"{source.name} is read elsewhere too"
        way.nodes.append(source)
        if isinstance(module, Layer | Norm):
            return way
        if not _passes(module, source, way):
            return f"{source.name} before it does not let it pass"
        reader = source


def _passes(module: nn.Module, node: fx.Node, way: _Way) -> bool:
    """Whether `affine(module(x)) = module(affine'(x))`; the way then holds affine'."""
    positive, still = bool((way.scale > 0).all()), bool((way.shift == 0).all())
    if isinstance(module, nn.ReLU):
        return positive and still
    if isinstance(module, Ceiling):
        return positive and still and len(way.scale) == 1
    if isinstance(module, MaxPool2d):
        return positive
    if isinstance(module, AvgPool2d | Pad2d):
        padded = any(module.pads) or (isinstance(module, Pad2d) and any(module.channels))
        return not padded or (still and not (isinstance(module, Pad2d) and any(module.channels)))
    if isinstance(module, Flatten):
        source = node.args[0]
        assert isinstance(source, fx.Node)
        return _unflattened(way, source.meta["shape"])
    return isinstance(module, GlobalAvgPool2d)


def _unflattened(way: _Way, shape: tuple[int, ...]) -> bool:
    """Turn one value per element of a flattened map into one per channel, where those of a channel are equal."""
    channels = []
    for values in (way.scale, way.shift):
        if len(values) > 1:
            rows = values.reshape(shape[0], -1)
            if not torch.equal(rows, rows[:, :1].expand_as(rows)):
                return False
            values = rows[:, 0]
        channels.append(values)
    way.scale, way.shift = channels
    return True
