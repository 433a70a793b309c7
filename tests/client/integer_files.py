"""Small exported networks for tests, node by node: integers in float32 tensors, as both dialects have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


@dataclass
class FileBuilder:
    """Builds a model of input `input` (1, *shape); the last node's output is the output."""

    shape: tuple[int, ...]
    opset: int = 13
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)
    input: str = "input"

    def add(self, op: str, inputs: Sequence[Any], output: str = "", **attributes: Any) -> str:
        """A node; inputs that are no names become constants, float32 where they are lists of floats."""
        output = output or f"t{len(self.nodes)}"
        names = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        self.nodes.append(helper.make_node(op, names, [output], name=output, **attributes))
        return output

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        array = np.asarray(value)
        self.constants[name] = array.astype(np.float32) if array.dtype == np.float64 else array
        return name

    def requantise(self, source: str, layer: str, shift: int, lo: float = -128.0, hi: float = 127.0) -> str:
        """`Div -> Floor -> Max -> Min`."""
        source = self.add("Div", [source, [2.0**shift]], f"{layer}/div")
        source = self.add("Floor", [source], f"{layer}/floor")
        source = self.add("Max", [source, [lo]], f"{layer}/max")
        return self.add("Min", [source, [hi]], f"{layer}/min")

    def model(self, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "test",
            [helper.make_tensor_value_info(self.input, TensorProto.FLOAT, [1, *self.shape])],
            [helper.make_tensor_value_info(self.nodes[-1].output[0], kind, None)],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)

    def save(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(self.model(), str(path))
        return path


def run_onnx(model: onnx.ModelProto, x: np.ndarray, outputs: Sequence[str] = ()) -> list[np.ndarray]:
    """The model in onnxruntime, sample by sample, as it is written: its output, or the tensors named."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(
        onnx.ValueInfoProto(name=n) for n in outputs if n not in {o.name for o in copy.graph.output}
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = list(outputs) or [model.graph.output[0].name]
    name = session.get_inputs()[0].name
    found = [session.run(wanted, {name: x[i : i + 1].astype(np.float32)}) for i in range(len(x))]
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def integers(*shape: int, lo: int = -128, hi: int = 127, seed: int = 0) -> np.ndarray:
    """Random integers of a range, int32."""
    return np.random.default_rng(seed).integers(lo, hi + 1, shape).astype(np.int32)


def floats(*shape: int, lo: int = -128, hi: int = 127, seed: int = 1) -> np.ndarray:
    """The same in float32, as a file holds them."""
    return integers(*shape, lo=lo, hi=hi, seed=seed).astype(np.float32)


def small_htvm(seed: int = 1, scale: float = 0.25) -> FileBuilder:
    """A file for HTVM: quantiser, convolution, residual addition with a ReLU of its own, mean, head, real output."""
    b = FileBuilder((3, 6, 6))
    x = b.add("Div", ["input", [scale]], "input/div")
    x = b.add("Floor", [x], "input/floor")
    x = b.add("Max", [x, [-128.0]], "input/max")
    x = b.add("Min", [x, [127.0]], "input/min")
    pads = [1, 1, 1, 1]
    weight, bias = floats(4, 3, 3, 3, seed=seed), floats(4, lo=-900, hi=900, seed=seed + 1)
    x = b.requantise(b.add("Conv", [x, weight, bias], "stem/conv", pads=pads), "stem", 9, lo=0.0)
    weight, bias = floats(4, 4, 3, 3, seed=seed + 2), floats(4, seed=seed + 3)
    y = b.requantise(b.add("Conv", [x, weight, bias], "block/conv", pads=pads), "block", 9)
    x = b.requantise(b.add("Add", [y, x], "join/sum"), "join", 1)
    x = b.add("Clip", [x, np.float32(0), np.float32(127)], "join/relu")
    x = b.add("GlobalAveragePool", [x], "mean/mean")
    x = b.add("Flatten", [x], "mean/flat")
    x = b.add("Floor", [x], "mean/floor")
    x = b.add("Max", [x, [0.0]], "mean/max")
    x = b.add("Min", [x, [127.0]], "mean/min")
    weight, bias = floats(5, 4, seed=seed + 4), floats(5, lo=-900, hi=900, seed=seed + 5)
    x = b.requantise(b.add("Gemm", [x, weight, bias], "head/gemm", transB=1), "head", 4)
    b.add("Div", [x, [8.0]], "output")
    return b
