"""Small networks of every kind that the chip computes, written as people write them in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dianaq.schemas.spec import TaskName

CLASSES = 5
IMAGE = (3, 8, 8)


@dataclass(frozen=True)
class Written:
    """A network, and the shape of one sample that it takes."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = IMAGE
    dropped: Callable[[Tensor], Tensor] | None = None
    """What the network ends in and the import leaves out."""
    task: TaskName = "classification"

    def module(self) -> nn.Module:
        """In evaluation mode, with BatchNorm statistics as of a trained network; the same each time."""
        torch.manual_seed(7)
        module = self.make()
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                assert part.running_mean is not None
                assert part.running_var is not None
                nn.init.normal_(part.running_mean, 0, 0.3)
                nn.init.uniform_(part.running_var, 0.5, 2)
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, 0, 0.3)
        return module.eval()


class Calls(nn.Module):
    """A body of modules, and a function of both the body and the input."""

    def __init__(self, forward: Callable[[Calls, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.function = forward

    def __getitem__(self, name: str) -> nn.Module:
        return self.parts[name]

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def block(channels: int, outputs: int, stride: int = 1, kernel: int = 3, groups: int = 1) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU."""
    conv = nn.Conv2d(channels, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def head(channels: int) -> list[nn.Module]:
    """Global average, and the classes."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]


def plain() -> nn.Module:
    return nn.Sequential(block(3, 8), block(8, 12, stride=2), nn.Dropout(0.2), *head(12))


def ended(end: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(block(3, 8), *head(8), end)


class Residual(nn.Module):
    """Two blocks whose shortcuts are the identity and a 1 x 1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8)
        self.first = nn.Sequential(block(8, 8), nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.second = nn.Sequential(block(8, 16, 2), nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
        self.shortcut = nn.Conv2d(8, 16, 1, 2)
        self.classes = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x + self.first(x))
        x = F.relu(self.second(x) + self.shortcut(x))
        return self.classes(x.mean((2, 3)))  # type: ignore[no-any-return]


class OptionA(nn.Module):
    """The shortcut of He et al. (2016) that has no weights: every second pixel, and channels of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8)
        self.body = nn.Sequential(block(8, 16, 2), nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
        self.classes = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(self.body(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)))
        return self.classes(F.adaptive_avg_pool2d(x, 1).flatten(1))  # type: ignore[no-any-return]


def separable() -> nn.Module:
    def pair(channels: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(block(channels, channels, groups=channels), block(channels, outputs, kernel=1))

    return nn.Sequential(block(3, 8, stride=2), pair(8, 12), pair(12, 12), *head(12))


def padded() -> nn.Module:
    conv = nn.Conv2d(3, 8, 3, 2)
    return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), conv, nn.ReLU(), nn.ZeroPad2d(1), nn.Conv2d(8, 8, 3), *head(8))


def padded_by_function() -> nn.Module:
    return Calls(
        lambda net, x: net["tail"](F.pad(net["stem"](F.pad(x, (1, 2, 1, 2))), (1, 1, 1, 1))),
        stem=nn.Sequential(nn.Conv2d(3, 8, 4), nn.ReLU()),
        tail=nn.Sequential(nn.MaxPool2d(2), *head(8)),
    )


def pooled() -> nn.Module:
    return nn.Sequential(
        block(3, 8), nn.MaxPool2d(3, 2, 1), block(8, 8), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(32, CLASSES)
    )


def ceil_mode() -> nn.Module:
    return nn.Sequential(block(3, 8), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(8, 8, 3), nn.ReLU(), *head(8))


def averaged_without_padding() -> nn.Module:
    pool = nn.AvgPool2d(2, 2, count_include_pad=False)
    return nn.Sequential(block(3, 8), pool, block(8, 8), *head(8))


def global_maximum(forward: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: Calls(
        lambda net, x: net["classes"](forward(net["stem"](x)).flatten(1)),
        stem=block(3, 8),
        classes=nn.Linear(8, CLASSES),
    )


def relu6() -> nn.Module:
    conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 8, 1), nn.ReLU6(), *head(8))


def clamped() -> nn.Module:
    return Calls(
        lambda net, x: net["tail"](net["stem"](x).clamp(0, 4)),
        stem=nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)),
        tail=nn.Sequential(nn.Conv2d(8, 8, 1), nn.Hardtanh(0.0, 3.0), *head(8)),
    )


