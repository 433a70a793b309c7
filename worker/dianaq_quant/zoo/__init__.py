"""Architectures that weights can be loaded into, or that can be trained from nothing.

From outside: `build`, and the table `ARCHITECTURES`. One file per family; `common` holds what they share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from dianaq.errors import InvalidSpec
from dianaq.schemas.zoo import MAX_WIDTH, shape_fault
from dianaq.schemas.zoo import Architecture as Name
from dianaq_quant.zoo.autoencoder import autoencoder
from dianaq_quant.zoo.common import Shape
from dianaq_quant.zoo.ds_cnn import ds_cnn
from dianaq_quant.zoo.mobilenet import mobilenet_v1, mobilenet_v2
from dianaq_quant.zoo.plain import cifarnet, lenet5
from dianaq_quant.zoo.resnet import resnet8, resnet20


@dataclass(frozen=True)
class Architecture:
    """An entry of the zoo.

    `make` takes the input's shape, the number of classes and the width. `input_shape` and `classes` are those of the
    benchmark that the architecture is known from (MLPerf Tiny where it is one of its four).
    """

    make: Callable[[Shape, int, float], nn.Module]
    input_shape: Shape
    classes: int
    summary: str


ARCHITECTURES: dict[Name, Architecture] = {
    "resnet8": Architecture(resnet8, (3, 32, 32), 10, "3 residual blocks, 16 to 64 channels (MLPerf Tiny)"),
    "resnet20": Architecture(resnet20, (3, 32, 32), 10, "9 residual blocks, 16 to 64 channels (He et al., 2016)"),
    "mobilenet_v1": Architecture(
        mobilenet_v1, (3, 96, 96), 2, "13 separable convolutions, 32 to 1024 channels (MLPerf Tiny: width 0.25)"
    ),
    "mobilenet_v2": Architecture(
        mobilenet_v2, (3, 96, 96), 2, "17 inverted residual blocks, ReLU6 (Sandler et al., 2018)"
    ),
    "ds_cnn": Architecture(ds_cnn, (1, 10, 49), 12, "4 separable convolutions, 64 channels (MLPerf Tiny)"),
    "autoencoder": Architecture(
        autoencoder, (640,), 640, "10 fully connected layers, 128 wide, 8 in the middle (MLPerf Tiny)"
    ),
    "lenet5": Architecture(lenet5, (1, 28, 28), 10, "2 convolutions and 3 fully connected layers (LeCun et al., 1998)"),
    "cifarnet": Architecture(
        cifarnet, (3, 32, 32), 10, "3 convolutions and a fully connected layer (Krizhevsky, 2012)"
    ),
}
"""The zoo by name."""


def build(name: str, *, input_shape: Shape, classes: int, width: float = 1.0) -> nn.Module:
    """An architecture with random weights, in evaluation mode.

    Args:
        name: one of `ARCHITECTURES`.
        input_shape: shape of one sample: (C, H, W), or (features,) for the autoencoder.
        classes: size of the output. An autoencoder gives its input again: its number of features.
        width: channels of all hidden layers, relative to the published network, rounded to multiples of 8
            (`common.scaled`).

    Raises:
        InvalidSpec: an unknown name, a shape that the architecture cannot take, or a width or number of classes that
            is not positive; `param` is the argument.
    """
    known = next((known for known in ARCHITECTURES if known == name), None)
    if known is None:
        raise InvalidSpec(f"no architecture {name!r}; there are {', '.join(ARCHITECTURES)}", param="name")
    if not all(isinstance(d, int) and not isinstance(d, bool) and d > 0 for d in input_shape):
        raise InvalidSpec(f"{name} takes an input of positive sizes, not {input_shape}", param="input_shape")
    if fault := shape_fault(known, input_shape):
        raise InvalidSpec(fault, param="input_shape")
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
        raise InvalidSpec(f"classes must be a positive integer, not {classes!r}", param="classes")
    if not 0 < width <= MAX_WIDTH:
        raise InvalidSpec(f"width must be above 0 and at most {MAX_WIDTH}, not {width!r}", param="width")
    return ARCHITECTURES[known].make(tuple(input_shape), classes, float(width)).eval()


__all__ = ["ARCHITECTURES", "Architecture", "build"]
