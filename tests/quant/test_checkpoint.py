"""Checkpoints: a network comes back as it was, in every respect that anything later could notice."""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from dianaq.errors import DianaqError, InvalidModel, QuantisationError
from dianaq.schemas.cores import CoreMapping
from dianaq.schemas.events import ITERATIONS, Iteration
from dianaq.schemas.quantisers import Quantisers, registered_functions
from dianaq.schemas.spec import Preprocessing
from dianaq.schemas.substitution import ACTIVATIONS
from dianaq_quant.checkpoint import Checkpoint, Origin, kinds, load, register_module, save
from dianaq_quant.checkpoint.records import META
from dianaq_quant.editors import fake_quantise, hardware
from dianaq_quant.graph import run_editors
from dianaq_quant.modules.activations import HardSigmoid, SlopedReLU, activation
from dianaq_quant.modules.fake import FakeAnalogConv2d
from dianaq_quant.modules.pixels import PixelGrid
from dianaq_quant.modules.quantiser import FakeQuantiser
from dianaq_quant.modules.structure import Conv2d
from dianaq_quant.quantisers import register_quantiser, registry
from dianaq_quant.quantisers.functions import StraightThrough
from dianaq_quant.training.calibrate import calibrate, correct_biases, observe
from dianaq_quant.training.calibrate_analog import calibrate_analog
from dianaq_quant.training.data import Split

from .builder import ModelBuilder
from .networks import Case, cases
from .stages import DIGITAL, TERNARY, UNCHANGED, canonical, imported, plan_of
from .support import modules

ANALOG = CoreMapping(default="analog", ends="analog")
LEARNED = Quantisers.model_validate(
    {
        "weights": {"range": {"bitwidth": 8, "signed": True}, "granularity": "per-outchannel_weights"},
        "activations": {"range": {"bitwidth": 7, "signed": True}, "function": "tqt"},
        "rules": [{"type": "activation", "activations": {"function": "pact", "init": "percentile"}}],
    }
)
ORIGIN = Origin(
    input_shape=(3, 6, 6),
    task="classification",
    preprocessing=Preprocessing(mean=(0.1, 0.2, 0.3)),
    mapping=ANALOG,
    quantisers=LEARNED.model_dump(mode="json"),
    seed=3,
    model="model.onnx",
    model_sha256="0" * 64,
)


PIXELS = PixelGrid((0.02, 0.03, 0.025), (0.5, 0.0, -0.1), 2)


def residual() -> onnx.ModelProto:
    """A network with an addition, a saturating activation, both pools and BatchNorms of both kinds."""
    b = ModelBuilder((3, 6, 6), seed=4)
    y = b.relu(b.batch_norm(b.conv(b.input, 4, pads=(1, 1, 1, 1), bias=False)))
    z = b.relu6(b.batch_norm(b.conv(y, 4, pads=(1, 1, 1, 1), bias=False)))
    y = b.relu(b.add(b.conv(z, 4, (1, 1)), y))
    y = b.pool("MaxPool", y, (2, 2), stride=(2, 2))
    y = b.flatten(b.global_pool(y))
    return b.build(b.batch_norm(b.gemm(y, 5)))


def round_trip(network: fx.GraphModule) -> fx.GraphModule:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.pt"
        save(network, path, iteration="hardware_mapped", origin=ORIGIN, teacher=network)
        return load(path).network


Pass = Callable[[fx.GraphModule], fx.GraphModule]


