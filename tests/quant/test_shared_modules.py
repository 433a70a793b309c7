"""Modules that are called several times: each call becomes its own, and what is tied stays tied as long as it can."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from dianaq.schemas.quantisers import Quantisers
from dianaq_quant.editors import canonicalise, fake_quantise, hardware, integerise
from dianaq_quant.editors.canonicalise.absorb_bias import AbsorbBias
from dianaq_quant.editors.fake_quantise.equalise import Equalise
from dianaq_quant.graph import run_editors
from dianaq_quant.graph.shapes import record_shapes
from dianaq_quant.graph.surgery import tied_nodes
from dianaq_quant.importers import import_module
from dianaq_quant.modules.exact import ExactConv2d, ExactLinear
from dianaq_quant.modules.structure import Conv2d
from dianaq_quant.training.calibrate import calibrate, correct_biases, observe
from dianaq_quant.training.data import Split

from .stages import TERNARY, UNCHANGED, plan_of
from .support import kinds, modules, outputs
from .test_trace import scrambled

MAP = (3, 8, 8)


class Shared(nn.Module):
    """One convolution with bias and one BatchNorm, called twice; one ReLU, called four times."""

    def __init__(self, *, bias: bool = True) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.conv, self.bn = nn.Conv2d(4, 4, 3, padding=1, bias=bias), nn.BatchNorm2d(4)
        self.act, self.pool, self.fc = nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        y = self.act(self.bn(self.conv(x)))
        y = self.act(self.bn(self.conv(y)) + x)
        y = self.pool(self.act(F.max_pool2d(y, 2)))
        return self.fc(y.view(y.size(0), -1))


def images(count: int = 20) -> Tensor:
    return torch.randn(count, *MAP, generator=torch.Generator().manual_seed(2))


def canonical(module: nn.Module) -> fx.GraphModule:
    network = import_module(module, MAP)
    record_shapes(network.graph, MAP)
    run_editors(network.graph, canonicalise.EDITORS)
    return network.graph


def close(actual: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_calls_share_parameters_but_not_modules() -> None:
    network = import_module(scrambled(Shared()), MAP)
    _, first, second = modules(network.graph, Conv2d)
    assert first is not second
    assert first.weight is second.weight
    assert first.bias is second.bias
    norm, again = modules(network.graph, nn.BatchNorm2d)
    assert norm is not again
    assert norm.running_mean is again.running_mean
    assert norm.weight is again.weight
    assert len(set(modules(network.graph, nn.ReLU))) == 4
    assert network.notes == [
        "conv_1: calls the module of conv again: both keep the same parameters",
        "bn_1: calls the module of bn again: both keep the same parameters",
    ]


def test_training_keeps_shared_weights_tied() -> None:
    network = import_module(Shared(), MAP).graph.train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    network(images()).square().mean().backward()
    optimiser.step()
    _, first, second = modules(network, Conv2d)
    assert torch.equal(first.weight, second.weight)
    names = [name for name, _ in network.named_parameters()]
    assert len(names) == len(set(names)) == 8


def test_functional_calls_of_one_parameter_stay_tied() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.rand(3, 3, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(F.relu(F.conv2d(x, self.w)), self.w)

    network = import_module(Functional(), MAP)
    first, second = modules(network.graph, Conv2d)
    assert first.weight is second.weight
    assert network.notes[0] == "conv2d: its weight module.w is read by other calls too: both keep the same parameters"


def test_shared_linear_is_duplicated() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(F.relu(self.fc(x)))

    module = Twice()
    network = import_module(module, (4,)).graph
    first, second = modules(network, nn.Linear)
    assert first is not second
    assert first.weight is second.weight
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    close(outputs(network, x), outputs(module, x))


@pytest.mark.parametrize("bias", [True, False])
def test_canonical_network_computes_the_same(bias: bool) -> None:
    module = scrambled(Shared(bias=bias)).eval()
    network = canonical(module)
    assert kinds(network).count("BatchNorm2d") == 2
    close(outputs(network, images().numpy()), outputs(module, images().numpy()))


def test_each_call_absorbs_a_shared_bias_once() -> None:
    network = import_module(scrambled(Shared()), MAP).graph
    record_shapes(network, MAP)
    shared = modules(network, nn.BatchNorm2d)[0].running_mean.clone()
    edits = AbsorbBias()(network)
    assert [e.note.partition("; ")[2] for e in edits] == [
        "its running mean is no longer tied to that of other calls"
    ] * 2
    for norm, layer in zip(modules(network, nn.BatchNorm2d), modules(network, Conv2d)[1:], strict=True):
        assert layer.bias is None
        torch.testing.assert_close(norm.running_mean, shared - Shared().conv.bias.detach())


def test_bias_of_a_call_without_batch_norm_stays() -> None:
    class Once(Shared):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.conv(self.act(self.bn(self.conv(x))))

    module = scrambled(Once()).eval()
    network = canonical(module)
    assert [m.bias is None for m in modules(network, Conv2d)] == [False, True, False]
    close(outputs(network, images().numpy()), outputs(module, images().numpy()))


def test_shared_layers_are_not_equalised() -> None:
    network = canonical(scrambled(Shared()))
    before = outputs(network, images().numpy())
    weight = modules(network, Conv2d)[1].weight.detach().clone()
    edits = Equalise()(network)
    reasons = {e.node: e.note for e in edits if not e.applied}
    assert reasons["conv"] == "parameters of it, its BatchNorm or the next layer are shared with another call"
    assert torch.equal(modules(network, Conv2d)[1].weight, weight)
    close(outputs(network, images().numpy()), before)


def test_layer_before_a_shared_one_is_not_equalised_with_it() -> None:
    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(F.relu(self.b(F.relu(self.a(x)))))

    network = canonical(Chain())
    assert not any(e.applied for e in Equalise()(network))


def test_folding_gives_each_call_its_own_weight() -> None:
    module = scrambled(Shared()).eval()
    network = canonical(module)
    run_editors(network, fake_quantise.editors(Quantisers(), equalise=True))
    calibrate(network, Split(images(), None), UNCHANGED)
    edits = run_editors(network, [*hardware.mapping(TERNARY), *hardware.FOLDING])
    notes = [e.note for e in edits if e.editor == "FoldBatchNorm"]
    assert notes[0] == "bn folded into weight and bias, which no longer are tied to those of other calls"
    assert tied_nodes(network) == set()
    for m in network.modules():
        if hasattr(m, "mode"):
            m.mode = "bypass"
    close(outputs(network, images().numpy()), outputs(module, images().numpy()))


class Mixed(nn.Module):
    """A reused ReLU, `+`, `view`, an adaptive pool, functional and module forms."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.a = nn.Sequential(nn.Conv2d(3, 8, 3, padding="same"), nn.BatchNorm2d(8))
        self.b = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.act, self.pool = nn.ReLU(), nn.AdaptiveAvgPool2d((1, 1))
        self.w = nn.Parameter(torch.randn(5, 8) / 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.a(x))
        y = F.relu6(self.bn(self.b(x)))
        x = self.act(x + y)
        x = self.act(F.avg_pool2d(x, 2) + F.max_pool2d(x, 2))
        x = self.pool(x)
        return F.linear(F.dropout(x.view(x.size(0), -1), training=self.training), self.w)