def connected() -> nn.Module:
    return nn.Sequential(
        nn.Linear(20, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 5)
    )


def temporal() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv1d(3, 8, 5, padding=2, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2)),
        *(nn.Conv1d(8, 8, 3, dilation=2, padding=2), nn.ReLU(), nn.Conv1d(8, 8, 3, groups=8), nn.ReLU()),
        *(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, CLASSES)),
    )


def flattened(flatten: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: Calls(
        lambda net, x: net["classes"](flatten(net["stem"](x))),
        stem=nn.Sequential(block(3, 8, 2), nn.MaxPool2d(2)),
        classes=nn.Linear(32, CLASSES),
    )


class Normalised(nn.Module):
    """Takes 0 to 255: `((x / 255) - mean) / std` is part of the network.

    Its buffers have names of their own: where one is called as an operator is, `mean`, torch's exporter without its
    optimiser writes a file in which two tensors have that name, which no reader takes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.tensor([0.49, 0.48, 0.45]).reshape(1, 3, 1, 1))
        self.register_buffer("spread", torch.tensor([0.25, 0.24, 0.26]).reshape(1, 3, 1, 1))
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), *head(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.body((x / 255 - self.centre) / self.spread)  # type: ignore[no-any-return]


def scaled() -> nn.Module:
    return Calls(
        lambda net, x: net["tail"](net["stem"](x * 0.5) * 1.25 + 0.5),
        stem=block(3, 8),
        tail=nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), *head(8)),
    )


def without_channels() -> nn.Module:
    body = nn.Sequential(block(1, 8, 2), *head(8))
    return Calls(lambda net, x: net["body"](x.unsqueeze(1)), body=body)


def channels_last() -> nn.Module:
    body = nn.Sequential(block(3, 8, 2), *head(8))
    return Calls(lambda net, x: net["body"](x.permute(0, 3, 1, 2)), body=body)


def channels_last_in_memory() -> nn.Module:
    return plain().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def convolutions_alone() -> nn.Module:
    return nn.Sequential(block(3, 8), nn.Conv2d(8, 4, 1))


NETWORKS: dict[str, Written] = {
    "plain": Written(plain),
    "residual": Written(Residual),
    "option_a": Written(OptionA),
    "separable": Written(separable),
    "padded": Written(padded),
    "padded_by_function": Written(padded_by_function),
    "pooled": Written(pooled),
    "ceil_mode": Written(ceil_mode),
    "averaged_without_padding": Written(averaged_without_padding),
    "adaptive_max": Written(global_maximum(lambda x: F.adaptive_max_pool2d(x, 1))),
    "amax": Written(global_maximum(lambda x: x.amax((2, 3)))),
    "relu6": Written(relu6),
    "clamped": Written(clamped),
    "connected": Written(connected, (20,)),
    "temporal": Written(temporal, (3, 24)),
    "view": Written(flattened(lambda x: x.view(x.size(0), -1))),
    "reshape": Written(flattened(lambda x: x.reshape(x.shape[0], -1))),
    "reshape_to_numbers": Written(flattened(lambda x: x.view(-1, x.shape[1] * x.shape[2] * x.shape[3]))),
    "flatten": Written(flattened(lambda x: torch.flatten(x, 1))),
    "normalised": Written(Normalised),
    "scaled": Written(scaled),
    "without_channels": Written(without_channels, (8, 8)),
    "channels_last": Written(channels_last, (8, 8, 3)),
    "channels_last_in_memory": Written(channels_last_in_memory),
    "convolutions_alone": Written(convolutions_alone, task="imitation"),
    "softmax": Written(ended(nn.Softmax(1)), dropped=lambda y: y.softmax(1)),
    "log_softmax": Written(ended(nn.LogSoftmax(1)), dropped=lambda y: y.log_softmax(1)),
    "sigmoid": Written(ended(nn.Sigmoid()), dropped=torch.sigmoid),
}
"""By what is particular about each."""
