"""Shape arithmetic and constants of a graph, in every form that exporters write, and in those that attackers do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from dianaq.errors import InvalidModel
from dianaq.inspection import inspect_model
from dianaq.inspection.folding import MAX_FOLDED, MAX_READ
from dianaq.inspection.functions import MAX_DEPTH
from dianaq.inspection.simplify import DYNAMIC_BATCH, MAX_COMPUTED_BYTES, simplified
from dianaq.inspection.structure import MAX_NODES

RNG = np.random.default_rng(0)


def model(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, np.ndarray] | None = None,
    *,
    opset: int = 13,
    batch: int | None = None,
    output: str = "y",
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """A graph from `x` (batch, 3, 4, 4) to `y`."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 4, 4])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=domains, functions=functions, ir_version=8)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


node = helper.make_node

FLATTENS = {
    "view": (
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "zero"], ["n"]),
            node("Unsqueeze", ["n", "axes"], ["n1"]),
            node("Concat", ["n1", "rest"], ["target"], axis=0),
            node("Reshape", ["x", "target"], ["y"]),
        ],
        {"zero": np.array(0, np.int64), "axes": ints(0), "rest": ints(-1)},
    ),
    "slices": (
        [
            node("Shape", ["x"], ["s"]),
            node("Slice", ["s", "zero", "one"], ["head"]),
            node("Slice", ["s", "one", "end"], ["tail"]),
            node("ReduceProd", ["tail"], ["product"], keepdims=1),
            node("Concat", ["head", "product"], ["target"], axis=0),
            node("Cast", ["target"], ["target_f"], to=TensorProto.FLOAT),
            node("Cast", ["target_f"], ["target_i"], to=TensorProto.INT64),
            node("Reshape", ["x", "target_i"], ["y"]),
        ],
        {"zero": ints(0), "one": ints(1), "end": ints(1000)},
    ),
    "from a later shape": (
        [
            node("Relu", ["x"], ["r"]),
            node("Shape", ["r"], ["s"]),
            node("ConstantOfShape", ["two"], ["ones"], value=numpy_helper.from_array(ints(-1))),
            node("Range", ["start", "limit", "step"], ["index"]),
            node("Gather", ["s", "index"], ["head"]),
            node("Slice", ["ones", "start1", "limit1"], ["tail"]),
            node("Concat", ["head", "tail"], ["target"], axis=0),
            node("Reshape", ["r", "target"], ["y"]),
        ],
        {
            "two": ints(2),
            **{name: np.array(v, np.int64) for name, v in (("start", 0), ("limit", 1), ("step", 1))},
            **{"start1": ints(0), "limit1": ints(1)},
        },
    ),
    "size": (
        [
            node("Size", ["x"], ["all"]),
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "zero"], ["n"]),
            node("Div", ["all", "n"], ["each"]),
            node("Unsqueeze", ["n", "axes"], ["n1"]),
            node("Unsqueeze", ["each", "axes"], ["each1"]),
            node("Concat", ["n1", "each1"], ["target"], axis=0),
            node("Reshape", ["x", "target"], ["y"]),
        ],
        {"zero": np.array(0, np.int64), "axes": ints(0)},
    ),
}


@pytest.mark.parametrize("batch", [None, 1, 5])
@pytest.mark.parametrize("name", FLATTENS)
def test_a_flatten_is_a_flatten_however_it_is_written(name: str, batch: int | None, tmp_path: Path) -> None:
    written = model(*FLATTENS[name], batch=batch)
    result = simplified(written)
    kinds = [n.op_type for n in result.graph.node]
    assert kinds == (["Relu", "Reshape"] if name == "from a later shape" else ["Reshape"])
    x = RNG.normal(size=(batch or DYNAMIC_BATCH, 3, 4, 4)).astype(np.float32)
    expected = ReferenceEvaluator(written).run(None, {"x": x})[0]
    np.testing.assert_array_equal(ReferenceEvaluator(result).run(None, {"x": x})[0], expected)
    onnx.save(written, tmp_path / "net.onnx")
    assert inspect_model(tmp_path / "net.onnx").output.shape == (48,)


