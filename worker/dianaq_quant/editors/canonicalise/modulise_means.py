"""Means over the map, or over the line of a 1-d network, become global average pools."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import fx

from dianaq_quant.editors.canonicalise.traced_call import Call, Chain, key_of, replace
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.modules.layout import over_space
from dianaq_quant.modules.structure import GlobalAvgPool2d


class ModuliseMeans(Editor):
    """`x.mean((2, 3)) -> Flatten()(GlobalAvgPool2d()(x))`, also as `x.mean(3).mean(2)` and `x.flatten(2).mean(2)`.

    What is not averaged over is the channels, wherever they are: `x.mean((1, 2))` of (N, H, W, C) is a mean of a
    rearranged map.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node in network.graph.nodes:
            if _is_mean(network, node) and not _is_half(network, node):
                _read(network, node)
                yield Point((node,))

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        (node,) = point.nodes
        replace(network, node, _read(network, node))


def _read(network: fx.GraphModule, node: fx.Node) -> Chain:
    call = Call(network, node)
    source, dims, _ = _arguments(call)
    size = call.shape(source)
    while _is_mean(network, source) and _is_half(network, source):
        inner, inner_dims, keeps = _arguments(Call(network, source))
        left = [d for d in range(len(call.shape(inner)) + 1) if keeps or d not in inner_dims]
        source, dims = inner, inner_dims | {left[d] for d in dims}
    shape = call.shape(source)
    kept = [d for d in range(len(shape) + 1) if d not in dims]
    if len(shape) < 2 or len(kept) != 2 or kept[0] != 0:
        raise call.refuse(
            f"the mean over dimensions {sorted(dims)} of a tensor (N, {', '.join(map(str, size))}); "
            "the mean over both spatial dimensions, (2, 3), would work"
        )
    return Chain((source,), over_space(shape, kept[1] - 1, tuple(node.meta["shape"]), GlobalAvgPool2d()))


def _is_mean(network: fx.GraphModule, node: fx.Node) -> bool:
    return node.op in ("call_function", "call_method") and key_of(network, node) in ("mean", torch.mean)


def _is_half(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a mean goes over one spatial dimension, and only other means read it."""
    _, dims, _ = _arguments(Call(network, node))
    return len(dims) == 1 and bool(node.users) and all(_is_mean(network, user) for user in node.users)


def _arguments(call: Call) -> tuple[fx.Node, set[int], bool]:
    """The source of a mean, the dimensions it goes over (the batch is 0), and whether they stay as 1."""

    def read(
        input: fx.Node, dim: object = None, keepdim: bool = False, *, dtype: object = None
    ) -> tuple[fx.Node, set[int], bool]:
        dims = (dim,) if isinstance(dim, int) else dim
        rank = len(call.shape(input)) + 1
        if not isinstance(dims, tuple | list) or not all(isinstance(d, int) for d in dims):
            raise call.refuse(f"the mean over dimensions {dim}; over both spatial dimensions, (2, 3), would work")
        return input, {int(d) % rank for d in dims}, keepdim

    # The arguments as fx recorded them are of any type.
    return cast(Callable[..., tuple[fx.Node, set[int], bool]], read)(*call.node.args, **call.node.kwargs)
