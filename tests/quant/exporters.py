"""Ways from a PyTorch network to an ONNX file: exporters, their settings, and tools that clean up what they wrote."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxscript
import onnxslim
import torch
from onnx import version_converter
from torch import Tensor, nn
from torch.onnx import TrainingMode

TORCHSCRIPT_OPSETS = range(7, 21)
"""All that torch's TorchScript exporter writes."""

DYNAMO_OPSETS = (18, 20, 21, 23, 25)
"""The first that torch's other exporter writes, its default, and later ones that changed operators of such networks."""

BATCH = 2
"""Of the example that a dynamic batch is traced with: at 1 the batch would be taken for a constant."""


@dataclass(frozen=True)
class Way:
    """One way to write a network to a file.

    Args:
        batch: the batch of the file; None for a dynamic one.
        write: writes the network to a path, traced with an example of that batch, or of `BATCH`.
    """

    batch: int | None
    write: Callable[[nn.Module, Tensor, Path], None]

    def export(self, module: nn.Module, shape: tuple[int, ...], path: Path) -> onnx.ModelProto:
        """Write a network that takes samples of a shape; gives what was written, with weights from beside it."""
        example = torch.rand(self.batch or BATCH, *shape, generator=torch.Generator().manual_seed(1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # exporters warn of their own future
            self.write(module, example, path)
        return onnx.load(path)


def torchscript(opset: int, batch: int | None = None, **settings: Any) -> Way:
    """`torch.onnx.export(dynamo=False)`."""

    def write(module: nn.Module, example: Tensor, path: Path) -> None:
        axes = {} if batch else {"input": {0: "batch"}, "output": {0: "batch"}}
        torch.onnx.export(
            module,
            (example,),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes=axes,
            **settings,
        )

    return Way(batch, write)


def traced(opset: int) -> Way:
    """The same from what `torch.jit.trace` gives: constants and modules are written in another form."""
    inner = torchscript(opset)
    return Way(None, lambda module, example, path: inner.write(torch.jit.trace(module, example), example, path))


def dynamo(opset: int | None = None, batch: int | None = None, **settings: Any) -> Way:
    """`torch.onnx.export(dynamo=True)`, today's default."""

    def write(module: nn.Module, example: Tensor, path: Path) -> None:
        dynamic = {} if batch else {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
        torch.onnx.export(
            module,
            (example,),
            str(path),
            dynamo=True,
            opset_version=opset,
            verbose=False,
            **{"external_data": False, **dynamic, **settings},
        )

    return Way(batch, write)


def cleaned(way: Way, tool: Callable[[onnx.ModelProto], onnx.ModelProto]) -> Way:
    """A way, and a tool that rewrites the file."""

    def write(module: nn.Module, example: Tensor, path: Path) -> None:
        way.write(module, example, path)
        onnx.save(tool(onnx.load(path)), path)

    return Way(way.batch, write)


def converted(opset: int) -> Callable[[onnx.ModelProto], onnx.ModelProto]:
    """onnx's own converter between opsets."""
    return lambda model: version_converter.convert_version(model, opset)


KEEP = {"training": TrainingMode.PRESERVE}
"""BatchNorms stay, as the exporter folds them in `TrainingMode.EVAL` alone; the network itself is in evaluation."""

TORCHSCRIPT: Mapping[str, Way] = {
    f"ts{opset:02}{suffix}{fixed}": torchscript(opset, batch, **settings)
    for opset in TORCHSCRIPT_OPSETS
    for suffix, settings in (
        ("", {}),
        ("_unfolded", {"do_constant_folding": False}),
        ("_kept", KEEP),
        ("_kept_unfolded", {**KEEP, "do_constant_folding": False}),
        ("_inputs", {"keep_initializers_as_inputs": True}),
    )
    for fixed, batch in (("", None), ("_fixed", 1))
} | {"ts13_fixed4": torchscript(13, 4), "ts13_traced": traced(13)}

DYNAMO: Mapping[str, Way] = {
    "dynamo": dynamo(batch=1, external_data=True),  # torch.onnx.export(module, example, path) and nothing more
    **{f"dynamo{opset}": dynamo(opset) for opset in DYNAMO_OPSETS},
    **{f"dynamo{opset}_fixed": dynamo(opset, 1) for opset in DYNAMO_OPSETS},
    "dynamo_fixed4": dynamo(batch=4),
    "dynamo_unoptimised": dynamo(optimize=False),
    "dynamo_unoptimised_fixed": dynamo(batch=1, optimize=False),
    "dynamo_external": dynamo(external_data=True),
}


def _cleaned(name: str, way: Way, *opsets: int) -> Mapping[str, Way]:
    """After each clean-up tool; and converted to later opsets, as onnx's converter hardly knows the way back."""
    tools = {"slim": onnxslim.slim, "optimised": onnxscript.optimizer.optimize}
    tools |= {f"to{opset:02}": converted(opset) for opset in opsets}
    return {f"{name}_{tool}": cleaned(way, function) for tool, function in tools.items()}


CLEANED: Mapping[str, Way] = {
    **_cleaned("ts09", TORCHSCRIPT["ts09"], 11, 13, 16, 18, 21, 25),
    **_cleaned("ts13_kept_unfolded", TORCHSCRIPT["ts13_kept_unfolded"], 17, 25),
    **_cleaned("ts17_fixed", TORCHSCRIPT["ts17_fixed"], 20),
    **_cleaned("dynamo18", DYNAMO["dynamo18"], 21, 25),
    **_cleaned("dynamo_unoptimised", DYNAMO["dynamo_unoptimised"]),
}
