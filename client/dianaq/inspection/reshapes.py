"""Reshapes of reshapes, and Gathers that take everything in its order: one reshape each.

torch's exporter writes the pooling of a batch of one in channels-last memory as `as_strided`: everything in one row, of
which the first, second, third ... element are taken, and reshaped. The row is no tensor of samples, and goes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from dianaq.inspection.folding import Folding


def merge_reshapes(nodes: Sequence[onnx.NodeProto], folding: Folding) -> None:
    """Rewrite nodes in place, in their order; their names and those of their outputs stay.

        Gather(x, [0, 1, ...])  ->  Reshape(x, ...)
        Reshape(Reshape(x, a), b)  ->  Reshape(x, b)

    The first wherever shapes are known; the second unless b copies a dimension of what it no longer reads.
    """
    made: dict[str, onnx.NodeProto] = {}
    for node in nodes:
        if node.op_type == "Gather":
            _take_all(node, folding)
        if node.op_type != "Reshape" or node.input[1] not in folding.constants:
            continue
        if node.input[0] in made and (folding.constants[node.input[1]] != 0).all():
            node.input[0] = made[node.input[0]].input[0]
        made[node.output[0]] = node


def _take_all(node: onnx.NodeProto, folding: Folding) -> None:
    """Make a Gather a Reshape, if its indices are those of all elements along its axis."""
    indices, shape = folding.constants.get(node.input[1]), folding.shape(node.input[0])
    if indices is None or not shape:
        return
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0) % len(shape)
    if not np.array_equal(indices.ravel(), np.arange(shape[axis])):
        return
    target = f"{node.output[0]}.shape"
    while target in folding.constants or target in folding.types:
        target += "_"
    folding.constants[target] = np.array((*shape[:axis], *indices.shape, *shape[axis + 1 :]), np.int64)
    del node.attribute[:]
    node.op_type = "Reshape"
    node.input[1] = target
