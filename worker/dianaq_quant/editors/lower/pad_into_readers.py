"""Zero padding goes into the convolutions and pools that read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import fx, nn

from dianaq_quant.editors.canonicalise.average_pool_to_conv import non_negative
from dianaq_quant.editors.lower.disjoint import disjoint
from dianaq_quant.editors.lower.merge_pads import summed
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import bypass, calls, module_of
from dianaq_quant.modules.structure import AvgPool2d, Ceiling, Conv2d, MaxPool2d, Pad2d, Pads


@dataclass
class _Readers:
    """What reads a padded map: those that take the padding in, and the activations passed on the way."""

    takers: list[fx.Node] = field(default_factory=list)
    passed: list[fx.Node] = field(default_factory=list)


class PadIntoReaders(Editor):
    """`conv(pad(x, p); q) -> conv(x; p + q)`, if everything that reads the padded map can take it in.

    Average pools count their padding as zeros. A max pool's never wins, which is the same for what is not negative.
    ReLUs and ceilings give 0 for 0, so that they may stand between. Padding stays narrower than the kernel, as the
    compilers want it.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        yield from disjoint(self._candidates(network))

    def _candidates(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, pad in calls(network, Pad2d):
            assert isinstance(pad, Pad2d)
            source, readers = node.args[0], _Readers()
            assert isinstance(source, fx.Node)
            why = (
                "pads channels"
                if any(pad.channels)
                else _follow(network, node, pad.pads, readers, rectified=non_negative(network, source))
            )
            if why:
                yield Rejection(node, why)
            else:
                yield Point((node, *readers.takers, *readers.passed))

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        node = point.nodes[0]
        pad, source, readers = module_of(network, node), node.args[0], _Readers()
        assert isinstance(pad, Pad2d)
        assert isinstance(source, fx.Node)
        _follow(network, node, pad.pads, readers, rectified=non_negative(network, source))
        for taker in readers.takers:
            module = module_of(network, taker)
            assert isinstance(module, Conv2d | AvgPool2d | MaxPool2d)
            module.pads = summed(module.pads, pad.pads)
        for passed in readers.passed:
            passed.meta["shape"] = source.meta["shape"]
        bypass(network, node)


def _follow(network: fx.GraphModule, node: fx.Node, pads: Pads, readers: _Readers, *, rectified: bool) -> str:
    """Find everything that reads a padded map; why one cannot take the padding in, or nothing."""
    for user in node.users:
        module = module_of(network, user)
        if isinstance(module, nn.ReLU | Ceiling):
            readers.passed.append(user)
            if why := _follow(network, user, pads, readers, rectified=True):
                return why
        elif isinstance(module, Conv2d | AvgPool2d | MaxPool2d):
            if why := _refusal(module, pads, rectified):
                return f"{user.name} {why}"
            readers.takers.append(user)
        else:
            return f"{user.name} reads it, which pads nothing"
    return "" if node.users else "nothing reads it"


def _refusal(module: Conv2d | AvgPool2d | MaxPool2d, pads: Pads, rectified: bool) -> str:
    if isinstance(module, MaxPool2d) and not rectified:
        return "takes the maximum with zeros, of values that may be negative; its own padding never wins"
    if isinstance(module, MaxPool2d) and any(module.pads):
        return "has padding of its own, around the zeros"
    if isinstance(module, Conv2d):
        geometry, size = module.geometry, module.kernel_size
        extent = [d * (k - 1) + 1 for d, k in zip(geometry.dilation, size, strict=True)]
    else:
        extent = list(module.kernel)
    if any(p >= e for p, e in zip(summed(module.pads, pads), extent * 2, strict=True)):
        return f"has a kernel that spans {tuple(extent)}, no more than the padding"
    return ""