def iterations(
    model: onnx.ModelProto,
    cores: CoreMapping,
    quantisers: Quantisers,
    between: Pass = lambda network: network,
    pixels: PixelGrid | None = None,
) -> Iterator[tuple[fx.GraphModule, Tensor]]:
    """The network after each iteration, and data; `between` gives the one that the next iteration goes on with."""
    shape = tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)[1:]
    data = Split(torch.randn(20, *shape, generator=torch.Generator().manual_seed(0)), None)
    network = between(canonical(model, cores))
    yield network, data.x
    run_editors(network, fake_quantise.editors(quantisers, equalise=True, pixels=pixels))
    calibrate(network, data, UNCHANGED)
    network = between(network.eval())
    yield network, data.x
    observe(network, data, UNCHANGED)
    run_editors(network, hardware.mapping(TERNARY))
    calibrate_analog(network, data, UNCHANGED)
    network = between(network.eval())
    yield network, data.x
    run_editors(network, hardware.FOLDING)
    observe(network, data, UNCHANGED)
    plan, reference = plan_of(network), copy.deepcopy(network)
    run_editors(network, hardware.exact_editors(plan))
    correct_biases(network, reference, data, UNCHANGED)
    yield between(network.eval()), data.x


def after(iteration: Iteration, cores: CoreMapping, quantisers: Quantisers) -> tuple[fx.GraphModule, Tensor]:
    """The network after one iteration, and data."""
    return next(islice(iterations(residual(), cores, quantisers), ITERATIONS.index(iteration), None))


def sharing(objects: list[Any]) -> list[int]:
    """For each object, where in the list it is first."""
    first: dict[int, int] = {}
    return [first.setdefault(id(item), position) for position, item in enumerate(objects)]


def configuration(module: nn.Module) -> dict[str, Any]:
    """All that is set on a module but tensors, children and what it has observed; values by their text."""
    hidden = {"_parameters", "_buffers", "_modules", "observer", "_graph", "_code", "meta"}
    own = {name: value for name, value in vars(module).items() if name not in hidden}
    if isinstance(module, fx.GraphModule):
        return {"training": own["training"]}
    return {
        name: sorted(vars(value).items(), key=str) if type(value).__name__ == "Requantisation" else value
        for name, value in own.items()
    }


def assert_same(got: fx.GraphModule, network: fx.GraphModule) -> None:
    """No difference in graph, modules, tensors, orders or sharing."""
    nodes = [
        [(n.op, n.name, str(n.target), [a.name for a in n.all_input_nodes], n.meta) for n in g.graph.nodes]
        for g in (got, network)
    ]
    assert nodes[0] == nodes[1]
    found, expected = (list(g.named_modules(remove_duplicate=False)) for g in (got, network))
    assert [(name, type(m).__name__) for name, m in found] == [(name, type(m).__name__) for name, m in expected]
    assert sharing([m for _, m in found]) == sharing([m for _, m in expected])
    for (name, mine), (_, other) in zip(found, expected, strict=True):
        a, b = configuration(mine), configuration(other)
        if isinstance(a.get("slope"), Tensor):
            assert torch.equal(a.pop("slope"), b.pop("slope"))
        assert a == b, name
    for kind in ("named_parameters", "named_buffers"):
        a, b = (list(getattr(g, kind)(remove_duplicate=False)) for g in (got, network))
        assert [name for name, _ in a] == [name for name, _ in b]
        assert sharing([t for _, t in a]) == sharing([t for _, t in b])
        for (name, mine), (_, other) in zip(a, b, strict=True):
            assert torch.equal(mine, other), name
            assert (type(mine), mine.requires_grad, mine.stride()) == (type(other), other.requires_grad, other.stride())


def check(network: fx.GraphModule, x: Tensor) -> None:
    got = round_trip(network)
    assert_same(got, network)
    assert_same(copy.deepcopy(got), copy.deepcopy(network))
    with torch.no_grad():
        assert torch.equal(got(x), network(x))


@pytest.mark.parametrize("quantisers", [Quantisers(), LEARNED], ids=["fixed", "learned"])
@pytest.mark.parametrize("cores", [DIGITAL, ANALOG], ids=["digital", "analog"])
def test_every_iterations_network_comes_back_as_it_was(cores: CoreMapping, quantisers: Quantisers) -> None:
    for network, x in iterations(residual(), cores, quantisers):
        check(network, x)


def test_a_network_that_takes_pixels_comes_back_as_it_was() -> None:
    for network, x in iterations(residual(), DIGITAL, LEARNED, pixels=PIXELS):
        check(network, x)


