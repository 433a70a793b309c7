"""Networks in other layouts than (N, C, H, W): what the editors of `lower` make of them, one by one and together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from dianaq.errors import InvalidModel, UnsupportedOperator
from dianaq.inspection import inspect_model
from dianaq_quant.editors.lower import LAYOUTS
from dianaq_quant.editors.lower.flatten_first import FlattenFirst
from dianaq_quant.editors.lower.lay_input import LayInput
from dianaq_quant.editors.lower.lay_output import LayOutput
from dianaq_quant.editors.lower.merge_rearrangements import MergeRearrangements
from dianaq_quant.editors.lower.pool_before_rearranging import PoolBeforeRearranging
from dianaq_quant.editors.lower.reorder_features import ReorderFeatures
from dianaq_quant.editors.lower.sink_rearrangements import SinkRearrangements
from dianaq_quant.editors.lower.sink_reorders import SinkReorders
from dianaq_quant.editors.lower.turn_windows import TurnWindows
from dianaq_quant.graph import Editor, run_editors
from dianaq_quant.graph.shapes import record_shapes
from dianaq_quant.graph.surgery import input_node
from dianaq_quant.importers import Network, import_module, import_onnx
from dianaq_quant.modules.activations import SlopedReLU
from dianaq_quant.modules.layout import Reorder, permutation, rearrange, reshape
from dianaq_quant.modules.structure import (
    Add,
    AvgPool2d,
    Ceiling,
    Conv2d,
    Flatten,
    GlobalAvgPool2d,
    MaxPool2d,
)

from .builder import ModelBuilder
from .builder import Tensor as Built
from .support import kinds, modules, network_of, outputs, run_onnx

Shape = tuple[int, ...]


class Chained:
    """A graph of modules, built one after the other."""

    def __init__(self, shape: Shape) -> None:
        self.root, self.graph, self.shape = nn.Module(), fx.Graph(), shape
        self.input = self.graph.placeholder("input")

    def call(self, module: nn.Module, *sources: fx.Node) -> fx.Node:
        name = f"m{len(self.root._modules)}"
        self.root.add_module(name, module.eval())
        return self.graph.call_module(name, sources)

    def chain(self, *modules: nn.Module) -> fx.GraphModule:
        node = self.input
        for module in modules:
            node = self.call(module, node)
        return self.network(node)

    def network(self, output: fx.Node) -> fx.GraphModule:
        self.graph.output(output)
        network = fx.GraphModule(self.root, self.graph).eval()
        record_shapes(network, self.shape)
        return network


def conv(channels: int, out: int, kernel: tuple[int, int] = (3, 3), **options: object) -> Conv2d:
    torch.manual_seed(channels * out)
    return Conv2d(channels, out, kernel, **options)


def same(network: fx.GraphModule, shape: Shape, *editors: Editor) -> list[str]:
    """Apply editors, see that the function is the same, and give the kinds of the modules that are left."""
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    before = network(x)
    run_editors(network, editors)
    own, given = (end.meta.get("own") for end in (input_node(network), network.graph.output_node()))
    after = network(x if own is None else rearrange(x, own.arrangement))
    wanted = before if given is None else rearrange(before, given.arrangement)
    torch.testing.assert_close(after, wanted, rtol=1e-5, atol=1e-6)
    for node in network.graph.nodes:
        if node.op == "call_module":
            assert "shape" in node.meta
    return kinds(network)


MAP = (3, 4, 5)
LAST = (4, 5, 3)


@pytest.mark.parametrize(
    ("shape", "modules", "left"),
    [
        (MAP, [permutation(MAP, (1, 2, 0)), permutation(LAST, (2, 0, 1)), nn.ReLU()], ["ReLU"]),
        (MAP, [reshape(MAP, (3, 20)), reshape((3, 20), (60,))], ["Flatten"]),
        (MAP, [permutation(MAP, (1, 2, 0)), permutation(LAST, (1, 0, 2))], ["Rearrange"]),
        ((3, 1, 1), [permutation((3, 1, 1), (1, 2, 0)), reshape((1, 1, 3), (3,))], ["Flatten"]),
        ((3,), [reshape((3,), (3, 1, 1)), Flatten(), nn.ReLU()], ["ReLU"]),
        (MAP, [reshape(MAP, (12, 5)), permutation((12, 5), (1, 0))], ["Rearrange", "Rearrange"]),
    ],
)
def test_rearrangements_in_a_row_become_one(shape: Shape, modules: list[nn.Module], left: list[str]) -> None:
    assert same(Chained(shape).chain(*modules), shape, MergeRearrangements()) == left


@pytest.mark.parametrize("module", [nn.ReLU(), Ceiling(0.5), nn.LeakyReLU()])
def test_a_rearrangement_goes_behind_what_is_computed_value_by_value(module: nn.Module) -> None:
    network = Chained(MAP).chain(permutation(MAP, (1, 2, 0)), module)
    assert same(network, MAP, SinkRearrangements()) == [type(module).__name__, "Rearrange"]


@pytest.mark.parametrize("slopes", [1, 3])
def test_slopes_of_channels_go_where_the_channels_are(slopes: int) -> None:
    channels_last = permutation(MAP, (1, 2, 0))
    per_channel = SlopedReLU(torch.linspace(0.1, 0.9, slopes))
    assert same(Chained(MAP).chain(channels_last, per_channel), MAP, SinkRearrangements()) == [
        "SlopedReLU",
        "Rearrange",
    ]
    prelu = nn.PReLU(slopes)
    prelu.weight.data = torch.linspace(0.1, 0.9, slopes)
    network = Chained(LAST).chain(permutation(LAST, (2, 0, 1)), prelu)
    assert same(network, LAST, SinkRearrangements()) == ["SlopedReLU", "Rearrange"]


def test_a_rearrangement_goes_behind_a_sum_of_two_that_have_it() -> None:
    b = Chained(MAP)
    turned = b.call(permutation(MAP, (1, 2, 0)), b.call(nn.ReLU(), b.input))
    other = b.call(permutation(MAP, (1, 2, 0)), b.input)
    assert same(b.network(b.call(Add(), turned, other)), MAP, SinkRearrangements()) == ["ReLU", "Add", "Rearrange"]


def test_a_rearrangement_stays_before_a_sum_that_mixes_two() -> None:
    b = Chained((3, 4, 4))
    turned = b.call(permutation((3, 4, 4), (0, 2, 1)), b.input)
    assert same(b.network(b.call(Add(), turned, b.input)), (3, 4, 4), SinkRearrangements()) == ["Rearrange", "Add"]


def test_a_flatten_stays_where_it_is() -> None:
    assert same(Chained(MAP).chain(Flatten(), nn.ReLU()), MAP, SinkRearrangements()) == ["Flatten", "ReLU"]


@pytest.mark.parametrize(
    "module",
    [
        conv(3, 6, (3, 2), stride=(1, 2), dilation=(2, 1), pads=(1, 0, 2, 1), groups=3),
        MaxPool2d((3, 2), (2, 1), (1, 0, 1, 1)),
        AvgPool2d((1, 2), (1, 2), (0, 1, 0, 0)),
        GlobalAvgPool2d(),
        nn.BatchNorm2d(3),
    ],
)
def test_a_window_over_a_turned_map_is_turned(module: nn.Module) -> None:
    shape = (3, 7, 6)
    network = Chained(shape).chain(permutation(shape, (0, 2, 1)), module)
    left = same(network, shape, TurnWindows(), MergeRearrangements())
    assert left == [type(module).__name__, "Rearrange"][: 1 if isinstance(module, GlobalAvgPool2d) else 2]


@pytest.mark.parametrize("made", [(3, 1, 20), (3, 10, 2)])
def test_a_mean_is_the_same_over_a_map_of_another_shape(made: Shape) -> None:
    network = Chained(MAP).chain(reshape(MAP, made), GlobalAvgPool2d())
    assert same(network, MAP, PoolBeforeRearranging(), MergeRearrangements()) == ["GlobalAvgPool2d"]


def test_a_mean_over_other_channels_is_another_one() -> None:
    network = Chained(MAP).chain(reshape(MAP, (4, 3, 5)), GlobalAvgPool2d())
    assert same(network, MAP, PoolBeforeRearranging()) == ["Rearrange", "GlobalAvgPool2d"]


def test_a_flatten_of_another_layout_reorders_the_columns_of_the_weight() -> None:
    norm = nn.BatchNorm1d(60)
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        assert tensor is not None
        tensor.uniform_(0.5, 1.5)
    steps = [permutation(MAP, (1, 2, 0)), reshape(LAST, (60,)), nn.ReLU(), norm, nn.Linear(60, 2)]
    network = Chained(MAP).chain(*steps)
    assert same(network, MAP, MergeRearrangements(), FlattenFirst())[:2] == ["Flatten", "Reorder"]
    assert same(network, MAP, SinkReorders(), SinkReorders()) == ["Flatten", "ReLU", "BatchNorm1d", "Reorder", "Linear"]
    assert same(network, MAP, ReorderFeatures()) == ["Flatten", "ReLU", "BatchNorm1d", "Linear"]


def test_a_sum_of_vectors_of_two_orders_keeps_them() -> None:
    b = Chained((4,))
    left, right = (b.call(Reorder(torch.tensor(order)), b.input) for order in ([1, 0, 3, 2], [3, 2, 1, 0]))
    assert same(b.network(b.call(Add(), left, right)), (4,), SinkReorders()) == ["Reorder", "Reorder", "Add"]


def test_the_input_is_given_as_the_network_arranges_it() -> None:
    b = Chained(LAST)
    first = b.call(nn.ReLU(), b.input)
    maps = b.call(conv(3, 2, (1, 1)), b.call(permutation(LAST, (2, 0, 1)), first))
    network = b.network(b.call(GlobalAvgPool2d(), maps))
    assert same(network, LAST, *LAYOUTS) == ["ReLU", "Conv2d", "GlobalAvgPool2d"]  # type: ignore[arg-type]
    assert input_node(network).meta["shape"] == MAP


def test_the_input_stays_where_a_layer_reads_it_as_it_is() -> None:
    b = Chained(MAP)
    maps = b.call(conv(3, 3, (1, 1)), b.input)
    total = b.call(Add(), b.call(permutation(MAP, (1, 2, 0)), maps), b.call(permutation(MAP, (1, 2, 0)), b.input))
    network = b.network(total)
    assert same(network, MAP, LayInput()) == ["Conv2d", "Rearrange", "Rearrange", "Add"]
    assert same(network, MAP, *LAYOUTS) == ["Conv2d", "Add"]  # type: ignore[arg-type]
    assert network.graph.output_node().meta["own"].shape == LAST


def test_the_output_is_given_as_it_is_computed() -> None:
    network = Chained(MAP).chain(nn.ReLU(), permutation(MAP, (1, 2, 0)))
    assert same(network, MAP, LayOutput()) == ["ReLU"]
    assert same(Chained(MAP).chain(nn.ReLU(), reshape(MAP, (6, 10))), MAP, LayOutput()) == ["ReLU", "Rearrange"]


# Whole files, in the forms of tf2onnx (channels last, with the transpositions left in) and of 1-d networks.


def to_first(b: ModelBuilder, x: Built) -> Built:
    height, width, channels = x.shape
    return b.node("Transpose", [x], (channels, height, width), perm=[0, 3, 1, 2])


def to_last(b: ModelBuilder, x: Built) -> Built:
    channels, height, width = x.shape
    return b.node("Transpose", [x], (height, width, channels), perm=[0, 2, 3, 1])


def wrapped(b: ModelBuilder, x: Built, layer: Callable[[Built], Built]) -> Built:
    return to_last(b, layer(to_first(b, x)))


def shaped(b: ModelBuilder, x: Built, shape: Shape) -> Built:
    return b.node("Reshape", [x, b.constant([-1, *shape], np.int64)], shape)


def classifier(b: ModelBuilder, x: Built) -> Built:
    return b.node("Softmax", [b.bias(b.matmul(x, 4))], (4,))


def mean_last(b: ModelBuilder, x: Built) -> Built:
    return b.node("ReduceMean", [x], x.shape[-1:], axes=[1, 2], keepdims=0)


def nhwc_residual(b: ModelBuilder) -> Built:
    first = b.relu(wrapped(b, b.input, lambda x: b.conv(x, 4, pads=(1, 1, 1, 1))))
    second = wrapped(b, first, lambda x: b.conv(x, 4, pads=(1, 1, 1, 1)))
    return classifier(b, mean_last(b, b.relu(b.add(first, second))))


def nhwc_flatten(b: ModelBuilder) -> Built:
    x = b.relu(wrapped(b, b.input, lambda x: b.conv(x, 4)))
    x = wrapped(b, x, lambda x: b.pool("MaxPool", x, (2, 2), stride=(2, 2)))
    return classifier(b, shaped(b, x, (int(np.prod(x.shape)),)))


def nhwc_squeezed(b: ModelBuilder) -> Built:
    x = b.relu(wrapped(b, b.input, lambda x: b.conv(x, 4)))
    x = wrapped(b, x, b.global_pool)
    return classifier(b, shaped(b, x, (4,)))


def nhwc_after_relu(b: ModelBuilder) -> Built:
    x = wrapped(b, b.relu6(b.relu(b.input)), lambda x: b.conv(x, 4))
    return classifier(b, shaped(b, x, (int(np.prod(x.shape)),)))


def nhwc_maps(b: ModelBuilder) -> Built:
    return wrapped(b, b.input, lambda x: b.conv(x, 4))


def nhwc_autoencoder(b: ModelBuilder) -> Built:
    x = b.relu(wrapped(b, b.input, lambda x: b.conv(x, 4)))
    return b.bias(b.matmul(shaped(b, x, (int(np.prod(x.shape)),)), int(np.prod(b.input.shape))))


def keras_line(b: ModelBuilder) -> Built:
    """Conv1D over (N, L, C): the height comes and goes; MaxPooling1D has the length in the height instead."""
    length, channels = b.input.shape
    x = to_first(b, b.node("Unsqueeze", [b.input, b.constant([1], np.int64)], (1, length, channels)))
    x = to_last(b, b.conv(x, 4, (1, 3), pads=(0, 1, 0, 1)))
    x = b.relu(b.node("Squeeze", [x, b.constant([1], np.int64)], (length, 4)))
    x = to_first(b, b.node("Unsqueeze", [x, b.constant([2], np.int64)], (length, 1, 4)))
    x = to_last(b, b.pool("MaxPool", x, (2, 1), stride=(2, 1)))
    x = b.node("Squeeze", [x, b.constant([2], np.int64)], (length // 2, 4))
    x = to_first(b, b.node("Unsqueeze", [x, b.constant([1], np.int64)], (1, length // 2, 4)))
    x = to_last(b, b.conv(x, 6, (1, 3)))
    x = b.relu(b.node("Squeeze", [x, b.constant([1], np.int64)], (length // 2 - 2, 6)))
    return classifier(b, b.node("ReduceMean", [x], (6,), axes=[1], keepdims=0))


def line(b: ModelBuilder) -> Built:
    """(N, C, L), as torch exports it: a residual network with a BatchNorm, pools and a mean of its own."""
    x = b.relu(line_norm(b, line_conv(b, b.input, 4, pads=[1, 1])))
    x = b.add(x, line_conv(b, x, 4, pads=[2, 0], group=4))
    x = b.node("AveragePool", [b.relu(x)], (4, 8), kernel_shape=[2], strides=[2])
    x = b.node("GlobalAveragePool", [line_conv(b, x, 6, dilations=[2])], (6, 1))
    return b.gemm(b.flatten(x), 3)


def line_conv(b: ModelBuilder, x: Built, channels: int, *, group: int = 1, **window: object) -> Built:
    channels_in, length = x.shape
    weight = b.random.normal(0, 0.5, (channels, channels_in // group, 3))
    pads, step = window.get("pads", [0, 0]), window.get("dilations", [1])
    size = length + sum(pads) - 2 * step[0]  # type: ignore[arg-type, index]
    inputs = [x, b.constant(weight), b.constant(b.random.normal(size=channels))]
    return b.node("Conv", inputs, (channels, size), group=group, **window)


def line_norm(b: ModelBuilder, x: Built) -> Built:
    values = [b.random.uniform(0.5, 1.5, x.shape[0]) for _ in range(4)]
    return b.node("BatchNormalization", [x, *map(b.constant, values)], x.shape)


def unsqueezed(b: ModelBuilder) -> Built:
    x = b.node("Unsqueeze", [b.input, b.constant([1], np.int64)], (1, *b.input.shape))
    return b.gemm(b.flatten(b.relu(b.conv(x, 4))), 3)


def spellings(b: ModelBuilder) -> Built:
    """A flatten in five steps, and one that is taken back."""
    x = b.global_pool(b.relu(b.conv(b.input, 4)))
    x = b.node("Flatten", [x], (4,), axis=-3)
    x = b.conv(b.node("Reshape", [x, b.constant([0, 4, 1, 1], np.int64)], (4, 1, 1)), 5, (1, 1))
    x = b.node("Squeeze", [x, b.constant([-1], np.int64)], (5, 1))
    x = b.relu(b.node("Squeeze", [x], (5,)))
    x = b.node("Unsqueeze", [x, b.constant([1], np.int64)], (1, 5))
    return b.gemm(b.node("Flatten", [x], (5,), axis=2), 3)


Recipe = Callable[[ModelBuilder], Built]

WHOLE: dict[str, tuple[Recipe, Shape, Shape, str]] = {
    "residual": (nhwc_residual, (6, 7, 3), (3, 6, 7), "Conv2d ReLU Conv2d Add ReLU GlobalAvgPool2d Flatten Linear"),
    "flattened": (nhwc_flatten, (6, 7, 3), (3, 6, 7), "Conv2d ReLU MaxPool2d Flatten Linear"),
    "squeezed": (nhwc_squeezed, (6, 7, 3), (3, 6, 7), "Conv2d ReLU GlobalAvgPool2d Flatten Linear"),
    "after a relu": (nhwc_after_relu, (6, 7, 3), (3, 6, 7), "ReLU Ceiling Conv2d Flatten Linear"),
    "maps": (nhwc_maps, (6, 7, 3), (3, 6, 7), "Conv2d"),
    "one channel": (nhwc_flatten, (6, 7, 1), (1, 6, 7), "Conv2d ReLU MaxPool2d Flatten Linear"),
    "Keras, 1-d": (keras_line, (12, 3), (3, 1, 12), "Conv2d ReLU MaxPool2d Conv2d ReLU GlobalAvgPool2d Flatten Linear"),
    "1-d": (
        line,
        (3, 16),
        (3, 1, 16),
        "Conv2d BatchNorm2d ReLU Conv2d Add ReLU AvgPool2d Conv2d GlobalAvgPool2d Flatten Linear",
    ),
    "unsqueezed": (unsqueezed, (6, 7), (1, 6, 7), "Conv2d ReLU Flatten Linear"),
    "spellings": (spellings, MAP, MAP, "Conv2d ReLU GlobalAvgPool2d Conv2d Flatten ReLU Linear"),
}


def built(recipe: Recipe, shape: Shape) -> onnx.ModelProto:
    b = ModelBuilder(shape, seed=3)
    return b.build(recipe(b))


def fed(network: Network, x: np.ndarray) -> Tensor:
    """The graph's input for samples as the float network takes them."""
    batch = torch.from_numpy(x)
    return batch if network.own is None else rearrange(batch, network.own.arrangement)


