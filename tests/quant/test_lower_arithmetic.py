"""Constant factors, offsets and bounds: into the neighbours where the function stays the same, else a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor as T
from torch import nn
from torch.nn import functional as F

from dianaq_quant.importers import Network, import_module
from dianaq_quant.modules.layout import rearrange
from dianaq_quant.modules.structure import Ceiling, Conv2d

from .builder import ModelBuilder, Tensor
from .support import Net, kinds, modules, network_of, outputs, run_onnx

MAP = (4, 6, 5)

Recipe = Callable[[ModelBuilder], Tensor]


def close(got: np.ndarray, expected: np.ndarray) -> None:
    """Within 1e-5 of the largest output."""
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max() + 1e-7


def fed(network: Network, x: np.ndarray) -> np.ndarray:
    """Samples in the layout that the imported network takes."""
    return x if network.own is None else rearrange(torch.from_numpy(x), network.own.arrangement).numpy()


def same_as_onnx(model: onnx.ModelProto, shape: tuple[int, ...] = MAP) -> Any:
    x = np.random.default_rng(3).normal(0, 2, (4, *shape)).astype(np.float32)
    network = network_of(model)
    close(outputs(network.graph, fed(network, x)), run_onnx(model, x))
    return network


def of(recipe: Recipe, shape: tuple[int, ...] = MAP, opset: int = 13) -> Any:
    b = ModelBuilder(shape, opset=opset, seed=4)
    return same_as_onnx(b.build(recipe(b)), shape)


def same_as_module(module: nn.Module, shape: tuple[int, ...] = MAP) -> Any:
    x = np.random.default_rng(3).normal(0, 2, (4, *shape)).astype(np.float32)
    network = import_module(module.eval(), shape)
    close(outputs(network.graph, fed(network, x)), outputs(module, x))
    return network


def constant(b: ModelBuilder, op: str, x: Tensor, value: Any, *, first: bool = False) -> Tensor:
    c = b.constant(value)
    return b.node(op, [c, x] if first else [x, c], x.shape)


def per_channel(count: int, *, low: float = -2.0) -> np.ndarray:
    return np.random.default_rng(5).uniform(low, 2.0, (count, 1, 1))


LOWERED: dict[str, tuple[Recipe, list[str]]] = {
    "batch norm as Mul and Add": (
        lambda b: constant(b, "Add", constant(b, "Mul", b.conv(b.input, 3), per_channel(3)), per_channel(3)),
        ["Conv2d"],
    ),
    "second bias": (lambda b: constant(b, "Add", b.conv(b.input, 3), 1.0), ["Conv2d"]),
    "Sub and Div": (
        lambda b: constant(b, "Div", constant(b, "Sub", b.conv(b.input, 3), 0.5), per_channel(3, low=1)),
        ["Conv2d"],
    ),
    "constant first": (
        lambda b: constant(b, "Sub", constant(b, "Mul", b.conv(b.input, 3), 2, first=True), 1.0, first=True),
        ["Conv2d"],
    ),
    "negative": (lambda b: b.node("Neg", [b.conv(b.input, 3)], (3, 4, 3)), ["Conv2d"]),
    "after its BatchNorm": (
        lambda b: constant(b, "Mul", b.batch_norm(b.conv(b.input, 3)), per_channel(3)),
        ["Conv2d", "BatchNorm2d"],
    ),
    "matrix": (
        lambda b: constant(b, "Mul", b.matmul(b.flatten(b.input), 3), [1.0, -2.0, 3.0]),
        ["Flatten", "Linear"],
    ),
    "positive factor through a ReLU": (
        lambda b: constant(b, "Mul", b.relu(b.conv(b.input, 3)), 0.5),
        ["Conv2d", "ReLU"],
    ),
    "positive factor through a ReLU6": (
        lambda b: constant(b, "Div", b.relu6(b.conv(b.input, 3)), 6.0),
        ["Conv2d", "Ceiling"],
    ),
    "through pools and a flatten": (
        lambda b: constant(
            b, "Mul", b.flatten(b.global_pool(b.pool("MaxPool", b.conv(b.input, 3), (2, 2)))), [1, 2, 3]
        ),
        ["Conv2d", "MaxPool2d", "GlobalAvgPool2d", "Flatten"],
    ),
    "one value per channel through a flatten": (
        lambda b: constant(b, "Add", b.flatten(b.conv(b.input, 3)), np.repeat([1.0, 2.0, 3.0], 12)),
        ["Conv2d", "Flatten"],
    ),
    "normalisation before a convolution without padding": (
        lambda b: b.conv(constant(b, "Div", constant(b, "Sub", b.input, per_channel(4)), per_channel(4, low=1)), 3),
        ["Conv2d"],
    ),
    "normalisation before padding": (
        lambda b: b.conv(
            constant(b, "Div", constant(b, "Sub", b.input, per_channel(4)), per_channel(4, low=1)), 3, pads=(1, 1, 1, 1)
        ),
        ["Conv2d", "Conv2d"],
    ),
    "factor before padding": (
        lambda b: b.conv(constant(b, "Mul", b.input, per_channel(4)), 6, pads=(1, 1, 1, 1), group=2),
        ["Conv2d"],
    ),
    "into both layers after it": (
        lambda b: b.add(b.conv(x := constant(b, "Add", b.input, per_channel(4)), 4), b.conv(x, 4)),
        ["Conv2d", "Conv2d", "Add"],
    ),
    "per feature before a matrix": (
        lambda b: b.gemm(constant(b, "Add", constant(b, "Mul", b.flatten(b.input), np.arange(120)), 1.0), 3),
        ["Flatten", "Linear"],
    ),
    "through a flatten, then a matrix": (
        lambda b: b.gemm(b.flatten(constant(b, "Sub", b.relu(b.input), per_channel(4))), 3),
        ["ReLU", "Flatten", "Linear"],
    ),
    "read by an addition": (
        lambda b: b.add(b.input, constant(b, "Mul", b.input, -0.5)),
        ["Conv2d", "Add"],
    ),
    "of a vector": (lambda b: b.relu(constant(b, "Add", b.input, np.arange(7))), ["Linear", "ReLU"]),
    "identities": (
        lambda b: b.conv(constant(b, "Add", constant(b, "Mul", constant(b, "Div", b.input, 1.0), 1.0), 0.0), 2),
        ["Conv2d"],
    ),
    "cast": (lambda b: b.conv(b.node("Cast", [b.input], MAP, to=1), 2), ["Conv2d"]),
    "difference": (
        lambda b: b.node("Sub", [b.conv(b.input, 3), b.conv(b.input, 3)], (3, 4, 3)),
        ["Conv2d", "Conv2d", "Add"],
    ),
    "sum": (lambda b: b.node("Sum", [b.conv(b.input, 3), b.conv(b.input, 3)], (3, 4, 3)), ["Conv2d", "Conv2d", "Add"]),
    "clip": (
        lambda b: b.node("Clip", [b.conv(b.input, 3), b.constant(0), b.constant(4)], (3, 4, 3)),
        ["Conv2d", "Ceiling"],
    ),
    "Max and Min": (
        lambda b: constant(b, "Min", constant(b, "Max", b.conv(b.input, 3), 0.0), 2.5),
        ["Conv2d", "Ceiling"],
    ),
    "Min and Max": (
        lambda b: constant(b, "Max", constant(b, "Min", b.conv(b.input, 3), 2.5), 0.0, first=True),
        ["Conv2d", "Ceiling"],
    ),
    "Relu and Clip": (
        lambda b: b.node("Clip", [b.relu(b.conv(b.input, 3)), b.constant(-1.0), b.constant(1.5)], (3, 4, 3)),
        ["Conv2d", "Ceiling"],
    ),
}


@pytest.mark.parametrize("case", LOWERED)
def test_what_becomes_of_constant_arithmetic(case: str) -> None:
    recipe, expected = LOWERED[case]
    shape = (7,) if case == "of a vector" else MAP
    assert kinds(of(recipe, shape).graph) == expected


def test_edits_are_told_by_the_layers_names() -> None:
    network = of(lambda b: constant(b, "Mul", b.conv(b.input, 3, name="first"), 2.0))
    assert [(e.editor, e.node) for e in network.edits if e.applied] == [("AffineIntoLayerBefore", "mul1")]
    assert network.notes == []


def test_a_note_tells_of_a_layer_that_was_added() -> None:
    network = of(lambda b: constant(b, "Add", b.relu(b.input), 1.0))
    assert network.notes == ["add1: no layer can take it in: became a layer that scales each channel by itself"]


def test_factor_scales_the_ceiling_that_it_passes() -> None:
    network = of(lambda b: constant(b, "Mul", b.relu6(b.conv(b.input, 3)), 0.5))
    assert modules(network.graph, Ceiling)[0].max_val == 3.0
    network = of(
        lambda b: b.add(x := b.conv(b.input, 4, (1, 1)), b.conv(b.relu6(constant(b, "Mul", x, 4.0)), 4, (1, 1)))
    )
    assert modules(network.graph, Ceiling)[0].max_val == 1.5


@pytest.mark.parametrize("factor", [-1.0, 0.0])
def test_other_factors_do_not_pass_a_relu(factor: float) -> None:
    network = of(lambda b: constant(b, "Mul", b.relu(b.conv(b.input, 3)), factor))
    assert kinds(network.graph) == ["Conv2d", "ReLU", "Conv2d"]


def test_factors_per_channel_do_not_pass_a_ceiling() -> None:
    network = of(lambda b: constant(b, "Mul", b.relu6(b.conv(b.input, 3)), per_channel(3, low=1)))
    assert kinds(network.graph) == ["Conv2d", "Ceiling", "Conv2d"]


def test_the_border_of_a_normalised_input_is_zero() -> None:
    """Padding is around the normalised map: the layer in front must not move it into the weights."""
    b = ModelBuilder((1, 4, 4))
    x = constant(b, "Sub", b.input, 10.0)
    model = b.build(b.conv(x, 1, pads=(1, 1, 1, 1), weight=np.ones((1, 1, 3, 3)), bias=False))
    got = outputs(network_of(model).graph, np.full((1, 1, 4, 4), 11, np.float32))
    assert got[0, 0].tolist() == [[4, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]]


def test_a_shared_weight_is_not_scaled_for_its_other_layers() -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        kernel = b.constant(b.random.normal(size=(4, 4, 1, 1)))
        x = b.node("Conv", [b.input, kernel], MAP, "plain")
        return constant(b, "Mul", b.node("Conv", [b.relu(x), kernel], MAP, "scaled"), per_channel(4))

    network = of(recipe)
    plain, scaled = modules(network.graph, Conv2d)
    assert plain.weight is not scaled.weight
    notes = [e.note for e in network.edits if e.applied]
    assert notes == ["became a part of scaled, whose parameters are no longer tied to those of other calls"]


def test_an_offset_leaves_a_shared_weight_shared() -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        kernel = b.constant(b.random.normal(size=(4, 4, 1, 1)))
        x = b.node("Conv", [b.input, kernel], MAP)
        return constant(b, "Add", b.node("Conv", [b.relu(x), kernel], MAP), per_channel(4))

    plain, shifted = modules(of(recipe).graph, Conv2d)
    assert plain.weight is shifted.weight


def conv(**settings: Any) -> nn.Conv2d:
    return nn.Conv2d(4, 4, 3, **settings)


SPELLINGS: dict[str, tuple[nn.Module, list[str]]] = {
    "operators": (Net(lambda m, x: (m.conv(x) * 2 - 0.5) / 3 + 1, conv=conv()), ["Conv2d"]),
    "methods": (Net(lambda m, x: m.conv(x).mul(2).sub(0.5).div(3).add(1), conv=conv()), ["Conv2d"]),
    "functions": (
        Net(lambda m, x: torch.neg(torch.div(torch.sub(torch.mul(m.conv(x), 2), 0.5), 3)), conv=conv()),
        ["Conv2d"],
    ),
    "in place": (Net(lambda m, x: m.conv(x).mul_(2).sub_(0.5).div_(3).add_(1).neg_(), conv=conv()), ["Conv2d"]),
    "constant first": (Net(lambda m, x: 1 - 2 * m.conv(x), conv=conv()), ["Conv2d"]),
    "rsub": (Net(lambda m, x: torch.rsub(m.conv(x), 3, alpha=2), conv=conv()), ["Conv2d"]),
    "alpha of a constant": (Net(lambda m, x: torch.add(m.conv(x), 3, alpha=2), conv=conv()), ["Conv2d"]),
    "learnt scalar": (Net(lambda m, x: m.s * m.conv(x), conv=conv(), s=nn.Parameter(torch.tensor(0.3))), ["Conv2d"]),
    "buffers in another shape": (
        Net(
            lambda m, x: m.conv((x - m.mean.view(1, -1, 1, 1)) / m.std[:, None, None]),
            conv=conv(),
            mean=torch.rand(4),
            std=torch.rand(4) + 0.5,
        ),
        ["Conv2d"],
    ),
    "constants computed": (
        Net(lambda m, x: m.conv(x / torch.tensor([1.0, 2.0, 4.0, 8.0]).reshape(4, 1, 1)), conv=conv(padding=1)),
        ["Conv2d"],
    ),
    "weight computed": (Net(lambda m, x: F.conv2d(x, m.w * 2), w=nn.Parameter(torch.rand(2, 4, 1, 1))), ["Conv2d"]),
    "difference": (Net(lambda m, x: m.conv(x) - m.other(x), conv=conv(), other=conv()), ["Conv2d", "Conv2d", "Add"]),
    "scaled branch": (
        Net(lambda m, x: x + 0.1 * m.conv(x), conv=conv(padding=1)),
        ["Conv2d", "Add"],
    ),
    "weighted sum": (Net(lambda m, x: torch.add(x, m.conv(x), alpha=0.5), conv=conv(padding=1)), ["Conv2d", "Add"]),
    "of itself": (Net(lambda m, x: x - x * 0.5), ["Conv2d", "Add"]),
    "clamp of a ReLU": (Net(lambda m, x: m.conv(x).relu().clamp(max=4), conv=conv()), ["Conv2d", "Ceiling"]),
    "minimum": (
        Net(lambda m, x: torch.minimum(F.relu(m.conv(x)), m.c), conv=conv(), c=torch.tensor(4.0)),
        ["Conv2d", "Ceiling"],
    ),
    "clamp_max then relu": (Net(lambda m, x: m.conv(x).clamp_max(4).relu(), conv=conv()), ["Conv2d", "Ceiling"]),
    "identities": (Net(lambda m, x: m.conv(x * 1 + 0), conv=conv()), ["Conv2d"]),
}


@pytest.mark.parametrize("case", SPELLINGS)
def test_spellings_in_python(case: str) -> None:
    module, expected = SPELLINGS[case]
    assert kinds(same_as_module(module).graph) == expected


def test_a_module_called_twice_keeps_its_weight_where_only_one_call_is_scaled() -> None:
    def forward(m: Any, x: T) -> T:
        return m.conv(F.relu(m.conv(x) * 3))

    first, second = modules(same_as_module(Net(forward, conv=conv(padding=1))).graph, Conv2d)
    assert first.weight is not second.weight


def test_what_an_editor_adds_is_not_the_users() -> None:
    network = same_as_module(Net(lambda m, x: m.conv((x - 0.5) / 0.2), conv=conv(padding=1)))
    first, second = (n for n in network.graph.graph.nodes if n.op == "call_module")
    assert first.meta["inserted"]
    assert "inserted" not in second.meta


STEPS = ("relu", "relu6", "scale", "shift", "negate", "conv", "padded", "pool", "average", "norm", "pad")


@given(steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=7), seed=st.integers(0, 10**6), tail=st.booleans())
def test_any_order_of_operations_computes_the_same(steps: list[str], seed: int, tail: bool) -> None:
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    b = ModelBuilder((3, 8, 8), seed=seed)
    x = b.input
    for step in steps:
        channels, values = x.shape[0], random.uniform(0.5, 2, (x.shape[0], 1, 1))
        if step in ("relu", "relu6"):
            x = getattr(b, step)(x)
        elif step == "scale":
            x = constant(b, "Mul", x, values if seed % 2 else 1.5)
        elif step in ("shift", "negate"):
            x = constant(b, "Add", x, values) if step == "shift" else constant(b, "Mul", x, -values)
        elif step in ("conv", "padded"):
            x = b.conv(x, channels, pads=(1, 0, 1, 2) if step == "padded" or min(x.shape[1:]) < 3 else (0, 0, 0, 0))
        elif step == "pool":
            x = b.pool("MaxPool", x, (2, 1), pads=(1, 0, 0, 0))
        elif step == "average":
            x = b.pool("AveragePool", x, (1, 2), pads=(0, 1, 0, 0), count_include_pad=1)
        elif step == "norm":
            x = b.batch_norm(x)
        else:
            pads = b.constant([0, 0, 1, 0, 0, 0, 0, 2], np.int64)
            x = b.node("Pad", [x, pads], (channels, x.shape[1] + 1, x.shape[2] + 2))
    if tail:
        x = b.gemm(b.flatten(x), 3)
    same_as_onnx(b.build(x), (3, 8, 8))


def moved(b: ModelBuilder, x: Tensor, order: tuple[int, int, int]) -> Tensor:
    return b.node("Transpose", [x], tuple(x.shape[i - 1] for i in order), perm=[0, *order])


def test_constants_of_channels_that_are_last() -> None:
    """Keras: the normalisation of the input and a BatchNorm's constants, between transpositions and not."""
    b = ModelBuilder((6, 5, 3), seed=1)
    x = constant(b, "Sub", b.input, [0.1, 0.2, 0.3])
    x = b.conv(moved(b, constant(b, "Div", x, [1.0, 2.0, 3.0]), (3, 1, 2)), 4)
    x = constant(b, "Add", constant(b, "Mul", moved(b, x, (2, 3, 1)), np.arange(1.0, 5)), np.ones((1, 1, 4)) / 3)
    x = b.relu(constant(b, "Max", constant(b, "Min", x, 3.0), 0.0))
    model = b.build(b.gemm(b.flatten(moved(b, x, (3, 1, 2))), 3))
    network = same_as_onnx(model, (6, 5, 3))
    assert kinds(network.graph) == ["Conv2d", "Ceiling", "ReLU", "Flatten", "Linear"]
    assert network.own is not None


def test_constants_per_value_behind_a_flatten_that_is_reordered() -> None:
    b = ModelBuilder((3, 6, 5), seed=1)
    x = b.flatten(moved(b, b.relu(b.conv(b.input, 2)), (2, 3, 1)))
    same_as_onnx(b.build(b.gemm(constant(b, "Mul", x, np.arange(24)), 3)), (3, 6, 5))
