"""Operators of one's own: a module class and an ONNX operator that the library does not know become what the chip has.

    python examples/own_operator.py [folder]

Needs the library (`dianaq[quant]`). It takes a few seconds. A package that is installed beside the service makes its
operators known to all jobs by an entry point, which is called after the ONNX operator:

    [project.entry-points."dianaq.operators"]
    "com.example.Saturate" = "my_package.operators:operators"
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn

from dianaq_quant import Chain, Operators, Quantised, quantise
from dianaq_quant.editors.canonicalise.traced_call import Call
from dianaq_quant.importers.step import Importer, Step
from dianaq_quant.modules.structure import Ceiling


class Saturate(nn.Module):
    """`min(max(x, 0), bound)`, but for a soft shoulder: a little less than the bound where it comes near."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, x: Tensor) -> Tensor:
        return self.bound * torch.tanh(x.clamp(min=0) / self.bound)


operators = Operators()


@operators.python(Saturate)
def saturate(call: Call, x: fx.Node) -> Chain:
    """From Python: the call's module has the parameters, and what it is called with are the arguments."""
    return Chain((x,), (nn.Hardtanh(0, call.module.bound),), note="its shoulder is sharp on the chip")


@operators.onnx("com.example.Saturate")
def saturate_node(importer: Importer, step: Step) -> None:
    """From ONNX: the step has the attributes."""
    importer.call(step, Ceiling(float(step.attributes["bound"])))


class Network(nn.Module):
    """A classifier of 8 x 8 images that uses it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.head = nn.Conv2d(1, 8, 3), Saturate(4.0), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.act(self.conv(x)).mean((2, 3)))
        return y


def as_onnx(network: Network) -> onnx.ModelProto:
    """The same network as a file, with a node of the domain `com.example`."""
    weights = {name: numpy_helper.from_array(value.numpy(), name) for name, value in network.state_dict().items()}
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["a"], name="conv"),
        helper.make_node("Saturate", ["a"], ["b"], name="act", domain="com.example", bound=network.act.bound),
        helper.make_node("GlobalAveragePool", ["b"], ["c"], name="mean"),
        helper.make_node("Flatten", ["c"], ["d"], name="flatten"),
        helper.make_node("Gemm", ["d", "head.weight", "head.bias"], ["y"], name="head", transB=1),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", ["N", 1, 8, 8]), ("y", ["N", 4]))]
    graph = helper.make_graph(nodes, "own", ends[:1], ends[1:], list(weights.values()))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def main(folder: Path) -> list[Quantised]:
    """Quantise the network from Python and from ONNX; the bundles are left in the folder."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    data = {"x_train": random.integers(0, 256, (64, 8, 8)).astype(np.uint8)}
    network = Network()
    onnx.save(as_onnx(network), str(folder / "own.onnx"))
    results = [
        quantise(network, data, folder / "python", input_shape=(1, 8, 8), operators=operators),
        quantise(folder / "own.onnx", data, folder / "onnx", operators=operators),
    ]
    for result in results:
        print(result.folder, [layer["name"] for layer in result.report["layers"]])
    return results


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()))