@pytest.mark.parametrize(("recipe", "shape", "taken", "expected"), WHOLE.values(), ids=WHOLE)
def test_a_file_of_another_layout_computes_the_same(recipe: Recipe, shape: Shape, taken: Shape, expected: str) -> None:
    model = built(recipe, shape)
    network = network_of(model)
    assert network.input_shape == taken
    assert kinds(network.graph) == expected.split()
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    result = torch.from_numpy(outputs(network.graph, fed(network, x).numpy()))
    expected_values = torch.from_numpy(run_onnx(model, x, batched=True))
    if network.given is not None:
        expected_values = rearrange(expected_values, network.given.arrangement)
    if "Softmax" in [node.op_type for node in model.graph.node]:
        result = result.softmax(1)
    torch.testing.assert_close(result, expected_values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("recipe", "shape", "taken", "expected"), WHOLE.values(), ids=WHOLE)
def test_inspection_knows_the_layout_that_the_import_finds(
    tmp_path, recipe: Recipe, shape: Shape, taken: Shape, expected: str
) -> None:
    model = built(recipe, shape)
    onnx.save(model, tmp_path / "model.onnx")
    own = network_of(model).own
    assert inspect_model(tmp_path / "model.onnx").arrangement == (None if own is None else own.arrangement)


# Modules from Python; that they compute the same, `import_module` has tried.