def test_every_class_of_modules_comes_back() -> None:
    b = ModelBuilder((2, 6, 6))
    y = b.pool("AveragePool", b.relu(b.conv(b.input, 2)), (2, 2), stride=(1, 1))
    loose = imported(b.build(b.flatten(y)))
    loose.add_module("part", nn.Module())
    sink = loose.graph.output_node()
    slopes = {"alpha": 0.3, "beta": 0.4}
    for kind in ACTIVATIONS:
        loose.get_submodule("part").add_module(kind, activation(kind, slopes) if kind != "prelu" else nn.PReLU(1))
    others = {
        "hard": HardSigmoid(0.2, 0.5),
        "plain": nn.Hardsigmoid(),
        "silu1": nn.SiLU(),
        "sloped": SlopedReLU(torch.ones(1)),
    }
    for name, module in others.items():
        loose.get_submodule("part").add_module(name, module)
    with loose.graph.inserting_before(sink):
        for name, _ in loose.get_submodule("part").named_children():
            sink.args = (loose.graph.call_module(f"part.{name}", sink.args),)
    loose.recompile()
    loose.eval()
    check(loose, torch.randn(3, 2, 6, 6))
    seen = {type(m) for m in loose.modules()}
    for cores, pixels in ((ANALOG, None), (DIGITAL, None), (DIGITAL, PIXELS)):
        for network, _ in iterations(residual(), cores, LEARNED, pixels=pixels):
            seen |= {type(m) for m in network.modules()}
    assert {cls for cls in seen if not issubclass(cls, fx.GraphModule)} == set(kinds._KINDS)


@settings(max_examples=8)
@given(cases(), st.sampled_from([DIGITAL, ANALOG]), st.sampled_from([Quantisers(), LEARNED]))
def test_random_networks_come_back_and_go_on_as_without(case: Case, cores: CoreMapping, quantisers: Quantisers) -> None:
    try:
        undisturbed = [copy.deepcopy(n) for n, _ in iterations(case.model, cores, quantisers)]
    except DianaqError:
        return  # a network that cannot be brought onto the chip has no checkpoints
    for network, x in iterations(case.model, cores, quantisers):
        check(network, x)
    for network, expected in zip(iterations(case.model, cores, quantisers, round_trip), undisturbed, strict=True):
        assert_same(copy.deepcopy(network[0]), expected)


def test_what_was_one_object_stays_one() -> None:
    got = round_trip(after("hardware_mapped", ANALOG, LEARNED)[0])
    scales = [q.scale for q in modules(got, FakeQuantiser)]
    assert len({id(s) for s in scales}) < len(scales)
    layers = modules(got, FakeAnalogConv2d)
    assert len(layers) == 3
    for layer in layers:
        assert any(layer.input_scale is scale for scale in scales)
    tied = canonical(residual())
    first, second = (m for m in modules(tied, Conv2d) if m.weight.shape == (4, 4, 3, 3) or m.weight.shape[1] == 3)
    second.weight = first.weight = nn.Parameter(torch.zeros(4, 3, 3, 3))
    first, second, *_ = modules(round_trip(tied), Conv2d)
    assert first.weight is second.weight


def test_an_analog_layers_folded_slope_comes_back() -> None:
    network, _ = after("hardware_mapped", ANALOG, Quantisers())
    run_editors(network, hardware.FOLDING)
    got = round_trip(network)
    assert any(isinstance(layer.slope, Tensor) for layer in modules(got, FakeAnalogConv2d))
    assert_same(got, network)


def saved(folder: Path, network: fx.GraphModule | None = None) -> Path:
    network = network or canonical(residual())
    save(network, folder / "x.pt", iteration="fake_quantised", origin=ORIGIN, teacher=network)
    return folder / "x.pt"


