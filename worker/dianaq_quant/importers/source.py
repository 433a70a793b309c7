"""Where the network of a job comes from: a file, the zoo, or Python."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import fx, nn

from dianaq.errors import InvalidSpec
from dianaq.inspection import inspect_upload
from dianaq.inspection.interface import Interface, Own, interface
from dianaq.schemas.resources import TensorInfo
from dianaq.schemas.spec import JobSpec, ZooModel
from dianaq_quant.graph.shapes import record_shapes
from dianaq_quant.graph.surgery import calls, layer_of, output_node
from dianaq_quant.importers.finish import Wishes
from dianaq_quant.importers.network import Network
from dianaq_quant.importers.onnx import import_onnx
from dianaq_quant.importers.trace import import_module
from dianaq_quant.importers.weights import load_weights
from dianaq_quant.zoo import build


def import_network(
    spec: JobSpec, path: Path | None, module: nn.Module | None, shape: tuple[int, ...], wishes: Wishes
) -> Network:
    """The network of a job as a graph of modules.

    Args:
        path: an ONNX file, or the weights of a zoo network; None without a file.
        module: a network made in Python, which stands in place of `spec.model`.
        shape: shape of one sample of a module's input; the others know their own.
        wishes: what the job wants of its import (`Wishes.of`).

    Raises:
        DianaqError: the file, the architecture or the module cannot be used; names what is at fault.
    """
    if module is not None:
        if spec.part is not None:
            raise InvalidSpec(
                f"part is {spec.part}, and the network is a module made in Python; give the module that computes that "
                "part, or export the network as ONNX",
                param="part",
            )
        return import_module(module, shape, wishes)
    zoo = spec.model
    if not isinstance(zoo, ZooModel):
        assert path is not None, "checked by its caller"
        return import_onnx(path, wishes, spec.part)
    torch.manual_seed(spec.recipe.seed)  # of random initial weights
    classes = zoo.classes or zoo.input_shape[0]
    built = build(zoo.architecture, input_shape=zoo.input_shape, classes=classes, width=zoo.width)
    notes = [] if path is None else load_weights(built, path)
    network = import_module(built, zoo.input_shape, wishes)
    network.notes[:0] = notes
    return network


def interface_of(spec: JobSpec, path: Path | None, network: Network | None, own: Collection[str] = ()) -> Interface:
    """What a job's network takes and gives: found in its file, or (for one made in Python) in the imported graph.

    Args:
        own: ONNX operators that the caller has handlers for.

    Raises:
        InvalidModel: the file cannot be used.
        InvalidSpec: the specification names a file, and there is none, or a part of it that is not there.
    """
    if network is None:
        if path is None and not isinstance(spec.model, ZooModel):
            raise InvalidSpec("the job's network is a file, but none is given", param="model")
        return interface(spec, None if path is None else inspect_upload(path, own, spec.part))
    record_shapes(network.graph, network.input_shape)
    return graph_interface(network.graph, network.input_shape, network.own, network.given)


def graph_interface(
    graph: fx.GraphModule, input_shape: tuple[int, ...], own: Own | None = None, given: Own | None = None
) -> Interface:
    """What a graph takes and gives; its shapes must have been recorded.

    Args:
        own, given: the input and the output as the float network has them, where they are other ones than the graph's.
    """
    return Interface(
        TensorInfo(name="input", shape=input_shape if own is None else own.shape),
        TensorInfo(name="output", shape=output_node(graph).meta["shape"] if given is None else given.shape),
        tuple(layer_of(node) for node, _ in calls(graph, nn.Conv2d, nn.Linear)),
        arrangement=None if own is None else own.arrangement,
        nodes=tuple(dict.fromkeys(layer_of(node) for node, _ in calls(graph, nn.Module))),
    )