class Net(nn.Module):
    """A convolution, a fully connected layer, and a function of both."""

    def __init__(self, forward: Callable[[nn.Module, nn.Module, Tensor], Tensor], layer: nn.Module, features: int):
        super().__init__()
        self.function, self.layer, self.head = forward, layer, nn.Linear(features, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer, self.head, x)


POOLED = "Conv2d ReLU GlobalAvgPool2d Flatten Linear"
FLAT = "Conv2d ReLU Flatten Linear"

MODULES: dict[str, tuple[nn.Module, Shape, Shape, str]] = {
    "1-d": (
        nn.Sequential(
            nn.Conv1d(3, 8, 5, padding=2),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.MaxPool1d(3, 2, 1),
            nn.Conv1d(8, 8, 3, stride=2, groups=8),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
        ),
        (3, 32),
        (3, 1, 32),
        "Conv2d BatchNorm2d ReLU MaxPool2d Conv2d ReLU GlobalAvgPool2d Flatten Linear",
    ),
    "1-d pools": (
        nn.Sequential(
            nn.Conv1d(2, 4, 3, padding="same", dilation=2),
            nn.AvgPool1d(3, 2, 1),
            nn.AdaptiveMaxPool1d(3),
            nn.AdaptiveAvgPool1d(3),
            nn.Flatten(),
            nn.Linear(12, 3),
        ),
        (2, 18),
        (2, 1, 18),
        "Conv2d AvgPool2d MaxPool2d Flatten Linear",
    ),
    "1-d functions": (
        Net(
            lambda c, h, x: h(F.adaptive_avg_pool1d(F.max_pool1d(F.conv1d(x, c.weight, c.bias, 2), 2), 1).squeeze(2)),
            nn.Conv1d(3, 6, 3),
            6,
        ),
        (3, 20),
        (3, 1, 20),
        "Conv2d MaxPool2d GlobalAvgPool2d Flatten Linear",
    ),
    "mean(-1)": (Net(lambda c, h, x: h(c(x).relu().mean(-1)), nn.Conv1d(3, 6, 3), 6), (3, 20), (3, 1, 20), POOLED),
    "(N, L, C)": (
        Net(lambda c, h, x: h(c(x.transpose(1, 2)).relu().mean(2)), nn.Conv1d(3, 6, 3), 6),
        (20, 3),
        (3, 1, 20),
        POOLED,
    ),
    "twice": (
        Net(lambda c, h, x: h(c(c(x).relu()).mean(2)), nn.Conv1d(3, 3, 3), 3),
        (3, 20),
        (3, 1, 20),
        "Conv2d ReLU Conv2d GlobalAvgPool2d Flatten Linear",
    ),
    "NHWC": (
        Net(
            lambda c, h, x: h(c(x.permute(0, 3, 1, 2)).permute((0, 2, 3, 1)).relu().reshape(x.size(0), -1)),
            nn.Conv2d(3, 4, 3),
            4 * 6 * 5,
        ),
        (8, 7, 3),
        (3, 8, 7),
        FLAT,
    ),
    "movedim": (
        Net(lambda c, h, x: h(torch.movedim(c(x.movedim(-1, 1)).relu(), 1, 3).mean((1, 2))), nn.Conv2d(3, 4, 3), 4),
        (8, 7, 3),
        (3, 8, 7),
        POOLED,
    ),
    "swapaxes": (
        Net(lambda c, h, x: h(c(x.swapaxes(1, 3)).relu().flatten(1)), nn.Conv2d(3, 4, 3), 4 * 5 * 6),
        (8, 7, 3),
        (3, 7, 8),
        FLAT,
    ),
    "a mean of a line": (
        Net(lambda c, h, x: h(c(x).relu().flatten(2).transpose(1, 2).mean(1)), nn.Conv2d(3, 4, 3), 4),
        MAP,
        MAP,
        POOLED,
    ),
    "two means": (Net(lambda c, h, x: h(c(x).relu().mean(3).mean(2)), nn.Conv2d(3, 4, 3), 4), MAP, MAP, POOLED),
    "unsqueezed": (
        Net(lambda c, h, x: h(c(x.unsqueeze(1)).relu().flatten(1)), nn.Conv2d(1, 4, 3), 4 * 6 * 5),
        (8, 7),
        (1, 8, 7),
        FLAT,
    ),
    "flattened": (Net(lambda c, h, x: h(x.flatten(1)), nn.Identity(), 56), (8, 7), (56,), "Linear"),
    "turned": (
        Net(lambda c, h, x: h(c(c(x).transpose(2, 3)).mean((2, 3))), nn.Conv2d(3, 3, (3, 2)), 3),
        (3, 8, 7),
        (3, 8, 7),
        "Conv2d Conv2d GlobalAvgPool2d Flatten Linear",
    ),
}


