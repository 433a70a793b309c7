"""Anomaly detection by reconstruction."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from dianaq.errors import InvalidSpec
from dianaq_quant.zoo.common import Shape, scaled

HIDDEN = (128, 128, 128, 128, 8, 128, 128, 128, 128)
"""Sizes of the hidden layers (MLPerf Tiny's anomaly detection, after the DCASE 2020 baseline, without BatchNorm)."""


class Autoencoder(nn.Module):
    """Fully connected layers through a bottleneck of 8, whatever the width, back to the input's size."""

    def __init__(self, features: int, width: float) -> None:
        super().__init__()
        sizes = [features, *(h if h == min(HIDDEN) else scaled(h, width) for h in HIDDEN), features]
        parts: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            parts += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.net = nn.Sequential(*parts[:-1])

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.net(x)
        return result


def autoencoder(input_shape: Shape, classes: int, width: float) -> nn.Module:
    (features,) = input_shape
    if classes != features:
        raise InvalidSpec(
            f"an autoencoder gives its input again: classes must be its {features} features, not {classes}",
            param="classes",
        )
    return Autoencoder(features, width)
