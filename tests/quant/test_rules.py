"""Which quantiser a layer gets, and which scale two quantisers share."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from torch import fx

from dianaq.schemas.cores import CoreMapping
from dianaq.schemas.quantisers import Quantisers
from dianaq_quant.editors import fake_quantise
from dianaq_quant.editors.hardware.map_scale import MapScale
from dianaq_quant.graph import Edit, run_editors
from dianaq_quant.modules.fake import FakeConv2d
from dianaq_quant.modules.quantiser import FakeQuantiser

from .builder import ModelBuilder, Tensor
from .stages import DIGITAL, canonical
from .support import modules

NARROW = {"range": {"bitwidth": 4, "signed": True}}


def blocks(b: ModelBuilder) -> Tensor:
    x = b.relu(b.batch_norm(b.conv(b.input, 3, name="first")))
    y = b.relu(b.conv(x, 3, (1, 1), name="second"))
    return b.flatten(b.relu(b.add(x, b.conv(y, 3, (1, 1), name="third"), name="sum")))


def quantised(
    rules: list[dict[str, Any]], cores: CoreMapping = DIGITAL, **defaults: Any
) -> tuple[fx.GraphModule, list[Edit]]:
    b = ModelBuilder((2, 5, 5), seed=2)
    network = canonical(b.build(blocks(b)), cores)
    quantisers = Quantisers.model_validate({**defaults, "rules": rules})
    return network, run_editors(network, fake_quantise.editors(quantisers, equalise=False))


def levels(network: fx.GraphModule) -> list[int]:
    """Of the input, the layers' outputs and the sum's, in execution order."""
    return [q.qrange.levels for q in modules(network, FakeQuantiser)]


@pytest.mark.parametrize(
    ("rule", "narrow"),
    [
        ({"layers": "first"}, [1]),
        ({"layers": "s*"}, [2, 4]),
        ({"type": "conv"}, [1, 2, 3]),
        ({"type": "add"}, [4]),
        ({"type": "activation"}, [1, 2, 4]),
        ({"type": "input"}, [0]),
        ({"core": "analog"}, [2, 3]),
        ({"layers": "second", "type": "activation"}, [2]),
        ({"layers": "third", "type": "activation"}, []),
    ],
)
def test_a_rule_reaches_what_a_layer_gives_after_its_activation(rule: dict[str, Any], narrow: list[int]) -> None:
    cores = CoreMapping(layers={"second": "analog", "third": "analog"})
    network, _ = quantised([{**rule, "activations": NARROW}], cores)
    assert [i for i, n in enumerate(levels(network)) if n == 16] == narrow


def test_later_rules_win() -> None:
    rules = [
        {"layers": "*", "weights": NARROW},
        {"layers": "second", "weights": {"range": {"n_levels": 9, "signed": True}}},
    ]
    network, _ = quantised(rules)
    assert [c.quantiser.qrange.levels for c in modules(network, FakeConv2d)] == [16, 9, 16]


@pytest.mark.parametrize(
    "rule", [{"layers": "*"}, {"type": "add", "weights": NARROW}, {"type": "input", "weights": NARROW}]
)
def test_a_rule_that_can_do_nothing_is_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="a rule"):
        Quantisers.model_validate({"rules": [rule]})


def test_what_is_added_starts_and_learns_as_one() -> None:
    """A learned power of two beside a fixed scale: one Scale, one function, and the report says whose."""
    network, edits = quantised([{"layers": "first", "activations": {"function": "tqt"}}])
    first, third = modules(network, FakeQuantiser)[1], modules(network, FakeQuantiser)[3]
    assert first.scale is third.scale
    assert first.spec.function == third.spec.function == "tqt"
    assert first.function is third.function
    notes = [e.note for e in edits if e.editor == "HarmoniseAdds"]
    assert notes == ["both inputs share one scale, started and learned as the first: tqt"]


def test_a_shared_learned_power_of_two_is_rescaled_once() -> None:
    network, _ = quantised([], activations={"function": "tqt"})
    scales = {q.scale: q.scale.get() for q in modules(network, FakeQuantiser)}
    shared = modules(network, FakeQuantiser)[3].scale
    run_editors(network, [MapScale()])
    assert shared.get() in (2 * scales[shared], 4 * scales[shared])  # 255 / 127 is a trace more than 2


def test_a_constant_interval_is_not_rescaled_by_equalisation() -> None:
    b = ModelBuilder((2, 5, 5), seed=2)
    network = canonical(b.build(blocks(b)))
    constant = {"weights": {"init": {"strategy": "const", "a": -1, "b": 1}}}
    edits = run_editors(network, fake_quantise.editors(Quantisers.model_validate(constant), equalise=True))
    assert not [e for e in edits if e.editor == "Equalise"]


def test_a_saturating_activation_learns_no_scale() -> None:
    b = ModelBuilder((2, 5, 5), seed=2)
    network = canonical(b.build(b.flatten(b.relu6(b.conv(b.input, 3)))))
    pact = Quantisers.model_validate({"activations": {"function": "pact"}})
    run_editors(network, fake_quantise.editors(pact, equalise=False))
    entrance, relu6 = modules(network, FakeQuantiser)
    assert (entrance.scale.learned, relu6.scale.learned, relu6.ceiling) == (True, False, 6.0)
