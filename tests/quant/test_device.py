"""Where networks are trained: chosen by the environment, and nothing stays behind on another device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import Tensor, fx
from torch.nn import functional as F

from dianaq.errors import InvalidSpec
from dianaq.schemas.cores import CoreMapping, Noise
from dianaq.schemas.quantisers import Quantisers
from dianaq_quant.editors import fake_quantise, hardware
from dianaq_quant.modules.adc import disturb
from dianaq_quant.training import device as devices
from dianaq_quant.training import objective
from dianaq_quant.training.batch import Batch
from dianaq_quant.training.calibrate import calibrate, observe
from dianaq_quant.training.calibrate_analog import calibrate_analog
from dianaq_quant.training.data import Split
from dianaq_quant.training.device import choose_device, describe, half_precision, placed
from dianaq_quant.training.objective import Objective

from .builder import ModelBuilder
from .stages import TERNARY, UNCHANGED, canonical, folded_network, plan_of, run_editors


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, torch.device]]:
    """As if there were two of 80 GB; what is asked of them."""
    asked: list[tuple[float, torch.device]] = []
    properties = type("Properties", (), {"total_memory": 80e9})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda part, device: asked.append((part, device))
    )
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    deterministic: list[bool] = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", deterministic.append)
    return asked


@pytest.mark.parametrize(("name", "chosen"), [("", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")])
def test_the_environment_chooses_among_the_devices_there_are(
    name: str, chosen: str, two_gpus: list[tuple[float, torch.device]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(devices.DEVICE, name)
    found = choose_device()
    assert found == torch.device(chosen)
    assert two_gpus == []
    if found.type == "cuda":
        assert describe(found).startswith("cuda H100, cpu ")
        assert not torch.backends.cudnn.benchmark
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.conv.fp32_precision != "tf32"
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        torch.export.export(torch.nn.ReLU(), (torch.ones(1),))  # asks for these settings


def test_without_a_gpu_it_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert choose_device() == torch.device("cpu")
    assert describe(torch.device("cpu")).startswith("cpu ")


def test_several_jobs_share_a_gpu_by_a_budget_of_memory(
    two_gpus: list[tuple[float, torch.device]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(devices.GPU_MEMORY, "20")
    assert choose_device() == torch.device("cuda:0")
    assert two_gpus == [(0.25, torch.device("cuda:0"))]
    monkeypatch.setenv(devices.GPU_MEMORY, "100")
    choose_device()
    assert two_gpus[1][0] == 1.0


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        (devices.DEVICE, "cuda:7", ["cuda:7", "cpu, cuda:0, cuda:1"]),
        (devices.DEVICE, "tpu", ["'tpu'"]),
        (devices.GPU_MEMORY, "lots", ["'lots'", "number of GB"]),
        (devices.GPU_MEMORY, "-1", ["'-1'"]),
        (devices.GPU_MEMORY, "nan", ["'nan'"]),
    ],
)
def test_refuses_what_is_not_there(
    variable: str, value: str, words: list[str], two_gpus: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSpec) as caught:
        choose_device()
    assert caught.value.param == variable
    assert all(word in str(caught.value) for word in words)


def network(stage: str) -> fx.GraphModule:
    """A residual network on both cores, as an iteration has it, noise on."""
    b = ModelBuilder((3, 8, 8), seed=0)
    x = b.relu(b.batch_norm(b.conv(b.input, 8, pads=(1, 1, 1, 1), bias=False)))
    y = b.relu(b.batch_norm(b.conv(x, 8, pads=(1, 1, 1, 1), bias=False)))
    z = b.relu(b.add(y, b.batch_norm(b.conv(y, 8, pads=(1, 1, 1, 1), bias=False))))
    model = b.build(b.gemm(b.flatten(b.global_pool(z)), 4))
    cores = CoreMapping(default="analog")
    if stage == "exact":
        net, _, _ = folded_network(model, cores)
        run_editors(net, hardware.exact_editors(plan_of(net)))
    else:
        net = canonical(model, cores)
        data = Split(torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0)), None)
        run_editors(net, fake_quantise.editors(Quantisers(), equalise=True))
        calibrate(net, data, UNCHANGED)
        if stage == "mapped":
            observe(net, data, UNCHANGED)
            run_editors(net, hardware.mapping(TERNARY))
            calibrate_analog(net, data, UNCHANGED)
    disturb(net, Noise(gaussian=0.5, column_gain=0.1, column_offset=0.1), seed=0)
    return net


@pytest.mark.parametrize("stage", ["fake", "mapped", "exact"])
def test_a_step_is_taken_where_the_network_is(stage: str) -> None:
    """The meta device has no values, and refuses to meet those of another one."""
    net = network(stage).train().to("meta")
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    outputs = net(torch.randn(6, 3, 8, 8, device="meta"))
    loss = F.cross_entropy(outputs, torch.zeros(6, dtype=torch.int64, device="meta"))
    loss.backward()
    optimiser.step()
    assert all(p.grad is not None and p.grad.device.type == "meta" for p in net.parameters())


@pytest.mark.parametrize(("has_bfloat16", "kind"), [(True, torch.bfloat16), (False, torch.float16)])
def test_the_teacher_alone_runs_in_half_precision(
    has_bfloat16: bool, kind: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What of a step runs under autocast: a stand-in for a GPU's notes it on the CPU."""
    wanted: list[tuple[str, torch.dtype]] = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has_bfloat16)

    @contextmanager
    def autocast(device: str, dtype: torch.dtype) -> Iterator[None]:
        wanted.append((device, dtype))
        with real("cpu", dtype=torch.bfloat16):
            yield

    real = torch.autocast
    monkeypatch.setattr(torch, "autocast", autocast)
    monkeypatch.setattr(objective, "half_precision", lambda device: half_precision(torch.device("cuda")))
    student, teacher = Noting(), Noting()
    loss = Objective(0.5, teacher)(student(torch.randn(2, 3)), Batch(torch.randn(2, 3), torch.tensor([0, 1])))
    assert wanted == [("cuda", kind)]
    assert (student.dtype, teacher.dtype, loss.dtype) == (torch.float32, torch.bfloat16, torch.float32)
    assert isinstance(half_precision(torch.device("cpu")), nullcontext)


class Noting(torch.nn.Linear):
    """Remembers the type of its outputs."""

    def __init__(self) -> None:
        super().__init__(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        self.dtype = y.dtype
        return y


def test_networks_are_back_on_the_cpu_also_after_an_error() -> None:
    net = torch.nn.Linear(2, 2)
    before = net.weight
    with pytest.raises(RuntimeError, match="stop"), placed(torch.device("cpu"), net, None):
        raise RuntimeError("stop")
    assert net.weight is before
    assert net.weight.device.type == "cpu"
