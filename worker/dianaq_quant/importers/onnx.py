"""ONNX to a `torch.fx` graph of modules."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from torch import fx

from dianaq.inspection.model import parse_model
from dianaq.inspection.simplify import simplified
from dianaq_quant.importers.network import Network
from dianaq_quant.importers.operators import HANDLERS
from dianaq_quant.importers.step import Importer, Step, Value


def import_onnx(path: Path) -> Network:
    """Import an ONNX file of the supported operators (`dianaq.inspection`).

    Raises:
        UnsupportedOperator: names the node and the operator, or the attribute that is not supported.
        InvalidModel: the graph does not fit together.
    """
    model = simplified(parse_model(path))
    importer = Importer(model)
    (source,) = model.graph.input
    batch, *shape = (d.dim_value for d in source.type.tensor_type.shape.dim)
    importer.values[source.name] = Value(importer.graph.placeholder("input"), torch.zeros(batch, *shape))
    for node in model.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        step = Step(node, node.name, attributes)
        handler = HANDLERS.get(node.op_type)
        if handler is None:
            raise step.refuse(f"not supported; supported are {', '.join(sorted(HANDLERS))}")
        handler(importer, step)
    sink = model.graph.output[0].name
    importer.graph.output(importer.values[sink].node)
    network = fx.GraphModule(importer.root, importer.graph)
    network.graph.eliminate_dead_code()
    network.delete_all_unused_submodules()
    network.recompile()
    return Network(network, source.name, tuple(shape), sink, importer.notes)
