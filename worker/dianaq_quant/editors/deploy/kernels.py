"""Kernels of convolutions on either core, and their replacement by others that compute the same."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dianaq_quant.modules.adc import RowTiles
from dianaq_quant.modules.integer import IntegerAnalogConv2d, IntegerConv2d
from dianaq_quant.modules.structure import Geometry

IntegerConvolution = IntegerConv2d | IntegerAnalogConv2d


@dataclass(frozen=True)
class Kernel:
    """Height and width of a kernel, and how it lies on the map; (vertical, horizontal) each."""

    size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads_before: tuple[int, int]
    pads_after: tuple[int, int]

    @classmethod
    def of(cls, module: IntegerConvolution) -> Kernel:
        """The kernel of a layer."""
        height, width = module.weight.shape[2:]
        geometry, (top, left, bottom, right) = module.geometry, module.geometry.pads
        return cls((height, width), geometry.stride, geometry.dilation, (top, left), (bottom, right))


def keeps_row_tiles(module: IntegerConvolution, kernel: tuple[int, int], in_channels: int | None = None) -> bool:
    """Whether another kernel or more input channels leave an analog layer on the one array that it is on.

    Each row tile has a conversion of its own, so that other tiles would give other numbers.
    """
    if not isinstance(module, IntegerAnalogConv2d):
        return True
    try:
        tiles = RowTiles.of(in_channels or module.weight.shape[1], kernel)
    except ValueError:
        return False
    return module.tiles.count == tiles.count == 1


def replace_kernel(module: IntegerConvolution, weight: Tensor, geometry: Geometry) -> None:
    """Another weight and geometry, in place; the caller has made sure that an analog layer keeps its row tiles."""
    module.weight, module.geometry = weight, geometry
    if isinstance(module, IntegerAnalogConv2d):
        module.tiles = RowTiles.of(weight.shape[1], (weight.shape[2], weight.shape[3]))
