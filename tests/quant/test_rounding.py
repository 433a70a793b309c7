"""Weights are rounded so that their errors cancel in a layer's output."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx
from torch.nn import functional as F

from dianaq_quant.editors.hardware import exact_editors
from dianaq_quant.graph import run_editors
from dianaq_quant.modules.exact import ExactConv2d, ExactLinear, ExactLinearOp, Requantisation
from dianaq_quant.modules.structure import Conv2d
from dianaq_quant.targets.diana import INT8
from dianaq_quant.training import rounding
from dianaq_quant.training.data import Split
from dianaq_quant.training.rounding import kernel_inputs, round_weights, round_with_feedback

from .builder import ModelBuilder
from .stages import UNCHANGED, folded_network, plan_of
from .support import integers, modules, quantise


def moments(x: Tensor) -> Tensor:
    return x.mT @ x / x.shape[1]


def error(weight: Tensor, rounded: Tensor, x: Tensor) -> float:
    """Mean squared error of the layer's output."""
    return float(((weight - rounded) @ x.mT).square().mean())


def correlated(groups: int, rows: int, inputs: int, seed: int = 0) -> Tensor:
    """Inputs that share most of what they carry, as neighbouring pixels do."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn((groups, rows, 1), generator=generator, dtype=torch.float64)
    return common + 0.3 * torch.randn((groups, rows, inputs), generator=generator, dtype=torch.float64)


def weights(*shape: int, size: float = 40.0, seed: int = 1) -> Tensor:
    return size * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_errors_cancel_where_inputs_go_together() -> None:
    x, weight = correlated(1, 400, 24), weights(1, 8, 24)
    rounded = round_with_feedback(weight, moments(x), -128, 127)
    nearest = (weight + 0.5).floor().clamp(-128, 127)
    assert error(weight, rounded, x) < 0.25 * error(weight, nearest, x)


def test_two_equal_inputs() -> None:
    # 0.4 + 0.4: the second takes over what the first lost, and is rounded up.
    x = torch.ones((1, 10, 2), dtype=torch.float64)
    rounded = round_with_feedback(torch.full((1, 1, 2), 0.4, dtype=torch.float64), moments(x), -128, 127)
    assert sorted(rounded.flatten().tolist()) == [0, 1]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 12), st.integers(0, 2**16), st.sampled_from([1, 7, 127]))
def test_integers_of_the_range(groups: int, channels: int, inputs: int, seed: int, hi: int) -> None:
    weight = weights(groups, channels, inputs, seed=seed)
    rounded = round_with_feedback(weight, moments(correlated(groups, 5, inputs, seed)), -hi - 1, hi)
    assert torch.equal(rounded, rounded.round())
    assert -hi - 1 <= rounded.min() <= rounded.max() <= hi


@pytest.mark.parametrize("batch", [1, 5, 100])
def test_passing_errors_on_in_batches_changes_nothing(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    weight, h = weights(2, 3, 24), moments(correlated(2, 100, 24))
    expected = round_with_feedback(weight, h, -128, 127)
    monkeypatch.setattr(rounding, "BATCH", batch)
    assert torch.equal(round_with_feedback(weight, h, -128, 127), expected)


def test_unrelated_inputs_get_the_nearest_integer() -> None:
    weight = weights(2, 5, 9)
    scattered = torch.diag_embed(torch.rand((2, 9), generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    assert torch.equal(round_with_feedback(weight, scattered, -128, 127), (weight + 0.5).floor().clamp(-128, 127))


def test_inputs_that_are_always_zero() -> None:
    weight, x = weights(2, 5, 9), correlated(2, 50, 9)
    x[0] = 0
    x[1, :, 3] = 0
    rounded = round_with_feedback(weight, moments(x), -128, 127)
    nearest = (weight + 0.5).floor().clamp(-128, 127)
    assert torch.equal(rounded[0], nearest[0])
    assert torch.equal(rounded[1, :, 3], nearest[1, :, 3])


def convolution(groups: int, pads: tuple[int, int, int, int], stride: int, dilation: int) -> ExactConv2d:
    layer = Conv2d(4, 6, (3, 2), stride, dilation=dilation, groups=groups, pads=pads)
    return ExactConv2d(layer, INT8, Requantisation(1.0, 1.0, 0, INT8))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("pads", "dilation"), [((1, 0, 1, 1), 1), ((2, 1, 0, 0), 2)])
def test_kernel_inputs_are_what_the_weights_multiply(
    groups: int, pads: tuple[int, int, int, int], stride: int, dilation: int
) -> None:
    layer, x = convolution(groups, pads, stride, dilation), integers(3, 4, 7, 6)
    inputs = kernel_inputs(layer, x)
    weight = layer.weight.detach().reshape(groups, 6 // groups, -1)
    got = (weight @ inputs.mT).reshape(6, 3, -1).transpose(0, 1)
    wanted = layer.linear(x, layer.weight.detach(), torch.zeros(6))
    torch.testing.assert_close(got, wanted.flatten(2))


def test_kernel_inputs_are_thinned_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = convolution(1, (0, 0, 0, 0), 1, 1), integers(5, 4, 14, 13)
    monkeypatch.setattr(rounding, "ROWS", 50)
    thinned = kernel_inputs(layer, x)
    # 5 * 14 * 13 positions are 18 times too many: every fifth row and column is kept.
    assert thinned.shape == (1, 5 * 3 * 3, 4 * 3 * 2)
    every = F.unfold(x, (3, 2)).unflatten(2, (12, 12))[:, :, ::5, ::5].flatten(2)
    assert torch.equal(thinned[0], every.permute(0, 2, 1).flatten(0, 1))


def classifier() -> onnx.ModelProto:
    """Convolutions, one of them depthwise, and a fully connected layer."""
    b = ModelBuilder((3, 8, 8), seed=2)
    x = b.relu(b.conv(b.input, 8, pads=(1, 1, 1, 1)))
    x = b.relu(b.conv(x, 8, pads=(1, 1, 1, 1), group=8))
    return b.build(b.gemm(b.flatten(b.global_pool(b.relu(b.conv(x, 12)))), 4))


def exact() -> tuple[fx.GraphModule, Tensor]:
    """An exact network, not corrected, and the data that it was calibrated on."""
    network, data, _ = folded_network(classifier())
    run_editors(network, exact_editors(plan_of(network)))
    return network.eval(), data


def linear_errors(original: fx.GraphModule, network: fx.GraphModule, data: Tensor) -> list[float]:
    """Per layer, the squared error that its rounded weights cause, on the inputs that it gets."""
    wanted = {n.name: original.get_submodule(str(n.target)).weight.detach() for n in layers(original)}
    found: list[float] = []

    class Run(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Tensor:
            layer = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
            if isinstance(layer, ExactConv2d | ExactLinear):
                step = layer.requantise.weight_scale
                difference = wanted[n.name] / step - layer.integer_weight()
                x = self.env[n.args[0]]  # type: ignore[index]
                found.append(float(layer.linear(x, difference, torch.zeros(len(difference))).square().mean()))
            value: Tensor = super().run_node(n)
            return value

    with torch.no_grad():
        Run(network).run(data)
    return found


def layers(network: fx.GraphModule) -> list[fx.Node]:
    kinds = ExactConv2d | ExactLinear
    return [
        n for n in network.graph.nodes if n.op == "call_module" and isinstance(network.get_submodule(n.target), kinds)
    ]


def test_every_layer_of_a_network_errs_less() -> None:
    original, data = exact()
    network = copy.deepcopy(original)
    round_weights(network, Split(data, None), UNCHANGED)
    before, after = linear_errors(original, original, data), linear_errors(original, network, data)
    assert len(after) == 4
    assert all(b < a for a, b in zip(before, after, strict=True))


def weight_integers(layer: ExactLinearOp) -> Tensor:
    return (layer.weight / layer.requantise.weight_scale).detach()


def test_weights_come_to_lie_on_the_grid() -> None:
    network, data = exact()
    round_weights(network, Split(data, None), UNCHANGED)
    for layer in modules(network, ExactConv2d) + modules(network, ExactLinear):
        torch.testing.assert_close(weight_integers(layer), layer.integer_weight().detach(), rtol=0, atol=1e-4)


def test_wide_layers_are_rounded_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    original, data = exact()
    network = copy.deepcopy(original)
    monkeypatch.setattr(rounding, "BLOCK", 10)
    round_weights(network, Split(data, None), UNCHANGED)
    assert sum(linear_errors(original, network, data)) < sum(linear_errors(original, original, data))


def dataset() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"x_train": rng.integers(0, 256, (40, 8, 8, 3), np.uint8), "y_train": rng.integers(0, 4, 40, np.uint8)}


@pytest.mark.parametrize(("epochs", "differs"), [(0, True), (1, False)])
def test_the_recipe_chooses_unless_the_exact_network_is_trained(tmp_path: Path, epochs: int, differs: bool) -> None:
    bundles = []
    for choice in ("nearest", "error_feedback"):
        folder = tmp_path / choice
        folder.mkdir()
        recipe = {"post_training": {"rounding": choice}, "hardware_exact": {"epochs": epochs}}
        bundles.append(quantise(classifier(), dataset(), folder, recipe=recipe).folder)
    nearest, feedback = ((b / "htvm/model.onnx").read_bytes() for b in bundles)
    assert (nearest != feedback) is differs
