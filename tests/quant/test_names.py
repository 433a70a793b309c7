"""Layers may be called whatever their author likes, in ONNX as in Python."""

from __future__ import annotations

import keyword
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import fx, nn

from dianaq_quant.importers import import_module, import_onnx

from .support import run_onnx

OF_MODULES = sorted({*dir(nn.Conv2d(1, 1, 1)), *dir(fx.GraphModule(nn.Module(), fx.Graph()))})
"""Everything that a module or graph module has as an attribute."""

HOSTILE = [
    *keyword.kwlist,
    "self",
    "graph",
    "code",
    "forward",
    "torch",
    "input",
    "output",
    "x",
    "1st",
    "a.b",
    "a/b:0",
    "ä",
    " ",
]


def chain(names: list[str]) -> onnx.ModelProto:
    """A 1x1 convolution of every name, one after the other."""
    weights = np.random.default_rng(0).uniform(0.5, 1.5, (len(names), 1, 1, 1, 1)).astype(np.float32)
    nodes = [helper.make_node("Conv", [f"t{i}", f"w{i}"], [f"t{i + 1}"], name=name) for i, name in enumerate(names)]
    graph = helper.make_graph(
        nodes,
        "names",
        [helper.make_tensor_value_info("t0", 1, [None, 1, 2, 2])],
        [helper.make_tensor_value_info(f"t{len(names)}", 1, None)],
        [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.mark.parametrize("names", [HOSTILE, OF_MODULES], ids=["hostile", "attributes"])
def test_nodes_of_any_name(tmp_path: Path, names: list[str]) -> None:
    model = chain(names)
    onnx.save(model, tmp_path / "net.onnx")
    network = import_onnx(tmp_path / "net.onnx")
    assert [n.meta["layer"] for n in network.graph.graph.nodes if n.op == "call_module"] == names
    x = np.random.default_rng(1).normal(size=(2, 1, 2, 2)).astype(np.float32)
    np.testing.assert_allclose(network.graph(torch.from_numpy(x)).detach().numpy(), run_onnx(model, x), rtol=1e-5)


def test_submodules_of_any_name() -> None:
    names = [n for n in HOSTILE if "." not in n and n != "lambda" and not hasattr(nn.Sequential(), n)]
    inner = nn.Sequential(OrderedDict({"while": nn.Conv2d(1, 1, 1), "while_": nn.Conv2d(1, 1, 1)}))
    module = nn.Sequential(OrderedDict({**{name: nn.Conv2d(1, 1, 1) for name in names}, "lambda": inner})).eval()
    network = import_module(module, (1, 2, 2))
    layers = [n.meta["layer"] for n in network.graph.graph.nodes if n.op == "call_module"]
    assert layers == [*names, "lambda.while", "lambda.while_"]
    x = torch.randn(2, 1, 2, 2)
    torch.testing.assert_close(network.graph(x), module(x))
