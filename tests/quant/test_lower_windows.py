"""Padding, slices and pools in forms that the chip has no operation for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from dianaq.errors import UnsupportedOperator
from dianaq.inspection import inspect_model
from dianaq_quant.importers import import_module
from dianaq_quant.modules.structure import AvgPool2d, Conv2d, MaxPool2d

from .builder import ModelBuilder, Tensor
from .support import Net, kinds, modules
from .test_lower_arithmetic import MAP, of, same_as_module, same_as_onnx

Recipe = Callable[[ModelBuilder], Tensor]


def pad(b: ModelBuilder, x: Tensor, *pads: int, channels: tuple[int, int] = (0, 0)) -> Tensor:
    """Zeros at the top, left, bottom and right."""
    top, left, bottom, right = pads
    widths = [0, channels[0], top, left, 0, channels[1], bottom, right]
    shape = (x.shape[0] + sum(channels), x.shape[1] + top + bottom, x.shape[2] + left + right)
    if b.opset < 11:
        return b.node("Pad", [x], shape, pads=widths)
    return b.node("Pad", [x, b.constant(widths, np.int64)], shape)


def sliced(b: ModelBuilder, x: Tensor, axis: int, start: int, end: int, step: int) -> Tensor:
    shape = list(x.shape)
    shape[axis - 1] = len(range(shape[axis - 1])[start:end:step])
    bounds = [b.constant([v], np.int64) for v in (start, end, axis, step)]
    return b.node("Slice", [x, *bounds], tuple(shape))


def strided(b: ModelBuilder, x: Tensor) -> Tensor:
    """`x[:, :, ::2, ::2]` as exporters write it."""
    return sliced(b, sliced(b, x, 2, 0, 2**63 - 1, 2), 3, 0, 2**63 - 1, 2)


PADDED: dict[str, tuple[Recipe, list[str]]] = {
    "into a convolution": (lambda b: b.conv(pad(b, b.input, 1, 0, 2, 1), 3), ["Conv2d"]),
    "into a padded convolution": (lambda b: b.conv(pad(b, b.input, 1, 0, 0, 1), 3, pads=(1, 1, 1, 1)), ["Conv2d"]),
    "through a ReLU6": (
        lambda b: b.conv(b.relu6(pad(b, b.conv(b.input, 3), 1, 1, 1, 1)), 3),
        ["Conv2d", "Ceiling", "Conv2d"],
    ),
    "into an average pool": (
        lambda b: b.pool("AveragePool", pad(b, b.input, 0, 1, 1, 0), (3, 2), count_include_pad=1),
        ["AvgPool2d"],
    ),
    "into a max pool of what is not negative": (
        lambda b: b.pool("MaxPool", pad(b, b.relu(b.input), 1, 1, 1, 1), (3, 3), stride=(2, 2)),
        ["ReLU", "MaxPool2d"],
    ),
    "into a max pool behind a ReLU": (
        lambda b: b.pool("MaxPool", b.relu(pad(b, b.input, 1, 1, 1, 1)), (3, 3)),
        ["ReLU", "MaxPool2d"],
    ),
    "into a max pool of signed values": (
        lambda b: b.pool("MaxPool", pad(b, b.conv(b.input, 2), 1, 0, 1, 1), (3, 3)),
        ["Conv2d", "Conv2d", "MaxPool2d"],
    ),
    "wider than the kernel": (lambda b: b.conv(pad(b, b.input, 2, 1, 2, 0), 3, (1, 1)), ["Conv2d", "Conv2d"]),
    "twice": (lambda b: b.conv(pad(b, pad(b, b.input, 1, 0, 0, 0), 0, 1, 1, 1), 3), ["Conv2d"]),
    "nothing": (lambda b: b.conv(pad(b, b.input, 0, 0, 0, 0), 3), ["Conv2d"]),
    "into both readers": (
        lambda b: b.add(b.conv(x := pad(b, b.input, 1, 1, 1, 1), 3), b.relu(b.conv(x, 3))),
        ["Conv2d", "Conv2d", "ReLU", "Add"],
    ),
    "read by an addition too": (
        lambda b: b.add(b.conv(x := pad(b, b.input, 1, 1, 1, 1), 4, pads=(1, 1, 1, 1)), x),
        ["Conv2d", "Conv2d", "Add"],
    ),
    "channels": (lambda b: b.conv(pad(b, b.input, 1, 1, 1, 1, channels=(1, 2)), 3), ["Conv2d", "Conv2d"]),
    "channels behind an average": (
        lambda b: pad(b, b.pool("AveragePool", b.input, (2, 2), stride=(2, 2)), 0, 0, 0, 0, channels=(2, 2)),
        ["Conv2d"],
    ),
    "factor behind it": (
        lambda b: b.conv(b.node("Mul", [pad(b, b.input, 1, 1, 1, 1), b.constant(0.5)], (4, 8, 7)), 2),
        ["Conv2d"],
    ),
    "offset behind it": (
        lambda b: b.conv(b.node("Add", [pad(b, b.input, 1, 1, 1, 1), b.constant(0.5)], (4, 8, 7)), 2),
        ["Conv2d"],
    ),
}


@pytest.mark.parametrize("opset", [10, 13])
@pytest.mark.parametrize("case", PADDED)
def test_where_padding_goes(case: str, opset: int) -> None:
    recipe, expected = PADDED[case]
    assert sorted(kinds(of(recipe, opset=opset).graph)) == sorted(expected)


def test_padding_with_axes() -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        pads, axes = b.constant([1, 2, 0, 0], np.int64), b.constant([3, -2], np.int64)
        return b.conv(b.node("Pad", [b.input, pads, b.constant(0.0), axes], (4, 8, 6)), 3, (3, 3))

    (conv,) = modules(of(recipe, opset=18).graph, Conv2d)
    assert conv.pads == (2, 1, 0, 0)


SLICED: dict[str, tuple[Recipe, list[tuple[int, tuple[int, int], tuple[int, int]]]]] = {
    "every second": (lambda b: strided(b, b.input), [(4, (1, 1), (2, 2))]),
    "with channels": (lambda b: pad(b, strided(b, b.input), 0, 0, 0, 0, channels=(1, 3)), [(1, (1, 1), (2, 2))]),
    "from the second on": (lambda b: sliced(b, b.input, 2, 1, 100, 2), [(4, (2, 1), (2, 1))]),
    "everything": (lambda b: b.conv(sliced(b, b.input, 2, 0, 100, 1), 4, (1, 1), group=4), [(4, (1, 1), (1, 1))]),
    "negative end": (lambda b: sliced(b, b.input, 3, -5, 5, 3), [(4, (1, 1), (1, 3))]),
}


@pytest.mark.parametrize("case", SLICED)
def test_slices_are_convolutions(case: str) -> None:
    recipe, expected = SLICED[case]
    found = modules(of(recipe).graph, Conv2d)
    assert [(m.groups, m.kernel_size, m.stride) for m in found] == expected


def test_a_crop_by_the_attributes_of_old_opsets_is_refused() -> None:
    b = ModelBuilder(MAP, opset=9)
    model = b.build(b.node("Slice", [b.input], (4, 3, 5), starts=[0], ends=[3], axes=[2]))
    with pytest.raises(UnsupportedOperator, match=r"it takes \(3, 5\) rows and columns from \(0, 0\) on"):
        same_as_onnx(model)


POOLED: dict[str, tuple[Recipe, list[str]]] = {
    "global maximum": (lambda b: b.node("GlobalMaxPool", [b.input], (4, 1, 1)), ["MaxPool2d"]),
    "maximum kept": (lambda b: b.node("ReduceMax", [b.input], (4, 1, 1), axes=[-1, -2], keepdims=1), ["MaxPool2d"]),
    "maximum": (lambda b: b.node("ReduceMax", [b.input], (4,), axes=[2, 3], keepdims=0), ["MaxPool2d", "Flatten"]),
    "no padding met": (
        lambda b: b.node("AveragePool", [b.input], (4, 3, 2), kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 1, 0]),
        ["AvgPool2d"],
    ),
    "SAME that fits": (
        lambda b: b.node(
            "AveragePool", [b.input], (4, 3, 5), kernel_shape=[2, 1], strides=[2, 1], auto_pad="SAME_UPPER"
        ),
        ["AvgPool2d"],
    ),
    "average rounded up that fits": (
        lambda b: b.node("AveragePool", [b.input], (4, 3, 1), kernel_shape=[2, 5], strides=[2, 1], ceil_mode=1),
        ["AvgPool2d"],
    ),
}


@pytest.mark.parametrize("case", POOLED)
def test_pools(case: str) -> None:
    recipe, expected = POOLED[case]
    assert kinds(of(recipe).graph) == expected


WINDOW = st.tuples(*(st.integers(1, 4) for _ in range(4)))


@given(window=WINDOW, size=st.tuples(st.integers(2, 9), st.integers(2, 9)), data=st.data())
def test_max_pools_that_round_up(window: tuple[int, ...], size: tuple[int, int], data: st.DataObject) -> None:
    kernel, stride = window[:2], window[2:]
    pads = tuple(data.draw(st.integers(0, k - 1)) for k in kernel * 2)
    assume(all(s + pads[i] + pads[i + 2] >= kernel[i] for i, s in enumerate(size)))
    b = ModelBuilder((2, *size))
    shape = []
    for i, s in enumerate(size):
        count = -(-(s + pads[i] + pads[i + 2] - kernel[i]) // stride[i]) + 1
        shape.append(count - ((count - 1) * stride[i] >= s + pads[i]))
    y = b.node("MaxPool", [b.input], (2, *shape), kernel_shape=kernel, strides=stride, pads=pads, ceil_mode=1)
    network = same_as_onnx(b.build(b.relu(y), check=False), (2, *size))
    (pool,) = modules(network.graph, MaxPool2d)
    assert all(p < k for p, k in zip(pool.pads, kernel * 2, strict=True))


@given(
    kernel=st.integers(1, 4), stride=st.integers(1, 4), size=st.integers(3, 9), pad=st.integers(0, 2), up=st.booleans()
)
def test_max_pools_of_python(kernel: int, stride: int, size: int, pad: int, up: bool) -> None:
    assume(pad <= kernel // 2 and size + 2 * pad >= kernel)
    same_as_module(nn.MaxPool2d(kernel, stride, pad, ceil_mode=up), (2, size, size + 1))


@given(
    pads=st.tuples(*(st.integers(0, 3) for _ in range(4))),
    channels=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    reader=st.sampled_from(["conv", "average", "maximum", "rectified", "sum", "none"]),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_any_padding_before_any_reader(
    pads: tuple[int, ...], channels: tuple[int, int], reader: str, kernel: tuple[int, int]
) -> None:
    b = ModelBuilder((2, 5, 4), seed=1)
    x = pad(b, b.relu(b.input) if reader == "rectified" else b.input, *pads, channels=channels)
    if reader == "conv":
        x = b.conv(x, 3, kernel)
    elif reader == "sum":
        x = b.add(x, b.conv(x, x.shape[0], (1, 1)))
    elif reader != "none":
        op = "AveragePool" if reader == "average" else "MaxPool"
        x = b.pool(op, x, kernel, **({"count_include_pad": 1} if reader == "average" else {}))
    same_as_onnx(b.build(b.relu(x)), (2, 5, 4))


@given(
    starts=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    steps=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    channels=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_any_stride_of_a_slice(
    starts: tuple[int, int], steps: tuple[int, int], size: tuple[int, int], channels: tuple[int, int]
) -> None:
    assume(all(start < step for start, step in zip(starts, steps, strict=True)))
    widths = (0, 0, 0, 0, *channels)
    module = Net(lambda m, x: F.pad(x[..., starts[0] :: steps[0], starts[1] :: steps[1]], widths).relu())
    same_as_module(module, (2, *size))
    b = ModelBuilder((2, *size))
    x = sliced(b, sliced(b, b.input, 2, starts[0], 99, steps[0]), 3, starts[1], 99, steps[1])
    same_as_onnx(b.build(b.relu(pad(b, x, 0, 0, 0, 0, channels=channels))), (2, *size))


def conv(**settings: Any) -> nn.Conv2d:
    return nn.Conv2d(4, 4, 3, **settings)


SPELLINGS: dict[str, tuple[nn.Module, list[str]]] = {
    "ZeroPad2d": (nn.Sequential(nn.ZeroPad2d((1, 0, 2, 1)), conv()), ["Conv2d"]),
    "ConstantPad2d": (nn.Sequential(nn.ConstantPad2d(1, 0.0), nn.ReLU(), conv()), ["ReLU", "Conv2d"]),
    "F.pad of the width": (Net(lambda m, x: m.conv(F.pad(x, (2, 1))), conv=conv()), ["Conv2d"]),
    "F.pad with a value": (Net(lambda m, x: m.conv(F.pad(x, [1, 1, 1, 1], "constant", 0)), conv=conv()), ["Conv2d"]),
    "F.pad of nothing": (Net(lambda m, x: m.conv(F.pad(x, (0, 0))), conv=conv()), ["Conv2d"]),
    "F.pad as SAME of the shape": (
        Net(lambda m, x: m.conv(F.pad(x, (0, x.shape[-1] % 2, 0, -x.size(2) % 4))), conv=conv(stride=2)),
        ["Conv2d"],
    ),
    "option A": (
        Net(
            lambda m, x: F.relu(m.conv(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))), conv=nn.Conv2d(4, 8, 3, 2, 1)
        ),
        ["Conv2d", "Conv2d", "Add", "ReLU"],
    ),
    "option A by an average": (
        Net(lambda m, x: m.conv(x) + F.pad(F.avg_pool2d(x, 1, 2), (0, 0, 0, 0, 0, 4)), conv=nn.Conv2d(4, 8, 3, 2, 1)),
        ["Conv2d", "Conv2d", "Add"],
    ),
    "amax": (Net(lambda m, x: m.conv(x).amax((2, 3)), conv=conv()), ["Conv2d", "MaxPool2d", "Flatten"]),
    "torch.amax kept": (Net(lambda m, x: torch.amax(x, dim=(-1, -2), keepdim=True)), ["MaxPool2d"]),
    "adaptive": (nn.AdaptiveMaxPool2d(1), ["MaxPool2d"]),
    "average without the padding that it does not meet": (
        nn.AvgPool2d(2, 2, 0, ceil_mode=False, count_include_pad=False),
        ["AvgPool2d"],
    ),
}


LINES: dict[str, tuple[nn.Module, list[str]]] = {
    "causal": (nn.Sequential(nn.ConstantPad1d((2, 0), 0.0), nn.Conv1d(4, 3, 3)), ["Conv2d", "Flatten"]),
    "ZeroPad1d": (nn.Sequential(nn.ZeroPad1d(1), nn.ReLU(), nn.Conv1d(4, 3, 3)), ["ReLU", "Conv2d", "Flatten"]),
    "F.pad": (Net(lambda m, x: m.conv(F.pad(x, (1, 2))), conv=nn.Conv1d(4, 3, 4)), ["Conv2d", "Flatten"]),
    "slice and channels": (Net(lambda m, x: F.pad(x[:, :, ::2], (0, 0, 0, 4)).relu()), ["Conv2d", "ReLU", "Flatten"]),
}


@pytest.mark.parametrize("case", LINES)
def test_lines_in_python(case: str) -> None:
    module, expected = LINES[case]
    assert sorted(kinds(same_as_module(nn.Sequential(module, nn.Flatten()), (4, 9)).graph)) == sorted(expected)


def test_lines_of_onnx() -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        x = b.node("Pad", [b.input, b.constant([0, 0, 2, 0, 0, 0], np.int64)], (4, 11))
        x = b.node("Conv", [x, b.constant(b.random.normal(size=(5, 4, 3)))], (5, 9))
        return b.flatten(b.node("Slice", [x, *(b.constant([v], np.int64) for v in (0, 9, 2, 3))], (5, 3)))

    assert kinds(of(recipe, (4, 9)).graph) == ["Conv2d", "Conv2d", "Flatten"]


@pytest.mark.parametrize("case", SPELLINGS)
def test_spellings_in_python(case: str) -> None:
    module, expected = SPELLINGS[case]
    assert sorted(kinds(same_as_module(module).graph)) == sorted(expected)


def test_layers_made_of_padding_hold_ones() -> None:
    network = import_module(Net(lambda m, x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)).relu()), MAP)
    (layer,) = modules(network.graph, Conv2d)
    assert layer.bias is None
    assert layer.weight.sum((1, 2, 3)).tolist() == [0, 0, 1, 1, 1, 1, 0, 0]
    assert [e.note for e in network.edits if e.editor == "SliceToLayer"] == ["became a convolution with its stride"]


def test_padding_of_an_average_counts() -> None:
    network = of(
        lambda b: b.pool("AveragePool", pad(b, b.input, 1, 1, 1, 1), (3, 3), pads=(1, 0, 0, 0), count_include_pad=1)
    )
    assert modules(network.graph, AvgPool2d)[0].pads == (2, 1, 1, 1)


def last(b: ModelBuilder, x: Tensor, *, first: bool = False) -> Tensor:
    """Channels last; or, the other way round, first."""
    order = (3, 1, 2) if first else (2, 3, 1)
    return b.node("Transpose", [x], tuple(x.shape[i - 1] for i in order), perm=[0, *order])


@pytest.mark.parametrize("shape", [(7, 6, 3), (7, 6, 1)])
def test_padding_of_an_input_whose_channels_are_last(shape: tuple[int, ...], tmp_path: Path) -> None:
    b = ModelBuilder(shape)
    x = pad(b, b.node("Div", [b.input, b.constant(2.0)], shape), 2, 0, 1, 0, channels=(0, 1))
    model = b.build(b.relu(b.conv(last(b, x, first=True), 4)))
    network = same_as_onnx(model, shape)
    assert kinds(network.graph) == ["Conv2d", "ReLU"]
    assert modules(network.graph, Conv2d)[0].pads == (0, 2, 1, 1)
    onnx.save(model, str(tmp_path / "model.onnx"))
    assert network.own is not None
    assert inspect_model(tmp_path / "model.onnx").arrangement == network.own.arrangement


def test_padding_of_maps_whose_channels_are_last() -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        x = pad(b, b.relu(last(b, b.conv(b.input, 3))), 1, 0, 1, 0, channels=(1, 1))
        return b.conv(last(b, x, first=True), 2)

    assert kinds(of(recipe).graph) == ["Conv2d", "ReLU", "Conv2d"]
