"""The network's input where firmware feeds pixels: `q = pixel - 128`, normalised by the first layer and not before.

A normalised value is `x = step_c q + origin_c`, per channel c. Training and evaluation go on giving normalised values;
what is here turns them back into q, so that everything after it computes what the chip does with pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dianaq.schemas.quantisers import QuantiserSpec
from dianaq_quant.modules.quantiser import FakeQuantiser
from dianaq_quant.modules.structure import more_channels
from dianaq_quant.quantisers.functions import floor_clip
from dianaq_quant.targets.diana import INT8

ZERO = 128
"""The pixel that becomes 0: uint8's 0..255 then is int8's -128..127."""


@dataclass(frozen=True)
class PixelGrid:
    """Real value of a pixel's step, and of pixel 128, per channel; or one of each, for all.

    Args:
        spatial: dimensions of the input after the channel's: 2 for images, 0 for vectors.
    """

    steps: tuple[float, ...]
    origins: tuple[float, ...]
    spatial: int

    @property
    def scale(self) -> float:
        """The one step that the first layer sees; its weights make up for the channels' own."""
        return max(self.steps)

    @property
    def zeros(self) -> tuple[float, ...]:
        """The pixel, mostly a fraction, that is normalised to 0."""
        return tuple(ZERO - origin / step for origin, step in zip(self.origins, self.steps, strict=True))

    @property
    def padding_error(self) -> float:
        """Steps between what zero padding means to the float network and to the one that is fed pixels."""
        return max(abs(ZERO - zero) for zero in self.zeros)

    def constants(self) -> tuple[Tensor, Tensor]:
        """Steps and origins in float32, in shapes that broadcast over a batch."""
        shape = (-1, *[1] * self.spatial)
        return torch.tensor(self.steps).reshape(shape), torch.tensor(self.origins).reshape(shape)


class PixelQuantiser(FakeQuantiser):
    """`x -> scale * q` with `q = clip(floor((x - origin_c) / step_c + 1/2), -128, 127)`: exact for every pixel.

    Its scale is fixed, as that of a saturating activation is: pixel 255 is 127 by definition.
    """

    step: Tensor
    origin: Tensor

    def __init__(self, spec: QuantiserSpec, grid: PixelGrid) -> None:
        fixed = spec.model_copy(update={"function": "ste"})  # nothing is learned of it
        super().__init__(fixed, INT8, ceiling=INT8.hi * grid.scale)
        self.grid = grid
        step, origin = grid.constants()
        self.register_buffer("step", step)
        self.register_buffer("origin", origin)
        self.scale.set(grid.scale)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - self.origin) / self.step * self.grid.scale)


class PixelInput(torch.nn.Module):
    """`x -> clip(floor((x - origin_c) / step_c + 1/2), -128, 127)`: of the exact network, and of the integer one."""

    step: Tensor
    origin: Tensor

    def __init__(self, grid: PixelGrid) -> None:
        super().__init__()
        self.grid, self.scale, self.qrange = grid, grid.scale, INT8
        self.padding = 0
        """Channels of zeros that follow those of the input."""
        step, origin = grid.constants()
        self.register_buffer("step", step)
        self.register_buffer("origin", origin)

    def forward(self, x: Tensor) -> Tensor:
        q = floor_clip((x - self.origin) / self.step + 0.5, self.qrange.lo, self.qrange.hi)
        return more_channels(q, self.padding)
