"""Every n-th row and column of a map: a convolution with that stride."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from dianaq_quant.editors.lower.selection import selection
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import bypass, calls, module_of, only_user, set_module
from dianaq_quant.modules.structure import Pad2d, Slice2d


class SliceToLayer(Editor):
    """`x[:, :, a::s, b::s] -> conv(x)` with one weight 1 at (a, b), stride s; channels of zeros after it included.

    With `pad(x[:, :, ::2, ::2])` that is a residual network's shortcut without parameters ("option A" of He et al.,
    Deep Residual Learning, 2016): a 1x1 convolution. A slice that leaves out more than a stride does stays raw.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, piece in calls(network, Slice2d):
            source = node.args[0]
            assert isinstance(source, fx.Node)
            assert isinstance(piece, Slice2d)
            size = source.meta["shape"][1:]
            if not strides(piece, size):
                yield Rejection(node, f"leaves out a part of the map of {size}")
                continue
            pad = _channels_after(network, node)
            yield Point((node,) if pad is None else (node, pad), "became a convolution with its stride")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        node, *pads = point.nodes
        piece = module_of(network, node)
        assert isinstance(piece, Slice2d)
        before, after = 0, 0
        for pad in pads:
            module = module_of(network, pad)
            assert isinstance(module, Pad2d)
            before, after = module.channels
            bypass(network, pad)
        channels = node.meta["shape"][0]
        kernel = (piece.start[0] + 1, piece.start[1] + 1)
        conv = selection(channels, before=before, after=after, kernel=kernel, tap=piece.start, stride=piece.step)
        node.meta["inserted"], node.meta["shape"] = True, (before + channels + after, *piece.size)
        set_module(network, node, conv)


def strides(piece: Slice2d, size: tuple[int, ...]) -> bool:
    """Whether a slice takes every step-th place from within its first step to the end of a map of that size."""
    return all(
        start < step and got == -(-(whole - start) // step)
        for start, step, got, whole in zip(piece.start, piece.step, piece.size, size, strict=True)
    )


def _channels_after(network: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The padding of channels alone that a node's only reader is, if it is."""
    user = only_user(node)
    pad = module_of(network, user) if user else None
    return user if isinstance(pad, Pad2d) and any(pad.channels) and not any(pad.pads) else None
