"""The cost model against figures computed by hand from its published formulas."""

from __future__ import annotations

import pytest

from dianaq_quant.targets.diana.cost import (
    FREQUENCY,
    LayerShape,
    analog_cycles,
    cycles,
    digital_cycles,
    energy,
    latency,
)


def conv(c_in: int, c_out: int, kernel: int, size: int, groups: int = 1) -> LayerShape:
    return LayerShape(c_in, c_out, (kernel, kernel), (size, size), groups)


def residual_stages(blocks: int) -> list[LayerShape]:
    """Three stages of basic blocks for 32 x 32 images, with 1 x 1 convolutions where the channels double."""
    layers, c_in = [conv(3, 16, 3, 32)], 16
    for stage, channels in enumerate((16, 32, 64)):
        size = 32 >> stage
        for _ in range(blocks):
            layers += [conv(c_in, channels, 3, size), conv(channels, channels, 3, size)]
            if c_in != channels:
                layers.append(conv(c_in, channels, 1, size))
            c_in = channels
    return [*layers, conv(64, 10, 1, 1)]


def mobilenet(width: float, size: int, classes: int) -> list[LayerShape]:
    """MobileNetV1: a strided convolution and 13 pairs of depthwise and pointwise convolutions."""
    c_in, size = int(32 * width), size // 2
    layers = [conv(3, c_in, 3, size)]
    pairs = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for channels, stride in pairs:
        c_out, size = int(channels * width), size // stride
        layers += [conv(c_in, c_in, 3, size, c_in), conv(c_in, c_out, 1, size)]
        c_in = c_out
    return [*layers, conv(c_in, classes, 1, 1)]


NETWORKS = {
    # Latencies in ms and energies in uJ: all digital, then the cheaper core for each layer; layers that run analog.
    "resnet20": (residual_stages(3), (0.991, 24.7), (0.334, 9.55), 20),
    "resnet8": (residual_stages(1), (0.314, 7.83), (0.116, 3.28), 8),
    "mobilenet_v1": (mobilenet(0.25, 96, 2), (0.802, 20.0), (0.535, 13.6), None),
}


def best(layer: LayerShape) -> str:
    return "analog" if layer.groups == 1 and analog_cycles(layer) < digital_cycles(layer) else "digital"


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_cost_what_the_published_model_says(name: str) -> None:
    layers, digital, mixed, on_analog = NETWORKS[name]
    assert sum(latency(s, "digital") for s in layers) * 1e3 == pytest.approx(digital[0], rel=0.01)
    assert sum(energy(s, "digital") for s in layers) * 1e6 == pytest.approx(digital[1], rel=0.01)
    cores = [best(s) for s in layers]
    assert sum(latency(s, c) for s, c in zip(layers, cores, strict=True)) * 1e3 == pytest.approx(mixed[0], rel=0.01)
    assert sum(energy(s, c) for s, c in zip(layers, cores, strict=True)) * 1e6 == pytest.approx(mixed[1], rel=0.01)
    if on_analog is not None:
        assert cores == ["digital", *["analog"] * on_analog, "digital"]


def test_digital_cycles_by_hand() -> None:
    assert digital_cycles(conv(16, 16, 3, 32)) == 1 * 16 * 2 * 32 * 9 + 32 * 32 * 32 / 8
    assert digital_cycles(conv(16, 17, 1, 5)) == 2 * 16 * 1 * 5 * 1 + 25 * 33 / 8
    assert digital_cycles(conv(16, 16, 3, 16, 16)) == 1 * 16 * 1 * 16 * 9 + 256 * 32 / 8
    assert digital_cycles(LayerShape(4, 8, (3, 1), (6, 20))) == 1 * 4 * 2 * 6 * 3 + 120 * 12 / 8


@pytest.mark.parametrize(
    ("layer", "columns"),
    [
        (conv(16, 16, 3, 32), 4),  # (4 + 2) * 64 * 3 = 1152 rows
        (conv(16, 16, 1, 32), 8),  # 8 * 64 rows, 128 columns
        (conv(16, 64, 1, 32), 8),
        (conv(16, 65, 1, 32), 4),  # 8 * 65 columns are too many
        (conv(64, 300, 1, 8), 1),
        (conv(200, 16, 3, 8), 1),
        (LayerShape(64, 16, (1, 3), (8, 8)), 8),  # (8 + 2) * 64 rows
        (LayerShape(64, 16, (3, 1), (8, 8)), 4),  # 4 * 64 * 3 rows; 8 would take 1536
    ],
)
def test_analog_cycles_by_hand(layer: LayerShape, columns: int) -> None:
    rows = layer.c_in * layer.kernel[0] * layer.kernel[1]
    products = -(-layer.c_out // 512) * -(-layer.c_in // 128) * layer.out_size[0] * layer.out_size[1] / columns
    assert analog_cycles(layer) == pytest.approx(8 * rows + products * 70e-9 * 260e6)


def test_time_and_energy_follow_from_cycles() -> None:
    layer = conv(16, 16, 3, 32)
    assert cycles(layer, "analog") == analog_cycles(layer)
    assert cycles(layer, "digital") == digital_cycles(layer)
    assert latency(layer, "digital") == digital_cycles(layer) / FREQUENCY
    assert energy(layer, "digital") == pytest.approx(24.96e-3 * digital_cycles(layer) / 260e6)
    assert energy(layer, "analog") == pytest.approx(28.74e-3 * analog_cycles(layer) / 260e6)
