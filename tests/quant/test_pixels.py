"""Pixels in place of normalised values: what the first layer computes, inside an image and on its border."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from dianaq.errors import InvalidSpec
from dianaq.schemas.cores import CoreMapping
from dianaq.schemas.quantisers import Quantisers, QuantiserSpec
from dianaq.schemas.spec import JobSpec
from dianaq_quant.editors import canonicalise, fake_quantise
from dianaq_quant.graph import run_editors
from dianaq_quant.graph.surgery import tied_nodes
from dianaq_quant.interface import border_note, check_pixels
from dianaq_quant.modules.fake import FakeConv2d, set_mode
from dianaq_quant.modules.pixels import PixelGrid, PixelInput, PixelQuantiser
from dianaq_quant.training.load import load_data

from .builder import ModelBuilder, Tensor
from .stages import canonical, imported
from .support import modules, outputs

BLACK = PixelGrid((1 / 255,), (128 / 255,), 2)
"""`x = pixel / 255`: the float network pads with black, which is pixel 0."""


def centred(*steps: float) -> PixelGrid:
    """Pixel 128 is normalised to 0."""
    return PixelGrid(steps, (0.0,) * len(steps), 2)


def real_layers(model: onnx.ModelProto, grid: PixelGrid) -> torch.fx.GraphModule:
    """The network after its normalisation moved, with nothing quantised."""
    network = imported(model)
    run_editors(network, canonicalise.EDITORS)
    run_editors(network, fake_quantise.editors(Quantisers(), equalise=False, pixels=grid))
    set_mode(network, "bypass")
    return network.eval()


def values(grid: PixelGrid, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Random pixels, normalised."""
    pixels = np.random.default_rng(seed).integers(0, 256, shape)
    step, origin = (t.numpy() for t in grid.constants())
    return (step * (pixels - 128) + origin).astype(np.float32)


def box(side: int) -> onnx.ModelProto:
    """The sum over a 3 x 3 window, zeros beyond the border."""
    b = ModelBuilder((1, side, side))
    return b.build(b.conv(b.input, 1, pads=(1, 1, 1, 1), bias=False, name="box", weight=np.ones((1, 1, 3, 3))))


def test_inside_nothing_changes_and_the_border_is_pixel_128() -> None:
    """Of nine white pixels (1.0) a window sees nine, six at an edge, four in a corner; the others are 128 / 255."""
    y = outputs(real_layers(box(3), BLACK), np.ones((1, 1, 3, 3), np.float32))[0, 0]
    assert y[1, 1] == pytest.approx(9)
    assert y[0, 1] == pytest.approx(6 + 3 * 128 / 255)
    assert y[2, 2] == pytest.approx(4 + 5 * 128 / 255)


def test_the_border_is_the_float_networks_where_128_is_normalised_to_zero() -> None:
    grid = centred(0.02)
    x = values(grid, (2, 1, 4, 4))
    np.testing.assert_allclose(outputs(real_layers(box(4), grid), x), outputs(imported(box(4)), x), atol=1e-5)


def plain(b: ModelBuilder) -> Tensor:
    return b.conv(b.input, 3, (2, 3))


def grouped(b: ModelBuilder) -> Tensor:
    return b.relu(b.conv(b.input, 6, (2, 2), group=2, bias=False))


def depthwise(b: ModelBuilder) -> Tensor:
    return b.conv(b.input, 8, (3, 3), group=4)


def normalised(b: ModelBuilder) -> Tensor:
    return b.relu(b.batch_norm(b.conv(b.input, 5, (2, 2), bias=False)))


def normalised_vector(b: ModelBuilder) -> Tensor:
    return b.batch_norm(b.gemm(b.flatten(b.input), 5, bias=False))


def flattened(b: ModelBuilder) -> Tensor:
    return b.gemm(b.flatten(b.input), 5)


def twice(b: ModelBuilder) -> Tensor:
    return b.add(b.conv(b.input, 3, (1, 1)), b.conv(b.input, 3, (1, 1), bias=False))


def pooled(b: ModelBuilder) -> Tensor:
    return b.pool("AveragePool", b.input, (2, 2), stride=(2, 2))


def tied(b: ModelBuilder) -> Tensor:
    """One weight for a layer that reads the input and for one that does not."""
    weight = b.constant(b.random.normal(0, 0.3, (4, 4, 1, 1)))
    first = b.node("Conv", [b.input, weight], b.input_shape, kernel_shape=(1, 1))
    return b.node("Conv", [b.relu(first), weight], b.input_shape, kernel_shape=(1, 1))


OWN = PixelGrid((0.02, 0.01, 0.004, 0.03), (0.5, -0.25, 0.0, 1.0), 2)


