"""Whether the import of an ONNX file computes what the file computes, and what the import looks like."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, fx

from dianaq.inspection import inspect_model
from dianaq.inspection.external import self_contained
from dianaq.schemas.resources import Arrangement
from dianaq_quant.importers import Network, import_onnx

SAMPLES = 64
BOUND = 1e-5
"""Largest difference, as a share of the largest output: float32 keeps 1.2e-7, and sums of some hundred terms in another
order lose two digits of that."""


def sample_shape(model: onnx.ModelProto) -> tuple[int, ...]:
    """The shape of one sample of the input, as the file has it."""
    constants = {tensor.name for tensor in model.graph.initializer}
    (source,) = (i for i in model.graph.input if i.name not in constants)
    return tuple(d.dim_value for d in source.type.tensor_type.shape.dim)[1:]


def run_file(path: Path, x: np.ndarray) -> np.ndarray:
    """The file's output in onnxruntime, in batches of the file's own size, as the file is written."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    constants = {tensor.name for tensor in onnx.load(path, load_external_data=False).graph.initializer}
    (source,) = (i for i in session.get_inputs() if i.name not in constants)
    size = source.shape[0] if isinstance(source.shape[0], int) else len(x)
    return np.concatenate([session.run(None, {source.name: x[i : i + size]})[0] for i in range(0, len(x), size)])


def arranged(x: Tensor, arrangement: Arrangement | None) -> Tensor:
    """A batch in another order and shape; as it is without an arrangement."""
    if arrangement is None:
        return x
    return x.permute(0, *(axis + 1 for axis in arrangement.axes)).reshape(len(x), *arrangement.shape)


def compared(
    path: Path, shape: tuple[int, ...], dropped: Callable[[Tensor], Tensor] | None = None, scale: float = 1.0
) -> tuple[Network, float]:
    """The import of a file, and its largest difference from the file on random samples, as a share of the output.

    Weights beside it are put into it, and it is inspected, as before it is uploaded and when it is. Samples and outputs
    are in the file's own layout.

    Args:
        dropped: what the file ends in and the import leaves out.
        scale: of the samples, which are normally distributed.

    Raises:
        DianaqError: the file is refused.
    """
    with self_contained(path) as whole:
        inspect_model(whole)
        network = import_onnx(whole)
    x = np.random.default_rng(3).normal(0, scale, (SAMPLES, *shape)).astype(np.float32)
    wanted = torch.from_numpy(run_file(path, x))
    network.graph.eval()
    with torch.no_grad():
        found = network.graph(arranged(torch.from_numpy(x), None if network.own is None else network.own.arrangement))
    found = arranged(found, network.given)
    found = found if dropped is None else dropped(found)
    assert found.shape == wanted.shape, f"shape {tuple(found.shape)}, not {tuple(wanted.shape)}"
    return network, float((found - wanted).abs().max() / wanted.abs().max())


def fingerprint(network: fx.GraphModule) -> str:
    """The same for networks that differ in names alone."""
    digest, numbers = hashlib.sha256(), dict[fx.Node, int]()
    for node in network.graph.nodes:
        numbers[node] = len(numbers)
        digest.update(f"{node.op} {[numbers[n] for n in node.all_input_nodes]}\n".encode())
        if node.op == "call_module":
            module = network.get_submodule(str(node.target))
            settings = sorted((k, v) for k, v in vars(module).items() if not k.startswith("_"))
            digest.update(f"{type(module).__name__} {settings}\n".encode())
            for tensor in (*module.parameters(), *module.buffers()):
                digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