def integer_and_exact(module: nn.Module) -> tuple[fx.GraphModule, fx.GraphModule]:
    """The integer network of a module, and the hardware-exact one that it is made from."""
    data = Split(images(40), None)
    network = canonical(module)
    run_editors(network, fake_quantise.editors(Quantisers(), equalise=True))
    calibrate(network, data, UNCHANGED)
    run_editors(network, [*hardware.mapping(TERNARY), *hardware.FOLDING])
    observe(network, data, UNCHANGED)
    plan, reference = plan_of(network), copy.deepcopy(network)
    run_editors(network, hardware.exact_editors(plan))
    correct_biases(network, reference, data, UNCHANGED)
    exact = copy.deepcopy(network.eval())
    run_editors(network, integerise.EDITORS)
    return network, exact


@pytest.mark.parametrize("kind", [Shared, Mixed])
def test_imported_module_through_all_stages(kind: type[nn.Module]) -> None:
    module = scrambled(kind()).eval()
    integer, exact = integer_and_exact(module)
    x = images(30).numpy()
    assert np.array_equal(outputs(integer, x), outputs(exact, x))
    assert all(layer.bias is not None for layer in modules(exact, ExactConv2d) + modules(exact, ExactLinear))
    expected = outputs(module, x)
    error = outputs(integer, x) - expected
    assert np.sqrt(np.mean(error**2)) <= 0.1 * np.sqrt(np.mean(expected**2))