@pytest.mark.parametrize(
    "make", [plain, grouped, depthwise, normalised, normalised_vector, flattened, twice, pooled, tied]
)
def test_channels_have_normalisations_of_their_own(make: Callable[[ModelBuilder], Tensor]) -> None:
    b = ModelBuilder((4, 4, 4), seed=1)
    model, x = b.build(make(b)), values(OWN, (3, 4, 4, 4))
    expected = outputs(imported(model), x)
    np.testing.assert_allclose(outputs(real_layers(model, OWN), x), expected, rtol=1e-4, atol=1e-4)


def test_values_of_a_vector_have_normalisations_of_their_own() -> None:
    grid = PixelGrid((0.02, 0.01, 0.03), (0.5, -0.25, 1.0), 0)
    b = ModelBuilder((3,), seed=1)
    model, x = b.build(b.gemm(b.input, 5)), values(grid, (6, 3))
    np.testing.assert_allclose(outputs(real_layers(model, grid), x), outputs(imported(model), x), atol=1e-5)


def test_one_normalisation_leaves_the_weights_as_they_are() -> None:
    network = real_layers(box(3), BLACK)
    (layer,) = modules(network, FakeConv2d)
    assert torch.equal(layer.weight, torch.ones(1, 1, 3, 3))
    assert layer.bias.item() == pytest.approx(9 * 128 / 255)
    assert not tied_nodes(network)


@pytest.mark.parametrize(
    "preprocessing",
    [
        {"mean": [0.5], "std": [0.5]},
        {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        {"mean": [0.1], "std": [0.01, 3.0, 0.5], "value_range": [-3, 97]},
    ],
)
def test_every_pixel_is_its_own_integer(tmp_path: Path, preprocessing: dict[str, Any]) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, 1)
    np.savez(tmp_path / "d.npz", x_train=pixels)
    spec = {"model": "m", "dataset": "d", "preprocessing": preprocessing, "interface": {"input": "pixels"}}
    data = load_data(tmp_path / "d.npz", JobSpec.model_validate(spec), (3, 16, 16))
    assert data.pixels is not None
    assert data.input_steps == {}
    x = data.normalise(data.train.x)
    expected = data.train.x.float() - 128
    assert torch.equal(PixelInput(data.pixels)(x), expected)
    quantiser = PixelQuantiser(QuantiserSpec(range={"bitwidth": 3, "signed": True}, function="tqt"), data.pixels)
    assert torch.equal((quantiser(x) / data.pixels.scale).round(), expected)
    assert not list(quantiser.parameters())  # nothing of it is learned, whatever the recipe says of activations
    assert quantiser.scale.get() == pytest.approx(data.pixels.scale)


def test_what_no_pixel_is_is_the_nearest_one_or_the_last() -> None:
    grid = PixelGrid((0.5,), (1.0,), 0)
    x = torch.tensor([[1.0], [1.2], [1.3], [0.8], [1e6], [-1e6]])
    assert PixelInput(grid)(x).flatten().tolist() == [0, 0, 1, 0, 127, -128]


def note_of(model: onnx.ModelProto, grid: PixelGrid) -> str | None:
    return border_note(canonical(model), grid)


def test_a_border_that_differs_is_told() -> None:
    note = note_of(box(3), BLACK)
    assert note is not None
    assert "box: zero padding is pixel 128 where pixels are fed, and pixel 0 in the float network" in note
    assert "up to 128 pixel steps" in note
    two = PixelGrid((0.01, 0.02), (0.0, -0.06), 2)
    b = ModelBuilder((2, 4, 4))
    note = note_of(b.build(b.conv(b.input, 2, pads=(0, 0, 1, 0), name="low")), two)
    assert note is not None
    assert "pixel 128, 131 in" in note
    assert "up to 3 pixel steps" in note


def test_a_border_within_a_step_and_none_are_not() -> None:
    assert note_of(box(3), PixelGrid((0.01,), (0.0099,), 2)) is None
    b = ModelBuilder((1, 4, 4))
    assert note_of(b.build(b.conv(b.input, 2)), BLACK) is None
    b = ModelBuilder((1, 4, 4))
    inner = b.conv(b.conv(b.input, 2, (1, 1)), 2, pads=(1, 1, 1, 1))
    assert note_of(b.build(inner), BLACK) is None


def test_the_analog_core_takes_no_pixels() -> None:
    check_pixels(canonical(box(3)))
    with pytest.raises(InvalidSpec, match=r"box reads the input on the analog core, .*\[-63, 63\]") as caught:
        check_pixels(canonical(box(3), CoreMapping(layers={"box": "analog"})))
    assert caught.value.param == "interface.input"
