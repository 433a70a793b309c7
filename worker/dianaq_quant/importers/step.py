"""One import of an ONNX file while it goes on: the graph so far, and the node that is being read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, fx, nn

from dianaq.errors import InvalidModel, UnsupportedOperator
from dianaq_quant.importers.network import free_name_of


@dataclass
class Value:
    """A tensor of the graph being imported: the fx node that makes it, and an example of it (of the file's batch)."""

    node: fx.Node
    example: Tensor


class Importer:
    """State of one import: the graph so far, the constants, and the values by their ONNX names."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        self.onnx_graph = model.graph
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.constants: dict[str, np.ndarray[Any, Any]] = {
            i.name: numpy_helper.to_array(i) for i in model.graph.initializer
        }
        self.values: dict[str, Value] = {}
        self.weights: dict[tuple[str, bool], tuple[str, nn.Parameter]] = {}
        self.notes: list[str] = []

    def constant(self, name: str) -> np.ndarray[Any, Any] | None:
        """The constant of that name; None if the tensor is computed."""
        return self.constants.get(name)

    def tensor(self, name: str) -> Tensor:
        """A constant as a float32 tensor."""
        return torch.from_numpy(np.array(self.constants[name], dtype=np.float32))

    def weight(self, step: Step, name: str, value: Tensor, transposed: bool = False) -> nn.Parameter:
        """A linear layer's weight as a parameter: the same one for all nodes that read one constant in the same way.

        Biases and BatchNorms stay apart: exporters store equal arrays once, and many a layer's bias starts at zero.

        Args:
            name: of the constant.
            value: what the layer makes of it.
            transposed: whether that is its transpose.
        """
        first, known = self.weights.get((name, transposed), ("", None))
        if known is not None and torch.equal(known, value):
            self.notes.append(f"{step.describe()} reads the weight of {first!r} again: both keep the same parameter")
            return known
        made = nn.Parameter(value.clone(memory_format=torch.contiguous_format))
        self.weights[name, transposed] = (step.name, made)
        return made

    def call(self, step: Step, module: nn.Module, *inputs: str) -> None:
        """Add a module that computes the step's output from the named inputs."""
        values = [step.value(self, name) for name in inputs or step.node.input[:1]]
        module.eval()
        try:
            with torch.no_grad():
                example = module(*(v.example for v in values))
        except RuntimeError as error:
            raise InvalidModel(
                f"{step.describe()} does not fit its input of shape "
                f"{tuple(values[0].example.shape[1:])} per sample: {str(error).splitlines()[0]}",
                param=step.name,
            ) from None
        if example.numel() == 0:
            raise InvalidModel(f"{step.describe()} leaves an empty tensor", param=step.name)
        target = free_name_of(self.root, step.name)
        self.root.add_module(target, module)
        node = self.graph.call_module(target, tuple(v.node for v in values))
        node.meta = {"layer": step.name, "operation": step.node.op_type, "shape": tuple(example.shape[1:])}
        self.values[step.node.output[0]] = Value(node, example)

    def alias(self, step: Step) -> None:
        """Let the step's output be its input."""
        self.values[step.node.output[0]] = step.value(self, step.node.input[0])


@dataclass(frozen=True)
class Step:
    """One ONNX node on its way in."""

    node: onnx.NodeProto
    name: str
    attributes: Mapping[str, Any]

    def describe(self) -> str:
        """The node as errors name it."""
        return f"node {self.name!r} ({self.node.op_type})"

    def refuse(self, why: str) -> UnsupportedOperator:
        """An error that names the node, its operator, and why."""
        return UnsupportedOperator(f"{self.describe()}: {why}", param=self.name)

    def value(self, importer: Importer, name: str) -> Value:
        """The value of an input.

        Raises:
            UnsupportedOperator: the input is a constant, so the node would compute a constant.
        """
        if name not in importer.values:
            raise self.refuse(f"input {name!r} is a constant; fold constants before the export")
        return importer.values[name]

    def example(self, importer: Importer, index: int = 0) -> Tensor:
        """An example of an input, which must not be a constant."""
        return self.value(importer, self.node.input[index]).example


Handler = Callable[[Importer, Step], None]
"""Reads one ONNX node: adds what computes its output to the graph."""
