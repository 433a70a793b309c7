"""Fake-quantised layers: real numbers whose weights already lie on the grid of their integer range."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from dianaq_quant.modules.adc import Adc, RowTiles
from dianaq_quant.modules.quantiser import FakeQuantiser, Mode, Scale, WeightQuantiser
from dianaq_quant.modules.structure import Conv2d, convolve
from dianaq_quant.quantisers import Observer


class FakeConv2d(Conv2d):
    """A convolution whose weight is fake-quantised. Input (N, C_in, H, W)."""

    mode: Mode
    quantiser: WeightQuantiser

    def forward(self, input: Tensor) -> Tensor:
        return convolve(input, quantised_weight(self), self.bias, self.geometry)


class FakeLinear(nn.Linear):
    """A fully connected layer whose weight is fake-quantised. Input (N, C_in)."""

    mode: Mode
    quantiser: WeightQuantiser

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, quantised_weight(self), self.bias)


FakeLinearOp = FakeConv2d | FakeLinear


def quantised_weight(module: FakeLinearOp) -> Tensor:
    """The weight as the layer's integer range represents it; the real one unless the mode is `quantise`."""
    return module.quantiser(module.weight) if module.mode == "quantise" else module.weight


def fake_linear_op(module: Conv2d | nn.Linear, quantiser: WeightQuantiser) -> FakeLinearOp:
    """The fake-quantised counterpart of a layer, float or already fake-quantised; it takes over its parameters."""
    new: FakeLinearOp
    if isinstance(module, Conv2d):
        new = FakeConv2d.__new__(FakeConv2d)
    else:
        new = FakeLinear.__new__(FakeLinear)
    new.__dict__.update(module.__dict__)
    new._parameters = dict(module._parameters)
    new._modules = dict(module._modules)
    new.quantiser = quantiser
    new.mode = "quantise"
    return new


class FakeAnalogConv2d(Conv2d):
    """A convolution on the analog core, in real numbers. Input (N, C_in, H, W) on the grid of `input_scale`.

    `y = (a + T/2) * g s_x s_w + b`, where `a` sums the converter's results over the T row tiles: each integer stands
    for the middle of its bin. Weights and converter are quantised in every mode: the layer has no other meaning.

    Attributes:
        quantiser: of the weights, one scale per output channel.
        input_scale: that of what it reads; a power of two except for an input of images and after a ReLU6.
        slope: factor per output channel, once a BatchNorm has been folded into it.
    """

    quantiser: WeightQuantiser
    adc: Adc
    tiles: RowTiles
    input_scale: Scale
    slope: Tensor | None

    def step(self) -> Tensor:
        """Real value of one step of the converter per output channel, before `slope`; (C_out,) or (1,)."""
        step: Tensor = self.quantiser.scale() * (self.input_scale() * self.adc.gain)
        return step.flatten()

    def conversions(self, x: Tensor) -> Tensor:
        """What the converter is given, in its steps; (N, T, C_out, H, W) or, with one tile, (N, C_out, H, W)."""
        weight = self.quantiser.integers(self.weight) / (self.input_scale() * self.adc.gain)
        return self.tiles.multiply(x, weight, self.geometry)

    def forward(self, input: Tensor) -> Tensor:
        step = self.step() if self.slope is None else self.step() * self.slope
        offset = step * (self.tiles.count / 2)
        if self.bias is not None:
            offset = offset + self.bias
        slope = step.expand(self.out_channels)
        return self.adc.affine(self.conversions(input), self.tiles, slope, offset.expand(self.out_channels))


def fake_analog_conv(module: FakeConv2d, quantiser: WeightQuantiser, input_scale: Scale) -> FakeAnalogConv2d:
    """The analog counterpart of a fake-quantised convolution; it takes over its parameters. The gain is still 1."""
    new = FakeAnalogConv2d.__new__(FakeAnalogConv2d)
    new.__dict__.update(module.__dict__)
    new._parameters = dict(module._parameters)
    new._buffers = dict(module._buffers)
    new._modules = dict(module._modules)
    new.quantiser, new.input_scale = quantiser, input_scale
    new.tiles = RowTiles.of(module.in_channels, (module.weight.shape[2], module.weight.shape[3]))
    new.adc = Adc()
    new.slope = None
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
