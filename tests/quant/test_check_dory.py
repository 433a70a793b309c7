"""The check of the DORY dialect: our files keep its form, and every rule that is broken in one is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from dianaq_quant.export.check import (
    check_dory,
    check_file,
    dory,
    dory_layers,
    dory_requantisation,
    golden_dory,
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
    node,
    remove,
    rules,
    set_attribute,
    set_constant,
    value,
    wide,
)

Model = onnx.ModelProto
LAYERS = ["stem", "depthwise", "pointwise", "analog", "down"]
ADD_ATTRIBUTES = [f"{s}_{k}" for s in ("in1", "in2", "out") for k in ("mul", "add", "shift", "n_levels", "rq")]


def conv(model: Model, name: str = "stem") -> onnx.NodeProto:
    return node(model, "Conv", LAYERS.index(name))


def part(op: str, name: str = "stem") -> Callable[[Model], onnx.NodeProto]:
    """A node of a convolution's requantisation."""
    return lambda model: after(model, conv(model, name), op)


def max_min(model: Model) -> None:
    clip = part("Clip")(model)
    clip.op_type = "Min"
    for key in ("min", "max", "out_bits"):
        set_attribute(clip, key, None)
    set_constant(model, clip, 1, 127.0)
    insert(model, clip, "Max", 0.0)


def no_floor(model: Model) -> None:
    remove(model, part("Floor")(model))


def no_mul(model: Model) -> None:
    remove(model, part("Mul")(model))


def square_transposed(model: Model) -> None:
    gemm = node(model, "Gemm")
    assert value(model, gemm.input[1]).shape == (16, 16)
    set_attribute(gemm, "transB", 1)


def transposed(model: Model) -> None:
    set_attribute(node(model, "Gemm", 1), "transB", 1)
    change(model, node(model, "Gemm", 1), 1, lambda a: a.T)


def attribute(find: Callable[[Model], onnx.NodeProto], key: str, new: Any) -> Mutation:
    return lambda model: set_attribute(find(model), key, new)


def constant(find: Callable[[Model], onnx.NodeProto], index: int, new: Any, name: str = "") -> Mutation:
    return lambda model: set_constant(model, find(model), index, new, name)


def filled(find: Callable[[Model], onnx.NodeProto], index: int, to: float) -> Mutation:
    return lambda model: change(model, find(model), index, lambda a: np.full_like(a, to))


def first(op: str, index: int = 0) -> Callable[[Model], onnx.NodeProto]:
    return lambda model: node(model, op, index)


def rename(model: Model, old: str, new: str) -> None:
    for n in model.graph.node:
        n.input[:] = [new if name == old else name for name in n.input]
        n.output[:] = [new if name == old else name for name in n.output]


def named_output(model: Model) -> None:
    rename(model, conv(model).output[0], "stem")


def falling_names(model: Model) -> None:
    rename(model, conv(model).output[0], "1000")


def repeated_number(model: Model) -> None:
    """`02` and `2` are one number."""
    mul = part("Mul")(model)
    rename(model, mul.output[0], f"0{conv(model).output[0]}")


def no_bias(model: Model) -> None:
    del conv(model).input[2:]


def renamed_constant(index: int, new: str) -> Mutation:
    def mutate(model: Model) -> None:
        target = conv(model)
        set_constant(model, target, index, value(model, target.input[index]), new)

    return mutate


def weight_of_a_node(model: Model) -> None:
    target = conv(model)
    tensor = numpy_helper.from_array(value(model, target.input[1]))
    target.input[1] = "weight_of_node"
    model.graph.node.insert(0, helper.make_node("Constant", [], ["weight_of_node"], value=tensor))


def opset(version: int) -> Mutation:
    def mutate(model: Model) -> None:
        model.opset_import[0].version = version

    return mutate


def renamed_input(model: Model) -> None:
    rename(model, "0", "input")
    model.graph.input[0].name = "input"


def dynamic(model: Model) -> None:
    del model.graph.value_info[:]
    for end in (model.graph.input[0], model.graph.output[0]):
        end.type.tensor_type.shape.dim[0].dim_param = "N"


def quantised_input(model: Model) -> None:
    insert(model, conv(model), "Div", 2.0)


def relu_first(model: Model) -> None:
    insert(model, conv(model), "Relu")


def dequantised(model: Model) -> None:
    model.graph.node.append(helper.make_node("Div", [model.graph.output[0].name], ["99"], name="end"))
    set_constant(model, model.graph.node[-1], 1, 2.0)
    model.graph.output[0].name = "99"


