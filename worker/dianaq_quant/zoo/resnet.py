"""Residual networks for small images (He et al., 2016, "Deep Residual Learning for Image Recognition", 4.2)."""

from __future__ import annotations

from torch import Tensor, nn

from dianaq_quant.zoo.common import Shape, head, layer, scaled

STAGES = (16, 32, 64)
"""Channels of the three stages; the second and third begin with stride 2."""


class Block(nn.Module):
    """`relu(res(x) + skip(x))`, with a 1x1 convolution as the skip where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.res = nn.Sequential(*layer(inputs, outputs, stride=stride), nn.ReLU(), *layer(outputs, outputs))
        same = stride == 1 and inputs == outputs
        self.skip = nn.Sequential() if same else nn.Sequential(*layer(inputs, outputs, 1, stride=stride))
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.act(self.skip(x) + self.res(x))
        return result


class ResNet8(nn.Module):
    """One block per stage (MLPerf Tiny's image classification)."""

    def __init__(self, inputs: int, classes: int, width: float) -> None:
        super().__init__()
        a, b, c = (scaled(channels, width) for channels in STAGES)
        self.net = nn.Sequential(
            *layer(inputs, a), nn.ReLU(), Block(a, a, 1), Block(a, b, 2), Block(b, c, 2), *head(c, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.net(x)
        return result


class BasicBlock(nn.Module):
    """`relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))`; the first convolution has a bias."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = layer(outputs, outputs)
        self.act = nn.ReLU()
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Sequential() if same else nn.Sequential(*layer(inputs, outputs, 1, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn1(self.conv1(x)))
        result: Tensor = self.act(self.bn2(self.conv2(y)) + self.shortcut(x))
        return result


class ResNet20(nn.Module):
    """Three blocks per stage; the first convolution has a bias."""

    def __init__(self, inputs: int, classes: int, width: float) -> None:
        super().__init__()
        a, b, c = (scaled(channels, width) for channels in STAGES)
        self.conv1 = nn.Conv2d(inputs, a, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(a)
        self.act = nn.ReLU()
        self.layer1 = _stage(a, a, 1)
        self.layer2 = _stage(a, b, 2)
        self.layer3 = _stage(b, c, 2)
        self.avgpool, self.flatten, self.linear = head(c, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        result: Tensor = self.linear(self.flatten(self.avgpool(x)))
        return result


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1), BasicBlock(outputs, outputs, 1)
    )


def resnet8(input_shape: Shape, classes: int, width: float) -> nn.Module:
    return ResNet8(input_shape[0], classes, width)


def resnet20(input_shape: Shape, classes: int, width: float) -> nn.Module:
    return ResNet20(input_shape[0], classes, width)
