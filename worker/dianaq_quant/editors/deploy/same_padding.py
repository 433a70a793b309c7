"""Kernels get the form that both compilers take: dense, odd, and padded alike on all sides."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx

from dianaq_quant.editors.deploy.kernels import Kernel, keeps_row_tiles, replace_kernel
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, module_of
from dianaq_quant.modules.integer import IntegerAnalogConv2d, IntegerConv2d
from dianaq_quant.modules.structure import Geometry
from dianaq_quant.targets.diana import KERNEL_SIZES


class SamePadding(Editor):
    """`W * pad(x; before, after) -> W' * pad(x; p, p)` with W' of size 2p + 1, W amid zeros.

    Of use where padding differs between the sides (a stride of 2 over an even map), where the kernel's size is even,
    and where it is dilated. The compilers take a padding that is not "same" without a word, and compute something else.

    Args:
        square: kernels must be square.
    """

    def __init__(self, *, square: bool) -> None:
        self.square = square

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for node, module in calls(network, IntegerConv2d, IntegerAnalogConv2d):
            assert isinstance(module, IntegerConv2d | IntegerAnalogConv2d)
            kernel = Kernel.of(module)
            p = self._padding(kernel)
            size = (2 * p[0] + 1, 2 * p[1] + 1)
            if kernel.pads_before == kernel.pads_after == p and kernel.size == size:
                continue
            source, shape = node.all_input_nodes[0].meta["shape"][1:], node.meta["shape"][1:]
            after = tuple(-(-extent // stride) for extent, stride in zip(source, kernel.stride, strict=True))
            if after != shape:
                yield Rejection(node, f"padded alike on all sides, its map would be {after}, not {shape}")
            elif not set(size) <= set(KERNEL_SIZES):
                yield Rejection(node, f"its kernel would be {size}; sizes of {KERNEL_SIZES} are taken")
            elif not keeps_row_tiles(module, size):
                yield Rejection(node, f"the rows of a {size} kernel would be spread over more arrays")
            else:
                yield Point((node,), f"kernel {kernel.size} to {size}, padded by {p} on both sides")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        module = module_of(network, point.nodes[0])
        assert isinstance(module, IntegerConv2d | IntegerAnalogConv2d)
        kernel = Kernel.of(module)
        (down, right), (top, left), apart = self._padding(kernel), kernel.pads_before, kernel.dilation
        weight = torch.zeros(*module.weight.shape[:2], 2 * down + 1, 2 * right + 1, dtype=module.weight.dtype)
        weight[:, :, down - top :: apart[0], right - left :: apart[1]][:, :, : kernel.size[0], : kernel.size[1]] = (
            module.weight
        )
        geometry = Geometry(kernel.stride, (down, right, down, right), (1, 1), module.geometry.groups)
        replace_kernel(module, weight, geometry)

    def _padding(self, kernel: Kernel) -> tuple[int, int]:
        """The least padding p, the same on both sides, whose kernel of 2p + 1 reaches as far as this one both ways."""
        down, right = (
            max(before, (size - 1) * apart - before)
            for size, before, apart in zip(kernel.size, kernel.pads_before, kernel.dilation, strict=True)
        )
        return (max(down, right), max(down, right)) if self.square else (down, right)
