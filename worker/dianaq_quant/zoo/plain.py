"""Chains of convolutions and fully connected layers without BatchNorm."""

from __future__ import annotations

from torch import Tensor, nn

from dianaq_quant.zoo.common import Shape, scaled


class LeNet5(nn.Module):
    """LeCun et al., 1998, with ReLU and max pools for the sigmoids and averages of its time.

    The first convolution pads by 2: on (1, 28, 28) it gives the 28 x 28 that the paper gets from 32 x 32.
    """

    def __init__(self, input_shape: Shape, classes: int, width: float) -> None:
        super().__init__()
        inputs, *size = input_shape
        rows, columns = ((s // 2 - 4) // 2 for s in size)
        a, b, c, d = (scaled(channels, width) for channels in (6, 16, 120, 84))
        self.features = nn.Sequential(
            *(nn.Conv2d(inputs, a, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(a, b, 5), nn.ReLU(), nn.MaxPool2d(2)),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            *(nn.Linear(b * rows * columns, c), nn.ReLU()),
            *(nn.Linear(c, d), nn.ReLU()),
            nn.Linear(d, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.classifier(self.features(x))
        return result


class CifarNet(nn.Module):
    """Three 5x5 convolutions, each halved by a max pool, and one fully connected layer.

    The layer sizes of cuda-convnet's quick CIFAR-10 network (Krizhevsky, 2012), with max pools throughout.
    """

    def __init__(self, input_shape: Shape, classes: int, width: float) -> None:
        super().__init__()
        inputs, *size = input_shape
        rows, columns = (s // 8 for s in size)
        a, b, c = (scaled(channels, width) for channels in (32, 32, 64))
        self.features = nn.Sequential(
            *(nn.Conv2d(inputs, a, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(b, c, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        )
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(c * rows * columns, classes))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.classifier(self.features(x))
        return result


def lenet5(input_shape: Shape, classes: int, width: float) -> nn.Module:
    return LeNet5(input_shape, classes, width)


def cifarnet(input_shape: Shape, classes: int, width: float) -> nn.Module:
    return CifarNet(input_shape, classes, width)
