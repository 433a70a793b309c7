"""Activations that follow each other, or stand side by side."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dianaq_quant.editors import canonicalise
from dianaq_quant.editors.canonicalise.drop_activation import DropActivation
from dianaq_quant.editors.canonicalise.fuse_activations import FuseActivations
from dianaq_quant.editors.canonicalise.merge_branches import MergeBranches

from .builder import ModelBuilder, Tensor
from .support import edited, kinds, outputs, run_onnx

Recipe = Callable[[ModelBuilder], Tensor]
FUSION = (DropActivation(), FuseActivations(), MergeBranches())


def conv(b: ModelBuilder) -> Tensor:
    return b.conv(b.input, 3)


def clip(b: ModelBuilder, x: Tensor, ceiling: float) -> Tensor:
    return b.node("Clip", [x, b.constant(0.0), b.constant(ceiling)], x.shape)


def branches(b: ModelBuilder) -> Tensor:
    x = conv(b)
    left, right = b.conv(b.relu(x), 3, (1, 1)), b.conv(b.relu(x), 3, (1, 1))
    return b.flatten(b.add(left, right))


@pytest.mark.parametrize(
    ("recipe", "left"),
    [
        (lambda b: b.relu(b.relu(b.relu(conv(b)))), ["ReLU"]),
        (lambda b: b.relu6(b.relu(conv(b))), ["Ceiling"]),
        (lambda b: b.relu(b.relu6(conv(b))), ["Ceiling"]),
        (lambda b: clip(b, clip(b, conv(b), 2.0), 6.0), ["Ceiling"]),
        (lambda b: clip(b, clip(b, conv(b), 6.0), 2.0), ["Ceiling"]),
        (lambda b: b.relu6(b.relu(b.relu(conv(b)))), ["Ceiling"]),
        (lambda b: b.relu(b.pool("MaxPool", b.relu(conv(b)), (2, 2))), ["ReLU", "MaxPool2d"]),
        (lambda b: b.relu(b.conv(b.relu(conv(b)), 2)), ["ReLU", "Conv2d", "ReLU"]),
    ],
)
def test_successive_activations_become_one(recipe: Recipe, left: list[str]) -> None:
    b = ModelBuilder((2, 5, 5), seed=3)
    model = b.build(b.flatten(recipe(b)))
    network, _ = edited(model, *FUSION)
    assert kinds(network) == ["Conv2d", *left, "Flatten"]
    x = np.random.default_rng(0).normal(0, 4, (3, 2, 5, 5)).astype(np.float32)
    np.testing.assert_allclose(outputs(network, x), run_onnx(model, x), rtol=1e-4, atol=1e-4)


def test_branches_share_one_activation_and_no_layer_is_added_for_it() -> None:
    b = ModelBuilder((2, 5, 5), seed=3)
    model = b.build(branches(b))
    network, edits = edited(model, *canonicalise.EDITORS)
    assert kinds(network).count("ReLU") == 1
    assert kinds(network).count("Conv2d") == 3
    assert [e.note for e in edits if e.editor == "MergeBranches"] == ["2 equal branches of one tensor became one"]
    x = np.random.default_rng(0).normal(0, 1, (3, 2, 5, 5)).astype(np.float32)
    np.testing.assert_allclose(outputs(network, x), run_onnx(model, x), rtol=1e-4, atol=1e-4)


def test_a_relu_that_others_read_keeps_standing_before_a_ceiling() -> None:
    b = ModelBuilder((2, 5, 5), seed=3)
    x = b.relu(conv(b))
    model = b.build(b.flatten(b.add(b.conv(b.relu6(x), 3, (1, 1)), x)))
    network, edits = edited(model, *FUSION)
    assert kinds(network)[:3] == ["Conv2d", "ReLU", "Ceiling"]
    assert [(e.applied, e.note.split(" ", 1)[1]) for e in edits] == [(False, "saturates it, but others read it too")]


def test_a_higher_ceiling_does_not_undo_a_lower_one() -> None:
    b = ModelBuilder((2, 5, 5), seed=3)
    model = b.build(b.flatten(clip(b, b.relu(clip(b, conv(b), 1.0)), 3.0)))
    network, _ = edited(model, *canonicalise.EDITORS)
    x = np.random.default_rng(0).normal(0, 4, (3, 2, 5, 5)).astype(np.float32)
    np.testing.assert_allclose(outputs(network, x), run_onnx(model, x), rtol=1e-4, atol=1e-4)