def test_a_checkpoint_says_where_it_comes_from(tmp_path: Path) -> None:
    teacher = canonical(residual()).requires_grad_(False)
    save(canonical(residual()), tmp_path / "x.pt", iteration="fake_quantised", origin=ORIGIN, teacher=teacher)
    got = load(tmp_path / "x.pt")
    assert (got.iteration, got.origin) == ("fake_quantised", ORIGIN)
    assert set(got.versions) == {"dianaq", "torch"}
    assert_same(got.teacher, teacher)
    network = canonical(residual())
    save(network, tmp_path / "float.pt", iteration="float", origin=ORIGIN)
    first: Checkpoint = load(tmp_path / "float.pt")
    assert not any(p.requires_grad for p in first.teacher.parameters())
    assert all(p.requires_grad for p in first.network.parameters())
    assert torch.equal(first.network(torch.ones(1, 3, 6, 6)), first.teacher(torch.ones(1, 3, 6, 6)))
    with pytest.raises(ValueError, match="give teacher"):
        save(network, tmp_path / "y.pt", iteration="hardware_exact", origin=ORIGIN)


def test_the_same_network_gives_the_same_bytes_and_no_other_file(tmp_path: Path) -> None:
    network, _ = after("hardware_exact", ANALOG, LEARNED)
    contents = set()
    for name in ("a", "b"):
        save(network, tmp_path / name / f"{name}.pt", iteration="hardware_exact", origin=ORIGIN, teacher=network)
        contents.add((tmp_path / name / f"{name}.pt").read_bytes())
    again = load(tmp_path / "a" / "a.pt")
    save(again.network, tmp_path / "c.pt", iteration="hardware_exact", origin=again.origin, teacher=again.network)
    contents.add((tmp_path / "c.pt").read_bytes())
    assert len(contents) == 1
    assert {p.name for p in tmp_path.iterdir()} == {"a", "b", "c.pt"}
    assert (tmp_path / "c.pt").stat().st_mode & 0o777 == 0o644


def test_a_view_of_a_large_tensor_does_not_take_it_along(tmp_path: Path) -> None:
    network = canonical(residual())
    small = saved(tmp_path, network).stat().st_size
    layer = modules(network, Conv2d)[0]
    layer.weight = nn.Parameter(torch.zeros(10_000, *layer.weight.shape)[0])
    assert saved(tmp_path, network).stat().st_size <= small + 1000


