"""What every way in gives: a network as a `torch.fx` graph in which every operation is a module."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import fx, nn

from dianaq.inspection.interface import Own
from dianaq_quant.graph import Edit
from dianaq_quant.graph.surgery import free_name, identifier
from dianaq_quant.modules.structure import (
    Add,
    AvgPool2d,
    Ceiling,
    Conv2d,
    Flatten,
    GlobalAvgPool2d,
    MaxPool2d,
)

RESERVED = {"input", "output"}
"""Names of the network's ends in records and exported files; no layer may have them."""

CANONICAL: frozenset[type[nn.Module]] = frozenset(
    {
        *(Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d),
        *(nn.ReLU, Ceiling, Add),
        *(MaxPool2d, AvgPool2d, GlobalAvgPool2d, Flatten),
    }
)
"""Classes of the modules that an imported network is made of."""


@dataclass
class Network:
    """An imported network.

    `graph` has one input and one output; each node's `meta["layer"]` is the user's name of what it computes: its ONNX
    node's name, or the dotted name of its module. `notes` tell what was left out on the way; `edits`, by those names,
    what the editors of the import did and passed over. `original` is the network before activations were substituted,
    for evaluation alone; None where none were.

    `input_shape` is that of the graph's input; `own` is the float network's own input, and `given` its own output,
    where they are in another layout than the graph's.
    """

    graph: fx.GraphModule
    input_name: str
    input_shape: tuple[int, ...]
    output_name: str
    notes: list[str] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)
    original: fx.GraphModule | None = None
    own: Own | None = None
    given: Own | None = None


def free_name_of(root: nn.Module, name: str) -> str:
    """A submodule name made from a layer's name that neither another submodule nor an end of the network has."""
    wanted = identifier(name)
    return free_name(root, f"{wanted}_layer" if wanted in RESERVED else wanted)
