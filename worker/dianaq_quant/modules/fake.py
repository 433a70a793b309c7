"""Fake-quantised modules: real numbers that already lie on the grid of their integer range."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dianaq.ranges import QRange
from dianaq_quant.modules.structure import Conv2d, convolve
from dianaq_quant.quantisers import Observer, fake_quantise

Mode = Literal["observe", "bypass", "quantise"]


class Scale(nn.Module):
    """A positive scale. Quantisers that the hardware forces to one scale share one of these."""

    def __init__(self) -> None:
        super().__init__()
        self.value: Tensor
        self.register_buffer("value", torch.ones(()))

    def set(self, value: float) -> None:
        """Set the scale, in units of the tensor it quantises."""
        self.value.fill_(value)

    def get(self) -> float:
        """The scale as a Python number."""
        return float(self.value)


class FakeQuantiser(nn.Module):
    """Quantises an activation, per array; a range that starts at 0 is the ReLU as well.

    Args:
        qrange: integers of the quantised tensor.
        scale: its scale, possibly shared.
        ceiling: real value at which the activation saturates by its definition (6 for ReLU6).

    In mode `observe` it records the (activated) values and lets them pass; in `bypass` it lets them pass.
    """

    def __init__(self, qrange: QRange, scale: Scale | None = None, ceiling: float | None = None) -> None:
        super().__init__()
        self.qrange = qrange
        self.scale = scale or Scale()
        self.ceiling = ceiling
        self.observer = Observer()
        self.mode: Mode = "quantise"

    @property
    def rectifies(self) -> bool:
        """Whether the quantiser is a ReLU too."""
        return self.qrange.lo >= 0

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "quantise":
            return fake_quantise(x, self.scale.value, self.qrange.lo, self.qrange.hi)
        if self.rectifies:
            x = x.clamp(0, self.ceiling)
        if self.mode == "observe":
            self.observer.observe(x)
        return x


class FakeConv2d(Conv2d):
    """A convolution whose weight is fake-quantised per array. Input (N, C_in, H, W)."""

    qrange: QRange
    mode: Mode
    weight_scale: Scale

    def forward(self, input: Tensor) -> Tensor:
        return convolve(input, quantised_weight(self), self.bias, self.geometry)


class FakeLinear(nn.Linear):
    """A fully connected layer whose weight is fake-quantised per array. Input (N, C_in)."""

    qrange: QRange
    mode: Mode
    weight_scale: Scale

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, quantised_weight(self), self.bias)


FakeLinearOp = FakeConv2d | FakeLinear


def quantised_weight(module: FakeLinearOp) -> Tensor:
    """The weight as the layer's integer range represents it; the real one unless the mode is `quantise`."""
    if module.mode != "quantise":
        return module.weight
    return fake_quantise(module.weight, module.weight_scale.value, module.qrange.lo, module.qrange.hi)


def fake_linear_op(module: Conv2d | nn.Linear, qrange: QRange) -> FakeLinearOp:
    """The fake-quantised counterpart of a float layer; it takes over the layer's parameters."""
    new: FakeLinearOp
    if isinstance(module, Conv2d):
        new = FakeConv2d.__new__(FakeConv2d)
    else:
        new = FakeLinear.__new__(FakeLinear)
    new.__dict__.update(module.__dict__)
    new._parameters = dict(module._parameters)
    new._modules = dict(module._modules)
    new.qrange = qrange
    new.weight_scale = Scale()
    new.mode = "quantise"
    return new


def set_mode(network: nn.Module, mode: Mode) -> None:
    """Put every quantiser of a network into a mode; `observe` starts new observers."""
    for module in network.modules():
        if isinstance(module, FakeQuantiser):
            module.mode = mode
            if mode == "observe":
                module.observer = Observer()
        elif isinstance(module, FakeConv2d | FakeLinear):
            module.mode = mode
