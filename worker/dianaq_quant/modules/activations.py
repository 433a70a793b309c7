"""Activations that no core computes, as modules: in a network only until they are substituted."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dianaq.schemas.substitution import Activation, Replacement
from dianaq_quant.modules.structure import Ceiling


class HardSigmoid(nn.Module):
    """`min(max(alpha x + beta, 0), 1)`; torch's own has the slope 1/6, Keras' and ONNX's default is 0.2."""

    def __init__(self, alpha: float, beta: float) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        return (self.alpha * x + self.beta).clamp(0, 1)


class Swish(nn.Module):
    """`x sigmoid(beta x)` (Ramachandran et al., 2017); SiLU for 1."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.beta * x)


class SlopedReLU(nn.Module):
    """`x` where it is positive, else `slope x`, with a slope of any shape that broadcasts to x: ONNX's PRelu."""

    slope: Tensor

    def __init__(self, slope: Tensor) -> None:
        super().__init__()
        self.register_buffer("slope", slope)

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, self.slope * x)


KINDS: Mapping[type[nn.Module], Activation] = {
    nn.Hardswish: "hardswish",
    nn.LeakyReLU: "leaky_relu",
    nn.PReLU: "prelu",
    SlopedReLU: "prelu",
    nn.SiLU: "silu",
    Swish: "silu",
    nn.GELU: "gelu",
    nn.ELU: "elu",
    nn.SELU: "selu",
    nn.CELU: "celu",
    nn.Mish: "mish",
    nn.Softplus: "softplus",
    nn.Hardsigmoid: "hardsigmoid",
    HardSigmoid: "hardsigmoid",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
}
"""The classes of modules that the import makes of them."""


def activation(kind: Activation, parameters: Mapping[str, float]) -> nn.Module:
    """The module of an activation.

    Args:
        kind: any but `prelu`, whose slope is a tensor.
        parameters: `alpha`, `beta`, or `approximate` (1 for GELU by tanh); those of torch where one is left out.
    """
    alpha, beta = parameters.get("alpha", 1.0), parameters.get("beta", 1.0)
    if kind == "silu" and beta != 1:
        return Swish(beta)
    if kind == "hardsigmoid" and (abs(alpha - 1 / 6) > 1e-6 or beta != 0.5):
        return HardSigmoid(alpha, beta)
    made: dict[Activation, nn.Module] = {
        "hardswish": nn.Hardswish(),
        "leaky_relu": nn.LeakyReLU(alpha),
        "silu": nn.SiLU(),
        "gelu": nn.GELU("tanh" if parameters.get("approximate") else "none"),
        "elu": nn.ELU(alpha),
        "selu": nn.SELU(),
        "celu": nn.CELU(alpha),
        "mish": nn.Mish(),
        "softplus": nn.Softplus(),
        "hardsigmoid": nn.Hardsigmoid(),
        "sigmoid": nn.Sigmoid(),
        "tanh": nn.Tanh(),
    }
    return made[kind]


def replacement(name: Replacement) -> nn.Module:
    """The chip's activation of that name."""
    return nn.ReLU() if name == "relu" else Ceiling(6.0)
