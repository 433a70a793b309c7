"""The base of the editors, and the small operations on graphs that they share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import fx, nn

from dianaq.errors import QuantisationError
from dianaq_quant.graph import Edit, Editor, Point, Rejection, run_editors
from dianaq_quant.graph.surgery import (
    bypass,
    calls,
    free_name,
    input_node,
    insert_after,
    insert_between,
    layer_of,
    module_of,
    only_user,
    output_node,
    set_module,
)
from dianaq_quant.modules.structure import Add


class Scale(nn.Module):
    """Multiplies, and tells modules apart by their factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


@pytest.fixture
def network() -> fx.GraphModule:
    """`2x + 3 * 2x`: `two` is read by `three` and by `total`."""
    root = nn.Module()
    root.two, root.three, root.total = Scale(2), Scale(3), Add()
    graph = fx.Graph()
    x = graph.placeholder("x")
    two = graph.call_module("two", (x,))
    three = graph.call_module("three", (two,))
    three.meta["layer"] = "/net/three"
    graph.output(graph.call_module("total", (two, three)))
    return fx.GraphModule(root, graph)


def node(network: fx.GraphModule, name: str) -> fx.Node:
    return next(n for n in network.graph.nodes if n.name == name)


class Replace(Editor):
    """Scales by less than `limit` become `factor`; others are rejected."""

    def __init__(self, factor: float, limit: float = 100) -> None:
        self.factor, self.limit = factor, limit

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for found, module in calls(network, Scale):
            if module.factor < self.limit:
                yield Point((found,), f"was {module.factor}")
            else:
                yield Rejection(found, f"{module.factor} is not below {self.limit}")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        set_module(network, point.nodes[0], Scale(self.factor))


class Pairs(Replace):
    """Points of two nodes: each scale and its first user."""

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for found, _ in calls(network, Scale):
            yield Point((found, next(iter(found.users))))


def test_every_point_is_applied_and_recorded_with_the_rejections(network: fx.GraphModule) -> None:
    edits = Replace(10.0, limit=3)(network)
    assert edits == [
        Edit("Replace", "three", False, "3 is not below 3"),
        Edit("Replace", "two", True, "was 2"),
    ]
    assert float(network(torch.tensor(1.0))) == 10 + 30


def test_overlapping_points_are_refused_before_anything_is_edited(network: fx.GraphModule) -> None:
    message = "Pairs applies at two and at three, and both points contain three"
    with pytest.raises(QuantisationError, match=message) as caught:
        Pairs(10.0)(network)
    assert caught.value.param == "three"
    assert float(network(torch.tensor(1.0))) == 2 + 6


def test_editors_run_in_order_and_their_edits_follow_one_another(network: fx.GraphModule) -> None:
    edits = run_editors(network, [Replace(5.0, limit=3), Replace(1.0, limit=4)])
    assert [(e.node, e.applied, e.note) for e in edits] == [
        ("three", False, "3 is not below 3"),
        ("two", True, "was 2"),
        ("two", False, "5.0 is not below 4"),
        ("three", True, "was 3"),
    ]
    assert float(network(torch.tensor(1.0))) == 5 + 5


def test_what_nothing_reads_any_more_is_removed(network: fx.GraphModule) -> None:
    class Drop(Editor):
        def find(self, network: fx.GraphModule) -> Iterator[Point]:
            yield Point((node(network, "total"),))

        def apply(self, network: fx.GraphModule, point: Point) -> None:
            point.nodes[0].args = (node(network, "two"), node(network, "two"))

    Drop()(network)
    assert [n.name for n in network.graph.nodes] == ["x", "two", "total", "output"]
    assert {name for name, _ in network.named_children()} == {"two", "total"}
    assert float(network(torch.tensor(1.0))) == 4


def test_without_a_point_nothing_is_touched(network: fx.GraphModule) -> None:
    network.add_submodule("unused", Scale(7))
    assert [e.applied for e in Replace(1.0, limit=0)(network)] == [False, False]
    assert hasattr(network, "unused")
    assert float(network(torch.tensor(1.0))) == 2 + 6


def test_ends_users_and_layers(network: fx.GraphModule) -> None:
    assert (input_node(network).name, output_node(network).name) == ("x", "total")
    assert only_user(node(network, "two")) is None
    assert only_user(node(network, "three")) is node(network, "total")
    assert (layer_of(node(network, "two")), layer_of(node(network, "three"))) == ("two", "/net/three")
    assert module_of(network, input_node(network)) is None


def test_insert_after_serves_all_users_under_a_free_name(network: fx.GraphModule) -> None:
    new = insert_after(network, node(network, "three"), Scale(10), "two")
    assert (new.target, layer_of(new)) == ("two_1", "/net/three")
    new = insert_after(network, node(network, "two"), Scale(100), "two")
    assert new.target == "two_2"
    network.recompile()
    assert float(network(torch.tensor(1.0))) == 200 + 200 * 3 * 10


def test_insert_between_serves_one_user(network: fx.GraphModule) -> None:
    insert_between(network, node(network, "two"), node(network, "total"), Scale(10), "ten")
    network.recompile()
    assert float(network(torch.tensor(1.0))) == 20 + 6


def test_bypass_joins_what_was_around(network: fx.GraphModule) -> None:
    bypass(network, node(network, "three"))
    network.recompile()
    assert float(network(torch.tensor(1.0))) == 4


def test_free_name_avoids_every_attribute(network: fx.GraphModule) -> None:
    assert free_name(network, "fresh") == "fresh"
    assert free_name(network, "two") == "two_1"
    assert free_name(network, "forward") == "forward_layer"
