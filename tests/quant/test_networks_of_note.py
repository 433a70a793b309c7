"""Networks at the edges of what the editors handle, through the whole pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from .builder import ModelBuilder, Tensor
from .support import quantise, run_onnx

MAP = (4, 6, 6)

Recipe = Callable[[ModelBuilder], Tensor]


def _head(b: ModelBuilder, x: Tensor) -> Tensor:
    return b.gemm(b.flatten(b.global_pool(x)), 3)


def identity(b: ModelBuilder) -> Tensor:
    return b.node("Identity", [b.input], b.input.shape)


def flattened_input(b: ModelBuilder) -> Tensor:
    return b.flatten(b.input)


def relu_on_input(b: ModelBuilder) -> Tensor:
    return b.flatten(b.relu(b.input))


def input_added_to_itself(b: ModelBuilder) -> Tensor:
    return b.flatten(b.add(b.input, b.input))


def pool_on_input(b: ModelBuilder) -> Tensor:
    return b.gemm(b.flatten(b.pool("MaxPool", b.input, (2, 2), stride=(2, 2))), 3)


def mean_of_signed_values(b: ModelBuilder) -> Tensor:
    return b.flatten(b.global_pool(b.conv(b.input, 4)))


def mean_then_conv(b: ModelBuilder) -> Tensor:
    return b.flatten(b.conv(b.global_pool(b.relu(b.conv(b.input, 4))), 5, (1, 1)))


def mean_of_mean(b: ModelBuilder) -> Tensor:
    return b.flatten(b.global_pool(b.pool("AveragePool", b.relu(b.conv(b.input, 4)), (2, 2))))


def mean_and_map_share_a_scale(b: ModelBuilder) -> Tensor:
    x = b.relu(b.conv(b.input, 4, pads=(1, 1, 1, 1)))
    y = b.relu(b.conv(x, 4, pads=(1, 1, 1, 1)))
    total = b.relu(b.add(x, y))
    left = b.gemm(b.flatten(b.global_pool(total)), 3)
    right = b.gemm(b.flatten(b.pool("MaxPool", total, (2, 2))), 3)
    return b.add(left, right)


def add_into_batch_norm(b: ModelBuilder) -> Tensor:
    return _head(b, b.relu(b.batch_norm(b.add(b.conv(b.input, 4), b.conv(b.input, 4)))))


def add_through_max_pool(b: ModelBuilder) -> Tensor:
    x = b.conv(b.input, 4, pads=(1, 1, 1, 1))
    y = b.pool("MaxPool", b.relu(b.conv(b.input, 4)), (3, 3), pads=(2, 2, 2, 2))
    return _head(b, b.relu(b.add(x, y)))


def adds_sharing_operands(b: ModelBuilder) -> Tensor:
    x, y, z = (b.conv(b.input, 4) for _ in range(3))
    return b.flatten(b.add(b.relu(b.add(x, y)), b.add(y, z)))


def chain_of_adds(b: ModelBuilder) -> Tensor:
    x = b.conv(b.input, 4, pads=(1, 1, 1, 1))
    for _ in range(3):
        x = b.add(x, b.relu(b.conv(x, 4, pads=(1, 1, 1, 1))))
    return _head(b, b.relu(x))


def amplifying_residual(b: ModelBuilder) -> Tensor:
    """Tensors on one scale, made from each other by layers of a gain beyond int8: no scale satisfies both."""
    x = b.conv(b.input, 4)
    inner = b.relu(b.conv(x, 4, (1, 1), scale=1e3))
    return b.flatten(b.add(x, b.conv(inner, 4, (1, 1), scale=1e3)))


def relu_at_the_end(b: ModelBuilder) -> Tensor:
    return b.relu(b.gemm(b.flatten(b.input), 3))


def add_at_the_end(b: ModelBuilder) -> Tensor:
    x = b.flatten(b.input)
    return b.add(b.gemm(x, 3), b.gemm(x, 3))


def max_pool_at_the_end(b: ModelBuilder) -> Tensor:
    return b.flatten(b.pool("MaxPool", b.conv(b.input, 4), (4, 4)))


def zero_weights(b: ModelBuilder) -> Tensor:
    return b.flatten(b.conv(b.relu(b.conv(b.input, 4, scale=0.0)), 2, scale=0.0))


def bias_beyond_the_weights(b: ModelBuilder) -> Tensor:
    """The output is almost all bias, the weights need many fractional bits: the bias must not leave float32."""
    return b.flatten(b.conv(b.input, 4, scale=1e-7, bias_scale=10.0))


def relu6_added(b: ModelBuilder) -> Tensor:
    x = b.relu6(b.conv(b.input, 4))
    return _head(b, b.relu(b.add(x, b.conv(b.input, 4, scale=20.0))))


def relu6_of_a_sum(b: ModelBuilder) -> Tensor:
    return b.flatten(b.relu6(b.add(b.conv(b.input, 4), b.conv(b.input, 4))))


def relu6_pooled_and_added(b: ModelBuilder) -> Tensor:
    x = b.pool("MaxPool", b.relu6(b.conv(b.input, 4)), (2, 2))
    return b.flatten(b.add(x, x))


def layers_named_like_the_ends(b: ModelBuilder) -> Tensor:
    x = b.pool("MaxPool", b.relu(b.conv(b.input, 4, name="input")), (2, 2), name="zero")
    return b.gemm(b.flatten(x), 3, name="output")


def names_that_dory_would_misread(b: ModelBuilder) -> Tensor:
    return b.flatten(b.relu(b.conv(b.relu(b.conv(b.input, 4, name="bias")), 4, name="weight"), name="重み/bias.1"))


ALL = [v for v in list(globals().values()) if callable(v) and getattr(v, "__module__", "") == __name__]
NETWORKS: list[Recipe] = [f for f in ALL if not f.__name__.startswith("_")]


@pytest.mark.parametrize("recipe", NETWORKS, ids=lambda f: f.__name__)
def test_is_exact_and_close_to_the_float_network(recipe: Recipe, tmp_path: Path) -> None:
    b = ModelBuilder((5,) if recipe is identity else MAP, seed=3)
    model = b.build(recipe(b))
    x = np.random.default_rng(0).normal(0, 1, (32, *b.input_shape)).astype(np.float32)
    outcome = quantise(model, {"x_train": x}, tmp_path)
    expected = run_onnx(model, x)
    got = run_onnx(onnx.load(str(outcome.folder / "htvm/model.onnx")), x)[:, : expected.shape[1]]  # padding follows
    if recipe is amplifying_residual:
        assert any("weights clipped, its output shares a scale" in note for note in outcome.report["notes"])
        return
    assert np.sqrt(np.mean((got - expected) ** 2)) <= 0.1 * np.sqrt(np.mean(expected**2))
