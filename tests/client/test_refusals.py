"""What no core computes, in ONNX files: the table has every operator, and the message names what says most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dianaq.errors import UnsupportedOperator
from dianaq.inspection import SUPPORTED_OPERATORS, inspect_model
from dianaq.inspection.refusals import (
    ATTENTION,
    GATE,
    MAX_NAME,
    PER_SAMPLE_NORM,
    PRODUCT,
    QUANTISED,
    RECURRENT,
    TABLE,
    UNKNOWN,
    Refusal,
    refusal_of_call,
    refusal_of_operator,
)

from .onnx_samples import make_model, node, save, tensor, with_head

OPERATORS = {
    schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == "" and not schema.deprecated
}


def test_every_operator_is_supported_or_has_an_entry_with_a_remedy() -> None:
    without = {name for name in OPERATORS - SUPPORTED_OPERATORS.keys() if refusal_of_operator(name) is UNKNOWN}
    # Of these a form can be brought onto the chip by what stands around it; what is left of them has no better word.
    assert without <= {
        *("Cast", "Det", "Div", "GlobalMaxPool", "Max", "Min", "Mul", "Neg", "Pad", "ReduceMax", "Slice", "Sub", "Sum"),
        *("Transpose", "Unsqueeze"),
    }
    assert all(entry.why and entry.instead for entry in (*TABLE, UNKNOWN))


def test_no_entry_is_of_a_supported_operator_or_of_none_that_there_is() -> None:
    named = [name for entry in TABLE for name in entry.onnx.split()]
    assert not SUPPORTED_OPERATORS.keys() & {*named}
    assert len(named) == len({*named})
    assert {*named} - OPERATORS == {"MultiHeadAttention", "GroupQueryAttention"}  # of onnxruntime


def test_names_of_python_are_written_as_they_are_looked_up() -> None:
    named = [name for entry in TABLE for name in entry.python.split()]
    assert len(named) == len({*named})
    assert all(name == name.lower().replace("_", "") for name in named)


def test_both_ways_in_share_their_entries() -> None:
    for operator, call in (
        ("LSTM", "LSTM"),
        ("LayerNormalization", "layer_norm"),
        ("Concat", "cat"),
        ("Einsum", "mul"),
    ):
        assert refusal_of_operator(operator) is refusal_of_call(call) is not UNKNOWN
    assert refusal_of_call(".permute()") is refusal_of_call("swapaxes")


def ints(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def _lstm(prefix: str = "") -> list[onnx.NodeProto]:
    """(N, 3, 8, 8) as a sequence through an LSTM, as exporters write it: with Transpose and Gather around."""
    return [
        node("Reshape", ["x", "sequence"], "s"),
        node("Transpose", ["s"], "t", perm=[1, 0, 2]),
        helper.make_node("LSTM", ["t", "w", "r"], ["h", "h_n", "c_n"], f"{prefix}lstm", hidden_size=2),
        node("Gather", ["h", "last"], "g", axis=0),
        node("Flatten", ["g"], "y"),
    ]


LSTM_WEIGHTS = [ints("sequence", 0, 3, 64), ints("last", 2), tensor("w", 1, 8, 64), tensor("r", 1, 8, 2)]

ATTENTION_NODES = [
    node("Reshape", ["x", "sequence"], "s"),
    node("MatMul", ["s", "wq"], "q"),
    node("MatMul", ["s", "wk"], "k"),
    node("MatMul", ["s", "wv"], "v"),
    node("Transpose", ["k"], "kt", perm=[0, 2, 1]),
    node("MatMul", ["q", "kt"], "scores"),
    node("Div", ["scores", "root"], "scaled"),
    node("Softmax", ["scaled"], "weights", axis=-1),
    node("Dropout", ["weights"], "dropped"),
    node("MatMul", ["dropped", "v"], "attended"),
    node("Flatten", ["attended"], "y"),
]
ATTENTION_WEIGHTS = [
    ints("sequence", 0, 3, 64),
    *(tensor(name, 64, 8) for name in ("wq", "wk", "wv")),
    tensor("root", value=2.8),
]

EPSILON = [tensor("eps", value=1e-5), tensor("two", value=2)]
CENTRED = [node("ReduceMean", ["x"], "m", axes=[1, 2, 3]), node("Sub", ["x", "m"], "d")]

NORMS: dict[str, list[onnx.NodeProto]] = {
    "layer norm of old opsets": [
        *CENTRED,
        node("Pow", ["d", "two"], "sq"),
        node("ReduceMean", ["sq"], "var", axes=[1, 2, 3]),
        node("Add", ["var", "eps"], "ve"),
        node("Sqrt", ["ve"], "deviation"),
        node("Div", ["d", "deviation"], "n"),
        node("Flatten", ["n"], "y"),
    ],
    "as Keras writes it": [
        *CENTRED,
        node("Mul", ["d", "d"], "sq"),
        node("ReduceMean", ["sq"], "var", axes=[2, 3]),
        node("Add", ["eps", "var"], "ve"),
        node("Sqrt", ["ve"], "deviation"),
        node("Reciprocal", ["deviation"], "r"),
        node("Mul", ["d", "r"], "n"),
        node("Flatten", ["n"], "y"),
    ],
    "RMS": [
        node("Pow", ["x", "two"], "sq"),
        node("ReduceMean", ["sq"], "var", axes=[1]),
        node("Add", ["var", "eps"], "ve"),
        node("Sqrt", ["ve"], "deviation"),
        node("Div", ["x", "deviation"], "n"),
        node("Flatten", ["n"], "y"),
    ],
}

GATED = [
    node("Concat", ["x", "x"], "twice", axis=1),
    node("GlobalAveragePool", ["twice"], "p"),
    node("Sigmoid", ["p"], "gate"),
    node("Mul", ["twice", "gate"], "m"),
    node("Flatten", ["m"], "y"),
]

FIRST: dict[str, tuple[Sequence[onnx.NodeProto], Sequence[onnx.TensorProto], str, str, Refusal]] = {
    "an LSTM behind a Gather": (_lstm(), LSTM_WEIGHTS, "lstm", "LSTM", RECURRENT),
    "attention": (ATTENTION_NODES, ATTENTION_WEIGHTS, "attended", "attention", ATTENTION),
    **{
        name: (nodes, EPSILON, "deviation", "a normalisation written out", PER_SAMPLE_NORM)
        for name, nodes in NORMS.items()
    },
    "a gate": (GATED[1:], (), "gate", "Sigmoid", GATE),
    "quantised": (
        [
            node("QuantizeLinear", ["x", "one"], "q"),
            node("DequantizeLinear", ["q", "one"], "dq"),
            node("Flatten", ["dq"], "y"),
        ],
        [tensor("one", value=1)],
        "q",
        "QuantizeLinear",
        QUANTISED,
    ),
}


def model_of(nodes: Sequence[onnx.NodeProto], weights: Sequence[onnx.TensorProto]) -> onnx.ModelProto:
    used = {name for each in nodes for name in each.input}
    nodes = [_first_reads(nodes[0], used), *nodes[1:]]
    return with_head(*nodes, weights=[w for w in weights if w.name in used])


def _first_reads(first: onnx.NodeProto, used: set[str]) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(first)
    copy.input[:] = ["x" if name == "twice" else name for name in copy.input]
    return copy


@pytest.mark.parametrize("name", [name for name in FIRST if name != "a gate"])
def test_what_the_network_is_goes_before_what_stands_around_it(tmp_path: Path, name: str) -> None:
    nodes, weights, at, what, refusal = FIRST[name]
    with pytest.raises(UnsupportedOperator) as caught:
        inspect_model(save(model_of(nodes, weights), tmp_path))
    assert caught.value.param == at
    assert caught.value.detail.startswith(f"node {at!r} ({what}): {refusal.why}; {refusal.instead}")


def test_a_gate_is_one_and_others_are_counted(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOperator, match=r"node 'twice' \(Concat\): no core joins.* And 1 more .*: Sigmoid$"):
        inspect_model(save(with_head(*GATED), tmp_path))


def test_what_is_but_a_part_is_not_counted(tmp_path: Path) -> None:
    nodes = NORMS["layer norm of old opsets"]
    with pytest.raises(UnsupportedOperator, match=r"would work, it becomes a part of its layer$"):
        inspect_model(save(model_of(nodes, EPSILON), tmp_path))


def test_all_are_counted_and_five_kinds_listed(tmp_path: Path) -> None:
    kinds = ("Sin", "Cos", "Cos", "Tan", "Exp", "Abs", "Sign", "Floor")
    names = ["x", *(f"t{i}" for i in range(len(kinds)))]
    nodes = [node(kind, [names[i]], names[i + 1]) for i, kind in enumerate(kinds)]
    with pytest.raises(UnsupportedOperator) as caught:
        inspect_model(save(with_head(*nodes, node("Flatten", [names[-1]], "y")), tmp_path))
    assert caught.value.detail == (
        "node 't0' (Sin): no core computes it; ReLU or ReLU6 would work. And 7 more that no core computes: Cos (2), "
        "Tan, Exp, Abs, Sign, 1 other kind"
    )


def _states(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("h_n", TensorProto.FLOAT, None))


def _two_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("h_0", TensorProto.FLOAT, (1, "N", 2)))


def _tokens(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64


@pytest.mark.parametrize("change", [_states, _two_inputs, _tokens])
def test_a_recurrent_layer_goes_before_what_follows_from_it(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None]
) -> None:
    model = model_of(_lstm(), LSTM_WEIGHTS)
    change(model)
    with pytest.raises(UnsupportedOperator, match="a recurrent layer reads what it gave one step before"):
        inspect_model(save(model, tmp_path))


@pytest.mark.parametrize(
    ("operator", "words"),
    [
        ("com.microsoft.FusedConv", "it is onnxruntime's own.*the file as its exporter wrote it would work"),
        ("com.microsoft.Attention", "attention multiplies computed tensors"),
        ("com.microsoft.QLinearAdd", "quantised already.*the float network that it was made from would work"),
        ("ai.onnx.ml.TreeEnsembleClassifier", "classical machine learning; a neural network would work"),
        ("org.pytorch.aten.ATen", "dynamo=True"),
        ("a.b.c.Own", "comes from the domain 'a.b.c'; .* a package that brings this one"),
    ],
)
def test_operators_of_other_domains(tmp_path: Path, operator: str, words: str) -> None:
    domain, _, name = operator.rpartition(".")
    model = with_head(node(name, ["x"], "act", domain=domain), node("Flatten", ["act"], "y"))
    model.opset_import.append(helper.make_opsetid(domain, 1))
    with pytest.raises(UnsupportedOperator, match=words) as caught:
        inspect_model(save(model, tmp_path))
    assert caught.value.detail.startswith(f"node 'act' ({operator}): ")


@pytest.mark.parametrize("where", ["op_type", "domain", "name"])
def test_a_name_of_a_megabyte_does_not_fill_the_message(tmp_path: Path, where: str) -> None:
    model = with_head(*(node("Sin", [a], b) for a, b in ("xs", "st", "tu")), node("Flatten", ["u"], "y"))
    for each in model.graph.node[:3]:
        setattr(each, where, "long" * 2**18)
    model.opset_import.append(helper.make_opsetid("long" * 2**18, 1))
    with pytest.raises(UnsupportedOperator) as caught:
        inspect_model(save(model, tmp_path))
    assert len(caught.value.detail) < 4 * MAX_NAME + 500
    assert PRODUCT.why not in caught.value.detail


def test_a_product_of_two_computed_tensors_without_a_softmax_is_no_attention(tmp_path: Path) -> None:
    nodes = [
        node("Reshape", ["x", "sequence"], "s"),
        node("Transpose", ["s"], "t", perm=[0, 2, 1]),
        node("MatMul", ["s", "t"], "gram"),
        node("Flatten", ["gram"], "y"),
    ]
    model = make_model(nodes, [ints("sequence", 0, 3, 64)], output_shape=None)
    with pytest.raises(UnsupportedOperator) as caught:
        inspect_model(save(model, tmp_path))
    assert "attention" not in caught.value.detail
