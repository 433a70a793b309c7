"""BatchNorm statistics taken anew."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

from dianaq_quant.training.batch_norm import REESTIMATION_SAMPLES, reestimate_batch_norm
from dianaq_quant.training.data import Data, Split

from .stages import UNCHANGED
from .test_step import GPU, Leaf, Memory, memory


def data(samples: int) -> Data:
    x = torch.randn(samples, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 + 1
    split = Split(x, None)
    return Data(split, None, None, split, UNCHANGED, {})


def test_statistics_become_those_of_the_training_data() -> None:
    network = fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5), nn.ReLU()))
    norm = network.get_submodule("1")
    momentum = norm.momentum
    found = data(200)
    reestimate_batch_norm(network, found)
    values = network.get_submodule("0")(found.train.x)
    torch.testing.assert_close(norm.running_mean, values.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, values.var((0, 2, 3)), rtol=1e-2, atol=1e-3)
    assert norm.momentum == momentum
    assert not any(m.training for m in network.modules())


def test_samples_come_from_the_whole_set() -> None:
    network = fx.symbolic_trace(nn.Sequential(nn.BatchNorm2d(3)))
    found = data(2 * REESTIMATION_SAMPLES)
    found.train.x[REESTIMATION_SAMPLES:] += 100  # as if sorted by class
    reestimate_batch_norm(network, found)
    assert (network.get_submodule("0").running_mean - 51).abs().max() < 5
    assert (network.get_submodule("0").running_var - 50**2).abs().max() < 150


def test_batches_that_do_not_fit_are_halved_and_none_is_of_one_sample() -> None:
    root = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(48), Memory(5, GPU))
    network = fx.GraphModule(root, Leaf().trace(root))
    reestimate_batch_norm(network, data(36))
    assert memory(network).measured == [36, 18, 9, *[5] * 4, *[4] * 4]
    memory(network).samples = 1
    with pytest.raises(torch.OutOfMemoryError):
        reestimate_batch_norm(network, data(36))
