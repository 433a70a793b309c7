"""Which core runs a layer, and the reason that the report gives where it is not the analog one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import fx, nn

from dianaq.errors import InvalidSpec
from dianaq.schemas.cores import CoreMapping
from dianaq_quant.editors import canonicalise
from dianaq_quant.editors.hardware.assign_cores import AssignCores
from dianaq_quant.graph import Edit, run_editors
from dianaq_quant.graph.shapes import record_shapes
from dianaq_quant.graph.surgery import calls, core_of, layer_of
from dianaq_quant.modules.structure import Conv2d
from dianaq_quant.targets.diana.cost import LayerShape, analog_cycles, digital_cycles

from .builder import ModelBuilder, Tensor
from .stages import imported

Recipe = Callable[[ModelBuilder], Tensor]
MAP = (4, 8, 8)
SAME = (1, 1, 1, 1)


def assigned(recipe: Recipe, shape: tuple[int, ...] = MAP, **mapping: Any) -> tuple[dict[str, str], dict[str, str]]:
    """The core of each layer; and what is said about those that could have gone elsewhere."""
    b = ModelBuilder(shape, seed=1)
    network = imported(b.build(recipe(b)))
    run_editors(network, canonicalise.EDITORS)
    record_shapes(network, shape)
    return run(network, **mapping)


def run(network: fx.GraphModule, **mapping: Any) -> tuple[dict[str, str], dict[str, str]]:
    names = {node.name: layer_of(node) for node in network.graph.nodes}
    edits: list[Edit] = run_editors(network, [AssignCores(CoreMapping(**{"ends": "analog", **mapping}))])
    cores = {layer_of(node): core_of(node) for node, _ in calls(network, Conv2d, nn.Linear)}
    assert {names[e.node] for e in edits if e.applied} == {n for n, core in cores.items() if core == "analog"}
    return cores, {names[e.node]: e.note for e in edits if not e.applied}


def chain(b: ModelBuilder) -> Tensor:
    x = b.relu(b.conv(b.input, 16, pads=SAME, name="first"))
    x = b.relu(b.conv(x, 16, pads=SAME, name="second"))
    return b.gemm(b.flatten(b.global_pool(b.relu(b.conv(x, 16, pads=SAME, name="third")))), 5, name="head")


def test_by_default_all_is_digital_without_comment() -> None:
    cores, reasons = assigned(chain, default="digital", ends="digital")
    assert set(cores.values()) == {"digital"}
    assert reasons == {}


def test_all_that_can_be_analog_is_but_the_ends_stay() -> None:
    cores, reasons = assigned(chain, default="analog", ends="digital")
    assert cores == {"first": "digital", "second": "analog", "third": "analog", "head": "digital"}
    assert reasons == {}


def test_the_ends_follow_their_own_rule_whatever_the_default() -> None:
    cores, reasons = assigned(chain, default="digital", ends="analog")
    assert cores == {"first": "analog", "second": "digital", "third": "digital", "head": "digital"}
    assert reasons == {"head": "stays digital: the analog core runs convolutions only"}


def test_exceptions_beat_the_ends_and_the_default() -> None:
    cores, _ = assigned(chain, default="analog", ends="digital", layers={"first": "analog", "third": "digital"})
    assert cores == {"first": "analog", "second": "analog", "third": "digital", "head": "digital"}


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ({"*ir*": "analog"}, ["first", "third"]),
        ({"*ir*": "analog", "third": "digital"}, ["first"]),
        ({"third": "digital", "*ir*": "analog"}, ["first"]),  # the name itself beats patterns
        ({"*ir*": "analog", "th*": "digital"}, ["first"]),  # of patterns, the later
        ({"th*": "digital", "*ir*": "analog"}, ["first", "third"]),
        ({"[fs]*": "analog"}, ["first", "second"]),
    ],
)
def test_names_and_patterns(layers: dict[str, str], expected: list[str]) -> None:
    cores, _ = assigned(chain, default="digital", ends="digital", layers=layers)
    assert [name for name, core in cores.items() if core == "analog"] == expected


def test_a_name_that_matches_nothing_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(
        InvalidSpec, match="'fourth', which matches no layer; there are first, second, third, head"
    ) as e:
        assigned(chain, layers={"fourth": "digital"})
    assert e.value.param == "mapping.layers.fourth"


def grouped(b: ModelBuilder) -> Tensor:
    return b.conv(b.relu(b.conv(b.input, 4, name="first")), 4, group=2, name="this")


def depthwise(b: ModelBuilder) -> Tensor:
    return b.conv(b.relu(b.conv(b.input, 4, name="first")), 4, group=4, name="this")


def linear(b: ModelBuilder) -> Tensor:
    return b.gemm(b.flatten(b.relu(b.conv(b.input, 4, name="first"))), 3, name="this")


def columns(b: ModelBuilder) -> Tensor:
    return b.conv(b.input, 513, (1, 1), name="this")


def rows(b: ModelBuilder) -> Tensor:
    return b.conv(b.relu(b.conv(b.input, 129, (1, 1), name="first")), 3, name="this")


def signed(b: ModelBuilder) -> Tensor:
    return b.conv(b.conv(b.input, 4, name="first"), 3, name="this")


def signed_through_a_pool(b: ModelBuilder) -> Tensor:
    return b.conv(b.pool("MaxPool", b.conv(b.input, 4, name="first"), (2, 2)), 3, (1, 1), name="this")


def signed_sum(b: ModelBuilder) -> Tensor:
    x = b.relu(b.conv(b.input, 4, name="first"))
    return b.conv(b.add(x, x, name="sum"), 3, name="this")


FIRST = {"layers": {"first": "digital"}}
OBSTACLES: list[tuple[Recipe, str]] = [
    (grouped, "the analog core runs no grouped convolutions, this one has 2 groups"),
    (depthwise, "the analog core runs no grouped convolutions, this one has 4 groups"),
    (linear, "the analog core runs convolutions only"),
    (columns, "its 513 output channels exceed the 512 columns of the array"),
    (signed, "it reads signed 8-bit values, of first, while the analog core's inputs have 7 bits"),
    (signed_through_a_pool, "it reads signed 8-bit values, of first"),
    (signed_sum, "it reads signed 8-bit values, of sum"),
]


@pytest.mark.parametrize(("recipe", "reason"), OBSTACLES, ids=lambda p: getattr(p, "__name__", ""))
def test_what_the_analog_core_cannot_run_stays_digital_for_a_reason(recipe: Recipe, reason: str) -> None:
    layers = {} if recipe is columns else {"first": "digital"}
    for default in ("analog", "auto"):
        cores, reasons = assigned(recipe, default=default, layers=layers)
        assert cores["this"] == "digital"
        assert reasons["this"].startswith(f"stays digital: {reason}")


@pytest.mark.parametrize(("recipe", "reason"), OBSTACLES, ids=lambda p: getattr(p, "__name__", ""))
@pytest.mark.parametrize("named", ["this", "th*"])
def test_an_impossible_request_is_refused_naming_layer_entry_and_reason(
    recipe: Recipe, reason: str, named: str
) -> None:
    layers = {named: "analog"} if recipe is columns else {"first": "digital", named: "analog"}
    with pytest.raises(InvalidSpec, match=r"mapping\.layers puts 'this' on the analog core, but") as caught:
        assigned(recipe, layers=layers)
    assert reason in caught.value.detail
    assert caught.value.param == f"mapping.layers.{named}"


def test_a_kernel_beyond_the_array_cannot_even_be_tiled() -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        return b.conv(b.input, 2, (34, 34), name="this")

    _, reasons = assigned(recipe, (1, 34, 34), default="analog")
    assert reasons["this"] == "stays digital: its kernel of 34 x 34 exceeds the 1152 rows of an array"
    with pytest.raises(InvalidSpec, match="its kernel of 34 x 34 exceeds"):
        assigned(recipe, (1, 34, 34), layers={"this": "analog"})


def test_what_exceeds_one_array_is_tiled_only_on_request() -> None:
    cores, reasons = assigned(rows, default="analog")
    assert cores["this"] == "digital"
    assert reasons["this"] == (
        "stays digital: its 1161 rows exceed the 1152 of one array; name it in mapping.layers to tile it"
    )
    cores, reasons = assigned(rows, default="analog", layers={"this": "analog"})
    assert cores["this"] == "analog"
    assert reasons == {}


READABLE: dict[str, Recipe] = {
    "a ReLU": lambda b: b.relu(b.conv(b.input, 4, name="first")),
    "a ReLU6": lambda b: b.relu6(b.conv(b.input, 4, name="first")),
    "a pooled ReLU": lambda b: b.pool("MaxPool", b.relu(b.conv(b.input, 4, name="first")), (2, 2)),
    "a rectified sum": lambda b: b.relu(b.add(b.conv(b.input, 4, name="first"), b.conv(b.input, 4))),
    "the input": lambda b: b.input,
}


@pytest.mark.parametrize("source", READABLE)
def test_seven_bits_can_be_read(source: str) -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        x = READABLE[source](b)
        return b.conv(b.relu(b.conv(x, 3, (1, 1), name="this")), 2, (1, 1), name="last")

    layers = {} if source == "the input" else {"first": "digital"}
    cores, _ = assigned(recipe, default="analog", layers=layers)
    assert cores["this"] == "analog"


@pytest.mark.parametrize("norm", [False, True])
def test_signed_values_of_the_analog_core_can_be_read_by_it(norm: bool) -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        x = b.conv(b.input, 4, bias=False, name="first")
        return b.conv(b.batch_norm(x) if norm else x, 3, name="this")

    assert assigned(recipe, default="analog")[0] == {"first": "analog", "this": "analog"}
    cores, reasons = assigned(recipe, default="analog", ends="analog", layers={"first": "digital"})
    assert cores == {"first": "digital", "this": "digital"}
    assert "it reads signed 8-bit values" in reasons["this"]


def test_a_network_assigned_anew_forgets_its_former_cores() -> None:
    b = ModelBuilder(MAP, seed=1)
    network = imported(b.build(chain(b)))
    run_editors(network, canonicalise.EDITORS)
    record_shapes(network, MAP)
    assert "analog" in run(network, default="analog")[0].values()
    assert set(run(network, default="digital", ends="digital")[0].values()) == {"digital"}


@pytest.mark.parametrize("channels", [1, 2, 4, 16, 64])
@pytest.mark.parametrize("size", [2, 8, 16])
def test_auto_takes_the_faster_core(channels: int, size: int) -> None:
    def recipe(b: ModelBuilder) -> Tensor:
        x = b.relu(b.conv(b.input, channels, pads=SAME, name="first"))
        x = b.relu(b.conv(x, channels, (3, 3), pads=SAME, name="this"))
        return b.flatten(b.conv(x, 2, (1, 1), name="last"))

    cores, reasons = assigned(recipe, (3, size, size), default="auto")
    shape = LayerShape(channels, channels, (3, 3), (size, size))
    analog, digital = analog_cycles(shape), digital_cycles(shape)
    assert cores["this"] == ("analog" if analog < digital else "digital")
    if analog >= digital:
        assert reasons["this"] == f"stays digital: the digital core is as fast: {digital:.0f} cycles to {analog:.0f}"


def test_auto_decides_both_ways_in_these_tests() -> None:
    both = {
        analog_cycles(s) < digital_cycles(s)
        for s in (LayerShape(c, c, (3, 3), (n, n)) for c in (1, 2, 4, 16, 64) for n in (2, 8, 16))
    }
    assert both == {True, False}
