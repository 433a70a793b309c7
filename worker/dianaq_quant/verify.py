"""Whether all executions of the exported network agree bit for bit, and keep the ranges they declare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, fx

from dianaq.errors import InvalidModel, VerificationError
from dianaq.executor import read_model
from dianaq.inspection.naming import node_names
from dianaq_quant.editors.deploy import Dialect
from dianaq_quant.export.dory import DoryModel, with_converters
from dianaq_quant.export.htvm import HtvmModel
from dianaq_quant.export.layers import IntegerNetwork, run_recording
from dianaq_quant.targets.diana import FLOAT32_EXACT_LIMIT

DATA_SAMPLES = 96
RANDOM_SAMPLES = 32
"""Samples compared, 128 in all: of the user's data, and uniformly random ones, which reach the clipping bounds that
real data seldom meets. A smaller dataset is topped up with random samples."""

NUMPY_SAMPLES = 32
"""Of these samples, evenly chosen, for the execution in numpy's integers: it takes three times as long as onnxruntime,
0.02 s a sample for ResNet-20, and networks may be many times that size."""


@dataclass(frozen=True)
class Verification:
    """What was compared: sample counts, tensors per sample, and the executions that agreed."""

    data_samples: int
    random_samples: int
    tensors: int
    executions: tuple[str, ...]


def sample_inputs(
    data: Tensor, entrance_scale: float, seed: int, origin: Tensor | float = 0.0
) -> tuple[Tensor, int, int]:
    """Inputs to compare on: the first of the data, then random ones over the whole input range.

    Args:
        origin: the real value of 0 there, where it is not 0; broadcasts over the data.

    Returns:
        The float32 inputs (N, *shape), and how many of them are data and random.
    """
    count = min(len(data), DATA_SAMPLES)
    total = DATA_SAMPLES + RANDOM_SAMPLES
    generator = torch.Generator().manual_seed(seed)
    # A little beyond int8, so that the input's own clipping is exercised.
    levels = torch.rand((total - count, *data.shape[1:]), generator=generator) * 272 - 136
    return torch.cat([data[:count], levels * entrance_scale + origin]), count, total - count


def verify(
    network: IntegerNetwork,
    exact: fx.GraphModule,
    htvm: HtvmModel,
    dory: DoryModel,
    x: Tensor,
    deployed: Mapping[Dialect, IntegerNetwork] | None = None,
) -> tuple[str, ...]:
    """Compare the integer network, the hardware-exact network, and both exported files on inputs `x`, layer by layer.

    The files run in onnxruntime, in float32, and in numpy, in integers; `dory/model.onnx` only without analog layers
    there. What stands in for their converters (`with_converters`) multiplies `a` by `g k`, which no chip does and which
    may leave 32 bits where the chip's `a k` does not; `htvm/model.onnx` has the converters as they are.

    Args:
        deployed: the integer network after the remedies for a compiler, if there were any; its file was written of it.

    Returns:
        Names of the executions that agreed.

    Raises:
        VerificationError: names the execution, the layer and the first sample that differs; or the tensor that holds
            a fraction or leaves its declared range, or the layer whose accumulator leaves 32 bits.
    """
    values = run_recording(network, x)
    expected = _arrays(values)
    for layer, value in expected.items():
        if layer != "output":
            _whole(value, layer, "the integer network", None)
    with torch.no_grad():
        _same(expected["output"], exact(x).numpy(), "output", "the hardware-exact network", network)
    deployed = deployed or {"htvm": network, "dory": network}
    of = {dialect: _remedied(values, remedied, x, dialect) for dialect, remedied in deployed.items()}
    # Both ends of the file for HTVM are float32 tensors, whatever they hold.
    given, fed = deployed["htvm"].given(of["htvm"]), deployed["htvm"].fed(x, of["htvm"]).float().numpy()
    by_htvm = _arrays(of["htvm"]) | {"output": given.float().numpy()}
    by_dory = _arrays(of["dory"])
    integers = by_dory["input"]
    _compare(by_htvm, htvm.proto, htvm.tensors, htvm.ranges, "htvm/model.onnx", fed, network)
    _compare(by_dory, with_converters(dory), dory.tensors, dory.ranges, "dory/model.onnx", integers, network)
    in_numpy = [_compare_in_numpy(by_htvm, htvm.proto, htvm.tensors, "htvm/model.onnx", fed, network)]
    if not dory.converters:
        in_numpy.append(_compare_in_numpy(by_dory, dory.proto, dory.tensors, "dory/model.onnx", integers, network))
    converters = ", converters of analog layers added" if dory.converters else ""
    return (
        "hardware-exact torch",
        "integer torch",
        "htvm/model.onnx",
        f"dory/model.onnx (attributes stripped{converters})",
        *in_numpy,
    )


def _remedied(expected: Mapping[str, Tensor], remedied: IntegerNetwork, x: Tensor, dialect: str) -> dict[str, Tensor]:
    """What a network after its remedies computes, once it is sure that the layers it still has compute the same.

    Channels that were added come last.
    """
    found = run_recording(remedied, x)
    execution = f"the network with the remedies for {dialect}"
    for layer, value in expected.items():
        _same(value.numpy(), found[layer][:, : value.shape[1]].numpy(), layer, execution, remedied)
    return found


def _arrays(values: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in values.items()}


def _compare(
    expected: Mapping[str, np.ndarray],
    model: onnx.ModelProto,
    tensors: Mapping[str, str],
    ranges: Mapping[str, tuple[int, int]],
    execution: str,
    x: np.ndarray,
    network: IntegerNetwork,
) -> None:
    """Run a model sample by sample (its batch is 1) and compare every layer's integers."""
    fed = model.graph.input[0].name
    result = model.graph.output[0].name
    pairs = _stored(tensors, fed)
    wanted = [*dict.fromkeys([*pairs.values(), result])]
    session = _session(_exposing(model, wanted))
    outputs: list[list[np.ndarray]] = [session.run(wanted, {fed: sample[None]}) for sample in x]
    stacked = {name: np.concatenate([o[i] for o in outputs]) for i, name in enumerate(wanted)}
    for layer, tensor in pairs.items():
        _whole(stacked[tensor], layer, execution, ranges.get(tensor))
        _same(expected[layer], stacked[tensor], layer, execution, network)
    if result not in pairs.values():
        _same(expected["output"], stacked[result], "output", execution, network)


