"""The check of the HTVM dialect: our files keep its rules, and every rule that is broken in one is named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from dianaq_quant.export import check
from dianaq_quant.export.check import (
    check_file,
    check_htvm,
    golden_htvm,
    htvm,
    htvm_conv,
    htvm_dense,
    htvm_pools,
    htvm_reading,
    htvm_requantisation,
)
from dianaq_quant.targets.diana.rules import Rule

from .check_samples import (
    Mutation,
    after,
    change,
    copy_of,
    exported,
    insert,
    mutated,
    remove,
    rules,
    set_attribute,
    set_constant,
    small_map,
    value,
    wide,
)

Model = onnx.ModelProto


def named(model: Model, name: str) -> onnx.NodeProto:
    return next(n for n in model.graph.node if n.name == name)


def clip(model: Model) -> None:
    floor = named(model, "stem/floor")
    low, high = named(model, "stem/max"), named(model, "stem/min")
    bounds = [value(model, low.input[1]).reshape(()), value(model, high.input[1]).reshape(())]
    remove(model, low)
    high.op_type = "Clip"
    high.input[:] = [floor.output[0]]
    for index, bound in enumerate(bounds, 1):
        set_constant(model, high, index, bound)


def min_first(model: Model) -> None:
    low, high = named(model, "stem/max"), named(model, "stem/min")
    low.op_type, high.op_type = "Min", "Max"
    low.input[1], high.input[1] = high.input[1], low.input[1]


def rounded(model: Model) -> None:
    named(model, "stem/floor").op_type = "Round"


def no_floor(model: Model) -> None:
    remove(model, named(model, "stem/floor"))


def half(model: Model) -> None:
    insert(model, named(model, "stem/floor"), "Add", [0.5])


def multiplied(model: Model) -> None:
    named(model, "stem/div").op_type = "Mul"
    change(model, named(model, "stem/div"), 1, lambda c: 1 / c)


def unbounded(model: Model) -> None:
    remove(model, named(model, "stem/max"))
    remove(model, named(model, "stem/min"))


def constant_first(model: Model) -> None:
    low = named(model, "stem/max")
    low.input[:] = reversed(low.input)


def divisor(by: object) -> Mutation:
    return lambda model: set_constant(model, named(model, "stem/div"), 1, by)


def fraction(name: str, index: int) -> Mutation:
    return lambda model: change(model, named(model, name), index, lambda a: a + 0.5)


def beyond(name: str, index: int, to: float) -> Mutation:
    return lambda model: change(model, named(model, name), index, lambda a: np.full_like(a, to))


def no_bias(model: Model) -> None:
    del named(model, "stem/conv").input[2:]


def from_a_constant_node(model: Model) -> None:
    conv = named(model, "stem/conv")
    tensor = numpy_helper.from_array(value(model, conv.input[1]))
    conv.input[1] = "from_node"
    model.graph.node.insert(0, helper.make_node("Constant", [], ["from_node"], value=tensor))


def through_identity(model: Model) -> None:
    conv = named(model, "stem/conv")
    model.graph.node.insert(0, helper.make_node("Identity", [conv.input[1]], ["copied"], name="copied"))
    conv.input[1] = "copied"


def bounds(name: str, lo: float, hi: float) -> Mutation:
    def mutate(model: Model) -> None:
        set_constant(model, named(model, f"{name}/max"), 1, [lo])
        set_constant(model, named(model, f"{name}/min"), 1, [hi])

    return mutate


def relu_in_add(model: Model) -> None:
    remove(model, named(model, "add_relu/relu"))
    set_constant(model, named(model, "add_relu_sum/max"), 1, [0])


def fewer_channels(model: Model) -> None:
    """12 channels out of the last convolution, which only a fully connected layer reads."""
    for index in (1, 2):
        change(model, named(model, "down/conv"), index, lambda a: a[:12])
    change(model, named(model, "square/gemm"), 1, lambda a: a[:, :12])


def pads(*values: int) -> Mutation:
    return lambda model: set_attribute(named(model, "down/conv"), "pads", list(values))


def attribute(name: str, key: str, new: object) -> Mutation:
    return lambda model: set_attribute(named(model, name), key, new)


def dynamic(model: Model) -> None:
    for end in (model.graph.input[0], model.graph.output[0]):
        end.type.tensor_type.shape.dim[0].dim_param = "N"


def batch_of_two(model: Model) -> None:
    for end in (model.graph.input[0], model.graph.output[0]):
        end.type.tensor_type.shape.dim[0].dim_value = 2


def renamed_input(model: Model) -> None:
    for n in model.graph.node:
        n.input[:] = ["image" if name == "input" else name for name in n.input]
    model.graph.input[0].name = "image"


def raw_input(model: Model) -> None:
    for part in ("div", "floor", "max", "min"):
        remove(model, named(model, f"input/{part}"))


def raw_output(model: Model) -> None:
    remove(model, model.graph.node[-1])


def softmax(model: Model) -> None:
    model.graph.node[-1].output[0] = "logits"
    model.graph.node.append(helper.make_node("Softmax", ["logits"], ["output"], name="softmax"))


def two_outputs(model: Model) -> None:
    model.graph.output.append(helper.make_tensor_value_info("stem/min", 1, [1, 16, 16, 16]))


def average_pool(model: Model) -> None:
    pool = named(model, "mean/mean")
    pool.op_type = "AveragePool"
    set_attribute(pool, "kernel_shape", [4, 4])


def reduce_mean(model: Model) -> None:
    pool = named(model, "mean/mean")
    pool.op_type = "ReduceMean"
    set_attribute(pool, "axes", [2, 3])


def pool_parts(model: Model) -> list[onnx.NodeProto]:
    pool = named(model, "mean/mean")
    return [after(model, pool, op) for op in ("Flatten", "Floor", "Max", "Min")]


def pool_floored_first(model: Model) -> None:
    flat, floor, *_ = pool_parts(model)
    flat.op_type, floor.op_type = "Floor", "Flatten"
    set_attribute(flat, "axis", None)
    set_attribute(floor, "axis", 1)


def pool_not_floored(model: Model) -> None:
    for part in pool_parts(model)[1:]:
        remove(model, part)


def pool_divided(model: Model) -> None:
    insert(model, pool_parts(model)[1], "Div", [2.0])


def batch_norm(model: Model) -> None:
    insert(model, named(model, "stem/div"), "BatchNormalization", *([np.ones(16)] * 4))


def bias_as_add(model: Model) -> None:
    insert(model, named(model, "stem/div"), "Add", np.ones((1, 16, 1, 1)))


def scaled_operand(model: Model) -> None:
    insert(model, named(model, "add/sum"), "Mul", [2.0])


def broadcast(model: Model) -> None:
    set_constant(model, named(model, "add/sum"), 1, np.ones((1, 16, 1, 1)))


def successive_adds(model: Model) -> None:
    total = named(model, "add/sum")
    insert(model, total, "Add", output="total")
    named(model, "total").input.append(total.input[1])


def opset(version: int) -> Mutation:
    def mutate(model: Model) -> None:
        model.opset_import[0].version = version

    return mutate


def sigmoid(model: Model) -> None:
    insert(model, named(model, "down/conv"), "Sigmoid")


def undefined_tensor(model: Model) -> None:
    named(model, "stem/div").input[0] = "nothing"


MUTATIONS: list[tuple[str, Mutation, str]] = [
    ("clip", clip, "htvm.clip-operator"),
    ("min before max", min_first, "htvm.min-before-max"),
    ("round", rounded, "htvm.round"),
    ("no floor", no_floor, "htvm.floor"),
    ("+0.5", half, "htvm.half"),
    ("mul", multiplied, "htvm.mul"),
    ("unbounded", unbounded, "htvm.requantisation"),
    ("constant first", constant_first, "htvm.constant-second"),
    ("divisor 3", divisor([3.0]), "htvm.divisor"),
    ("divisor 1/2", divisor([0.5]), "htvm.divisor"),
    ("divisor 2^32", divisor([2.0**32]), "htvm.divisor"),
    ("divisor of rank 0", divisor(64.0), "htvm.divisor-shape"),
    ("divisor per channel", divisor(np.full((1, 16, 1, 1), 64.0)), "htvm.divisor-shape"),
    ("fractional weight", fraction("stem/conv", 1), "htvm.integers"),
    ("fractional bias", fraction("head/gemm", 2), "htvm.integers"),
    ("fractional k", fraction("analog/mul", 1), "htvm.integers"),
    ("fractional bound", fraction("stem/max", 1), "htvm.integers"),
    ("infinite weight", beyond("stem/conv", 1, np.inf), "htvm.integers"),
    ("weight 128", beyond("stem/conv", 1, 128), "htvm.weight-range"),
    ("weight -129", beyond("head/gemm", 1, -129), "htvm.weight-range"),
    ("bias 2^31", beyond("stem/conv", 2, 2**31), "htvm.weight-range"),
    ("weight of a node", from_a_constant_node, "htvm.parameters"),
    ("computed weight", through_identity, "htvm.rank"),
    ("no bias", no_bias, "htvm.bias"),
    ("clip to 100", bounds("stem", 0, 100), "htvm.clip"),
    ("clip to -127", bounds("down", -127, 127), "htvm.clip"),
    ("relu in add", relu_in_add, "htvm.relu-after-add"),
    ("12 channels", fewer_channels, "htvm.channels"),
    ("asymmetric", pads(0, 0, 1, 1), "htvm.padding"),
    ("valid", pads(0, 0, 0, 0), "htvm.padding"),
    ("one axis", pads(1, 0, 1, 0), "htvm.same-on-one-axis"),
    ("stride", attribute("down/conv", "strides", [1, 2]), "htvm.stride"),
    ("dilation", attribute("down/conv", "dilations", [2, 2]), "htvm.dilation"),
    ("dynamic", dynamic, "htvm.static-shapes"),
    ("batch 2", batch_of_two, "htvm.static-shapes"),
    ("input's name", renamed_input, "htvm.input"),
    ("raw input", raw_input, "htvm.input-requantisation"),
    ("min at the end", raw_output, "htvm.output"),
    ("softmax at the end", softmax, "htvm.output"),
    ("two outputs", two_outputs, "htvm.output"),
    ("average pool", average_pool, "htvm.average-pool"),
    ("reduce mean", reduce_mean, "htvm.average-pool"),
    ("floor before flatten", pool_floored_first, "htvm.global-pool-order"),
    ("mean not floored", pool_not_floored, "htvm.global-pool-floor"),
    ("mean divided", pool_divided, "htvm.global-pool"),
    ("mean of signed", bounds("down", -128, 127), "htvm.global-pool-sign"),
    ("batch norm", batch_norm, "htvm.batch-norm"),
    ("bias as add", bias_as_add, "htvm.bias-as-add"),
    ("scaled operand", scaled_operand, "htvm.add-operands"),
    ("broadcast", broadcast, "htvm.add-operands"),
    ("successive adds", successive_adds, "htvm.add-operands"),
    ("k beyond int16", beyond("analog/mul", 1, 2**15), "htvm.int16"),
    ("l beyond int16", beyond("analog/add", 1, -(2**15) - 1), "htvm.int16"),
    ("weight 2 on analog", beyond("analog/conv", 1, 2), "htvm.ternary"),
    ("converter of 5 bits", bounds("analog/adc", -16, 15), "htvm.converter"),
    ("no converter's division", lambda m: remove(m, named(m, "analog/adc/div")), "htvm.converter"),
    ("bias on analog", lambda m: set_constant(m, named(m, "analog/conv"), 2, np.zeros(16)), "htvm.bias"),
    ("opset 12", opset(12), "htvm.opset"),
    ("DORY's attributes", attribute("stem/conv", "weight_bits", 2), "htvm.attributes"),
    ("unknown operator", sigmoid, "htvm.operator"),
    ("undefined tensor", undefined_tensor, "htvm.onnx"),
]


def test_an_exported_file_breaks_no_rule() -> None:
    checked = check_file(exported() / "htvm" / "model.onnx")
    assert checked.dialect == "htvm"
    assert rules(checked) == {"htvm.pool"}
    assert not checked.failures
    assert checked.as_json()["ok"]
    layers = {layer.name: layer for layer in checked.layers}
    kinds = ["conv", "depthwise", "conv", "add", "conv", "add", "pool", "conv", "pool", "fc", "fc"]
    assert [layer.geometry.kind for layer in checked.layers] == kinds
    assert [layer.offloaded for layer in checked.layers] == [kind != "pool" for kind in kinds]
    assert [name for name, layer in layers.items() if layer.geometry.core == "analog"] == ["analog/conv"]
    down = layers["down/conv"].geometry
    assert (down.c_in, down.c_out, down.in_size, down.out_size) == (16, 16, (8, 8), (4, 4))
    assert (down.kernel, down.strides, down.pads, down.dilation) == ((3, 3), (2, 2), (1, 1, 1, 1), (1, 1))
    model = onnx.load(str(exported() / "htvm" / "model.onnx"))
    assert down.shift == int(np.log2(value(model, named(model, "down/div").input[1])[0]))
    assert (down.clip, layers["add_relu_sum/sum"].geometry.clip) == ((0, 127), (-128, 127))


@pytest.mark.parametrize(("mutate", "rule"), [m[1:] for m in MUTATIONS], ids=[m[0] for m in MUTATIONS])
def test_a_broken_rule_is_named(tmp_path: Path, mutate: Mutation, rule: str) -> None:
    found = mutated("htvm", tmp_path, mutate)
    assert rule in rules(found)
    finding = next(f for f in found.findings if f.rule == rule)
    assert finding.message
    assert (finding.severity in ("rejected", "wrong")) == (finding in found.failures)


def as_matmul(model: Model) -> None:
    gemm = named(model, "head/gemm")
    weight, bias, output = gemm.input[1], gemm.input[2], gemm.output[0]
    gemm.op_type = "MatMul"
    set_attribute(gemm, "transB", None)
    del gemm.input[2:]
    change(model, gemm, 1, lambda a: a.T)
    gemm.output[0] = "product"
    add = helper.make_node("Add", ["product", bias], [output], name="biased")
    model.graph.node.insert(list(model.graph.node).index(gemm) + 1, add)
    assert weight != gemm.input[1]


def untransposed(model: Model) -> None:
    change(model, named(model, "head/gemm"), 1, lambda a: a.T)
    set_attribute(named(model, "head/gemm"), "transB", 0)


def cast_at_the_end(model: Model) -> None:
    end = model.graph.node[-1]
    end.op_type = "Cast"
    del end.input[1:]
    set_attribute(end, "to", onnx.TensorProto.INT8)
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT8


def input_step_below_one(model: Model) -> None:
    change(model, named(model, "input/div"), 1, lambda c: c * 0 + 0.3)


@pytest.mark.parametrize("mutate", [as_matmul, untransposed, cast_at_the_end, input_step_below_one, opset(17)])
def test_what_htvm_takes_too_is_no_finding(tmp_path: Path, mutate: Mutation) -> None:
    found = mutated("htvm", tmp_path, mutate)
    assert rules(found) == {"htvm.pool"}
    assert sum(layer.offloaded for layer in found.layers) == 9


def test_a_matmul_whose_bias_comes_first_has_none(tmp_path: Path) -> None:
    def mutate(model: Model) -> None:
        as_matmul(model)
        named(model, "biased").input[:] = reversed(named(model, "biased").input)

    assert "htvm.bias" in rules(mutated("htvm", tmp_path, mutate))


def test_row_tiles_are_said_to_have_no_form() -> None:
    checked = check_htvm(exported(wide) / "htvm" / "model.onnx")
    (layer,) = [entry for entry in checked.layers if entry.geometry.core == "analog"]
    assert not layer.offloaded
    assert (layer.geometry.c_out, layer.geometry.groups, layer.geometry.row_tiles) == (16, 1, 2)
    assert {"htvm.row-tiles", "htvm.rows"} <= {f.rule for f in checked.findings if f.node == layer.name}
    assert not [f for f in checked.findings if f.severity == "rejected"]


def test_a_kernel_larger_than_its_map_gets_no_code() -> None:
    checked = check_htvm(exported(small_map) / "htvm" / "model.onnx")
    assert [f.rule for f in checked.failures] == ["htvm.no-code"]
    assert checked.layers[0].offloaded


# The files beside the model.


def resave(name: str, by: object) -> object:
    def change_file(folder: Path) -> None:
        np.save(folder / name, by(np.load(folder / name)))  # type: ignore[operator]

    return change_file


FILES = [
    ("no input", lambda f: (f / "input.npy").unlink(), "htvm.golden-missing"),
    ("no output", lambda f: (f / "output.npy").unlink(), "htvm.golden-missing"),
    ("shorter output", resave("output.npy", lambda a: a[:, :2]), "htvm.golden-shape"),
    ("input without batch", resave("input.npy", lambda a: a[0]), "htvm.golden-shape"),
    ("double", resave("input.npy", lambda a: a.astype(np.float64)), "htvm.golden-type"),
    ("no array", lambda f: (f / "input.npy").write_bytes(b"numbers"), "htvm.golden-type"),
    ("another array", lambda f: np.save(f / "layer.npy", np.zeros(3)), "htvm.golden-stray"),
]


@pytest.mark.parametrize(("damage", "rule"), [m[1:] for m in FILES], ids=[m[0] for m in FILES])
def test_a_broken_folder_is_named(tmp_path: Path, damage: object, rule: str) -> None:
    path = copy_of("htvm", tmp_path)
    damage(path.parent)  # type: ignore[operator]
    assert [f.rule for f in check_file(path).failures] == [rule]


def test_int8_golden_files_are_taken(tmp_path: Path) -> None:
    path = copy_of("htvm", tmp_path)
    resave("output.npy", lambda a: a.astype(np.int8))(path.parent)  # type: ignore[operator]
    assert not check_file(path).failures


def test_golden_files_are_asked_for_only_in_a_bundle(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes((exported() / "htvm" / "model.onnx").read_bytes())
    assert not check_file(path).failures
    assert {f.rule for f in check_file(path, golden=True).failures} == {"htvm.golden-missing"}
    bundle = copy_of("htvm", tmp_path)
    for array in bundle.parent.glob("*.npy"):
        array.unlink()
    assert {f.rule for f in check_file(bundle).failures} == {"htvm.golden-missing"}
    assert not check_file(bundle, golden=False).failures


# The checks as a whole.


def test_every_rule_is_broken_by_a_test() -> None:
    modules = [htvm, htvm_conv, htvm_dense, htvm_pools, htvm_reading, htvm_requantisation, golden_htvm]
    declared = {rule.id for module in modules for rule in vars(module).values() if isinstance(rule, Rule)}
    covered = {rule for _, _, rule in [*MUTATIONS, *FILES]} | {"htvm.row-tiles"}
    assert {rule for rule in declared if rule.startswith("htvm.")} - covered == set()


@given(st.data())
def test_no_damage_makes_the_check_fail(data: st.DataObject) -> None:
    """Whatever a graph looks like, the answer is a list of findings."""
    from dianaq_quant.export.check.graph import graph_of

    dialect = data.draw(st.sampled_from(["htvm", "dory"]))
    path = exported() / dialect / "model.onnx"
    model = onnx.load(str(path))
    ops = ["Clip", "Relu", "Floor", "Max", "Mul", "Add", "Flatten", "GlobalAveragePool", "Conv", "Gemm", "Identity"]
    for _ in range(data.draw(st.integers(1, 4))):
        target = data.draw(st.sampled_from(list(model.graph.node)))
        kind = data.draw(st.sampled_from(["remove", "op", "input", "attributes", "constant"]))
        if kind == "remove" and len(model.graph.node) > 1:
            remove(model, target)
        elif kind == "op":
            target.op_type = data.draw(st.sampled_from(ops))
        elif kind == "input":
            source = data.draw(st.sampled_from([*(n.output[0] for n in model.graph.node), *target.input]))
            target.input[data.draw(st.integers(0, len(target.input) - 1))] = source
        elif kind == "attributes":
            del target.attribute[:]
        else:
            bad = data.draw(st.sampled_from([np.nan, np.inf, -1e30, 0.5, np.zeros(0), np.zeros((2, 2))]))
            set_constant(model, target, data.draw(st.integers(0, len(target.input) - 1)), bad)
    graph = graph_of(model, path)
    module = htvm if dialect == "htvm" else __import__("dianaq_quant.export.check.dory", fromlist=["dory"])
    module.check_graph(graph)


def test_the_checks_know_nothing_of_the_writers() -> None:
    folder = Path(str(check.__file__)).parent
    for file in folder.glob("*.py"):
        imported = re.findall(r"^(?:from|import) ([\w.]+)", file.read_text(), re.MULTILINE)
        assert not [name for name in imported if name.startswith(("torch", "dianaq_quant.modules"))]
        writers = r"dianaq_quant\.export(\.(htvm|dory|layers))?$"
        assert not [name for name in imported if re.match(writers, name)]
