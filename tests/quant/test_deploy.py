"""Remedies: what they rewrite, what they leave and why, and that no number changes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from dianaq.schemas.cores import CoreMapping
from dianaq.schemas.deployment import Remedies
from dianaq_quant.editors import deploy, integerise
from dianaq_quant.editors.deploy import Dialect
from dianaq_quant.export.layers import IntegerNetwork, read_layers, run_recording
from dianaq_quant.graph import Edit, run_editors
from dianaq_quant.graph.shapes import record_shapes
from dianaq_quant.modules.integer import IntegerAdd, IntegerConv2d, IntegerLinear, IntegerRelu

from .builder import ModelBuilder
from .stages import exact_network, remedied
from .support import quantise

Build = Callable[[ModelBuilder], onnx.ModelProto]


def integer(build: Build, shape: tuple[int, ...] = (3, 8, 8), analog: bool = False) -> IntegerNetwork:
    cores = CoreMapping(default="analog", ends="analog") if analog else CoreMapping()
    exact, _, _ = exact_network(build(ModelBuilder(shape, seed=2)), cores)
    run_editors(exact, integerise.EDITORS)
    record_shapes(exact, shape)
    return read_layers(exact)


def edits(network: IntegerNetwork, dialect: Dialect, **remedies: bool) -> list[Edit]:
    off = dict.fromkeys(Remedies.model_fields, False)
    return run_editors(copy.deepcopy(network.graph), deploy.editors(dialect, Remedies(**{**off, **remedies})))


def same(network: IntegerNetwork, other: IntegerNetwork) -> bool:
    """Whether every layer that the one has computes the same in the other, padding aside."""
    x = torch.randn(16, *network.input_shape, generator=torch.Generator().manual_seed(0)) * 2
    before, after = run_recording(network, x), run_recording(other, x)
    return all(torch.equal(v, after[name][:, : v.shape[1]]) for name, v in before.items())


def by_name(network: IntegerNetwork) -> dict[str, object]:
    return {layer.name: layer.module for layer in network.layers}


def residual(b: ModelBuilder) -> onnx.ModelProto:
    stem = b.relu(b.conv(b.input, 6, pads=(1, 1, 1, 1), name="stem"))
    inner = b.relu(b.conv(stem, 6, pads=(1, 1, 1, 1), group=6, name="depthwise"))
    y = b.relu(b.add(b.conv(inner, 6, (1, 1), name="second"), stem, name="join"))
    flat = b.flatten(b.pool("MaxPool", y, (2, 2), stride=(2, 2)))
    return b.build(b.gemm(b.relu(b.gemm(flat, 5, name="hidden")), 3, name="head"))


@pytest.mark.parametrize("analog", [False, True])
@pytest.mark.parametrize("dialect", ["htvm", "dory"])
def test_channels_are_padded_to_what_the_compiler_needs(dialect: Dialect, analog: bool) -> None:
    network = integer(residual, analog=analog)
    padded = remedied(network, dialect, pad_channels=True)
    assert same(network, padded)
    for layer in padded.layers:
        multiple = 16 if dialect == "dory" or not isinstance(layer.module, IntegerLinear) else 4
        assert layer.shape[0] % multiple == 0, layer.name
    assert padded.input_shape[0] == (16 if dialect == "dory" else 3)
    assert by_name(padded)["depthwise"].geometry.groups == 16


def test_a_padded_class_is_never_the_largest() -> None:
    network = integer(residual)
    padded = remedied(network, "htvm", pad_channels=True)
    values = run_recording(padded, torch.randn(32, 3, 8, 8))
    assert values["head"].shape == (32, 4)
    assert (values["head"][:, 3] == -128).all()
    assert torch.equal(values["output"].argmax(1), values["output"][:, :3].argmax(1))


def ends_in_a_conv(b: ModelBuilder) -> onnx.ModelProto:
    return b.build(b.flatten(b.conv(b.input, 5, (1, 1), name="last")))


def ends_in_a_pool(b: ModelBuilder) -> onnx.ModelProto:
    return b.build(b.flatten(b.global_pool(b.relu(b.conv(b.input, 5, (1, 1), name="last")))))


def ends_in_a_sum(b: ModelBuilder) -> onnx.ModelProto:
    y = b.conv(b.input, 5, (1, 1), name="last")
    return b.build(b.flatten(b.add(y, y, name="sum")))


@pytest.mark.parametrize("analog", [False, True])
@pytest.mark.parametrize("build", [ends_in_a_conv, ends_in_a_pool, ends_in_a_sum])
def test_padding_of_the_output_is_the_least_integer_or_there_is_none(build: Build, analog: bool) -> None:
    network = integer(build, analog=analog)
    padded = remedied(network, "htvm", pad_channels=True)
    assert same(network, padded)
    values = run_recording(padded, torch.randn(16, 3, 8, 8))[padded.sink]
    count = network.layers[-1].shape[0]
    stays = build is ends_in_a_sum or (analog and build is ends_in_a_conv)
    assert values.shape[1] == (count if stays else count // 5 * 16)
    assert (values[:, count:] == (0 if build is ends_in_a_pool else -128)).all()


def test_channels_of_a_grouped_convolution_stay() -> None:
    def build(b: ModelBuilder) -> onnx.ModelProto:
        y = b.relu(b.conv(b.input, 6, pads=(1, 1, 1, 1), name="first"))
        y = b.relu(b.conv(y, 4, pads=(1, 1, 1, 1), group=2, name="grouped"))
        return b.build(b.flatten(b.conv(y, 5, (1, 1), name="last")))

    network = integer(build)
    padded = remedied(network, "htvm", pad_channels=True)
    assert same(network, padded)
    assert [layer.shape[0] for layer in padded.layers if isinstance(layer.module, IntegerConv2d)] == [6, 4, 16]
    kept = {e.node: e.note for e in edits(network, "htvm", pad_channels=True) if not e.applied}
    assert kept.keys() == {"first", "grouped"}
    assert all("a grouped convolution reads or gives them" in note for note in kept.values())


def test_an_analog_layer_keeps_its_row_tiles() -> None:
    """Of 46 channels and 5 x 5 taps all rows are on one array; of 48 they would be on two, with two conversions."""

    def build(b: ModelBuilder) -> onnx.ModelProto:
        y = b.relu(b.conv(b.input, 46, (1, 1), name="first"))
        return b.build(b.flatten(b.conv(y, 16, (5, 5), pads=(2, 2, 2, 2), bias=False, name="tall")))

    network = integer(build, (3, 5, 5), analog=True)
    padded = remedied(network, "htvm", pad_channels=True)
    assert same(network, padded)
    assert by_name(padded)["tall"].weight.shape[1] == 46
    (kept,) = (e for e in edits(network, "htvm", pad_channels=True) if e.node == "first")
    assert not kept.applied
    assert "spread over its arrays in another way" in kept.note


def test_a_relu_after_an_addition_is_an_operation_of_its_own() -> None:
    network = integer(residual)
    for dialect, kind in (("htvm", IntegerRelu), ("dory", IntegerConv2d)):
        split = remedied(network, dialect, relu_after_add=True)
        assert same(network, split)
        modules = by_name(split)
        assert isinstance(modules["join"], kind)
        total = modules["join_sum"]
        assert isinstance(total, IntegerAdd)
        assert total.shift.qrange.lo == -128
        assert {layer.whole for layer in split.layers if layer.name in ("join", "join_sum")} == {"join"}


def test_of_vectors_the_identity_is_fully_connected_and_fits_the_weight_memory() -> None:
    def build(b: ModelBuilder) -> onnx.ModelProto:
        x = b.relu(b.gemm(b.input, 8, name="first"))
        y = b.relu(b.add(b.gemm(x, 8, name="second"), x, name="join"))
        z = b.gemm(y, 300, name="wide")
        return b.build(b.gemm(b.relu(b.add(z, z, name="twice")), 4, name="head"))

    network = integer(build, (5,))
    split = remedied(network, "dory", relu_after_add=True)
    assert same(network, split)
    assert isinstance(by_name(split)["join"], IntegerLinear)
    found = {e.node: (e.applied, e.note) for e in edits(network, "dory", relu_after_add=True)}
    assert found["twice"] == (False, "the identity of 300 channels exceeds 65536 bytes")


def one_pixel(b: ModelBuilder) -> onnx.ModelProto:
    y = b.relu(b.conv(b.input, 16, (2, 2), stride=(2, 2), name="down"))
    y = b.relu(b.conv(y, 16, pads=(1, 1, 1, 1), group=16, name="small"))
    return b.build(b.gemm(b.flatten(y), 4, name="head"))


@pytest.mark.parametrize("analog", [False, True])
def test_a_kernel_on_one_pixel_is_its_centre_tap(analog: bool) -> None:
    network = integer(one_pixel, (3, 2, 2), analog=analog)
    reduced = remedied(network, "htvm", centre_tap=True)
    assert same(network, reduced)
    assert by_name(reduced)["small"].weight.shape == (16, 1, 1, 1)
    assert by_name(reduced)["down"].weight.shape[2:] == (2, 2)
    found = {e.node: (e.applied, e.note) for e in edits(network, "htvm", centre_tap=True)}
    assert found["small"] == (True, "3 x 3 kernel to its tap (1, 1)")
    assert found["down"] == (False, "its map is 2 x 2")


GEOMETRIES = {
    "stride over an even map": {"kernel": (3, 3), "stride": (2, 2), "pads": (0, 0, 1, 1)},
    "more at the top": {"kernel": (3, 3), "stride": (2, 2), "pads": (1, 1, 0, 0)},
    "even": {"kernel": (2, 2), "stride": (2, 2), "pads": (0, 0, 0, 0)},
    "even and padded": {"kernel": (4, 4), "stride": (1, 1), "pads": (1, 2, 2, 1)},
    "dilated": {"kernel": (3, 3), "dilation": (2, 2), "pads": (2, 2, 2, 2)},
    "one axis": {"kernel": (3, 1), "pads": (1, 0, 1, 0)},
}


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("analog", [False, True])
@pytest.mark.parametrize("dialect", ["htvm", "dory"])
def test_kernels_get_the_form_that_compilers_take(dialect: Dialect, analog: bool, name: str) -> None:
    options = dict(GEOMETRIES[name])
    kernel = options.pop("kernel")

    def build(b: ModelBuilder) -> onnx.ModelProto:
        return b.build(b.flatten(b.conv(b.input, 4, kernel, name="strange", **options)))

    network = integer(build, analog=analog)
    changed = remedied(network, dialect, same_padding=True)
    assert same(network, changed)
    module = by_name(changed)["strange"]
    height, width = module.weight.shape[2:]
    assert module.geometry.dilation == (1, 1)
    assert module.geometry.pads == ((height - 1) // 2, (width - 1) // 2) * 2
    assert (height == width) or (dialect == "htvm" and name == "one axis")


def test_what_no_same_padding_computes_is_left() -> None:
    def build(b: ModelBuilder) -> onnx.ModelProto:
        return b.build(b.flatten(b.conv(b.conv(b.input, 4, name="valid"), 4, (5, 2), pads=(4, 1, 4, 0), name="large")))

    network = integer(build, (3, 12, 8))
    found = {e.node: (e.applied, e.note) for e in edits(network, "htvm", same_padding=True)}
    assert found["valid"] == (False, "padded alike on all sides, its map would be (12, 8), not (10, 6)")
    assert not found["large"][0]


@pytest.mark.parametrize("remedy", Remedies.model_fields)
def test_every_remedy_can_be_switched_off_and_is_reported(tmp_path: Path, remedy: str) -> None:
    def build(b: ModelBuilder) -> onnx.ModelProto:
        y = b.relu(b.conv(b.input, 5, pads=(0, 0, 1, 1), stride=(2, 2), name="down"))
        y = b.relu(b.add(b.conv(y, 5, pads=(1, 1, 1, 1), name="small"), y, name="join"))
        return b.build(b.gemm(b.flatten(y), 3, name="head"))

    names = dict(zip(Remedies.model_fields, ("PadChannels", "SplitAddRelu", "CentreTap", "SamePadding"), strict=True))
    model = build(ModelBuilder((3, 2, 2), seed=1))
    x = np.random.default_rng(0).normal(0, 1, (8, 3, 2, 2)).astype(np.float32)
    for on in (True, False):
        folder = tmp_path / str(on)
        folder.mkdir()
        report = quantise(model, {"x_train": x}, folder, remedies={remedy: on}).report
        applied = {(r["dialect"], r["editor"]) for r in report["remedies"] if r["applied"]}
        assert applied == {(d, e) for d in ("htvm", "dory") for n, e in names.items() if on or n != remedy}
