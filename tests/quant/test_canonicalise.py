"""The canonical form, editor by editor: the structure changes, the function does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from dianaq_quant.editors.canonicalise import EDITORS
from dianaq_quant.editors.canonicalise.absorb_bias import AbsorbBias
from dianaq_quant.editors.canonicalise.anchor_activation import AnchorActivation
from dianaq_quant.editors.canonicalise.anchor_ceiling import AnchorCeiling
from dianaq_quant.editors.canonicalise.anchor_input import AnchorInput
from dianaq_quant.editors.canonicalise.average_pool_to_conv import AveragePoolToConv
from dianaq_quant.editors.canonicalise.batch_norm_to_conv import BatchNormToConv
from dianaq_quant.graph import Edit, Editor
from dianaq_quant.modules.structure import Conv2d

from .builder import ModelBuilder, Tensor
from .support import edited, kinds, modules, outputs, run_onnx

MAP = (4, 6, 5)

Recipe = Callable[[ModelBuilder], Tensor]


def same_function(recipe: Recipe, *editors: Editor, shape: tuple[int, ...] = MAP):
    """The network after the editors, which must compute what the model does in onnxruntime; and their edits."""
    b = ModelBuilder(shape, seed=2)
    model = b.build(recipe(b))
    x = np.random.default_rng(1).normal(0, 4, (5, *shape)).astype(np.float32)
    network, edits = edited(model, *editors)
    np.testing.assert_allclose(outputs(network, x), run_onnx(model, x), rtol=1e-4, atol=1e-4)
    return network, edits


def test_bias_is_absorbed_by_the_batch_norm() -> None:
    network, edits = same_function(lambda b: b.batch_norm(b.conv(b.input, 3)), AbsorbBias())
    (conv,) = modules(network, Conv2d)
    assert conv.bias is None
    assert edits == [Edit("AbsorbBias", "conv0", True, "bias moved into the following BatchNorm")]


def test_bias_of_a_fully_connected_layer_too() -> None:
    network, _ = same_function(lambda b: b.batch_norm(b.gemm(b.input, 3)), AbsorbBias(), shape=(4,))
    assert modules(network, nn.Linear)[0].bias is None


@pytest.mark.parametrize(
    "recipe",
    [
        lambda b: b.relu(b.conv(b.input, 3)),
        lambda b: b.batch_norm(b.conv(b.input, 3, bias=False)),
        lambda b: b.add(x := b.conv(b.input, 3), b.batch_norm(x)),
    ],
    ids=["no batch norm", "no bias", "read elsewhere"],
)
def test_bias_stays(recipe: Recipe) -> None:
    _, edits = same_function(recipe, AbsorbBias())
    assert edits == []


def test_batch_norm_without_a_layer_before_it_becomes_one() -> None:
    network, edits = same_function(lambda b: b.batch_norm(b.relu(b.input)), BatchNormToConv())
    assert kinds(network) == ["ReLU", "Conv2d"]
    (conv,) = modules(network, Conv2d)
    assert (conv.groups, conv.kernel_size) == (4, (1, 1))
    assert edits[0].note == "no linear layer before it: became a depthwise 1x1 layer"


def test_batch_norm_of_a_vector_becomes_a_diagonal_matrix() -> None:
    network, _ = same_function(lambda b: b.batch_norm(b.input), BatchNormToConv(), shape=(3,))
    (linear,) = modules(network, nn.Linear)
    assert torch.equal(linear.weight != 0, torch.eye(3).bool())


def test_batch_norm_of_a_layer_that_is_read_elsewhere_becomes_one() -> None:
    network, edits = same_function(
        lambda b: b.add(x := b.conv(b.input, 3), b.batch_norm(x)), AbsorbBias(), BatchNormToConv()
    )
    assert kinds(network) == ["Conv2d", "Conv2d", "Add"]
    assert edits[0].note == "conv0 is read elsewhere too: became a depthwise 1x1 layer"


def test_batch_norm_after_its_layer_stays_and_a_second_one_does_not() -> None:
    network, _ = same_function(lambda b: b.batch_norm(b.batch_norm(b.conv(b.input, 3))), BatchNormToConv())
    assert kinds(network) == ["Conv2d", "BatchNorm2d", "Conv2d"]


def test_partial_average_pool_becomes_a_convolution() -> None:
    network, edits = same_function(
        lambda b: b.pool("AveragePool", b.input, (2, 3), stride=(2, 1), pads=(1, 1, 0, 0), count_include_pad=1),
        AveragePoolToConv(),
    )
    (conv,) = modules(network, Conv2d)
    assert conv.weight.unique().tolist() == [pytest.approx(1 / 6)]
    assert (conv.groups, conv.stride, conv.pads, conv.bias) == (4, (2, 1), (1, 1, 0, 0), None)
    assert "over a part of the map" in edits[0].note


@pytest.mark.parametrize(
    ("recipe", "note"),
    [
        (lambda b: b.flatten(b.global_pool(b.input)), "of signed values"),
        (lambda b: b.flatten(b.global_pool(b.pool("MaxPool", b.input, (2, 2)))), "of signed values"),
        (lambda b: b.flatten(b.conv(b.global_pool(b.relu(b.input)), 2, (1, 1))), "that is not flattened"),
        (lambda b: b.add(b.flatten(x := b.global_pool(b.relu(b.input))), b.flatten(x)), "that is not flattened"),
        (
            lambda b: b.flatten(b.global_pool(b.pool("AveragePool", b.relu(b.input), (2, 2)))),
            "of signed values",  # the average before it becomes a layer, whose bias may be corrected below zero
        ),
    ],
)
def test_global_average_pool_that_the_compilers_do_not_take_becomes_a_convolution(recipe: Recipe, note: str) -> None:
    network, edits = same_function(recipe, AveragePoolToConv())
    assert "GlobalAvgPool2d" not in kinds(network)
    assert note in edits[-1].note


@pytest.mark.parametrize(
    "recipe",
    [
        lambda b: b.flatten(b.global_pool(b.relu(b.input))),
        lambda b: b.flatten(b.global_pool(b.pool("MaxPool", b.relu6(b.input), (2, 2)))),
    ],
)
def test_global_average_pool_of_rectified_values_that_is_flattened_stays(recipe: Recipe) -> None:
    network, edits = same_function(recipe, AveragePoolToConv())
    assert kinds(network)[-2:] == ["GlobalAvgPool2d", "Flatten"]
    assert edits == []


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (lambda b: b.relu(b.input), ["Conv2d", "ReLU"]),
        (lambda b: b.relu(b.relu(b.conv(b.input, 2))), ["Conv2d", "ReLU", "Conv2d", "ReLU"]),
        (lambda b: b.relu(b.pool("MaxPool", b.conv(b.input, 2), (2, 2))), ["Conv2d", "MaxPool2d", "Conv2d", "ReLU"]),
        (lambda b: b.relu(b.flatten(b.conv(b.input, 2))), ["Conv2d", "Flatten", "Linear", "ReLU"]),
        (lambda b: b.add(x := b.conv(b.input, 2), b.relu(x)), ["Conv2d", "Conv2d", "ReLU", "Add"]),
        (lambda b: b.relu6(b.add(b.input, b.input)), ["Add", "Conv2d", "Ceiling"]),
    ],
)
def test_relu_that_no_layer_can_compute_gets_one(recipe: Recipe, expected: list[str]) -> None:
    network, edits = same_function(recipe, AnchorActivation())
    assert kinds(network) == expected
    assert "cannot be requantised with a ReLU: identity layer inserted" in edits[-1].note


@pytest.mark.parametrize(
    "recipe",
    [
        lambda b: b.relu(b.conv(b.input, 2)),
        lambda b: b.relu6(b.batch_norm(b.conv(b.input, 2))),
        lambda b: b.relu(b.add(b.input, b.input)),
    ],
)
def test_relu_after_its_layer_stays(recipe: Recipe) -> None:
    assert same_function(recipe, AnchorActivation())[1] == []


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (lambda b: b.add(b.relu6(b.input), b.input), ["Ceiling", "Conv2d", "Add"]),
        (lambda b: b.add(x := b.relu6(b.input), x), ["Ceiling", "Conv2d", "Add"]),
        (
            lambda b: b.add(b.flatten(b.pool("MaxPool", b.relu6(b.input), (1, 1))), b.flatten(b.input)),
            ["Ceiling", "MaxPool2d", "Flatten", "Flatten", "Linear", "Add"],
        ),
        (lambda b: b.add(b.relu6(b.input), b.relu6(b.input)), ["Ceiling", "Ceiling", "Conv2d", "Conv2d", "Add"]),
    ],
)
def test_relu6_does_not_feed_an_addition(recipe: Recipe, expected: list[str]) -> None:
    network, edits = same_function(recipe, AnchorCeiling())
    assert sorted(kinds(network)) == sorted(expected)
    assert edits[-1].note == "adds what a fixed value bounds: identity layer inserted"
    assert len(edits) == 1


def test_inserted_layers_of_a_dotted_name_are_two_modules() -> None:
    network, _ = same_function(lambda b: b.add(b.relu6(b.input), b.relu6(b.input), name="net.0/Add"), AnchorCeiling())
    first, second = modules(network, Conv2d)
    assert first is not second


def test_relu_may_feed_an_addition() -> None:
    assert same_function(lambda b: b.add(b.relu(b.input), b.input), AnchorCeiling())[1] == []


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (lambda b: b.pool("MaxPool", b.input, (2, 2)), ["Conv2d", "MaxPool2d"]),
        (lambda b: b.add(b.input, b.input), ["Conv2d", "Add"]),
        (lambda b: b.add(b.conv(b.input, 4, (1, 1)), b.input), ["Conv2d", "Conv2d", "Add"]),
        (lambda b: b.flatten(b.input), ["Conv2d", "Flatten"]),
        (lambda b: b.relu(b.flatten(b.input)), ["Conv2d", "Flatten", "ReLU"]),
    ],
)
def test_what_reads_the_input_is_linear(recipe: Recipe, expected: list[str]) -> None:
    network, edits = same_function(recipe, AnchorInput())
    assert kinds(network) == expected
    assert edits[0].note == "reads the input and is not linear: identity layer inserted"


def test_an_input_that_is_the_output_gets_a_layer() -> None:
    network, _ = same_function(lambda b: b.node("Identity", [b.input], (3,)), AnchorInput(), shape=(3,))
    assert kinds(network) == ["Linear"]


@pytest.mark.parametrize("recipe", [lambda b: b.conv(b.input, 2), lambda b: b.gemm(b.flatten(b.input), 2)])
def test_layers_may_read_the_input(recipe: Recipe) -> None:
    assert same_function(recipe, AnchorInput())[1] == []


def test_identity_weight_is_exact_in_int8() -> None:
    network, _ = same_function(lambda b: b.relu(b.input), AnchorActivation())
    assert modules(network, Conv2d)[0].weight.unique().tolist() == [1.0]


def test_canonicalising_twice_changes_nothing_more() -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        x = b.batch_norm(b.pool("AveragePool", b.relu6(b.input), (2, 2)))
        y = b.relu6(b.add(b.relu6(x), b.conv(x, 4, (1, 1))))
        return b.relu(b.flatten(b.global_pool(y)))

    once, _ = same_function(recipe, *EDITORS)
    twice, edits = same_function(recipe, *EDITORS, *EDITORS)
    assert kinds(once) == kinds(twice)
    assert len({(e.editor, e.node) for e in edits}) == len(edits)
