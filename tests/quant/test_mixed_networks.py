"""Networks on both cores: numpy, torch and onnxruntime agree bit for bit on every tensor."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from dianaq.errors import VerificationError
from dianaq.schemas.cores import CoreMapping
from dianaq.schemas.quantisers import Quantisers
from dianaq_quant.editors import integerise
from dianaq_quant.export.dory import build_dory
from dianaq_quant.export.htvm import build_htvm
from dianaq_quant.export.layers import IntegerNetwork, read_layers, run_recording
from dianaq_quant.graph import run_editors
from dianaq_quant.graph.shapes import record_shapes
from dianaq_quant.modules.integer import IntegerAdd, IntegerAnalogConv2d
from dianaq_quant.verify import sample_inputs, verify

from .builder import ModelBuilder, Tensor
from .numpy_chip import run_numpy
from .stages import exact_network
from .support import modules, quantise

MAP = (4, 6, 6)
SAME = (1, 1, 1, 1)

Recipe = Callable[[ModelBuilder], Tensor]


def same(b: ModelBuilder, x: Tensor, channels: int, **kwargs: Any) -> Tensor:
    return b.batch_norm(b.conv(x, channels, pads=SAME, bias=False, **kwargs))


def head(b: ModelBuilder, x: Tensor) -> Tensor:
    return b.gemm(b.flatten(b.global_pool(x)), 3)


def residual(b: ModelBuilder) -> Tensor:
    x = b.relu(same(b, b.input, 4))
    for _ in range(2):
        x = b.relu(b.add(same(b, b.relu(same(b, x, 6)), 4), x))
    return head(b, x)


def downsampling(b: ModelBuilder) -> Tensor:
    x = b.relu(same(b, b.input, 4))
    left = same(b, b.relu(same(b, x, 6, stride=(2, 2))), 6)
    right = b.conv(x, 6, (1, 1), stride=(2, 2))
    return head(b, b.relu(b.add(left, right)))


def chain_of_adds(b: ModelBuilder) -> Tensor:
    x = b.relu(same(b, b.input, 4))
    total = same(b, x, 4)
    for _ in range(3):
        total = b.add(total, same(b, x, 4))
    return b.flatten(b.relu(total))


def tree_of_adds(b: ModelBuilder) -> Tensor:
    x = b.relu(same(b, b.input, 4))
    leaves = [same(b, x, 4), b.relu(same(b, x, 4)), b.conv(x, 4, pads=SAME), x]
    return head(b, b.relu(b.add(b.add(leaves[0], leaves[1]), b.add(leaves[2], leaves[3]))))


def add_to_itself(b: ModelBuilder) -> Tensor:
    x = same(b, b.relu(same(b, b.input, 4)), 4)
    return b.flatten(b.conv(b.relu(b.add(x, x)), 2))


def adds_of_unlike_ranges(b: ModelBuilder) -> Tensor:
    """A rectified, a signed analog, a signed digital and a saturating producer, of very different sizes."""
    x = b.relu(same(b, b.input, 4))
    y = b.add(b.conv(x, 4, pads=SAME, scale=5.0), b.relu(b.conv(x, 4, pads=SAME, scale=0.5)))
    z = b.add(b.relu6(b.conv(x, 4, pads=SAME)), b.conv(b.input, 4, pads=SAME, name="digital"))
    return head(b, b.relu(b.add(y, z)))


def pools(b: ModelBuilder) -> Tensor:
    x = b.pool("MaxPool", same(b, b.input, 4), (2, 2), stride=(2, 2))
    x = b.relu(same(b, x, 4))
    return head(b, b.pool("AveragePool", b.relu(same(b, x, 4)), (2, 2)))


def strange_geometry(b: ModelBuilder) -> Tensor:
    x = b.relu(b.conv(b.input, 5, (3, 2), stride=(1, 2), pads=(2, 0, 1, 1)))
    return b.flatten(b.relu(b.conv(x, 3, (2, 2), dilation=(2, 1), pads=(0, 1, 0, 0))))


def row_tiles(b: ModelBuilder) -> Tensor:
    x = b.relu(b.conv(b.input, 261, (1, 1)))
    y = same(b, x, 4, name="tiled")
    return head(b, b.relu(b.add(y, b.conv(x, 4, (1, 1)))))


NETWORKS: list[Recipe] = [
    residual, downsampling, chain_of_adds, tree_of_adds, add_to_itself, adds_of_unlike_ranges, pools, strange_geometry,
    row_tiles,
]  # fmt: skip


def integer_network(recipe: Recipe, bits: int = 8, **quantisers: Any) -> tuple[IntegerNetwork, torch.fx.GraphModule]:
    b = ModelBuilder(MAP, seed=5)
    layers = {"digital": "digital"} if recipe is adds_of_unlike_ranges else {}
    layers |= {"tiled": "analog"} if recipe is row_tiles else {}
    cores = CoreMapping(default="analog", ends="analog", layers=layers)
    exact, _, shape = exact_network(
        b.build(recipe(b)), cores, Quantisers.model_validate(quantisers), batch_norm_bits=bits
    )
    network = copy.deepcopy(exact)
    run_editors(network, integerise.EDITORS)
    record_shapes(network, shape)
    return read_layers(network), exact


def inputs(network: IntegerNetwork) -> torch.Tensor:
    """Normal data and values that reach the input's bounds."""
    data = torch.randn(20, *MAP, generator=torch.Generator().manual_seed(1))
    return sample_inputs(data, network.entrance.scale, 0)[0][:60]


