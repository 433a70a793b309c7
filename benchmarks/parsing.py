"""`make bench-parse`: what it costs to inspect an uploaded network, by its exporter and by the harm it means.

Each file is inspected as the API does it, by `python -m dianaq.inspection model FILE` in a process of its own; measured
are the time from its start to its end, and its peak memory. Networks of 1 MB are to take 2 s and 400 MB; hostile files
stay within the same, whether they are refused or taken.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxslim
import torch
from onnx import TensorProto, helper, numpy_helper
from results import record, table
from torch import nn
from torch.onnx import TrainingMode

SECONDS, MEGABYTES = 2.0, 400.0
ROUNDS = 3
"""Of each file; the median counts."""
CHILD = """
import runpy, sys
sys.argv = ["dianaq.inspection", "model", sys.argv[1]]
try:
    runpy.run_module("dianaq.inspection", run_name="__main__", alter_sys=True)
finally:
    print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
"""
"""The command, and then its peak resident memory by the kernel's count, which knows nothing of its parent's."""

HEADER = ["file", "size, MB", "nodes", "outcome", "s", "limit", "peak MB", "limit"]


@dataclass(frozen=True)
class Cost:
    """What the inspection of a file took, and what came of it."""

    seconds: float
    megabytes: float
    outcome: str


class Network(nn.Module):
    """A residual network of a quarter of a million weights, flattened by shape arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = self._block(3, 64)
        self.blocks = nn.ModuleList(self._block(64, 64) for _ in range(6))
        self.classes = nn.Linear(64 * 64, 10)

    @staticmethod
    def _block(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        x = nn.functional.avg_pool2d(x, 4)
        return self.classes(x.view(x.size(0), -1))  # type: ignore[no-any-return]


def exported(path: Path, **settings: Any) -> onnx.ModelProto:
    example = torch.zeros(2, 3, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # exporters warn of their own future
        torch.onnx.export(Network().eval(), (example,), str(path), verbose=False, **settings)
    return onnx.load(path)


def networks(folder: Path) -> dict[str, onnx.ModelProto]:
    """The network of 1 MB by each exporter."""
    path = folder / "exported.onnx"
    script: dict[str, Any] = {"dynamo": False, "input_names": ["x"], "dynamic_axes": {"x": {0: "batch"}}}
    kept = {"training": TrainingMode.PRESERVE, "do_constant_folding": False}
    dynamic = {"dynamic_shapes": ({0: torch.export.Dim("batch")},), "external_data": False}
    found = {f"TorchScript, opset {opset}": exported(path, opset_version=opset, **script) for opset in (9, 13, 17)}
    found["TorchScript, opset 13, unfolded, BatchNorm kept"] = exported(path, opset_version=13, **script, **kept)
    found["torch.export"] = exported(path, dynamo=True, **dynamic)
    found["torch.export, fixed batch, weights put in from beside it"] = exported(path, dynamo=True)
    found["torch.export, not optimised"] = exported(path, dynamo=True, optimize=False, **dynamic)
    found["TorchScript, opset 13, then onnxslim"] = onnxslim.slim(found["TorchScript, opset 13"])
    return found


Constants = dict[str, np.ndarray]
Nodes = Sequence[onnx.NodeProto]
node = helper.make_node


def graph(nodes: Nodes, constants: Constants) -> onnx.ModelProto:
    """A graph from x (batch, 3, 4, 4) to y."""
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", ["N", 3, 4, 4]), ("y", None))]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    built = helper.make_graph(nodes, "hostile", ends[:1], ends[1:], tensors)
    return helper.make_model(built, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


LAST = node("Add", ["x", "c"], ["y"])
ONE = np.ones(1, np.float32)
BIG = 1 << 22
"""Values of a constant that folding may still make, several times over."""
MANY = 4_900
"""Almost as many nodes as a graph may have."""


def chain(operator: str, *others: str, count: int = MANY, **attributes: Any) -> list[onnx.NodeProto]:
    """One node after the other, from the constant `c0` to `c`."""
    names = ["c0", *(f"c{i}" for i in range(1, count)), "c"]
    return [
        node(operator, [a, *(a if o == "itself" else o for o in others)], [b], **attributes) for a, b in pairwise(names)
    ]


def on_the_input() -> onnx.ModelProto:
    """Thousands of flattens by shape arithmetic: each asks for the shape of a reshape of a reshape."""
    nodes: list[onnx.NodeProto] = []
    count = MANY // 5
    for i in range(count):
        x = "x" if i == 0 else f"x{i}"
        y = "y" if i == count - 1 else f"x{i + 1}"
        nodes += [
            node("Shape", [x], [f"s{i}"]),
            node("Gather", [f"s{i}", "zero"], [f"n{i}"]),
            node("Unsqueeze", [f"n{i}", "axes"], [f"u{i}"]),
            node("Concat", [f"u{i}", "rest"], [f"t{i}"], axis=0),
            node("Reshape", [x, f"t{i}"], [y]),
        ]
    return graph(nodes, {"zero": np.array(0, np.int64), "axes": ints(0), "rest": ints(-1)})


def reductions() -> onnx.ModelProto:
    """Every node reads millions of values and gives one, so that the sizes of the results tell nothing."""
    axes = {f"a{i}": ints(0) for i in range(MANY)}
    nodes = [node("ConstantOfShape", ["s"], ["big"])]
    nodes += [node("ReduceSum", ["big", name], [f"r{i}"]) for i, name in enumerate(axes)]
    nodes += [node("Concat", [f"r{i}" for i in range(MANY)], ["all"], axis=0)]
    nodes += [node("ReduceMax", ["all"], ["c"], keepdims=0), LAST]
    return graph(nodes, {"s": ints(BIG), **axes})


HOSTILE: dict[str, Callable[[], onnx.ModelProto]] = {
    "ConstantOfShape of 2^40": lambda: graph([node("ConstantOfShape", ["s"], ["c"]), LAST], {"s": ints(1 << 40)}),
    "Range to 2^50": lambda: graph(
        [node("Range", ["a", "b", "d"], ["c"]), LAST],
        {name: np.array(value, np.int64) for name, value in (("a", 0), ("b", 1 << 50), ("d", 1))},
    ),
    "Expand to 2^40": lambda: graph(
        [node("Expand", ["one", "s"], ["c"]), LAST], {"one": ONE, "s": ints(1 << 20, 1 << 20)}
    ),
    "Tile by 2^40": lambda: graph([node("Tile", ["one", "s"], ["c"]), LAST], {"one": ONE, "s": ints(1 << 40)}),
    "Pad by 2^40": lambda: graph([node("Pad", ["one", "s"], ["c"]), LAST], {"one": ONE, "s": ints(0, 1 << 40)}),
    "Concat that doubles, 60 times": lambda: graph(
        [*chain("Concat", "itself", count=60, axis=0), LAST], {"c0": np.ones(1, np.float32)}
    ),
    "Range to 2^24 - 1, as much as is computed": lambda: graph(
        [node("Range", ["a", "b", "d"], ["c"]), LAST],
        {name: np.array(value, np.int64) for name, value in (("a", 0), ("b", (1 << 24) - 1), ("d", 1))},
    ),
    "Range to 2^23, as much as is kept": lambda: graph(
        [node("Range", ["a", "b", "d"], ["c"]), LAST],
        {name: np.array(value, np.int64) for name, value in (("a", 0), ("b", 1 << 23), ("d", 1))},
    ),
    f"{MANY:,} additions of constants": lambda: graph([*chain("Add", "one"), LAST], {"c0": ONE, "one": ONE}),
    f"{MANY:,} additions of 2^22 values": lambda: graph(
        [node("ConstantOfShape", ["s"], ["c0"]), *chain("Add", "one"), LAST], {"s": ints(BIG), "one": ONE}
    ),
    f"{MANY:,} reductions of 2^22 values": reductions,
    f"{MANY // 5:,} flattens by shape arithmetic": on_the_input,
    f"{MANY:,} ReLUs": lambda: graph(
        [node("Relu", ["x" if i == 0 else f"x{i}"], ["y" if i == MANY - 1 else f"x{i + 1}"]) for i in range(MANY)], {}
    ),
    "20,000 nodes": lambda: graph([*chain("Add", "one", count=20_000), LAST], {"c0": ONE, "one": ONE}),
}


def inspect(path: Path) -> Cost:
    """Inspect a file in a process of its own."""
    start = time.perf_counter()
    child = subprocess.run([sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    peak = next(line for line in child.stderr.splitlines() if line.startswith("VmHWM"))
    answer = json.loads(child.stdout)
    outcome = "taken" if "info" in answer else f"refused: {answer['problem']['detail']}"
    return Cost(seconds, int(peak.split()[1]) * 1024 / 1e6, outcome)


def measure(name: str, model: onnx.ModelProto, folder: Path, rounds: int) -> tuple[list[str], bool]:
    """A row of the table, and whether a limit was missed."""
    path = folder / "model.onnx"
    onnx.save(model, path)
    costs = [inspect(path) for _ in range(rounds)]
    seconds = statistics.median(cost.seconds for cost in costs)
    megabytes = max(cost.megabytes for cost in costs)
    missed = (seconds > SECONDS, megabytes > MEGABYTES)
    limits = [
        f"{limit:g} {'MISSED' if over else 'met'}" for limit, over in zip((SECONDS, MEGABYTES), missed, strict=True)
    ]
    outcome = costs[0].outcome if len(costs[0].outcome) < 100 else f"{costs[0].outcome[:97]}..."
    size = f"{path.stat().st_size / 1e6:.2f}"
    row = [name, size, f"{len(model.graph.node):,}", outcome.replace("|", "\\|")]
    return [*row, f"{seconds:.2f}", limits[0], f"{megabytes:.0f}", limits[1]], any(missed)


def main() -> int:
    """Measure, print and record; 1 if a limit was missed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = networks(folder) | {what: make() for what, make in HOSTILE.items()}
        measured = [measure(what, model, folder, ROUNDS) for what, model in cases.items()]
    text = table(HEADER, [row for row, _ in measured])
    print(text)
    about = f"Medians of {ROUNDS} processes, the interpreter's start included; the largest of their peaks of memory."
    record("Parsing", f"{about}\n\n{text}")
    return int(any(missed for _, missed in measured))


if __name__ == "__main__":
    sys.exit(main())