def _compare_in_numpy(
    expected: Mapping[str, np.ndarray],
    model: onnx.ModelProto,
    tensors: Mapping[str, str],
    file: str,
    x: np.ndarray,
    network: IntegerNetwork,
) -> str:
    """Run a model in integers on some of the samples and compare every layer's integers; the execution's name."""
    step = max(1, len(x) // NUMPY_SAMPLES)
    execution = f"{file} in numpy, integers only"
    pairs = _stored(tensors, model.graph.input[0].name)
    try:
        run = read_model(model).run(x[::step], keep=set(pairs.values()))
    except InvalidModel as error:
        layer = _layer_of(error.param, model, tensors)
        raise VerificationError(f"{execution}: {layer}: {error.detail}", param=layer) from None
    for layer, tensor in pairs.items():
        _same(expected[layer][::step], run.tensors[tensor], layer, execution, network, step)
    if model.graph.output[0].name not in pairs.values():
        _same(expected["output"][::step], run.output, "output", execution, network, step)
    return execution if step == 1 else f"{execution} ({len(x[::step])} of the samples)"


def _stored(tensors: Mapping[str, str], fed: str) -> dict[str, str]:
    """The tensors of layers that hold integers. A mean before its Floor does not, and what is fed needs no look."""
    return {layer: tensor for layer, tensor in tensors.items() if tensor != fed and not tensor.endswith("/mean")}


def _layer_of(name: str | None, model: onnx.ModelProto, tensors: Mapping[str, str]) -> str:
    """The layer that a node is part of: the first whose output comes at it or behind it."""
    names = node_names(model.graph)
    behind = model.graph.node[names.index(name) :] if name in names else []
    layers = {tensor: layer for layer, tensor in tensors.items()}
    return next((layers[output] for node in behind for output in node.output if output in layers), str(name))


def _exposing(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy whose outputs are the named tensors."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    declared = {o.name for o in copy.graph.output}
    for name in names:
        if name not in declared:
            copy.graph.output.append(onnx.ValueInfoProto(name=name))
    return copy


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    # Optimisations may reassociate; the file is to be run as it is written.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _whole(value: np.ndarray, layer: str, execution: str, bounds: tuple[int, int] | None) -> None:
    if not np.array_equal(value, np.floor(value)):
        raise VerificationError(f"{execution}: {layer} holds a fractional value", param=layer)
    lo, hi = bounds or (-128, 127)
    if value.min() < lo or value.max() > hi:
        raise VerificationError(
            f"{execution}: {layer} holds values in [{value.min():g}, {value.max():g}], outside its range [{lo}, {hi}]",
            param=layer,
        )


def _same(a: np.ndarray, b: np.ndarray, layer: str, execution: str, network: IntegerNetwork, step: int = 1) -> None:
    if a.shape == b.shape and np.array_equal(a, b):
        return
    if a.shape != b.shape:
        raise VerificationError(f"{execution}: {layer} has shape {b.shape}, not {a.shape}", param=layer)
    sample = step * int(np.argwhere((a != b).reshape(len(a), -1).any(1))[0, 0])
    wide = [entry.name for entry in network.layers if getattr(entry.module, "bound", 0) >= FLOAT32_EXACT_LIMIT]
    hint = f"; float32 cannot hold the accumulator of {', '.join(wide)} exactly, which may be why" if wide else ""
    raise VerificationError(
        f"{execution} differs from the integer network at {layer}, first in sample {sample} "
        f"({int((a != b).sum())} of {a.size} values){hint}",
        param=layer,
    )