@pytest.mark.parametrize("recipe", NETWORKS, ids=lambda r: r.__name__)
@pytest.mark.parametrize("bits", [8, 16])
def test_numpy_torch_and_onnxruntime_agree(recipe: Recipe, bits: int) -> None:
    network, exact = integer_network(recipe, bits)
    assert any(isinstance(layer.module, IntegerAnalogConv2d) for layer in network.layers)
    x = inputs(network)
    judged = run_numpy(network, x.numpy())
    recorded = run_recording(network, x)
    for name, integers in judged.items():
        assert np.array_equal(recorded[name].numpy(), integers), name
        assert integers.min() >= -128
        assert integers.max() <= 127
    assert np.array_equal(recorded["output"].numpy(), judged[network.sink] * network.exit.scale)
    executions = verify(network, exact, build_htvm(network), build_dory(network), x)
    assert executions[-2:] == (
        "dory/model.onnx (attributes stripped, converters of analog layers added)",
        "htvm/model.onnx in numpy, integers only",
    )


@pytest.mark.parametrize("recipe", NETWORKS, ids=lambda r: r.__name__)
def test_the_numbers_are_not_trivially_equal(recipe: Recipe) -> None:
    """Tensors that are constant would agree whatever was computed."""
    network, _ = integer_network(recipe)
    judged = run_numpy(network, inputs(network).numpy())
    for name, integers in judged.items():
        assert len(np.unique(integers)) > 5, name


def test_row_tiles_are_exported() -> None:
    network, _ = integer_network(row_tiles)
    (tiled,) = [m for m in modules(network.graph, IntegerAnalogConv2d) if m.tiles.count > 1]
    assert tiled.tiles.count == 3
    operators = [node.op_type for node in build_htvm(network).proto.graph.node]
    assert operators.count("ReduceSum") == 1


@pytest.mark.parametrize("part", ["gain", "k", "l", "weight"])
def test_a_converter_computed_otherwise_is_found(part: str) -> None:
    """The verification is worth something: one integer off, and it names the execution."""
    network, exact = integer_network(residual)
    htvm, dory = build_htvm(network), build_dory(network)
    analog = modules(network.graph, IntegerAnalogConv2d)[0]
    if part == "gain":
        analog.gain *= 2
    elif part == "weight":
        analog.weight[analog.weight == 1] = 0
    else:
        getattr(analog, part).add_(40)
    with pytest.raises(VerificationError, match="differs from the integer network at"):
        verify(network, exact, htvm, dory, inputs(network))


def test_inputs_of_an_addition_have_one_scale_and_its_shift_is_a_shift() -> None:
    network, exact = integer_network(adds_of_unlike_ranges)
    found = [layer for layer in network.layers if isinstance(layer.module, IntegerAdd)]
    assert len(found) == 3
    scales = {str(n.target): n.meta["scale"] for n in exact.graph.nodes if "scale" in n.meta}
    for layer in found:
        one, other = (scales[name] for name in layer.inputs)
        assert one == other
        assert scales[layer.name] == one * 2**layer.module.shift.shift
        assert math.log2(one).is_integer()
        assert 0 <= layer.module.shift.shift <= 31


QUANTISERS: list[dict[str, Any]] = [
    {"activations": {"function": "tqt"}, "weights": {"function": "tqt", "granularity": "per-outchannel_weights"}},
    {"activations": {"function": "pact", "init": "percentile"}, "weights": {"range": "ternary", "function": "ternary"}},
    {"activations": {"range": {"bitwidth": 5}}, "weights": {"range": "binary", "function": "binary"}},
    {
        "activations": {"range": {"limpbitwidth": 4, "signed": True}, "init": "meanstd"},
        "weights": {"granularity": [0, 1]},
    },
]


@pytest.mark.parametrize("quantisers", QUANTISERS, ids=["tqt", "pact", "binary", "limp"])
@pytest.mark.parametrize("recipe", [downsampling, adds_of_unlike_ranges], ids=lambda r: r.__name__)
def test_any_quantisers_end_in_networks_that_agree(recipe: Recipe, quantisers: dict[str, Any]) -> None:
    network, exact = integer_network(recipe, **quantisers)
    x = inputs(network)
    judged, recorded = run_numpy(network, x.numpy()), run_recording(network, x)
    assert all(np.array_equal(recorded[name].numpy(), integers) for name, integers in judged.items())
    verify(network, exact, build_htvm(network), build_dory(network), x)


def test_trained_with_noise_and_step_by_step_the_bundle_is_exact_and_silent(tmp_path: Path) -> None:
    b = ModelBuilder(MAP, seed=5)
    random = np.random.default_rng(0)
    x = random.normal(0, 1, (80, *MAP)).astype(np.float32)
    y = (x.mean((1, 2, 3)) > 0).astype(np.int64) + (x[:, 0].mean((1, 2)) > 0)
    training = {"epochs": 1, "batch_size": 16, "learning_rate": 0.01}
    recipe = {
        "hardware_mapped": training,
        "hardware_exact": training,
        "progressive": [{"range": {"bitwidth": 4, "signed": True}, "epochs": 1}],
        "noise": {"gaussian": 0.5, "column_gain": 0.05, "column_offset": 0.25},
    }
    outcome = quantise(
        b.build(residual(b)), {"x_train": x, "y_train": y}, tmp_path, recipe=recipe, mapping={"default": "analog"}
    )
    assert len(outcome.report["verification"]["executions"]) == 5
    assert (outcome.folder / "dory" / "model.onnx").is_file()
    operators = {node.op_type for node in onnx.load(str(outcome.folder / "htvm" / "model.onnx")).graph.node}
    assert not operators & {"RandomNormal", "RandomNormalLike"}
