"""What no core computes, in networks made in Python, and that what each refusal proposes is taken."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import remove_parametrizations

from dianaq.errors import UnsupportedOperator
from dianaq.inspection import refusals
from dianaq.inspection.refusals import TABLE, Refusal
from dianaq_quant.importers import import_module

SHAPE = (4, 8, 8)


class Net(nn.Module):
    """A function of a convolution's map, with modules of its own."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, self.conv(x))


def attention(m: Any, x: Tensor) -> Tensor:
    """Attention over the map's places, written out."""
    s = x.flatten(2).transpose(1, 2)
    q, k, v = m.q(s), m.k(s), m.v(s)
    weights = torch.softmax(q @ k.transpose(-2, -1) / 2, -1)
    return torch.matmul(F.dropout(weights, 0.1, m.training), v).flatten(1)


def normalised(m: Any, x: Tensor) -> Tensor:
    """A layer normalisation, written out."""
    mean = x.mean((2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean((2, 3), keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5)


def branching(m: Any, x: Tensor) -> Tensor:
    return m.lstm(x.flatten(2))[0].flatten(1) if x.sum() > 0 else x


QKV = {name: nn.Linear(4, 4) for name in "qkv"}

WHAT_IT_IS: dict[str, tuple[nn.Module, str, str, Refusal]] = {
    "LSTM": (
        Net(lambda m, x: m.lstm(x.flatten(2).permute(0, 2, 1))[0].flatten(1), lstm=nn.LSTM(4, 2, batch_first=True)),
        "lstm",
        "LSTM",
        refusals.RECURRENT,
    ),
    "GRU, time first": (
        Net(lambda m, x: m.gru(x.flatten(2).permute(2, 0, 1))[0][-1], gru=nn.GRU(4, 2)),
        "gru",
        "GRU",
        refusals.RECURRENT,
    ),
    "in a network that cannot be traced": (Net(branching, lstm=nn.LSTM(64, 2)), "lstm", "LSTM", refusals.RECURRENT),
    "MultiheadAttention": (
        Net(
            lambda m, x: m.attn(*[x.flatten(2).transpose(1, 2)] * 3)[0].flatten(1),
            attn=nn.MultiheadAttention(4, 2, batch_first=True),
        ),
        "attn",
        "MultiheadAttention",
        refusals.ATTENTION,
    ),
    "scaled_dot_product_attention": (
        Net(lambda m, x: F.scaled_dot_product_attention(x, x, x)),
        "scaled_dot_product_attention",
        "scaled_dot_product_attention",
        refusals.ATTENTION,
    ),
    "attention written out": (Net(attention, **QKV), "matmul_1", "attention", refusals.ATTENTION),
    "LayerNorm": (
        Net(lambda m, x: m.norm(x.permute(0, 2, 3, 1)), norm=nn.LayerNorm(4)),
        "norm",
        "LayerNorm",
        refusals.PER_SAMPLE_NORM,
    ),
    "LayerNorm written out": (Net(normalised), "sqrt", "a normalisation written out", refusals.PER_SAMPLE_NORM),
}


@pytest.mark.parametrize("name", WHAT_IT_IS)
def test_what_the_network_is_goes_before_what_stands_around_it(name: str) -> None:
    module, at, what, refusal = WHAT_IT_IS[name]
    with pytest.raises(UnsupportedOperator) as caught:
        import_module(module, SHAPE)
    assert caught.value.param == at
    assert caught.value.detail.startswith(f"node {at!r} ({what}): {refusal}")


def test_all_are_counted() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        parts = torch.cat([torch.sin(x), torch.sin(x)], 1).chunk(2, 1)
        return parts[0] + parts[1]

    with pytest.raises(
        UnsupportedOperator, match=r"'sin' \(sin\): .* And 3 more that no core computes: sin, cat, .chunk\(\)$"
    ):
        import_module(Net(forward), SHAPE)


def test_a_substitution_is_not_what_a_gate_needs_and_its_product_is_not_counted() -> None:
    gate = Net(lambda m, x: x * torch.sigmoid(F.adaptive_avg_pool2d(x, 1)))
    with pytest.raises(UnsupportedOperator, match=r"squeeze-and-excitation block.* no substitution does$"):
        import_module(gate, SHAPE)


def seq(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), *layers)


POOLED = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


def unparametrised() -> nn.Module:
    layer = weight_norm(nn.Conv2d(4, 4, 3))
    with pytest.raises(UnsupportedOperator, match=r"parametrize.remove_parametrizations would work"):
        import_module(seq_of(layer), SHAPE)
    remove_parametrizations(layer, "weight")
    return seq_of(layer)


def seq_of(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer, nn.ReLU())


class Branches(nn.Module):
    """Two layers that are added in place of being joined, each for a part of what was split."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(4, 6, 3), nn.Conv2d(4, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.left(x) + self.right(x))


def choosing() -> nn.Module:
    """A 1 x 1 convolution whose weights choose channels 3 and 1."""
    layer = nn.Conv2d(4, 2, 1, bias=False)
    layer.weight.data = torch.eye(4)[[3, 1]].reshape(2, 4, 1, 1)
    x = torch.randn(1, *SHAPE)
    assert torch.equal(layer(x), x[:, [3, 1]])
    return layer


def scaled() -> nn.Module:
    """A factor that has gone into the weights before it."""
    layer, x = nn.Conv2d(4, 4, 3), torch.randn(1, *SHAPE)
    expected = layer(x) * 2
    layer.weight.data *= 2
    assert layer.bias is not None
    layer.bias.data *= 2
    torch.testing.assert_close(layer(x), expected)
    return layer


def repeating() -> nn.Module:
    """A convolution that gives every channel twice."""
    layer = nn.Conv2d(4, 8, 1, bias=False)
    layer.weight.data = torch.eye(4).repeat(2, 1).reshape(8, 4, 1, 1)
    x = torch.randn(1, *SHAPE)
    assert torch.equal(layer(x), x.repeat(1, 2, 1, 1))
    return layer


FOLLOWED: dict[str, Callable[[], nn.Module]] = {
    "QUANTISED": lambda: seq(*POOLED),
    "RECURRENT": lambda: nn.Sequential(nn.Conv2d(4, 8, (5, 1), padding=(2, 0)), nn.ReLU(), *POOLED),
    "ATTENTION": lambda: seq(*POOLED),
    "PER_SAMPLE_NORM": lambda: nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
    "CONTROL": lambda: seq(nn.AdaptiveAvgPool2d(1), nn.Flatten(1)),
    "GATE": lambda: seq(*POOLED),
    "PRODUCT": scaled,
    "LENGTH": lambda: seq(*POOLED),
    "REDUCED": lambda: Net(lambda m, x: F.max_pool2d(x, 2).mean((2, 3))),
    "ENLARGED": lambda: nn.Sequential(nn.Conv2d(4, 4, 3, stride=1), nn.Conv2d(4, 4, 3, stride=1, padding=1)),
    "REARRANGED": lambda: nn.Sequential(nn.Conv2d(4, 16, 2, stride=2), nn.Conv2d(16, 16, 1)),
    "MOVED": lambda: seq(*POOLED),
    "JOINED": Branches,
    "SPLIT": Branches,
    "INDEXED": choosing,
    "SAMPLED": lambda: seq(nn.MaxPool2d(2)),
    "REPEATED": repeating,
    "CHOSEN": lambda: seq(*POOLED),
    "COMPARED": lambda: seq(nn.ReLU6(), nn.MaxPool2d(2)),
    "ACTIVATION": lambda: seq(nn.Conv2d(8, 8, 1), nn.ReLU6()),
    "ROUNDED": lambda: seq(*POOLED),
    "RANDOM": lambda: seq(nn.Dropout(0.5), *POOLED),
    "LOSS": lambda: seq(*POOLED),
    "PREPARED": lambda: seq(*POOLED),
    "LISTED": lambda: seq(*POOLED),
    "SIZES": lambda: seq(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "THREE_DIMENSIONS": lambda: nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)),
    "COMPUTED": unparametrised,
}
"""Per entry of the table, a network as it proposes."""


def test_every_entry_is_tried() -> None:
    assert {*TABLE} == {getattr(refusals, name) for name in FOLLOWED}


@pytest.mark.parametrize("name", FOLLOWED)
def test_what_a_refusal_proposes_is_taken(name: str) -> None:
    module = FOLLOWED[name]().eval()
    network = import_module(copy.deepcopy(module), SHAPE)
    x = torch.randn(3, *SHAPE)
    torch.testing.assert_close(network.graph(x), module(x), rtol=1e-4, atol=1e-5)
