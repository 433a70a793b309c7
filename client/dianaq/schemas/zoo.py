"""What the architectures of the zoo take: known to the specification, without building any of them."""

from __future__ import annotations

from typing import Literal

Architecture = Literal[
    "resnet8", "resnet20", "mobilenet_v1", "mobilenet_v2", "ds_cnn", "autoencoder", "lenet5", "cifarnet"
]

MAX_WIDTH = 4
"""At 4 the largest architecture (`mobilenet_v1`) has some 50 million weights, a hundred times what the chip's memory
holds."""

LEAST_MAP: dict[Architecture, tuple[int, int] | None] = {
    "resnet8": (1, 1),
    "resnet20": (1, 1),
    "mobilenet_v1": (1, 1),
    "mobilenet_v2": (1, 1),
    "ds_cnn": (1, 2),
    "autoencoder": None,
    "lenet5": (12, 12),
    "cifarnet": (8, 8),
}
"""Least height and width of an input (channels, height, width), so that something is left after every layer; None for
an architecture that takes vectors. Convolutions that pad enough leave something of any map; the first of `ds_cnn` is 4
wide and pads by 1, `lenet5` pools before and after an unpadded 5 x 5 convolution, `cifarnet` halves the map thrice."""


def shape_fault(architecture: Architecture, shape: tuple[int, ...]) -> str | None:
    """What is wrong with the shape of a sample for an architecture, and what it takes; None if it fits."""
    least = LEAST_MAP[architecture]
    if least is None:
        return None if len(shape) == 1 else f"{architecture} takes vectors (values,), not {shape}"
    if len(shape) != 3:
        return f"{architecture} takes images (channels, height, width), not {shape}"
    if shape[1] < least[0] or shape[2] < least[1]:
        return f"{architecture} takes maps of at least {least[0]} x {least[1]}, not {shape[1]} x {shape[2]}"
    return None
