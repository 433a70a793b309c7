"""Every linear layer goes to a core."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from torch import fx, nn

from dianaq.errors import InvalidSpec
from dianaq.schemas.cores import CoreMapping
from dianaq_quant.editors.canonicalise.average_pool_to_conv import non_negative
from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, core_of, layer_of, module_of
from dianaq_quant.modules.adc import RowTiles
from dianaq_quant.modules.structure import Conv2d, Flatten, GlobalAvgPool2d, MaxPool2d
from dianaq_quant.targets.diana import ANALOG_COLUMNS, ANALOG_ROWS
from dianaq_quant.targets.diana.cost import LayerShape, cycles


class AssignCores(Editor):
    """`layer -> layer on a core`: by the job's list, by rule, or by the cost model (see `CoreMapping`).

    The analog core runs convolutions of group 1 whose input has at most seven bits: what follows a ReLU, comes from
    the analog core, or is the network's input. By default a layer must fit one array; one that the job names may take
    several row tiles.
    """

    def __init__(self, mapping: CoreMapping) -> None:
        self.mapping = mapping

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        layers = list(calls(network, Conv2d, nn.Linear))
        self._check_names([layer_of(node) for node, _ in layers])
        own = [node for node, _ in layers if "inserted" not in node.meta]  # the user's, and not what an editor added
        ends = {own[0], own[-1]} if own else set()
        for node, module in layers:
            named = self._named(layer_of(node))
            asked = None if named is None else self.mapping.layers[named]
            wanted = asked or (self.mapping.ends if node in ends else self.mapping.default)
            node.meta["core"] = "digital"  # until it is known that the analog core can run it
            if wanted == "digital":
                continue
            reason = _obstacle(network, node, module, several_tiles=asked is not None)
            if reason is not None and asked is not None:
                raise InvalidSpec(
                    f"mapping.layers puts {layer_of(node)!r} on the analog core, but {reason}",
                    param=f"mapping.layers.{named}",
                )
            if reason is None and wanted == "auto":
                analog, digital = (cycles(_shape(node, module), core) for core in ("analog", "digital"))
                if analog >= digital:
                    reason = f"the digital core is as fast: {digital:.0f} cycles to {analog:.0f}"
            if reason is not None:
                yield Rejection(node, f"stays digital: {reason}")
                continue
            node.meta["core"] = "analog"  # at once: whether the next layer can follow may depend on it
            yield Point((node,), "runs on the analog core")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        """The finder has marked the node: one decision depends on those before it."""

    def _named(self, layer: str) -> str | None:
        """The job's entry for a layer: its own name before patterns, later patterns before earlier ones."""
        if layer in self.mapping.layers:
            return layer
        matching = [pattern for pattern in self.mapping.layers if fnmatchcase(layer, pattern)]
        return matching[-1] if matching else None

    def _check_names(self, names: list[str]) -> None:
        for pattern in self.mapping.layers:
            if not any(name == pattern or fnmatchcase(name, pattern) for name in names):
                raise InvalidSpec(
                    f"mapping.layers names {pattern!r}, which matches no layer; there are {', '.join(names)}",
                    param=f"mapping.layers.{pattern}",
                )


def _obstacle(network: fx.GraphModule, node: fx.Node, module: nn.Module, *, several_tiles: bool) -> str | None:
    """Why the analog core cannot run a layer; None if it can."""
    if not isinstance(module, Conv2d):
        return "the analog core runs convolutions only"
    if module.groups != 1:
        return f"the analog core runs no grouped convolutions, this one has {module.groups} groups"
    kernel = (module.kernel_size[0], module.kernel_size[1])
    rows = module.in_channels * kernel[0] * kernel[1]
    if kernel[0] * kernel[1] > ANALOG_ROWS:
        return f"its kernel of {kernel[0]} x {kernel[1]} exceeds the {ANALOG_ROWS} rows of an array"
    if module.out_channels > ANALOG_COLUMNS:
        return f"its {module.out_channels} output channels exceed the {ANALOG_COLUMNS} columns of the array"
    if not several_tiles and RowTiles.of(module.in_channels, kernel).count > 1:
        return f"its {rows} rows exceed the {ANALOG_ROWS} of one array; name it in mapping.layers to tile it"
    source = _producer(network, node.args[0])
    if source.op == "placeholder" or non_negative(network, source) or _is_analog(network, source):
        return None
    return f"it reads signed 8-bit values, of {layer_of(source)}, while the analog core's inputs have 7 bits"


def _producer(network: fx.GraphModule, node: object) -> fx.Node:
    """What made a value, through operations that only pass values on."""
    assert isinstance(node, fx.Node)
    passes = isinstance(module_of(network, node), MaxPool2d | Flatten | GlobalAvgPool2d)
    return _producer(network, node.args[0]) if passes else node


def _is_analog(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a value is made by an analog layer (and its BatchNorm)."""
    if isinstance(module_of(network, node), nn.BatchNorm2d):
        node = node.all_input_nodes[0]
    return isinstance(module_of(network, node), Conv2d) and core_of(node) == "analog"


def _shape(node: fx.Node, module: nn.Module) -> LayerShape:
    assert isinstance(module, Conv2d)
    height, width = node.meta["shape"][1:]
    kernel = (module.kernel_size[0], module.kernel_size[1])
    return LayerShape(module.in_channels, module.out_channels, kernel, (height, width), module.groups)
