"""PyTorch modules, spelling by spelling: what they become, and how they are refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from dianaq.errors import InvalidModel, UnsupportedOperator
from dianaq_quant.importers import Network, import_module
from dianaq_quant.importers.network import CANONICAL
from dianaq_quant.modules.structure import AvgPool2d, Ceiling, Conv2d, MaxPool2d

from .support import Net, kinds, modules

MAP = (4, 6, 8)


def scrambled(module: nn.Module) -> nn.Module:
    """The module with BatchNorm statistics that are not neutral."""
    generator = torch.Generator().manual_seed(3)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (m.weight, m.bias, m.running_mean, m.running_var):
                if tensor is not None:
                    tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return module


def same_function(module: nn.Module, shape: tuple[int, ...] = MAP) -> Network:
    """The imported network, which must be canonical and compute what the module does."""
    module = scrambled(module).eval()
    network = import_module(module, shape)
    for node in network.graph.graph.nodes:
        assert node.op in ("placeholder", "call_module", "output")
        if node.op == "call_module":
            assert type(network.graph.get_submodule(node.target)) in CANONICAL
            assert node.meta["layer"]
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1)) * 4
    with torch.no_grad():
        torch.testing.assert_close(network.graph(x), module(x), rtol=1e-4, atol=1e-4)
    return network


def conv(**options: Any) -> nn.Conv2d:
    return nn.Conv2d(4, 4, 3, **{"padding": 1, **options})


def increase(x: Tensor) -> Tensor:
    y = F.relu(x)
    y += x
    return y


SPELLINGS: dict[str, tuple[nn.Module, list[str]]] = {
    "F.relu": (Net(lambda m, x: F.relu(x)), ["ReLU"]),
    "F.relu in place": (Net(lambda m, x: F.relu(x.clone(), inplace=True)), ["ReLU"]),
    "torch.relu": (Net(lambda m, x: torch.relu(x)), ["ReLU"]),
    ".relu()": (Net(lambda m, x: x.relu()), ["ReLU"]),
    ".relu_()": (Net(lambda m, x: (x + x).relu_()), ["Add", "ReLU"]),
    "nn.ReLU": (nn.ReLU(), ["ReLU"]),
    "F.relu6": (Net(lambda m, x: F.relu6(x)), ["Ceiling"]),
    "nn.ReLU6": (nn.ReLU6(), ["Ceiling"]),
    "F.hardtanh": (Net(lambda m, x: F.hardtanh(x, 0, 3)), ["Ceiling"]),
    "F.hardtanh by name": (Net(lambda m, x: F.hardtanh(x, min_val=0.0, max_val=3.0)), ["Ceiling"]),
    "nn.Hardtanh": (nn.Hardtanh(0, 2), ["Ceiling"]),
    "clamp": (Net(lambda m, x: x.clamp(0, 2)), ["Ceiling"]),
    "clamp(min)": (Net(lambda m, x: torch.clamp(x, min=0)), ["ReLU"]),
    "clamp_min": (Net(lambda m, x: x.clamp_min(0)), ["ReLU"]),
    "+": (Net(lambda m, x: x + F.relu(x)), ["ReLU", "Add"]),
    "+=": (Net(lambda m, x: increase(x)), ["ReLU", "Add"]),
    "torch.add": (Net(lambda m, x: torch.add(x, x.relu())), ["ReLU", "Add"]),
    ".add()": (Net(lambda m, x: x.add(x.relu())), ["ReLU", "Add"]),
    ".add_()": (Net(lambda m, x: x.relu().add_(x)), ["ReLU", "Add"]),
    "sum()": (Net(lambda m, x: sum([x, x.relu(), x])), ["ReLU", "Add", "Add"]),
    "torch.flatten": (Net(lambda m, x: torch.flatten(x, 1)), ["Flatten"]),
    ".flatten": (Net(lambda m, x: x.flatten(start_dim=1)), ["Flatten"]),
    ".view(size(0), -1)": (Net(lambda m, x: x.view(x.size(0), -1)), ["Flatten"]),
    ".view(-1, 192)": (Net(lambda m, x: x.view(-1, 192)), ["Flatten"]),
    ".view(-1, product)": (Net(lambda m, x: x.view(-1, x.size(1) * x.size(2) * x.size(3))), ["Flatten"]),
    ".reshape(shape[0], -1)": (Net(lambda m, x: x.reshape(x.shape[0], -1)), ["Flatten"]),
    ".reshape(tuple)": (Net(lambda m, x: x.reshape((x.shape[0], -1))), ["Flatten"]),
    "torch.reshape": (Net(lambda m, x: torch.reshape(x, (x.shape[0], -1))), ["Flatten"]),
    "nn.Flatten": (nn.Flatten(), ["Flatten"]),
    "squeeze": (Net(lambda m, x: F.adaptive_avg_pool2d(x, 1).squeeze()), ["GlobalAvgPool2d", "Flatten"]),
    "squeeze twice": (
        Net(lambda m, x: F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1)),
        ["GlobalAvgPool2d", "Flatten"],
    ),
    "index": (Net(lambda m, x: F.adaptive_avg_pool2d(x, 1)[:, :, 0, 0]), ["GlobalAvgPool2d", "Flatten"]),
    "reshape of a flat tensor": (Net(lambda m, x: x.flatten(1).view(x.size(0), -1).relu()), ["Flatten", "ReLU"]),
    "reshape there and back": (Net(lambda m, x: x.flatten(2).view(x.size()).relu()), ["ReLU"]),
    ".mean((2, 3))": (Net(lambda m, x: x.mean((2, 3))), ["GlobalAvgPool2d", "Flatten"]),
    ".mean([-1, -2], keepdim)": (Net(lambda m, x: x.mean([-1, -2], keepdim=True)), ["GlobalAvgPool2d"]),
    ".mean(dim)": (Net(lambda m, x: x.mean(dim=(3, 2))), ["GlobalAvgPool2d", "Flatten"]),
    "torch.mean": (Net(lambda m, x: torch.mean(x, (2, 3), True)), ["GlobalAvgPool2d"]),
    "mean twice": (Net(lambda m, x: x.mean(3).mean(2)), ["GlobalAvgPool2d", "Flatten"]),
    "mean twice, first rows": (Net(lambda m, x: x.mean(2).mean(-1)), ["GlobalAvgPool2d", "Flatten"]),
    "mean twice, kept": (Net(lambda m, x: x.mean(2, keepdim=True).mean(3, keepdim=True)), ["GlobalAvgPool2d"]),
    "mean of a flattened map": (Net(lambda m, x: x.flatten(2).mean(2)), ["GlobalAvgPool2d", "Flatten"]),
    "mean of a viewed map": (
        Net(lambda m, x: x.view(x.size(0), x.size(1), -1).mean(-1)),
        ["GlobalAvgPool2d", "Flatten"],
    ),
    "adaptive pool": (nn.AdaptiveAvgPool2d(1), ["GlobalAvgPool2d"]),
    "F.adaptive pool": (Net(lambda m, x: F.adaptive_avg_pool2d(x, (1, 1))), ["GlobalAvgPool2d"]),
    "adaptive pool of the map's size": (nn.AdaptiveAvgPool2d((6, 8)), []),
    "adaptive pool that keeps the width": (nn.AdaptiveAvgPool2d((3, None)), ["AvgPool2d"]),
    "adaptive pool that divides": (nn.AdaptiveAvgPool2d((2, 4)), ["AvgPool2d"]),
    "adaptive max pool": (nn.AdaptiveMaxPool2d((2, 1)), ["MaxPool2d"]),
    "F.adaptive max pool": (Net(lambda m, x: F.adaptive_max_pool2d(x, 2)), ["MaxPool2d"]),
    "F.avg_pool2d": (Net(lambda m, x: F.avg_pool2d(x, 2)), ["AvgPool2d"]),
    "F.avg_pool2d of the map": (Net(lambda m, x: F.avg_pool2d(x, x.size()[2:])), ["GlobalAvgPool2d"]),
    "F.avg_pool2d of the map by size": (
        Net(lambda m, x: F.avg_pool2d(x, (x.size(2), x.shape[3]))),
        ["GlobalAvgPool2d"],
    ),
    "nn.AvgPool2d with padding": (nn.AvgPool2d(3, 2, 1), ["AvgPool2d"]),
    "divisor": (nn.AvgPool2d(2, divisor_override=4), ["AvgPool2d"]),
    "F.max_pool2d": (Net(lambda m, x: F.max_pool2d(x, (3, 2), stride=2, padding=(1, 0))), ["MaxPool2d"]),
    "torch.max_pool2d": (Net(lambda m, x: torch.max_pool2d(x, 2)), ["MaxPool2d"]),
    "nn.MaxPool2d": (nn.MaxPool2d(3, 2, 1), ["MaxPool2d"]),
    "ceil_mode that fits": (nn.MaxPool2d(2, ceil_mode=True), ["MaxPool2d"]),
    "ceil_mode that starts in the padding": (nn.MaxPool2d(1, 3, 0, ceil_mode=True), ["MaxPool2d"]),
    "nn.Conv2d": (conv(stride=2), ["Conv2d"]),
    "nn.Conv2d same": (nn.Conv2d(4, 4, (2, 3), padding="same", dilation=(1, 2)), ["Conv2d"]),
    "nn.Conv2d valid": (nn.Conv2d(4, 2, 3, padding="valid"), ["Conv2d"]),
    "nn.Conv2d tuple": (nn.Conv2d(4, 8, 3, padding=(2, 0), groups=2, bias=False), ["Conv2d"]),
    "F.conv2d": (
        Net(lambda m, x: F.conv2d(x, m.w, m.b, 2, (1, 0)), w=nn.Parameter(torch.ones(3, 4, 3, 2)), b=torch.ones(3)),
        ["Conv2d"],
    ),
    "F.conv2d depthwise": (
        Net(lambda m, x: F.conv2d(x, weight=m.w, groups=4, padding="same"), w=torch.rand(4, 1, 3, 3)),
        ["Conv2d"],
    ),
    "nn.Linear": (nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), ["Flatten", "Linear"]),
    "F.linear": (
        Net(lambda m, x: F.linear(x.flatten(1), m.w), w=nn.Parameter(torch.rand(3, 192))),
        ["Flatten", "Linear"],
    ),
    "nn.BatchNorm2d": (nn.BatchNorm2d(4), ["BatchNorm2d"]),
    "nn.BatchNorm2d, not affine": (nn.BatchNorm2d(4, affine=False), ["BatchNorm2d"]),
    "nn.BatchNorm1d": (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192, eps=0.5)), ["Flatten", "BatchNorm1d"]),
    "F.batch_norm": (
        Net(
            lambda m, x: F.batch_norm(x, m.n.running_mean, m.n.running_var, m.n.weight, m.n.bias, m.training, eps=0.1),
            n=nn.BatchNorm2d(4),
        ),
        ["BatchNorm2d"],
    ),
    "nn.Dropout": (nn.Sequential(nn.Dropout(), nn.ReLU(), nn.Dropout2d(inplace=True)), ["ReLU"]),
    "F.dropout": (Net(lambda m, x: F.dropout(x, 0.5, m.training).relu()), ["ReLU"]),
    "torch.dropout": (Net(lambda m, x: torch.dropout(x, 0.5, m.training).relu()), ["ReLU"]),
    "F.dropout2d": (Net(lambda m, x: F.dropout2d(x, training=m.training).relu()), ["ReLU"]),
    "nn.Identity": (nn.Sequential(nn.Identity(), nn.ReLU()), ["ReLU"]),
    "contiguous": (Net(lambda m, x: x.contiguous().view(x.size(0), -1)), ["Flatten"]),
    "our own modules": (nn.Sequential(Conv2d(4, 2, 1, pads=(1, 0, 0, 0)), Ceiling(3.0)), ["Conv2d", "Ceiling"]),
    "nothing": (Net(lambda m, x: x), []),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(("module", "expected"), SPELLINGS.values(), ids=SPELLINGS)
def test_spelling_becomes_modules_that_compute_the_same(module: nn.Module, expected: list[str]) -> None:
    network = same_function(module)
    assert kinds(network.graph) == expected


def test_windows_and_layers_keep_their_parameters() -> None:
    module = nn.Sequential(
        nn.Conv2d(4, 6, (3, 2), (1, 2), "valid", groups=2),
        nn.MaxPool2d((2, 1), (1, 2), (1, 0)),
        nn.AvgPool2d(2, 1, 1),
        nn.Hardtanh(0, 3),
    )
    network = same_function(module).graph
    (layer,) = modules(network, Conv2d)
    assert (layer.stride, layer.pads, layer.groups, layer.kernel_size) == ((1, 2), (0, 0, 0, 0), 2, (3, 2))
    (pool,) = modules(network, MaxPool2d)
    assert (pool.kernel, pool.stride, pool.pads) == ((2, 1), (1, 2), (1, 0, 1, 0))
    (pool,) = modules(network, AvgPool2d)
    assert (pool.kernel, pool.stride, pool.pads) == ((2, 2), (1, 1), (1, 1, 1, 1))
    assert modules(network, Ceiling)[0].max_val == 3.0


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_padding_same_puts_the_odd_one_at_the_end() -> None:
    (layer,) = modules(same_function(nn.Conv2d(4, 1, (2, 4), padding="same")).graph, Conv2d)
    assert layer.pads == (0, 1, 1, 2)


REFUSED: dict[str, tuple[nn.Module, str, str]] = {
    "hardtanh below zero": (Net(lambda m, x: F.hardtanh(x)), "hardtanh", r"bounds \[-1, 1\]; a lower bound of 0"),
    "clamp by the batch": (
        Net(lambda m, x: x.clamp(0, x.size(0))),
        ".clamp()",
        r"it reads \.size\(\), .* computed while the network runs",
    ),
    "broadcast": (Net(lambda m, x: x + F.adaptive_avg_pool2d(x, 1)), "add", r"\(4, 6, 8\) and \(4, 1, 1\); two of one"),
    "cat": (Net(lambda m, x: torch.cat([x, x], 1)), "cat", "no core joins tensors; adding them"),
    "stack": (Net(lambda m, x: torch.stack([x, x], 1)), "stack", "no core joins tensors"),
    "permute": (
        Net(lambda m, x: m.conv(x).permute(0, 2, 1, 3).flatten(2).mean(2), conv=conv()),
        ".permute()",
        "no core moves values between dimensions",
    ),
    "softsign": (Net(lambda m, x: F.softsign(x)), "softsign", "no core computes it; ReLU or ReLU6 would work"),
    "gate": (
        Net(lambda m, x: x * torch.sigmoid(F.adaptive_avg_pool2d(x, 1))),
        "sigmoid",
        "it is the gate of a squeeze-and-excitation block",
    ),
    "GroupNorm": (nn.GroupNorm(2, 4), "GroupNorm", "BatchNorm2d would work"),
    "ConvTranspose2d": (nn.ConvTranspose2d(4, 4, 3), "ConvTranspose2d", "a convolution with stride 1 would work"),
    "parametrised": (weight_norm(conv()), "ParametrizedConv2d", "remove_parametrizations would work"),
    "unknown": (Net(lambda m, x: torch.fft.fft(x).real), "fft_fft", "a dataset of its results would work"),
    "reshape": (Net(lambda m, x: x.view(x.size(0), 8, -1)), ".view()", r"it makes \(8, 24\) of \(4, 6, 8\)"),
    "flatten from 2": (Net(lambda m, x: x.flatten(2)), ".flatten()", r"a flatten to one dimension, here 192, would"),
    "slice": (Net(lambda m, x: x[:, :2]), "getitem", r"it takes \(2, 6, 8\) out of \(4, 6, 8\)"),
    "batch into channels": (Net(lambda m, x: x.view(-1, 6, 8)), ".view()", r"its shape is \(8, 6, 8\) for 2 samples"),
    "fixed batch": (Net(lambda m, x: x.view(2, -1)), ".view()", "keeps the samples apart in the first dimension"),
    "mean over channels": (Net(lambda m, x: x.mean(1)), ".mean()", r"the mean over dimensions \[1\]"),
    "mean over rows": (Net(lambda m, x: x.mean(3)), ".mean()", r"over both spatial dimensions, \(2, 3\), would work"),
    "mean over everything": (Net(lambda m, x: x.mean()), ".mean()", "the mean over dimensions None"),
    "divisor": (nn.AvgPool2d(2, divisor_override=3), "AvgPool2d", "divisor_override = 3"),
    "padding left out": (nn.AvgPool2d(3, 1, 1, count_include_pad=False), "AvgPool2d", "count_include_pad=False"),
    "dilation": (nn.MaxPool2d(2, dilation=2), "MaxPool2d", "dilation 2; a max pool without dilation"),
    "indices": (nn.MaxPool2d(2, return_indices=True), "MaxPool2d", "return_indices=False would work"),
    "uneven adaptive pool": (
        nn.AdaptiveAvgPool2d(5),
        "AdaptiveAvgPool2d",
        r"output_size \(5, 5\) of a map of \(6, 8\)",
    ),
    "reflection": (conv(padding_mode="reflect"), "Conv2d", "padding_mode 'reflect'; the chip pads with zeros"),
    "computed weight": (
        Net(lambda m, x: F.conv2d(x, m.w * x.size(0)), w=nn.Parameter(torch.ones(2, 4, 1, 1))),
        "conv2d",
        "are computed while the network runs",
    ),
    "product": (Net(lambda m, x: x * x), "mul", "no core multiplies two tensors of the samples; a constant factor"),
    "quotient": (Net(lambda m, x: 1 / x), "truediv", "a constant divisor would work"),
    "division by zero": (Net(lambda m, x: x / 0), "truediv", "it divides by a constant that holds 0"),
    "rounding": (Net(lambda m, x: torch.div(x, 2, rounding_mode="floor")), "div", "without rounding would work"),
    "difference of two shapes": (
        Net(lambda m, x: x - F.adaptive_avg_pool2d(x, 1)),
        "sub",
        r"\(4, 6, 8\) and \(4, 1, 1\); two of one",
    ),
    "factor that depends on the input": (Net(lambda m, x: x * x.mean()), "mul", "computed while the network runs"),
    "factor along the width": (
        Net(lambda m, x: x * m.c, c=torch.arange(8.0)),
        "mul",
        "its constant differs along the width; one value, or one per channel, would work",
    ),
    "factor per place": (Net(lambda m, x: x * m.c, c=torch.rand(4, 6, 8)), "mul", "differs along 3 dimensions"),
    "bounds": (Net(lambda m, x: torch.minimum(x, m.c), c=torch.ones(1)), "minimum", r"bounds \[none, 1\]"),
    "padding with ones": (nn.ConstantPad2d(1, 1.0), "ConstantPad2d", "it pads with 1.0; the chip pads with zeros"),
    "reflecting pad": (
        Net(lambda m, x: F.pad(x, (1, 1, 1, 1), "reflect")),
        "pad",
        "mode 'reflect'; the chip pads with",
    ),
    "cropping pad": (Net(lambda m, x: F.pad(x, (-1, 0))), "pad", "which crops where it is negative"),
    "padded vector": (Net(lambda m, x: F.pad(x.flatten(1), (0, 2))), "pad", r"of \(192,\) per sample; of a map"),
    "crop": (Net(lambda m, x: x[:, :, 1:-1, 1:-1]), "getitem", r"it takes \(4, 6\) rows and columns from \(1, 1\)"),
    "maximum over rows": (Net(lambda m, x: x.amax(3)), ".amax()", r"over both spatial dimensions, \(2, 3\)"),
    "average rounded up": (nn.AvgPool2d(3, 2, ceil_mode=True), "AvgPool2d", "whose divisor differs at the border"),
    "linear over a map": (nn.Linear(8, 3), "Linear", r"its shape is \(4, 6, 8\); flatten it first"),
    "F.linear over a map": (
        Net(lambda m, x: F.linear(x, m.w), w=nn.Parameter(torch.ones(3, 8))),
        "linear",
        "flatten it first",
    ),
    "statistics of the batch": (
        nn.BatchNorm2d(4, track_running_stats=False),
        "BatchNorm2d",
        "track_running_stats=True",
    ),
    "batch norm that trains": (
        Net(lambda m, x: F.batch_norm(x, m.a, m.b, training=True), a=torch.zeros(4), b=torch.ones(4)),
        "batch_norm",
        "pass training=self.training",
    ),
    "softmax in the middle": (nn.Sequential(nn.Softmax(1), nn.ReLU()), "Softmax", "only as the last operation"),
    "write seen by another view": (
        Net(lambda m, x: add_views((x + x), lambda y: y.relu_())),
        ".relu_()",
        "it writes in place into what",
    ),
}


def add_views(x: Tensor, write: Callable[[Tensor], Tensor]) -> Tensor:
    view = x.flatten(1)
    write(x)
    return view


@pytest.mark.parametrize(("module", "operation", "message"), REFUSED.values(), ids=REFUSED)
def test_refusal_names_node_and_operation(module: nn.Module, operation: str, message: str) -> None:
    with pytest.raises(UnsupportedOperator, match=message) as caught:
        import_module(module, MAP)
    assert f"({operation}): " in caught.value.detail
    assert caught.value.detail.startswith(f"node {caught.value.param!r} (")


def test_writes_in_place_are_seen_by_what_reads_later() -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act = conv(), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            before = y + y
            z = self.act(y)
            y.add_(before)
            return y + z

    network = same_function(Writes())
    assert kinds(network.graph) == ["Conv2d", "Add", "ReLU", "Add", "Add"]
    assert not modules(network.graph, nn.ReLU)[0].inplace


def test_write_without_a_reader_of_its_result_counts() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.conv(x)
        F.relu(y, inplace=True)
        return y

    assert kinds(same_function(Net(forward, conv=conv())).graph) == ["Conv2d", "ReLU"]


def test_what_torch_fx_does_not_see_is_noticed() -> None:
    class Hidden(nn.Module):
        """`x += y` writes into x, but is traced as x = x + y."""

        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(x)
            z = y
            z += x
            return y + z

    with pytest.raises(InvalidModel, match=r"torch\.fx traces something else than the module computes"):
        import_module(Hidden(), MAP)
    hooked = nn.Sequential(nn.ReLU())
    hooked[0].register_forward_hook(lambda module, args, output: output * 2)
    with pytest.raises(InvalidModel, match="without hooks"):
        import_module(hooked, MAP)


def test_the_module_is_left_as_it_was() -> None:
    module = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout()).train()
    before, state = repr(module), copy.deepcopy(module.state_dict())
    network = import_module(module, MAP)
    assert module.training
    assert repr(module) == before
    assert all(torch.equal(state[name], tensor) for name, tensor in module.state_dict().items())
    assert not {id(p) for p in module.parameters()} & {id(p) for p in network.graph.parameters()}
    assert not network.graph.training


def test_layers_are_named_as_the_user_names_them() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(conv(), nn.ReLU())
            self.relu, self.output = nn.ReLU(), conv()

        def forward(self, image: Tensor) -> Tensor:
            x = self.relu(F.relu(self.body(image)))
            return self.relu(self.output(x))

    network = same_function(Named())
    nodes = [n for n in network.graph.graph.nodes if n.op == "call_module"]
    assert [n.meta["layer"] for n in nodes] == ["body.0", "body.1", "relu_1", "relu", "output", "relu_2"]
    assert [n.target for n in nodes] == ["body_0", "body_1", "relu_1", "relu", "output_layer", "relu_2"]
    assert (network.input_name, network.input_shape, network.output_name) == ("image", MAP, "output")


def test_dead_code_and_unused_parts_are_left_out() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        torch.sigmoid(m.unused(x))
        return m.used(x)

    network = same_function(Net(forward, used=conv(), unused=conv(), weight=nn.Parameter(torch.ones(3))))
    assert kinds(network.graph) == ["Conv2d"]
    assert [name for name, _ in network.graph.named_parameters()] == ["used.weight", "used.bias"]


def test_notes_tell_what_is_dropped() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 3), nn.Dropout(), nn.Softmax(1))
    network = import_module(module, MAP)
    assert kinds(network.graph) == ["Flatten", "Linear"]
    assert network.notes == [
        "2: dropped: it is the identity in evaluation",
        "3: dropped: the network's output is its input, of the same ranking of classes",
    ]


def test_dropout_that_never_stops_is_dropped_with_a_note() -> None:
    network = import_module(Net(lambda m, x: F.dropout(x).relu()), MAP)
    assert kinds(network.graph) == ["ReLU"]
    assert network.notes == [
        "dropout: dropped, although it drops values in evaluation too: pass training=self.training"
    ]


class TwoInputs(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Optional(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return F.relu(x if mask is None else x + mask)


class ByValue(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu() if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (TwoInputs(), MAP, "TwoInputs.forward takes a, b; a module of one input tensor"),
        (ByValue(), MAP, "torch.fx cannot trace ByValue: .*control flow"),
        (Net(lambda m, x: (x, x)), MAP, "the module returns a tuple of 2; one tensor is accepted"),
        (Net(lambda m, x: x.shape[1]), MAP, "the module returns a 4, no tensor|returns a .*no tensor"),
        (nn.Conv2d(3, 2, 1), MAP, r"node 'conv2d' \(Conv2d\) does not fit its input of shape \(2, 4, 6, 8\)"),
        (nn.Conv2d(4, 2, 1).double(), MAP, r"weight is torch.float64; torch.float32 is accepted"),
        (nn.Sequential(nn.LazyLinear(2)), (3,), "0.weight has no values yet"),
        (nn.ReLU(), (), r"input_shape \(\); the positive sizes"),
        (nn.ReLU(), (3, 0, 2), r"input_shape \(3, 0, 2\)"),
    ],
)
def test_modules_that_cannot_be_imported(module: nn.Module, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        import_module(module, shape)


def test_further_arguments_with_defaults_are_accepted() -> None:
    assert kinds(same_function(Optional()).graph) == ["ReLU"]