def test_a_failed_write_keeps_the_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved(tmp_path).read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        saved(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.pt"]
    assert (tmp_path / "x.pt").read_bytes() == before


def changed(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> Path:
    """A checkpoint with something changed in its file's content or header."""
    content = torch.load(path, weights_only=True)
    header = json.loads(content["header"])
    change(content, header)
    torch.save(content if "header" not in content else content | {"header": json.dumps(header)}, path)
    return path


def first_call(header: dict[str, Any]) -> dict[str, Any]:
    return next(n for n in header["networks"]["graphs"]["network"]["nodes"] if n["op"] == "call_module")


CODE = 'x", print(1)) or getattr(self, "x'


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c, h: c.update(format=2), "has the format 2; this version of dianaq reads 1"),
        (lambda c, h: c.pop("header"), "no checkpoint, or a damaged one"),
        (lambda c, h: c["tensors"].pop(), "damaged"),
        (lambda c, h: h.update(iteration="double"), "no iteration is called 'double'"),
        (lambda c, h: h["networks"]["modules"][0].update({"class": "Conv9d"}), "'Conv9d', which is not known"),
        (lambda c, h: h["networks"]["modules"].pop(), "damaged"),
        (lambda c, h: h["origin"].update(task="poetry"), "damaged.*task"),
        (lambda c, h: first_call(h).update(inputs=["nobody"]), "damaged.*nobody"),
        (lambda c, h: first_call(h).update(target="nowhere"), "damaged.*nowhere"),
        (lambda c, h: first_call(h).update(target=CODE), "damaged.*no node is called"),
        (lambda c, h: first_call(h).update(name="print(1)"), "damaged.*no node is called"),
        (lambda c, h: first_call(h).update(op="call_function"), "damaged.*no node is called"),
        (lambda c, h: first_call(h).update(name="import"), "damaged.*no free name"),
    ],
)
def test_a_file_that_is_not_as_it_was_written_is_refused(tmp_path: Path, change: Any, match: str) -> None:
    path = changed(saved(tmp_path), change)
    with pytest.raises(InvalidModel, match=match):
        load(path)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    data = saved(tmp_path).read_bytes()
    weight = load(tmp_path / "x.pt").network.get_parameter("conv0.weight").detach().numpy().tobytes()
    position = data.index(weight) + 5
    flipped = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
    for damaged in (b"", b"PK\3\4", data[: len(data) // 2], flipped):
        (tmp_path / "y.pt").write_bytes(damaged)
        with pytest.raises(InvalidModel, match=r"y\.pt is no checkpoint, or a damaged one"):
            load(tmp_path / "y.pt")
    with pytest.raises(InvalidModel, match="cannot be read: No such file"):
        load(tmp_path / "z.pt")


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save({"format": 1, "header": nn.ReLU(), "tensors": []}, tmp_path / "x.pt")
    with pytest.raises(InvalidModel, match="damaged"):
        load(tmp_path / "x.pt")


def test_a_quantiser_of_ones_own_must_be_registered_where_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_FUNCTIONS", dict(registry._FUNCTIONS))
    register_quantiser("my_own", StraightThrough, learns_scale=True)
    try:
        quantisers = Quantisers.model_validate({"weights": {"function": "my_own"}})
        network, x = after("fake_quantised", DIGITAL, quantisers)
        path = saved(tmp_path, network)
        assert torch.equal(load(path).network(x), network(x))
    finally:
        registered_functions.discard("my_own")
    registry._FUNCTIONS.pop("my_own")
    with pytest.raises(InvalidModel, match=r"'my_own'.*register it first with register_quantiser"):
        load(path)


class Shifted(nn.Module):
    """A module that the library does not know."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return x + self.by


def test_a_module_of_ones_own_is_refused_until_it_is_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for table in ("_KINDS", "_NAMES"):
        monkeypatch.setattr(kinds, table, dict(getattr(kinds, table)))
    network = canonical(residual())
    node = next(n for n in network.graph.nodes if n.op == "call_module")
    network.set_submodule(str(node.target), Shifted(2.5))
    with pytest.raises(QuantisationError, match=r"'Shifted'.*register_module"):
        saved(tmp_path, network)
    register_module(Shifted, arguments=("by",))
    assert modules(load(saved(tmp_path, network)).network, Shifted)[0].by == 2.5
    other = type("Shifted", (nn.Module,), {})
    with pytest.raises(ValueError, match="'Shifted' is known already"):
        register_module(other)


def test_a_graph_of_other_things_than_modules_is_refused_by_name(tmp_path: Path) -> None:
    network = canonical(residual())
    sink = network.graph.output_node()
    with network.graph.inserting_before(sink):
        sink.args = (network.graph.call_function(torch.relu, sink.args),)
    network.recompile()
    with pytest.raises(QuantisationError, match="relu: a checkpoint holds calls of modules"):
        saved(tmp_path, network)


def test_editors_note_nothing_on_nodes_that_is_not_kept() -> None:
    for cores in (DIGITAL, ANALOG):
        for network, _ in iterations(residual(), cores, LEARNED):
            assert {key for node in network.graph.nodes for key in node.meta} <= set(META)


def test_making_modules_draws_no_random_numbers(tmp_path: Path) -> None:
    path = saved(tmp_path)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    load(path)
    assert torch.equal(torch.rand(3), expected)


def test_the_iterations_are_those_that_a_checkpoint_may_name(tmp_path: Path) -> None:
    network = canonical(residual())
    for iteration in ITERATIONS:
        save(network, tmp_path / "x.pt", iteration=iteration, origin=ORIGIN, teacher=network)
        assert load(tmp_path / "x.pt").iteration == iteration