def relu_last(model: Model) -> None:
    model.graph.node.append(helper.make_node("Relu", [model.graph.output[0].name], ["99"], name="end"))
    model.graph.output[0].name = "99"


def two_outputs(model: Model) -> None:
    name = part("Clip")(model).output[0]
    model.graph.output.append(helper.make_tensor_value_info(name, 1, [1, 16, 16, 16]))


def stray_flatten(model: Model) -> None:
    """A node that DORY drops, with others between it and its producer."""
    old = part("Clip")(model).output[0]
    at = list(model.graph.node).index(node(model, "Gemm"))
    model.graph.node.insert(at, helper.make_node("Flatten", [old], ["9999"], name="stray"))


def undefined(model: Model) -> None:
    part("Mul")(model).input[0] = "77777"


MUTATIONS: list[tuple[str, Mutation, str]] = [
    ("max and min", max_min, "dory.max-min"),
    ("no floor", no_floor, "dory.requantisation"),
    ("no mul", no_mul, "dory.requantisation"),
    ("ceil", lambda m: setattr(part("Floor")(m), "op_type", "Ceil"), "dory.requantisation"),
    ("square transB", square_transposed, "dory.gemm-orientation"),
    ("transB", transposed, "dory.gemm-orientation"),
    *((f"no {key}", attribute(first("Add"), key, None), "dory.add-attributes") for key in ADD_ATTRIBUTES),
    ("no add_bits", attribute(first("Add"), "add_bits", None), "dory.add-attributes"),
    ("no out_signed", attribute(first("Add"), "out_signed", None), "dory.add-attributes"),
    ("add without weight_bits", attribute(first("Add"), "weight_bits", None), "dory.add-attributes"),
    ("fractional in1_mul", attribute(first("Add"), "in1_mul", 1.0), "dory.add-attributes"),
    ("in2_mul 3", attribute(first("Add"), "in2_mul", 3), "dory.add-neutral"),
    ("named tensor", named_output, "dory.decimal-names"),
    ("falling names", falling_names, "dory.increasing-names"),
    ("repeated number", repeated_number, "dory.increasing-names"),
    ("divisor 3", constant(part("Div"), 1, 3.0), "dory.divisor"),
    ("divisor 1/2", constant(part("Div"), 1, 0.5), "dory.divisor"),
    ("divisor per channel", constant(part("Div"), 1, np.full((16, 1, 1), 2.0)), "dory.divisor"),
    ("divisor 2^32", constant(part("Div"), 1, 2.0**32), "dory.shift"),
    ("mul 2", constant(part("Mul"), 1, 2.0), "dory.mul"),
    ("mul of rank 1", constant(part("Mul"), 1, [1.0]), "dory.mul"),
    ("k of another shape", lambda m: change(m, part("Mul", "analog")(m), 1, lambda a: a[None]), "dory.per-channel"),
    ("fractional bias", filled(conv, 2, 0.5), "dory.integers"),
    ("fractional k", filled(part("Mul", "analog"), 1, 0.5), "dory.integers"),
    ("k beyond int32", filled(part("Mul", "analog"), 1, 2.0**31), "dory.integers"),
    ("weight 128", filled(conv, 1, 128), "dory.weight-range"),
    ("bias 2^31", filled(conv, 2, 2.0**31), "dory.weight-range"),
    ("weight_bits 4", attribute(conv, "weight_bits", 4), "dory.weight-bits"),
    ("no weight_bits", attribute(conv, "weight_bits", None), "dory.weight-bits"),
    ("weight_bits 8.0", attribute(conv, "weight_bits", 8.0), "dory.weight-bits"),
    ("analog gemm", attribute(first("Gemm"), "weight_bits", 2), "dory.weight-bits"),
    ("pool without weight_bits", attribute(first("GlobalAveragePool"), "weight_bits", None), "dory.weight-bits"),
    ("weight_bits 2 on digital", attribute(conv, "weight_bits", 2), "dory.core"),
    ("weight_bits 8 on analog", attribute(part("Conv", "pointwise"), "weight_bits", 8), "dory.core"),
    ("weights beyond ternary", filled(lambda m: conv(m, "analog"), 1, 2), "dory.core"),
    ("no bias", no_bias, "dory.bias"),
    ("no bias_bits", attribute(conv, "bias_bits", None), "dory.bias-bits"),
    ("bias_bits 8", attribute(first("Gemm"), "bias_bits", 8), "dory.bias-bits"),
    ("weight's name", renamed_constant(1, "stem.kernel"), "dory.weight-name"),
    ("weight called bias", renamed_constant(1, "weight_of_bias"), "dory.weight-name"),
    ("bias's name", renamed_constant(2, "stem.offset"), "dory.bias-name"),
    ("a constant called l", constant(part("Mul"), 1, 1.0, "l"), "dory.field-names"),
    ("weight of a node", weight_of_a_node, "dory.parameters"),
    *(
        (f"no {key}", attribute(conv, key, None), "dory.attributes")
        for key in ("kernel_shape", "strides", "pads", "dilations", "group")
    ),
    ("no out_bits", attribute(part("Clip"), "out_bits", None), "dory.clip-attributes"),
    ("out_bits 7", attribute(part("Clip"), "out_bits", 7), "dory.clip-attributes"),
    ("no min", attribute(part("Clip"), "min", None), "dory.clip-attributes"),
    ("clip to 255", attribute(part("Clip"), "max", 255.0), "dory.clip-range"),
    ("clip to -127", attribute(part("Clip"), "min", -127.0), "dory.clip-range"),
    ("opset 11", opset(11), "dory.opset"),
    ("input's name", renamed_input, "dory.input"),
    ("dynamic", dynamic, "dory.static-shapes"),
    ("quantised input", quantised_input, "dory.quantised-input"),
    ("relu first", relu_first, "dory.first-node"),
    ("relu first", relu_first, "dory.operator"),
    ("dequantised output", dequantised, "dory.dequantised-output"),
    ("relu last", relu_last, "dory.last-node"),
    ("two outputs", two_outputs, "dory.output"),
    ("stray flatten", stray_flatten, "dory.dropped-nodes"),
    ("mean not floored", lambda m: remove(m, after(m, node(m, "GlobalAveragePool"), "Floor")), "dory.pool"),
    ("undefined tensor", undefined, "dory.onnx"),
    ("contradictory shapes", attribute(conv, "pads", [0, 0, 0, 0]), "dory.onnx"),
]
NOTES = {"dory.converter", "dory.max-pool"}
"""What the exported file has anyway: it has an analog layer and a MaxPool."""


