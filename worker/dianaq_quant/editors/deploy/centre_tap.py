"""A kernel that sees one pixel becomes a 1 x 1 kernel."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from dianaq_quant.editors.deploy.kernels import Kernel, keeps_row_tiles, replace_kernel
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, module_of
from dianaq_quant.modules.integer import IntegerAnalogConv2d, IntegerConv2d
from dianaq_quant.modules.structure import Geometry


class CentreTap(Editor):
    """`W * x -> W[..., i, j] x` on a map of 1 x 1, where (i, j) is the one tap that meets the pixel.

    The others only meet padding. DORY ends without an error and without code when it has to tile a layer whose map is
    smaller than its kernel.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, module in calls(network, IntegerConv2d, IntegerAnalogConv2d):
            assert isinstance(module, IntegerConv2d | IntegerAnalogConv2d)
            kernel = Kernel.of(module)
            source = node.all_input_nodes[0].meta["shape"][1:]
            if kernel.size == (1, 1):
                continue
            if (source, node.meta["shape"][1:]) != ((1, 1), (1, 1)):
                yield Rejection(node, f"its map is {source[0]} x {source[1]}")
            elif (tap := _tap(kernel)) is None:
                yield Rejection(node, "no tap of its kernel meets the pixel")
            elif not keeps_row_tiles(module, (1, 1)):
                yield Rejection(node, "its rows would be spread over fewer arrays")
            else:
                yield Point((node,), f"{kernel.size[0]} x {kernel.size[1]} kernel to its tap {tap}")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        module = module_of(network, point.nodes[0])
        assert isinstance(module, IntegerConv2d | IntegerAnalogConv2d)
        tap = _tap(Kernel.of(module))
        assert tap is not None
        weight = module.weight[:, :, tap[0] : tap[0] + 1, tap[1] : tap[1] + 1].contiguous()
        replace_kernel(module, weight, Geometry((1, 1), (0, 0, 0, 0), (1, 1), module.geometry.groups))


def _tap(kernel: Kernel) -> tuple[int, int] | None:
    """Where the kernel meets the pixel: the pixel lies `pad` places after the kernel's first tap."""
    places = [divmod(pad, apart) for pad, apart in zip(kernel.pads_before, kernel.dilation, strict=True)]
    inside = [place < size for (place, _), size in zip(places, kernel.size, strict=True)]
    if any(rest for _, rest in places) or not all(inside):
        return None
    return places[0][0], places[1][0]
