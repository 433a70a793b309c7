"""Networks of depthwise and pointwise convolutions."""

from __future__ import annotations

from torch import Tensor, nn

from dianaq_quant.zoo.common import Shape, head, layer, scaled

V1 = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1)),
)
"""Channels and stride of each separable convolution (Howard et al., 2017, table 1)."""

V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, repeats and first stride of each stage (Sandler et al., 2018, table 2)."""

V2_LAST = 1280
"""Channels before the classifier. Widths below 1 leave them alone (Sandler et al., 2018, section 4)."""


class MobileNetV1(nn.Module):
    """Howard et al., 2017. MLPerf Tiny's visual wake words is width 0.25 on (3, 96, 96)."""

    def __init__(self, inputs: int, classes: int, width: float) -> None:
        super().__init__()
        channels = scaled(32, width)
        parts = [*layer(inputs, channels, stride=2), nn.ReLU()]
        for outputs, stride in V1:
            parts += separable(channels, scaled(outputs, width), stride)
            channels = scaled(outputs, width)
        self.net = nn.Sequential(*parts, *head(channels, classes))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.net(x)
        return result


def separable(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    """A depthwise 3x3 convolution and a pointwise one."""
    depthwise = [*layer(inputs, inputs, stride=stride, groups=inputs), nn.ReLU()]
    return [*depthwise, *layer(inputs, outputs, 1), nn.ReLU()]


class InvertedResidual(nn.Module):
    """Expand, filter depthwise, project without activation; added to the input where the shape is the same."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [] if expansion == 1 else [*layer(inputs, hidden, 1), nn.ReLU6()]
        depthwise = [*layer(hidden, hidden, stride=stride, groups=hidden), nn.ReLU6()]
        self.res = nn.Sequential(*expand, *depthwise, *layer(hidden, outputs, 1))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.res(x) if self.adds else self.res(x)
        return result


class MobileNetV2(nn.Module):
    """Sandler et al., 2018."""

    def __init__(self, inputs: int, classes: int, width: float) -> None:
        super().__init__()
        channels = scaled(32, width)
        parts: list[nn.Module] = [*layer(inputs, channels, stride=2), nn.ReLU6()]
        for expansion, stage, repeats, stride in V2:
            outputs = scaled(stage, width)
            for index in range(repeats):
                parts.append(InvertedResidual(channels, outputs, stride if index == 0 else 1, expansion))
                channels = outputs
        last = scaled(V2_LAST, max(1.0, width))
        self.net = nn.Sequential(*parts, *layer(channels, last, 1), nn.ReLU6(), *head(last, classes))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.net(x)
        return result


def mobilenet_v1(input_shape: Shape, classes: int, width: float) -> nn.Module:
    return MobileNetV1(input_shape[0], classes, width)


def mobilenet_v2(input_shape: Shape, classes: int, width: float) -> nn.Module:
    return MobileNetV2(input_shape[0], classes, width)
