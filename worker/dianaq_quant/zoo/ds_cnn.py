"""Keyword spotting by depthwise separable convolutions (Zhang et al., 2017, "Hello Edge")."""

from __future__ import annotations

from torch import Tensor, nn

from dianaq_quant.zoo.common import Shape, head, layer, scaled
from dianaq_quant.zoo.mobilenet import separable


class DsCnn(nn.Module):
    """MLPerf Tiny's keyword spotting: a 10x4 convolution of stride 2 over the spectrogram, 4 separable convolutions.

    The spectrogram is (1, MFCC, frames) or (1, frames, MFCC): the kernel is 10 high and 4 wide whichever it is.
    """

    def __init__(self, inputs: int, classes: int, width: float) -> None:
        super().__init__()
        channels = scaled(64, width)
        parts = [*layer(inputs, channels, (10, 4), stride=2, padding=(5, 1)), nn.ReLU()]
        for _ in range(4):
            parts += separable(channels, channels, 1)
        self.net = nn.Sequential(*parts, nn.Dropout(0.4), *head(channels, classes))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.net(x)
        return result


def ds_cnn(input_shape: Shape, classes: int, width: float) -> nn.Module:
    return DsCnn(input_shape[0], classes, width)
