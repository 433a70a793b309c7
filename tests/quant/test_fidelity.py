"""Signal to quantisation noise, against what the float and the exact network give."""

from __future__ import annotations

import copy
import math

import numpy as np
import onnx
import pytest
import torch
from torch import fx

from dianaq.schemas.cores import CoreMapping
from dianaq.schemas.quantisers import Quantisers
from dianaq_quant.editors import hardware
from dianaq_quant.editors.hardware.plan import plan_scales
from dianaq_quant.graph import run_editors
from dianaq_quant.modules.exact import ExactInput, ExactLinear
from dianaq_quant.modules.fake import FakeConv2d
from dianaq_quant.modules.quantiser import FakeQuantiser
from dianaq_quant.profile.fidelity import FOLDED, SAMPLES, UNROUNDED, fidelity
from dianaq_quant.training.data import Split
from dianaq_quant.training.decibels import CEILING_DB

from .builder import ModelBuilder
from .stages import DIGITAL, UNCHANGED, folded_network
from .support import modules, run_onnx


def residual() -> onnx.ModelProto:
    """A network that is equalised in one place, where the channels' ranges differ wildly."""
    b = ModelBuilder((3, 8, 8), seed=4)
    stem = b.relu(b.batch_norm(b.conv(b.input, 8, pads=(1, 1, 1, 1), bias=False, name="stem")))
    weight = b.random.normal(0, 0.3, (8, 8, 3, 3)) * np.geomspace(0.01, 10, 8)[:, None, None, None]
    inner = b.relu(b.conv(stem, 8, pads=(1, 1, 1, 1), name="inner", weight=weight))
    weight = b.random.normal(0, 0.3, (8, 8, 3, 3)) / np.geomspace(0.01, 10, 8)[None, :, None, None]
    block = b.relu(b.add(b.conv(inner, 8, pads=(1, 1, 1, 1), name="outer", weight=weight), stem, name="add"))
    pooled = b.pool("MaxPool", block, (2, 2), stride=(2, 2), name="max")
    return b.build(b.gemm(b.flatten(b.global_pool(pooled, name="mean"), name="flat"), 4, name="head"))


def both(
    model: onnx.ModelProto, cores: CoreMapping = DIGITAL, quantisers: Quantisers | None = None
) -> tuple[fx.GraphModule, fx.GraphModule, torch.Tensor]:
    """The exact network (biases not corrected), the folded one that it was made from, and its data."""
    network, data, _ = folded_network(model, cores, quantisers)
    reference = copy.deepcopy(network)
    run_editors(network, hardware.exact_editors(plan_scales(network)))
    return network.eval(), reference, data


def decibels(wanted: np.ndarray, found: np.ndarray) -> float:
    wanted, found = wanted.astype(np.float64), found.astype(np.float64)
    return 10 * math.log10((wanted**2).sum() / ((wanted - found) ** 2).sum())


def test_the_networks_output_is_compared_with_the_float_networks_own() -> None:
    model = residual()
    exact, reference, data = both(model)
    found = fidelity(exact, Split(data, None), UNCHANGED, reference)
    with torch.no_grad():
        given = exact(data).numpy()
    assert found.decibels["head"] == pytest.approx(decibels(run_onnx(model, data.numpy()), given), abs=0.02)
    assert (found.samples, found.reference) == (len(data), FOLDED)
    assert set(found.decibels) == {"input", "stem", "inner", "outer", "add", "max", "mean", "flat", "head"}


def test_an_8_bit_network_keeps_its_signal_in_every_layer_equalised_or_not() -> None:
    exact, reference, data = both(residual())
    found = fidelity(exact, Split(data, None), UNCHANGED, reference).decibels
    assert all(value is not None and 15 < value < 60 for value in found.values()), found


def test_narrower_weights_lose_more() -> None:
    narrow = Quantisers.model_validate({"weights": {"range": {"bitwidth": 3, "signed": True}}})
    of = {}
    for bits, quantisers in ((8, None), (3, narrow)):
        exact, reference, data = both(residual(), quantisers=quantisers)
        of[bits] = fidelity(exact, Split(data, None), UNCHANGED, reference).decibels
    assert of[3]["inner"] < of[8]["inner"] - 10


@pytest.mark.parametrize("cores", [DIGITAL, CoreMapping(layers={"inner": "analog", "outer": "analog"})])
def test_without_a_reference_the_network_is_run_unrounded(cores: CoreMapping) -> None:
    exact, reference, data = both(residual(), cores)
    alone = fidelity(exact, Split(data, None), UNCHANGED)
    beside = fidelity(exact, Split(data, None), UNCHANGED, reference)
    assert alone.reference == UNROUNDED
    assert alone.decibels.keys() == beside.decibels.keys()
    for name, value in alone.decibels.items():
        assert value is not None
        assert value > 12, name
        # Nothing was trained since: both references are one network, but for what saturates.
        assert value > beside.decibels[name] - 1, name


def test_the_unrounded_network_by_hand() -> None:
    b = ModelBuilder((12,), seed=6)
    exact, _, data = both(b.build(b.gemm(b.input, 5, name="only")))
    layer, entrance = modules(exact, ExactLinear)[0], modules(exact, ExactInput)[0]
    weight, bias = layer.weight.detach(), layer.bias.detach()
    bias = bias - entrance.scale / 2 * weight.sum(1)  # what makes up for the floor at the entrance
    scale, qrange = layer.requantise.out_scale, layer.requantise.qrange
    wanted = (data @ weight.T + bias).clamp(qrange.lo * scale, qrange.hi * scale)
    with torch.no_grad():
        given = exact(data)
    found = fidelity(exact, Split(data, None), UNCHANGED)
    assert found.decibels["only"] == pytest.approx(decibels(wanted.numpy(), given.numpy()), abs=0.02)


def test_few_samples_are_used_and_nothing_is_left_behind() -> None:
    exact, reference, _ = both(residual())
    before = {name: value.clone() for name, value in exact.state_dict().items()}
    data = torch.randn(SAMPLES + 9, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    exact.train()
    found = fidelity(exact, Split(data, None), UNCHANGED, reference)
    assert found.samples == SAMPLES
    assert exact.training
    assert all(torch.equal(value, before[name]) for name, value in exact.state_dict().items())
    modes = {m.mode for m in reference.modules() if isinstance(m, FakeQuantiser | FakeConv2d)}
    assert modes == {"quantise"}


def test_a_dead_layer_has_no_figure_and_a_perfect_one_the_largest() -> None:
    b = ModelBuilder((2, 4, 4), seed=2)
    dead = b.relu(b.conv(b.input, 4, weight=np.zeros((4, 2, 3, 3)), bias=False, name="dead"))
    exact, reference, data = both(b.build(b.gemm(b.flatten(dead), 2, name="head")))
    assert fidelity(exact, Split(data, None), UNCHANGED, reference).decibels["dead"] is None
    b = ModelBuilder((4,), seed=2)
    exact, reference, _ = both(b.build(b.gemm(b.input, 2, name="head", bias=False)))
    scale = modules(exact, ExactInput)[0].scale
    bins = (torch.tensor([[0.0, 1, 2, 3]]) + 0.5) * scale  # the middles of bins are exact
    found = fidelity(exact, Split(bins, None), UNCHANGED, reference).decibels
    assert next(iter(found.values())) == CEILING_DB
