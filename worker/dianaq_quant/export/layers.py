"""The integer network as the exporters read it: one record per operation of the chip, in execution order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from dianaq_quant.graph.surgery import Interpreter, input_node, layer_of, module_of, output_node
from dianaq_quant.modules.integer import (
    IntegerAdd,
    IntegerAnalogConv2d,
    IntegerConv2d,
    IntegerGlobalAvgPool2d,
    IntegerInput,
    IntegerLinear,
    IntegerOutput,
    IntegerRelu,
)
from dianaq_quant.modules.structure import Flatten, MaxPool2d

Operation = (
    IntegerConv2d
    | IntegerLinear
    | IntegerAnalogConv2d
    | IntegerAdd
    | IntegerRelu
    | IntegerGlobalAvgPool2d
    | MaxPool2d
    | Flatten
)


@dataclass(frozen=True)
class Layer:
    """One operation: its module, the layers it reads (`"input"` is the quantised input), and its output's shape."""

    name: str
    module: Operation
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    original: str
    """Name of the user's layer it came from."""


@dataclass(frozen=True)
class IntegerNetwork:
    """What is exported: the quantised input, the layers in execution order, and the output's scale."""

    graph: fx.GraphModule
    entrance: IntegerInput
    input_shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    exit: IntegerOutput

    @property
    def sink(self) -> str:
        """Name of the layer whose integers are the network's output."""
        return self.layers[-1].name


def read_layers(network: fx.GraphModule) -> IntegerNetwork:
    """Read an integerised network whose shapes are recorded (`graph.shapes.record_shapes`)."""
    entrance_node = next(iter(input_node(network).users))
    exit_node = output_node(network)
    entrance, exit_ = module_of(network, entrance_node), module_of(network, exit_node)
    assert isinstance(entrance, IntegerInput)
    assert isinstance(exit_, IntegerOutput)
    names = {entrance_node: "input"}
    layers = []
    for node in network.graph.nodes:
        module = module_of(network, node)
        if node in names or node is exit_node or module is None:
            continue
        assert isinstance(module, Operation)
        names[node] = str(node.target)
        sources = tuple(names[a] for a in node.args if isinstance(a, fx.Node))
        layers.append(Layer(names[node], module, sources, node.meta["shape"], layer_of(node)))
    return IntegerNetwork(network, entrance, entrance_node.meta["shape"], tuple(layers), exit_)


def limits_of_dialects(network: IntegerNetwork) -> list[str]:
    """What an exported network computes that its compilers cannot be told; for the report."""
    analog = {layer.name: layer.module for layer in network.layers if isinstance(layer.module, IntegerAnalogConv2d)}
    notes = []
    if analog:
        notes.append(
            "dory/model.onnx selects the analog core by weight_bits = 2, but DORY's front end cannot express the "
            "converter: its constants are those of the accumulator, and the golden files hold what the chip computes "
            "with the converter"
        )
    tiled = [name for name, module in analog.items() if module.tiles.count > 1]
    if tiled:
        notes.append(
            f"{', '.join(tiled)}: more rows than one analog array has; the files compute the row tiles' partial sums, "
            "but neither compiler places such a layer on the analog core"
        )
    return notes


class _Recorder(Interpreter):
    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network)
        self.values: dict[str, Tensor] = {}

    def see(self, node: fx.Node, value: Tensor) -> None:
        self.values[str(node.target)] = value


def run_recording(network: IntegerNetwork, x: Tensor) -> dict[str, Tensor]:
    """Every layer's output for a batch, by layer name; `"input"` and `"output"` are the quantised input and the
    real-valued output."""
    recorder = _Recorder(network.graph)
    with torch.no_grad():
        recorder.run(x)
    values = {layer.name: recorder.values[layer.name] for layer in network.layers}
    entrance, exit_ = next(iter(input_node(network.graph).users)), output_node(network.graph)
    return values | {"input": recorder.values[str(entrance.target)], "output": recorder.values[str(exit_.target)]}