def test_what_is_simplified_is_left_alone() -> None:
    written = model([node("Relu", ["x"], ["y"], name="act")])
    before = written.SerializeToString()
    result = simplified(written)
    assert written.SerializeToString() == before
    assert simplified(result).graph.node == result.graph.node
    assert [n.name for n in result.graph.node] == ["act"]


def test_names_are_those_of_the_file_as_it_is() -> None:
    nodes, constants = FLATTENS["view"]
    assert [n.name for n in simplified(model(nodes, constants)).graph.node] == ["Reshape_4"]


def test_constant_arithmetic_on_weights() -> None:
    scale, weight = np.array([2.0, 4.0], np.float32), RNG.normal(size=(3, 2, 1, 1)).astype(np.float32)
    nodes = [
        node("Transpose", ["w"], ["wt"], perm=[1, 0, 2, 3]),
        node("Reciprocal", ["scale"], ["r"]),
        node("Reshape", ["r", "column"], ["rc"]),
        node("Mul", ["wt", "rc"], ["kernel"]),
        node("CastLike", ["half", "x"], ["bias"]),
        node("Conv", ["x", "kernel", "bias"], ["y"]),
    ]
    constants = {"w": weight, "scale": scale, "column": ints(2, 1, 1, 1), "half": np.array([0.5, 1.5], np.float64)}
    result = simplified(model(nodes, constants, opset=15))
    assert [n.op_type for n in result.graph.node] == ["Conv"]
    stored = {t.name: numpy_helper.to_array(t) for t in result.graph.initializer}
    assert stored.keys() == {"kernel", "bias"}
    np.testing.assert_array_equal(stored["kernel"], weight.transpose(1, 0, 2, 3) / scale.reshape(2, 1, 1, 1))
    assert stored["bias"].dtype == np.float32


def test_one_constant_that_is_written_twice_stays_one() -> None:
    nodes = [
        node("Transpose", ["w"], ["a"], perm=[1, 0]),
        node("Identity", ["w"], ["same"]),
        node("Transpose", ["same"], ["b"], perm=[1, 0]),
        node("Flatten", ["x"], ["f"]),
        node("MatMul", ["f", "a"], ["first"]),
        node("MatMul", ["f", "b"], ["second"]),
        node("Add", ["first", "second"], ["y"]),
    ]
    result = simplified(model(nodes, {"w": RNG.normal(size=(5, 48)).astype(np.float32)}))
    assert [list(n.input) for n in result.graph.node if n.op_type == "MatMul"] == [["f", "a"], ["f", "a"]]


def test_functions_of_the_model_are_written_out() -> None:
    relu = helper.make_function("own", "Act", ["a"], ["b"], [node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 13)])
    result = simplified(model([node("Act", ["x"], ["y"], domain="own")], functions=[relu]))
    assert [n.op_type for n in result.graph.node] == ["Relu"]
    assert not result.functions


def chained(calls: int, depth: int) -> list[onnx.FunctionProto]:
    """Functions each of which calls the one before it so many times."""
    domains = [helper.make_opsetid("", 13), helper.make_opsetid("own", 1)]
    made = []
    for level in range(depth):
        operator, domain = ("Relu", "") if level == 0 else (f"F{level - 1}", "own")
        body = [node(operator, [f"t{i}"], [f"t{i + 1}"], domain=domain) for i in range(calls)]
        made.append(helper.make_function("own", f"F{level}", ["t0"], [f"t{calls}"], body, domains))
    return made


