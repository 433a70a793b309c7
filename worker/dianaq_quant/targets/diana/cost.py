"""The cost model: cycles, latency and energy of a layer on either core.

Source: the public ODiMO cost model (Risso et al., 2023), for layers that run one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from dianaq.schemas.quantisers import Core

FREQUENCY = 260e6
"""Clock of both cores, Hz."""

POWER: dict[Core, float] = {"digital": 24.96e-3, "analog": 28.74e-3}
"""Power while a core computes, W."""

ANALOG_OPERATION = 70e-9
"""Time of one analog matrix-vector product, s."""

SPATIAL_UNROLLINGS = (8, 4, 2, 1)
"""Output columns that the analog array may compute at once, by storing a kernel several times."""


@dataclass(frozen=True)
class LayerShape:
    """The dimensions of a linear layer; a fully connected one is a 1x1 convolution of a 1x1 map."""

    c_in: int
    c_out: int
    kernel: tuple[int, int]
    out_size: tuple[int, int]
    """Height and width of the output map."""
    groups: int = 1


def digital_cycles(layer: LayerShape) -> float:
    """Cycles on the 16 x 16 digital array, and to move the activations (8 channels a cycle)."""
    (kh, kw), (height, width) = layer.kernel, layer.out_size
    compute = -(-(layer.c_out // layer.groups) // 16) * layer.c_in * -(-width // 16) * height * kh * kw
    return compute + height * width * (layer.c_out + layer.c_in) / 8


def analog_cycles(layer: LayerShape) -> float:
    """Cycles to load the weights into the analog array, and of its matrix-vector products."""
    (kh, kw), (height, width) = layer.kernel, layer.out_size
    columns = next(
        (u for u in SPATIAL_UNROLLINGS if u * layer.c_out <= 512 and (u + kw - 1) * max(64, layer.c_in) * kh <= 1152),
        1,
    )
    products = -(-layer.c_out // 512) * -(-layer.c_in // 128) * height * width / columns
    return 8 * layer.c_in * kh * kw + products * ANALOG_OPERATION * FREQUENCY


def cycles(layer: LayerShape, core: Core) -> float:
    """Cycles of a layer on a core."""
    return analog_cycles(layer) if core == "analog" else digital_cycles(layer)


def latency(layer: LayerShape, core: Core) -> float:
    """Seconds."""
    return cycles(layer, core) / FREQUENCY


def energy(layer: LayerShape, core: Core) -> float:
    """Joules."""
    return POWER[core] * latency(layer, core)