def test_an_exported_file_keeps_the_form() -> None:
    checked = check_file(exported() / "dory" / "model.onnx")
    assert checked.dialect == "dory"
    assert {rule for rule in rules(checked) if not rule.startswith("soc.")} == NOTES
    assert not [f for f in checked.findings if f.severity == "rejected"]
    kinds = ["conv", "depthwise", "conv", "add", "conv", "add", "pool", "conv", "pool", "fc", "fc"]
    assert [layer.geometry.kind for layer in checked.layers] == kinds
    assert [layer.geometry.core for layer in checked.layers].index("analog") == 4
    assert checked.layers[1].offloaded  # 16 channels, 16 wide
    assert checked.layers[0].reasons == ("C_in = 3 and C_out = 16 are not both multiples of 16",)
    assert {f.rule for f in checked.failures} == {
        *("soc.channels", "soc.width", "soc.relu-after-add", "soc.pool")  # 3 channels, ...
    }


def test_both_files_of_a_network_have_the_same_layers() -> None:
    """The two checks share no code for reading layers."""
    of_htvm, of_dory = (check_file(exported() / name / "model.onnx").layers for name in ("htvm", "dory"))
    for a, b in zip(of_htvm, of_dory, strict=True):
        keys = ("kind", "core", "c_in", "c_out", "in_size", "out_size", "kernel", "strides", "pads", "groups", "bias")
        assert {key: getattr(a.geometry, key) for key in keys} == {key: getattr(b.geometry, key) for key in keys}
        if a.geometry.core == "digital":
            assert a.geometry.shift == b.geometry.shift


@pytest.mark.parametrize(("mutate", "rule"), [m[1:] for m in MUTATIONS], ids=[f"{m[0]}: {m[2]}" for m in MUTATIONS])
def test_a_broken_rule_is_named(tmp_path: Path, mutate: Mutation, rule: str) -> None:
    found = mutated("dory", tmp_path, mutate)
    assert rule in rules(found)
    assert next(f for f in found.findings if f.rule == rule) in found.failures


def test_a_flatten_at_the_end_is_taken(tmp_path: Path) -> None:
    def mutate(model: Model) -> None:
        model.graph.node.append(helper.make_node("Flatten", [model.graph.output[0].name], ["99"], name="end"))
        model.graph.output[0].name = "99"

    assert not [f for f in mutated("dory", tmp_path, mutate).findings if f.severity == "rejected"]


