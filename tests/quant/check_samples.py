"""Exported files for the tests of the checks, and what it takes to break a rule in one."""

from __future__ import annotations

import atexit
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dianaq.schemas.cores import CoreMapping
from dianaq_quant.editors import integerise
from dianaq_quant.export import export_dory, export_htvm
from dianaq_quant.export.check import Checked, check_file
from dianaq_quant.export.check.findings import Dialect
from dianaq_quant.export.layers import read_layers, run_recording
from dianaq_quant.graph import run_editors
from dianaq_quant.graph.shapes import record_shapes

from .builder import ModelBuilder
from .stages import exact_network, remedied

Mutation = Callable[[onnx.ModelProto], None]

WIDTH = 16


def residual() -> onnx.ModelProto:
    """A residual network with every operation of the chip, of a size that both compilers like."""
    b = ModelBuilder((3, WIDTH, WIDTH), seed=3)
    stem = b.relu(b.conv(b.input, 16, pads=(1, 1, 1, 1), name="stem"))
    inner = b.relu(b.conv(stem, 16, pads=(1, 1, 1, 1), group=16, name="depthwise"))
    block = b.relu(b.add(b.conv(inner, 16, (1, 1), name="pointwise"), stem, name="add_relu"))
    analog = b.batch_norm(b.conv(block, 16, pads=(1, 1, 1, 1), bias=False, name="analog"))
    signed = b.add(analog, block, name="add")
    pooled = b.pool("MaxPool", signed, (2, 2), stride=(2, 2), name="max")
    down = b.relu(b.conv(pooled, 16, pads=(1, 1, 1, 1), stride=(2, 2), name="down"))
    flat = b.flatten(b.global_pool(down, name="mean"))
    return b.build(b.gemm(b.relu(b.gemm(flat, 16, name="square")), 4, name="head"))


def wide() -> onnx.ModelProto:
    """An analog layer of more rows than the array has."""
    b = ModelBuilder((130, 4, 4), seed=1)
    stem = b.relu(b.conv(b.input, 130, (1, 1), name="stem"))
    return b.build(b.flatten(b.conv(stem, 16, pads=(1, 1, 1, 1), bias=False, name="wide")))


def small_map() -> onnx.ModelProto:
    """A kernel larger than its map."""
    b = ModelBuilder((32, 1, 1), seed=1)
    return b.build(b.flatten(b.conv(b.input, 32, pads=(1, 1, 1, 1), name="small")))


MAPPINGS = {residual: CoreMapping(layers={"analog": "analog"}), wide: CoreMapping(layers={"wide": "analog"})}


@cache
def exported(recipe: Callable[[], onnx.ModelProto] = residual) -> Path:
    """A folder with the files of both dialects; made once, not to be changed."""
    exact, data, shape = exact_network(recipe(), MAPPINGS.get(recipe, CoreMapping()))
    run_editors(exact, integerise.EDITORS)
    record_shapes(exact, shape)
    integer = read_layers(exact)
    golden = run_recording(integer, data[:1])
    folder = Path(mkdtemp(prefix="dianaq-check-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    export_htvm(remedied(integer, "htvm", relu_after_add=True), folder / "htvm", data[:1], golden["output"])
    export_dory(integer, folder / "dory", golden)
    return folder


def copy_of(dialect: Dialect, folder: Path, recipe: Callable[[], onnx.ModelProto] = residual) -> Path:
    """A copy of an exported folder; the path of its model."""
    shutil.copytree(exported(recipe) / dialect, folder / dialect)
    return folder / dialect / "model.onnx"


def mutated(dialect: Dialect, folder: Path, mutate: Mutation, golden: bool = False) -> Checked:
    """The check of a copy that was changed."""
    path = copy_of(dialect, folder)
    model = onnx.load(str(path))
    mutate(model)
    path.write_bytes(model.SerializeToString())
    return check_file(path, dialect, golden=golden)


def rules(checked: Checked) -> set[str]:
    """Ids of the rules that are broken."""
    return {finding.rule for finding in checked.findings}


# Changes of a model. A node is named by the layer that it belongs to and its operator.


def node(model: onnx.ModelProto, op: str, index: int = 0) -> onnx.NodeProto:
    """The nth node of an operator."""
    return [n for n in model.graph.node if n.op_type == op][index]


def after(model: onnx.ModelProto, start: onnx.NodeProto, op: str) -> onnx.NodeProto:
    """The first node of an operator after a node, along the first of each output's readers."""
    found = start
    while found is start or found.op_type != op:
        found = next(n for n in model.graph.node if found.output[0] in n.input)
    return found


def value(model: onnx.ModelProto, name: str) -> np.ndarray:
    """An initialiser's values."""
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name)).copy()


def set_constant(model: onnx.ModelProto, target: onnx.NodeProto, index: int, array: Any, name: str = "") -> None:
    """Give a node a constant of its own."""
    name = name or f"changed_{len(model.graph.initializer)}"
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
    if index < len(target.input):
        target.input[index] = name
    else:
        target.input.append(name)


def change(model: onnx.ModelProto, target: onnx.NodeProto, index: int, by: Callable[[np.ndarray], Any]) -> None:
    """Change the constant of a node, and of this node alone."""
    set_constant(model, target, index, by(value(model, target.input[index])), name=target.input[index] + "_changed")


def remove(model: onnx.ModelProto, target: onnx.NodeProto) -> None:
    """Take a node out; its readers read its first input."""
    for n in model.graph.node:
        n.input[:] = [target.input[0] if name == target.output[0] else name for name in n.input]
    for output in model.graph.output:
        if output.name == target.output[0]:
            output.name = target.input[0]
    model.graph.node.remove(target)


def insert(
    model: onnx.ModelProto, before: onnx.NodeProto, op: str, *constants: Any, output: str = "", **attributes: Any
) -> None:
    """Put a node on a node's first input."""
    output = output or f"inserted_{len(model.graph.node)}"
    new = helper.make_node(op, [before.input[0]], [output], name=output, **attributes)
    for constant in constants:
        set_constant(model, new, len(new.input), constant)
    before.input[0] = output
    model.graph.node.insert(list(model.graph.node).index(before), new)


def set_attribute(target: onnx.NodeProto, key: str, attribute: Any) -> None:
    """Set an attribute; None removes it."""
    kept = [a for a in target.attribute if a.name != key]
    del target.attribute[:]
    target.attribute.extend(kept)
    if attribute is not None:
        target.attribute.append(helper.make_attribute(key, attribute))