@pytest.mark.parametrize(("module", "shape", "taken", "expected"), MODULES.values(), ids=MODULES)
def test_a_module_of_another_layout_is_brought_into_this_one(
    module: nn.Module, shape: Shape, taken: Shape, expected: str
) -> None:
    network = import_module(module.eval(), shape)
    assert network.input_shape == taken
    assert (network.own is None) == (shape == taken)
    assert kinds(network.graph) == expected.split()


def test_calls_that_share_a_kernel_go_on_sharing_it() -> None:
    module, shape, *_ = MODULES["twice"]
    first, second = modules(import_module(module.eval(), shape).graph, Conv2d)
    assert first.weight is second.weight


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (nn.Sequential(nn.MaxPool1d(2)), (8,), r"node '0' \(MaxPool1d\): its input must be a line \(C, L\)"),
        (Net(lambda c, h, x: c(x).permute(1, 0, 2, 3), conv(3, 3), 1), MAP, "what keeps the samples apart"),
        (
            Net(lambda c, h, x: c(c(x).permute(0, 2, 3, 1)), conv(4, 4, (1, 1)), 1),
            (4, 4, 4),
            r"\(.permute\(\)\): it makes",
        ),
    ],
)
def test_what_nothing_undoes_is_refused(module: nn.Module, shape: Shape, message: str) -> None:
    with pytest.raises((UnsupportedOperator, InvalidModel), match=message):
        import_module(module.eval(), shape)


@pytest.mark.parametrize("name", ["ic", "kws", "vww"])
def test_the_networks_of_mlperf_tiny_as_tf2onnx_writes_them(shared_data: Path, name: str) -> None:
    path = shared_data / "models" / "mlperf_tiny" / f"tiny_{name}_tf2onnx_nhwc_op13.onnx"
    network, model = import_onnx(path), onnx.load(str(path))
    assert network.own is not None
    assert inspect_model(path).arrangement == network.own.arrangement
    x = np.random.default_rng(0).normal(size=(64, *network.own.shape)).astype(np.float32)
    del model.graph.node[-1]  # the Softmax, which hides differences
    model.graph.output[0].name = model.graph.node[-1].output[0]
    expected = run_onnx(model, x, batched=True)
    error = np.abs(outputs(network.graph, fed(network, x).numpy()) - expected).max()
    assert error <= 1e-5 * np.abs(expected).max()