def test_rows_beyond_the_array_are_a_constraint() -> None:
    checked = check_dory(exported(wide) / "dory" / "model.onnx")
    (layer,) = [entry for entry in checked.layers if entry.geometry.core == "analog"]
    assert "it has 1170 rows; the array has 1152" in layer.reasons


# The files beside the model.


def field(key: str, new: Any) -> Callable[[Path], None]:
    """Change a field of the JSON; None takes it out."""

    def damage(folder: Path) -> None:
        path = folder / "dory.json"
        fields = json.loads(path.read_text())
        fields[key] = new
        path.write_text(json.dumps({k: v for k, v in fields.items() if v is not None}))

    return damage


def text(name: str, by: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(by((folder / name).read_text())) and None


FILES: list[tuple[str, Callable[[Path], Any], str]] = [
    ("no input", lambda f: (f / "input.txt").unlink(), "dory.golden-missing"),
    ("no layer", lambda f: (f / "out_layer5.txt").unlink(), "dory.golden-missing"),
    ("shorter input", text("input.txt", lambda s: s.rsplit("\n", 2)[0] + "\n"), "dory.golden-length"),
    ("longer layer", text("out_layer0.txt", lambda s: s + "1,\n"), "dory.golden-length"),
    ("signed input", text("input.txt", lambda s: s.rsplit("\n", 2)[0] + "\n-1,\n"), "dory.golden-bytes"),
    ("no commas", text("out_layer3.txt", lambda s: s.replace(",", "")), "dory.golden-text"),
    ("fractions", text("out_layer3.txt", lambda s: s.replace(",", ".5,")), "dory.golden-text"),
    ("no text", lambda f: (f / "input.txt").write_bytes(b"\xff\xfe"), "dory.golden-text"),
    ("negative ReLU", text("out_layer0.txt", lambda s: s.rsplit("\n", 2)[0] + "\n-5,\n"), "dory.golden-values"),
    ("layer too many", lambda f: (f / "out_layer11.txt").write_text("1,\n"), "dory.golden-stray"),
    ("no JSON", lambda f: (f / "dory.json").unlink(), "dory.json"),
    ("broken JSON", text("dory.json", lambda s: s[:-5]), "dory.json"),
    ("a list", text("dory.json", lambda s: "[1]"), "dory.json"),
    ("BNRelu_bits 8", field("BNRelu_bits", 8), "dory.json-bnrelu-bits"),
    ("BNRelu_bits a word", field("BNRelu_bits", "32"), "dory.json-bnrelu-bits"),
    ("no onnx_file", field("onnx_file", None), "dory.json-onnx-file"),
    ("another onnx_file", field("onnx_file", "../htvm/model.onnx"), "dory.json-onnx-file"),
    ("no reserved space", field("code reserved space", None), "dory.json-code-reserved-space"),
    ("little reserved space", field("code reserved space", 5000), "dory.json-code-reserved-space"),
    ("two inputs", field("n_inputs", 2), "dory.json-n-inputs"),
    ("unsigned or not", field("input_signed", None), "dory.json-input-bits"),
    ("no input_bits", field("input_bits", None), "dory.json-input-bits"),
]


@pytest.mark.parametrize(("damage", "rule"), [m[1:] for m in FILES], ids=[m[0] for m in FILES])
def test_a_broken_folder_is_named(tmp_path: Path, damage: Callable[[Path], Any], rule: str) -> None:
    path = copy_of("dory", tmp_path)
    before = check_file(path).failures
    damage(path.parent)
    new = [f for f in check_file(path).failures if f not in before]
    assert rule in {f.rule for f in new}
    assert {f.rule.split("-")[0] for f in new} <= {"dory.golden", "dory.json"}


def test_neither_input_bits_nor_input_signed_is_taken(tmp_path: Path) -> None:
    path = copy_of("dory", tmp_path)
    before = check_file(path).failures
    field("input_bits", None)(path.parent)
    field("input_signed", None)(path.parent)
    assert check_file(path).failures == before


def test_golden_files_are_asked_for_only_in_a_bundle(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes((exported() / "dory" / "model.onnx").read_bytes())
    assert not [f for f in check_file(path).failures if "golden" in f.rule or "json" in f.rule]
    assert {"dory.golden-missing", "dory.json"} <= rules(check_file(path, golden=True))


def test_every_rule_is_broken_by_a_test() -> None:
    modules = [dory, dory_layers, dory_requantisation, golden_dory]
    declared = {rule.id for module in modules for rule in vars(module).values() if isinstance(rule, Rule)}
    assert declared - {rule for _, _, rule in [*MUTATIONS, *FILES]} == NOTES
