"""ONNX to a `torch.fx` graph of modules."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from torch import fx

from dianaq.inspection.activations import activations_of
from dianaq.inspection.constants import constants_of
from dianaq.inspection.model import parse_model
from dianaq.inspection.network import nodes_of
from dianaq.inspection.simplify import simplified
from dianaq.inspection.unsupported import check_operators, refuse
from dianaq.schemas.spec import NetworkPart
from dianaq_quant.graph.shapes import record_shapes
from dianaq_quant.graph.surgery import input_node
from dianaq_quant.importers.activations import written
from dianaq_quant.importers.finish import Wishes, edits_by_layer, finish
from dianaq_quant.importers.lowering import assembled, lowered
from dianaq_quant.importers.network import Network
from dianaq_quant.importers.operators import HANDLERS
from dianaq_quant.importers.raw import left_raw
from dianaq_quant.importers.step import Importer, Step, Value


def import_onnx(path: Path, wishes: Wishes | None = None, part: NetworkPart | None = None) -> Network:
    """Import an ONNX file of the supported operators (`dianaq.inspection`), or a part of it.

    Args:
        path: the file.
        wishes: what is to be substituted, and the user's own operators and editors.
        part: what of the network; None for all of it.

    Raises:
        UnsupportedOperator: names the node and the operator, or the attribute that is not supported.
        InvalidModel: the graph does not fit together.
        InvalidSpec: the file has no such part.
    """
    wishes = wishes or Wishes()
    own = wishes.all_operators().handlers
    model = simplified(parse_model(path, part))
    nodes = nodes_of(model.graph)
    constants = constants_of(model.graph, nodes)
    found = activations_of(nodes, constants, model.graph.output[0].name, own)
    check_operators(nodes, constants.keys(), found, own.keys())
    importer = Importer(model)
    (source,) = model.graph.input
    batch, *shape = (d.dim_value for d in source.type.tensor_type.shape.dim)
    importer.values[source.name] = Value(importer.graph.placeholder("input"), torch.zeros(batch, *shape))
    for node, operator in zip(model.graph.node, (known.operator for known in nodes), strict=True):
        if node.name in found.inner:
            continue
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        step = Step(node, node.name, attributes)
        if node.name in found.written:
            written(importer, step, found.written[node.name])
        else:
            handler = own.get(operator) or HANDLERS[operator]
            handler(importer, step)
    sink = model.graph.output[0].name
    importer.graph.output(importer.values[sink].node)
    network = fx.GraphModule(importer.root, importer.graph)
    network.graph.eliminate_dead_code()
    network.delete_all_unused_submodules()
    network.recompile()
    record_shapes(network, tuple(shape))
    edits = edits_by_layer(network, wishes.editors)
    record_shapes(network, tuple(shape))
    low = lowered(network)
    refuse(left_raw(network))
    network = assembled(network)
    importer.notes += [f"{edit.node}: {edit.note}" for edit in low.edits if edit.note and edit.applied]
    imported = Network(
        network,
        source.name,
        input_node(network).meta["shape"],
        sink,
        importer.notes,
        edits + low.edits,
        own=low.own,
        given=low.given,
    )
    return finish(imported, wishes)