def test_functions_that_call_others_often_or_for_ever() -> None:
    with pytest.raises(InvalidModel, match=rf"65,536 nodes, functions written out; at most {MAX_NODES:,}"):
        simplified(model([node("F15", ["x"], ["y"], domain="own")], functions=chained(2, 16)))
    with pytest.raises(InvalidModel, match=f"is called through more than {MAX_DEPTH} others"):
        simplified(model([node("F99", ["x"], ["y"], domain="own")], functions=chained(1, 100)))
    circle = helper.make_function(
        "own", "F0", ["a"], ["b"], [node("F0", ["a"], ["b"], domain="own")], [helper.make_opsetid("own", 1)]
    )
    with pytest.raises(InvalidModel, match="'F0' of the model calls itself"):
        simplified(model([node("F0", ["x"], ["y"], domain="own")], functions=[circle]))


BOMBS = {
    "ConstantOfShape": ([node("ConstantOfShape", ["s"], ["c"])], {"s": ints(1 << 40)}),
    "Expand": ([node("Expand", ["one", "s"], ["c"])], {"one": np.ones(1, np.float32), "s": ints(1 << 20, 1 << 20)}),
    "Range": (
        [node("Range", ["start", "limit", "step"], ["c"])],
        {"start": np.array(0, np.int64), "limit": np.array(1 << 50, np.int64), "step": np.array(1, np.int64)},
    ),
    "Tile": ([node("Tile", ["one", "s"], ["c"])], {"one": np.ones(1 << 10, np.float32), "s": ints(1 << 30)}),
    "Pad": (
        [node("Pad", ["one", "s"], ["c"])],
        {"one": np.ones(1, np.float32), "s": ints(0, 1 << 40)},
    ),
    "unknown size": (
        [node("Expand", ["one", "s"], ["c"])],
        {"one": np.ones(1, np.float32), "s": np.ones(100, np.int64)},
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_constant_made_to_fill_the_memory_is_refused_before_it_is_made(name: str) -> None:
    nodes, constants = BOMBS[name]
    with pytest.raises(InvalidModel, match=rf"node '{nodes[-1].op_type}_0' .* makes a constant of .*{MAX_FOLDED:,}"):
        simplified(model([*nodes, node("Add", ["x", "c"], ["y"])], constants))


def test_many_constants_share_one_limit() -> None:
    nodes = [node("Expand", ["one", "s"], [f"c{i}"], name=f"make{i}") for i in range(8)]
    constants = {f"one{i}": np.full(1, i, np.float32) for i in range(8)}
    for i, made in enumerate(nodes):
        made.input[0] = f"one{i}"
    constants["s"] = ints(MAX_FOLDED // 7)
    with pytest.raises(InvalidModel, match="node 'make7'"):
        simplified(model([*nodes, node("Relu", ["x"], ["y"])], constants))


def test_a_value_of_eight_bytes_counts_as_two() -> None:
    nodes = [node("Range", ["start", "limit", "step"], ["c"]), node("Add", ["x", "c"], ["y"])]
    bounds = {"start": np.array(0, np.int64), "limit": np.array(MAX_FOLDED // 2 + 1), "step": np.array(1, np.int64)}
    with pytest.raises(InvalidModel, match=r"node 'Range_0' .* makes a constant of"):
        simplified(model(nodes, bounds))


def test_constants_that_are_read_often() -> None:
    """A reduction makes one value, whatever it reads."""
    size = 1 << 22
    axes = {f"a{i}": ints(0) for i in range(MAX_READ // size + 1)}
    nodes = [node("ConstantOfShape", ["s"], ["big"])]
    nodes += [node("ReduceSum", ["big", name], [f"r{name}"], name=f"sum_{name}") for name in axes]
    nodes += [node("Concat", [f"r{name}" for name in axes], ["all"], axis=0), node("Add", ["x", "all"], ["y"])]
    with pytest.raises(
        InvalidModel, match=rf"node 'sum_a{MAX_READ // size - 1}' .* reads .*{MAX_READ:,} values may be"
    ):
        simplified(model(nodes, {"s": ints(size), **axes}))


def test_a_computed_constant_that_is_too_large_to_keep() -> None:
    """It may be made, to be cast or reduced, but not be in the network."""
    nodes = [node("Expand", ["one", "s"], ["c"]), node("Add", ["x", "c"], ["y"])]
    size = MAX_COMPUTED_BYTES // 4 + 1
    with pytest.raises(InvalidModel, match=rf"take {4 * size:,} bytes; at most {MAX_COMPUTED_BYTES:,}"):
        simplified(model(nodes, {"one": np.ones(1, np.float32), "s": ints(size)}))


def test_constants_that_cannot_be_computed() -> None:
    nodes = [node("Gather", ["s", "far"], ["c"], name="pick"), node("Add", ["x", "c"], ["y"])]
    with pytest.raises(InvalidModel, match=r"node 'pick' \(Gather\) cannot be computed from its constants"):
        simplified(model(nodes, {"s": np.ones(3, np.float32), "far": np.array(7, np.int64)}))


def test_an_output_that_does_not_follow_from_the_input() -> None:
    for nodes in ([node("Shape", ["x"], ["s"]), node("Cast", ["s"], ["y"], to=1)], [node("Identity", ["c"], ["y"])]):
        with pytest.raises(InvalidModel, match="output 'y' is a constant"):
            simplified(model(nodes, {"c": np.ones(2, np.float32)}))


def test_everything_gathered_in_its_order_is_a_reshape_and_reshapes_of_reshapes_are_one() -> None:
    """As torch's exporter writes the pooling of one image in channels-last memory."""
    nodes = [
        node("ReduceMax", ["x"], ["pooled"], axes=[2, 3], keepdims=0),
        node("Reshape", ["pooled", "row"], ["flat"]),
        node("Gather", ["flat", "all"], ["map"]),
        node("Reshape", ["map", "vector"], ["y"], name="last"),
    ]
    constants = {"row": ints(-1), "all": ints(0, 1, 2).reshape(1, 3, 1, 1), "vector": ints(1, 3)}
    made = simplified(model(nodes, constants, batch=1))
    assert [(n.op_type, n.name, n.input[0]) for n in made.graph.node] == [
        ("ReduceMax", "ReduceMax_0", "x"),
        ("Reshape", "last", "pooled"),
    ]


@pytest.mark.parametrize("indices", [(0, 2, 1), (0, 1), (0, 1, 2, 2)])
def test_what_is_gathered_in_another_order_stays(indices: tuple[int, ...]) -> None:
    made = simplified(model([node("Gather", ["x", "i"], ["y"], axis=1)], {"i": ints(*indices)}))
    assert [n.op_type for n in made.graph.node] == ["Gather"]


def test_a_reshape_that_copies_a_dimension_still_reads_it() -> None:
    nodes = [node("Reshape", ["x", "a"], ["r"]), node("Reshape", ["r", "b"], ["y"])]
    made = simplified(model(nodes, {"a": ints(2, 4, 12), "b": ints(0, 0, -1, 3)}))
    assert [n.input[0] for n in made.graph.node] == ["x", "r"]


@pytest.mark.parametrize("opset", [7, 8])
def test_old_opsets(opset: int, tmp_path: Path) -> None:
    weights = {"w": RNG.normal(size=(2, 3, 3, 3)).astype(np.float32), "f": RNG.normal(size=(5, 8)).astype(np.float32)}
    norm = {name: np.abs(RNG.normal(size=2)).astype(np.float32) for name in ("scale", "bias", "mean", "var")}
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("BatchNormalization", ["c", *norm], ["n"]),
        node("Relu", ["n"], ["r"]),
        node("Reshape", ["r", "flat"], ["v"]),
        node("Gemm", ["v", "f", "b"], ["y"], transB=1),
    ]
    constants = {**weights, **norm, "flat": ints(-1, 8), "b": np.zeros(5, np.float32)}
    old = model(nodes, constants, opset=opset)
    old.ir_version = 3  # of that time, in which every constant is an input as well
    for tensor in old.graph.initializer:
        old.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    onnx.save(old, tmp_path / "net.onnx")
    info = inspect_model(tmp_path / "net.onnx")
    assert (info.opset, info.output.shape, info.layers) == (opset, (5,), ("Conv_0", "Gemm_4"))
