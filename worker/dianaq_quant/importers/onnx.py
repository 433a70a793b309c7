"""ONNX to a `torch.fx` graph of modules."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from torch import fx

from dianaq.inspection import node_names
from dianaq_quant.importers.network import Network
from dianaq_quant.importers.operators import HANDLERS
from dianaq_quant.importers.step import Importer, Step, Value


def import_onnx(path: Path) -> Network:
    """Import an ONNX file of the supported operators (`dianaq.inspection`).

    Raises:
        UnsupportedOperator: names the node and the operator, or the attribute that is not supported.
        InvalidModel: the graph does not fit together.
    """
    model = onnx.load(str(path), load_external_data=False)
    importer = Importer(model)
    constants = set(importer.constants)
    source = next(i for i in model.graph.input if i.name not in constants)
    shape = tuple(d.dim_value for d in source.type.tensor_type.shape.dim)[1:]
    importer.values[source.name] = Value(importer.graph.placeholder("input"), torch.zeros(1, *shape))
    for node, name in zip(model.graph.node, node_names(model.graph), strict=True):
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        step = Step(node, name, attributes)
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
    return Network(network, source.name, shape, sink, importer.notes)
