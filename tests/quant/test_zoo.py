"""The zoo: every architecture builds, imports, and the trained networks load into theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from dianaq.errors import InvalidSpec
from dianaq.schemas.zoo import LEAST_MAP, Architecture
from dianaq_quant.importers import import_module, load_weights
from dianaq_quant.zoo import ARCHITECTURES, build
from dianaq_quant.zoo.common import scaled

from .support import kinds

SMALL = {"mobilenet_v1": (3, 32, 32), "mobilenet_v2": (3, 32, 32), "autoencoder": (20,)}
"""Inputs that take less time than the usual ones."""


def small(name: str, width: float = 0.25) -> tuple[nn.Module, tuple[int, ...]]:
    shape = SMALL.get(name, ARCHITECTURES[name].input_shape)
    classes = shape[0] if name == "autoencoder" else 5
    return build(name, input_shape=shape, classes=classes, width=width), shape


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture_is_imported_as_it_computes(name: str) -> None:
    network, shape = small(name)
    imported = import_module(network, shape)
    x = torch.randn(2, *shape)
    with torch.no_grad():
        expected = network(x)
        torch.testing.assert_close(imported.graph(x), expected, rtol=1e-4, atol=1e-5)
    assert tuple(expected.shape[1:]) == (shape if name == "autoencoder" else (5,))
    assert not network.training


def test_sizes_are_the_published_ones() -> None:
    def parameters(name: str, width: float = 1.0, classes: int = 10) -> int:
        network = build(name, input_shape=ARCHITECTURES[name].input_shape, classes=classes, width=width)
        return sum(p.numel() for p in network.parameters())

    assert parameters("lenet5") == 61_706  # LeCun et al., 1998, with full connections: 156 + 2416 + 48120 + 10164 + 850
    assert parameters("mobilenet_v1", classes=1000) == 4_231_976  # Howard et al., 2017: 4.2 million
    assert parameters("mobilenet_v2", classes=1000) == 3_504_872  # Sandler et al., 2018: 3.4 million
    assert parameters("mobilenet_v1", 0.25) < 250_000  # MLPerf Tiny: within 250 kB of int8 weights
    assert kinds(import_module(small("resnet20")[0], (3, 32, 32)).graph).count("Add") == 9


def test_width_scales_channels_to_multiples_of_eight() -> None:
    assert [scaled(c, 0.25) for c in (32, 64, 1024)] == [8, 16, 256]
    assert [scaled(c, w) for c, w in ((16, 0.1), (6, 1.0), (6, 0.5), (24, 1.5), (16, 0.75))] == [8, 6, 8, 40, 16]


@pytest.mark.parametrize(
    ("changes", "param", "message"),
    [
        ({"name": "resnet9"}, "name", "no architecture 'resnet9'; there are resnet8, resnet20, mobilenet_v1"),
        ({"input_shape": (32, 32)}, "input_shape", r"resnet8 takes images .* not \(32, 32\)"),
        ({"input_shape": (3, 32, 0)}, "input_shape", r"not \(3, 32, 0\)"),
        ({"classes": 0}, "classes", "classes must be a positive integer, not 0"),
        ({"width": 0.0}, "width", "width must be above 0 and at most 4, not 0.0"),
        ({"width": float("nan")}, "width", "not nan"),
        ({"name": "lenet5", "input_shape": (1, 11, 28)}, "input_shape", "maps of at least 12 x 12, not 11 x 28"),
        ({"name": "cifarnet", "input_shape": (1, 8, 7)}, "input_shape", "maps of at least 8 x 8, not 8 x 7"),
        ({"name": "ds_cnn", "input_shape": (1, 8, 1)}, "input_shape", "maps of at least 1 x 2, not 8 x 1"),
        ({"name": "autoencoder", "input_shape": (20,)}, "classes", "classes must be its 20 features, not 4"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], param: str, message: str) -> None:
    arguments = {"name": "resnet8", "input_shape": (3, 32, 32), "classes": 4, "width": 1.0} | changes
    with pytest.raises(InvalidSpec, match=message) as caught:
        build(arguments.pop("name"), **arguments)
    assert caught.value.param == param


@pytest.mark.parametrize("name", [name for name, least in LEAST_MAP.items() if least is not None])
def test_the_least_maps_are_those_of_which_something_is_left(name: Architecture) -> None:
    least = LEAST_MAP[name]
    assert least is not None
    with torch.no_grad():
        network = build(name, input_shape=(1, *least), classes=2, width=0.25)
        assert network(torch.zeros(1, 1, *least)).shape == (1, 2)
        for shape in ((least[0] - 1, least[1]), (least[0], least[1] - 1)):
            x = torch.zeros(1, 1, *shape)
            with pytest.raises((RuntimeError, UserWarning)):  # torch warns of layers without weights
                _ = network(x) if 0 in shape else ARCHITECTURES[name].make((1, *shape), 2, 0.25)(x)


def test_the_specification_knows_the_zoo() -> None:
    assert set(get_args(Architecture)) == set(LEAST_MAP) == set(ARCHITECTURES)
    with pytest.raises(InvalidSpec, match=r"at most 4, not 4\.5"):
        build("lenet5", input_shape=(1, 28, 28), classes=2, width=4.5)


TRAINED = [
    ("resnet8", "diana_resnet8", (3, 32, 32), 12, 1.0),
    ("resnet20", "diana_resnet20", (3, 32, 32), 12, 1.0),
    ("mobilenet_v1", "diana_mobilenetv1", (3, 96, 96), 12, 0.25),
    ("ds_cnn", "diana_dscnn", (1, 10, 49), 12, 1.0),
    ("autoencoder", "diana_dae", (784,), 784, 1.0),
]


@pytest.mark.parametrize(("name", "file", "shape", "classes", "width"), TRAINED, ids=[t[0] for t in TRAINED])
def test_trained_networks_load_and_compute_what_their_onnx_files_do(
    shared_data: Path, name: str, file: str, shape: tuple[int, ...], classes: int, width: float
) -> None:
    network = build(name, input_shape=shape, classes=classes, width=width)
    load_weights(network, shared_data / "models" / f"{file}.safetensors")
    session = onnxruntime.InferenceSession(
        str(shared_data / "models" / f"{file}.onnx"), providers=["CPUExecutionProvider"]
    )
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    (expected,) = session.run(None, {session.get_inputs()[0].name: x})
    with torch.no_grad():
        for net in (network, import_module(network, shape).graph):
            np.testing.assert_allclose(net(torch.from_numpy(x)).numpy(), expected, rtol=1e-4, atol=1e-4)
