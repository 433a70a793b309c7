"""The peers of the step benchmark: what is missing is named with its reason, what is there trains quantised."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from dianaq_quant.zoo import build

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("peers")


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return build("resnet8", input_shape=(3, 8, 8), classes=4, width=0.5)


def test_a_peer_that_is_not_installed_is_listed_and_says_so(
    peers: ModuleType, network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = set(peers.peers())

    def version(package: str) -> str:
        if package in ("torchao", "brevitas"):
            raise PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr(peers, "version", version)
    found = peers.peers()
    assert set(found) == complete
    absent = {name for name, peer in found.items() if not peer.version}
    assert absent == {"torchao pt2e", "torchao pt2e x86", "Brevitas"}
    for name in absent:
        with pytest.raises(peers.PeerError, match=rf"^{name}: not installed"):
            found[name].prepare(network, torch.randn(2, 3, 8, 8))


class Branching(nn.Module):
    """Cannot be traced: the graph depends on the values."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize("name", ["torch FX", "fake_quantize"])
def test_a_network_that_cannot_be_prepared_is_the_reason(peers: ModuleType, name: str) -> None:
    with pytest.raises(peers.PeerError, match=rf"^{name} 2\.\S+: TraceError: symbolically traced variables"):
        peers.peers()[name].prepare(Branching(), torch.randn(2, 3, 8, 8))


@pytest.mark.parametrize("name", ["torch FX", "fake_quantize"])
def test_a_peer_trains_the_network_quantised_and_leaves_the_original_alone(
    peers: ModuleType, network: nn.Module, name: str
) -> None:
    before = {key: value.clone() for key, value in network.state_dict().items()}
    x = torch.randn(128, 3, 8, 8)
    prepared = peers.peers()[name].prepare(network, x)
    assert prepared.training
    assert not network.training
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    parameters = list(prepared.parameters())
    assert len(parameters) == len(list(network.parameters()))
    assert all(p.grad is None for p in parameters)
    y = prepared(x)
    assert y.unique().numel() <= 256 < y.numel()
    y.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in parameters)
    assert any(bool((p.grad != 0).any()) for p in parameters)


def test_the_operators_own_grid_is_fixed_by_the_first_batch_and_the_weights_follow(peers: ModuleType) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 64, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU())
    x = torch.rand(8, 1, 16, 16)
    prepared = peers.peers()["fake_quantize"].prepare(network, x)
    first = prepared(x)
    step = first.unique().diff().min()
    torch.testing.assert_close((first / step).round() * step, first, rtol=0, atol=1e-4)
    # The input and the ReLU's output are stored; what lies between convolution, BatchNorm and ReLU is not.
    assert [n.target for n in prepared.graph.nodes if str(n.target).endswith("_quantiser")] == [
        "input_1_quantiser",
        "_2_quantiser",
    ]
    grids = [m.grid for m in prepared.modules() if hasattr(m, "grid")]
    conv = getattr(prepared, "0")
    levels = conv.weight.unique().numel()
    assert levels <= 255 < conv.weight.numel()
    largest = conv.weight.abs().max().item()
    prepared(2 * x)
    assert [m.grid for m in prepared.modules() if hasattr(m, "grid")] == grids
    with torch.no_grad():
        conv.parametrizations.weight.original.mul_(2)
    assert conv.weight.abs().max().item() == pytest.approx(2 * largest)
