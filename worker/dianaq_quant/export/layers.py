"""The integer network as the exporters read it: one record per operation of the chip, in execution order."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from dianaq.schemas.spec import NetworkInterface
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
from dianaq_quant.modules.pixels import PixelInput
from dianaq_quant.modules.structure import Flatten, MaxPool2d

_READABLE = re.compile(r"[\w./-]+", re.ASCII)
"""Names that a file may hold as they are; others (spaces, say) keep their letters and digits only."""

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
    whole: str
    """Name of the layer before a compiler's remedies that it is, or is a part of."""


@dataclass(frozen=True)
class IntegerNetwork:
    """What is exported: the quantised input, the layers in execution order, and the output's scale."""

    graph: fx.GraphModule
    entrance: IntegerInput | PixelInput
    input_shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    exit: IntegerOutput
    interface: NetworkInterface
    """What the file for HTVM takes and gives."""

    @property
    def sink(self) -> str:
        """Name of the layer whose integers are the network's output."""
        return self.layers[-1].name

    def labels(self) -> dict[str, str]:
        """Names for exported tensors by layer: the user's own, where it is one layer's alone and none of the parts
        that another's tensors get (`<name>/...`, `input`, `output`); else the layer's."""
        wholes = [layer for layer in self.layers if layer.whole == layer.name]
        counts = Counter(layer.original for layer in wholes)
        ends = ["input", "output"]
        found = {}
        for layer in wholes:
            own, others = layer.original, [*ends, *(n for n in counts if n != layer.original)]
            clear = counts[own] == 1 and own not in ends and not any(_within(own, n) or _within(n, own) for n in others)
            found[layer.name] = own if clear and _READABLE.fullmatch(own) else layer.name
        parts = {layer.name: layer.whole for layer in self.layers if layer.whole != layer.name}
        return found | {name: f"{found[whole]}{name.removeprefix(whole)}" for name, whole in parts.items()}

    def fed(self, x: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """What the file for HTVM is fed for inputs x: these, float32, or their integers, int8.

        Args:
            values: what `run_recording` gives for x.
        """
        return x if self.interface.input == "float" else values["input"].to(torch.int8)

    def given(self, values: Mapping[str, Tensor]) -> Tensor:
        """What the file for HTVM gives then: real numbers in float32, or the last layer's integers, int8."""
        return values["output"] if self.interface.output == "float" else values[self.sink].to(torch.int8)


def read_layers(network: fx.GraphModule, interface: NetworkInterface | None = None) -> IntegerNetwork:
    """Read an integerised network whose shapes are recorded (`graph.shapes.record_shapes`).

    Args:
        interface: of the file for HTVM; real numbers in and out by default.
    """
    entrance_node = next(iter(input_node(network).users))
    exit_node = output_node(network)
    entrance, exit_ = module_of(network, entrance_node), module_of(network, exit_node)
    assert isinstance(entrance, IntegerInput | PixelInput)
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
        whole = node.meta.get("part_of", names[node])
        layers.append(Layer(names[node], module, sources, node.meta["shape"], layer_of(node), whole))
    return IntegerNetwork(
        network, entrance, entrance_node.meta["shape"], tuple(layers), exit_, interface or NetworkInterface()
    )


def _within(name: str, other: str) -> bool:
    return name.startswith(f"{other}/")


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
