"""Gradients of the quantisers' functions against the formulas of their papers; one's own functions; learned scales."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn
from torch.autograd import Function

from dianaq.schemas.quantisers import BUILT_IN_FUNCTIONS, QuantiserSpec, registered_functions
from dianaq.schemas.ranges import QRange
from dianaq.schemas.recipe import Training
from dianaq_quant.modules.fake import FakeLinear, fake_linear_op
from dianaq_quant.modules.quantiser import SMALLEST, FakeQuantiser, Scale, WeightQuantiser
from dianaq_quant.quantisers import quantiser_function, register_quantiser, registry
from dianaq_quant.quantisers.functions import ClippedReLU, LearnedScale, Sign, StraightThrough, integers_of
from dianaq_quant.training.optimiser import make_optimiser

INT4 = QRange(bitwidth=4, signed=True)
SIGNS = QRange.model_validate("binary")


def gradients(function: type[Function], x: list[float], scale: float, lo: int, hi: int) -> tuple[Any, Any, Any]:
    """Values, gradients of x for weights 1, 2, 3..., and the gradients of the scale through each value alone."""
    values = torch.tensor(x, requires_grad=True)
    factor = torch.tensor(scale, requires_grad=True)
    y = function.apply(values, factor, lo, hi)
    slopes = []
    for i in range(len(x)):
        factor.grad = None
        (got,) = torch.autograd.grad(y[i], factor, retain_graph=True, allow_unused=True)
        slopes.append(0.0 if got is None else float(got))
    y.backward(torch.arange(1.0, len(x) + 1))
    assert values.grad is not None
    return y.tolist(), values.grad.tolist(), slopes


X = [-9.0, -2.1, -0.6, 0.0, 0.2, 0.74, 0.76, 1.6, 7.0]
"""With a scale of 1/2 and the range [-4, 3]: ratios -18, -4.2, -1.2, 0, 0.4, 1.48, 1.52, 3.2, 14."""
Q = [-2.0, -2.0, -0.5, 0.0, 0.0, 0.5, 1.0, 1.5, 1.5]
INSIDE = [0, 2, 3, 4, 5, 6, 7, 8, 0]


def test_straight_through_passes_gradients_inside_and_learns_no_scale() -> None:
    values, slopes, of_scale = gradients(StraightThrough, X, 0.5, -4, 3)
    assert values == Q
    assert slopes == INSIDE
    assert of_scale == [0.0] * 9


def test_pact_learns_its_bounds_from_what_they_clip() -> None:
    """Choi et al., equation 3, for `alpha = s hi`: 1 where x >= alpha; the lower bound likewise."""
    values, slopes, of_scale = gradients(ClippedReLU, X, 0.5, -4, 3)
    assert values == Q
    assert slopes == INSIDE
    assert of_scale == [-4, 0, 0, 0, 0, 0, 0, 0, 3]
    _, slopes, of_scale = gradients(ClippedReLU, [-1.0, 0.3, 9.0], 0.5, 0, 15)
    assert (slopes, of_scale) == ([0, 2, 3 * 0], [0, 0, 15])


def test_a_learned_scale_has_the_gradient_of_rounding_and_clipping() -> None:
    """Esser et al., equation 3: `round(x/s) - x/s` inside, the bound outside."""
    values, slopes, of_scale = gradients(LearnedScale, X, 0.5, -4, 3)
    assert values == Q
    assert slopes == INSIDE
    wanted = [-4, -4 + 4.2, -1 + 1.2, 0, 0 - 0.4, 1 - 1.48, 2 - 1.52, 3 - 3.2, 3]
    assert of_scale == pytest.approx(wanted, abs=1e-6)


def test_signs_pass_gradients_near_zero_and_learn_their_magnitude() -> None:
    values, slopes, of_scale = gradients(Sign, [-2.0, -0.5, 0.0, 0.3, 0.5, 0.6], 0.5, -1, 1)
    assert values == [-0.5, -0.5, 0.5, 0.5, 0.5, 0.5]
    assert slopes == [0, 2, 3, 4, 5, 0]
    assert of_scale == [-1, -1, 1, 1, 1, 1]


@pytest.mark.parametrize("function", [ClippedReLU, LearnedScale, Sign])
@given(st.integers(0, 2**31 - 1))
def test_where_values_are_clipped_the_scales_gradient_is_the_derivative(function: type[Function], seed: int) -> None:
    """There the output is differentiable in the scale: finite differences are the judge."""
    generator = torch.Generator().manual_seed(seed)
    magnitudes = 10 + torch.rand(6, generator=generator, dtype=torch.float64)
    x = magnitudes * torch.randn(6, generator=generator).sign()
    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    lo, hi = (-1, 1) if function is Sign else (-4, 3)
    function.apply(x, scale, lo, hi).square().sum().backward()
    loss = [
        float(function.apply(x, torch.tensor(1 + d, dtype=torch.float64), lo, hi).square().sum()) for d in (-1e-6, 1e-6)
    ]
    assert float(scale.grad) == pytest.approx((loss[1] - loss[0]) / 2e-6, rel=1e-5)


@pytest.mark.parametrize("function", [LearnedScale, ClippedReLU, Sign])
def test_gradients_of_a_scale_sum_over_what_shares_it(function: type[Function]) -> None:
    x = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0)) * 3
    for shape in ((), (3, 1, 1, 1), (3, 4, 1, 1), (1, 4, 2, 2)):
        scale = torch.full(shape, 0.5, requires_grad=True)
        (got,) = torch.autograd.grad(function.apply(x, scale, -1, 1).sum(), scale)
        every = torch.full(x.shape, 0.5, requires_grad=True)
        (each,) = torch.autograd.grad(function.apply(x, every, -1, 1).sum(), every)
        assert got.shape == shape
        torch.testing.assert_close(got, each.sum_to_size(shape))


def test_tqt_learns_the_logarithm_of_its_threshold() -> None:
    """Jain et al., equations 6 and 7: `ds/dt = s ln 2` with `s = 2^ceil(t)`, through rounding and clipping."""
    quantiser = FakeQuantiser(QuantiserSpec(range=INT4, function="tqt"), INT4)
    quantiser.scale.set(0.3)
    assert quantiser.scale.get() == 0.5
    x = torch.tensor([0.3, -0.6, 100.0, -100.0])
    for value, slope in zip(x, [1 - 0.6, -1 + 1.2, 7, -8], strict=True):
        (got,) = torch.autograd.grad(quantiser(value), quantiser.scale.value)
        assert float(got) == pytest.approx(slope * 0.5 * math.log(2), rel=1e-5)


@given(st.integers(-40, 40), st.integers(1, 10**7), st.integers(1, 255))
def test_a_power_of_two_is_itself_with_and_without_gradients(exponent: int, values: int, largest: int) -> None:
    scale = Scale(learned=True, power_of_two=True)
    scale.set(2.0**exponent, values, largest)
    assert scale.get() == 2.0**exponent
    assert float(scale().detach()) == 2.0**exponent
    scale.rescale(2.0**-3)
    assert scale.get() == 2.0 ** (exponent - 3)
    scale.rescale(255 / 127)  # the step that brings rectified 8 bits to the chip's 7
    assert scale.get() == 2.0 ** (exponent - 2)


@given(st.floats(1e-6, 1e6), st.integers(1, 10**7))
def test_a_learned_scale_is_the_same_with_and_without_gradients(real: float, values: int) -> None:
    for power_of_two in (False, True):
        scale = Scale(learned=True, power_of_two=power_of_two)
        scale.set(real, values, 127)
        assert float(scale().detach()) == scale.get()


def test_a_small_step_does_not_double_a_power_of_two() -> None:
    scale = Scale(learned=True, power_of_two=True)
    scale.set(0.25)
    with torch.no_grad():
        for step in (0.01, -0.02, 0.3):
            scale.value.add_(step)
            assert scale.get() == 0.25
        scale.value.add_(0.5)
    assert scale.get() == 0.5


@given(st.integers(1, 10**6), st.integers(1, 255))
def test_the_gradient_of_a_scale_is_scaled_down_by_what_shares_it(values: int, largest: int) -> None:
    scale = Scale(learned=True)
    scale.set(0.5, values, largest)
    (got,) = torch.autograd.grad(scale(), scale.value)
    assert float(got) == pytest.approx(1 / math.sqrt(values * largest), rel=1e-5)


def test_a_learned_scale_stays_positive() -> None:
    scale = Scale(learned=True)
    with torch.no_grad():
        scale.value.fill_(-3.0)
    assert scale.get() == SMALLEST
    power = Scale(learned=True, power_of_two=True)
    with torch.no_grad():
        power.value.fill_(-60.0)
    assert power.get() == 2.0**-60


def test_frozen_scales_keep_their_value_and_learn_no_more() -> None:
    for power_of_two in (False, True):
        scale = Scale(learned=True, power_of_two=power_of_two)
        scale.set(0.5)
        assert len(list(scale.parameters())) == 1
        scale.freeze()
        assert list(scale.parameters()) == []
        assert scale.get() == 0.5
        scale.freeze()
        scale.set(0.25)
        assert scale.get() == 0.25


@pytest.mark.parametrize("qrange", [SIGNS, INT4, QRange.model_validate("ternary")], ids=str)
def test_integers_belong_to_the_range_and_pass_gradients_near_it(qrange: QRange) -> None:
    ratio = torch.tensor([-30.0, -0.6, -0.2, 0.0, 0.4, 0.9, 30.0], requires_grad=True)
    integers = integers_of(ratio, qrange)
    assert set(integers.tolist()) <= set(qrange.integers)
    assert torch.equal(integers_of(ratio.detach(), qrange), integers.detach())
    integers.sum().backward()
    assert ratio.grad.tolist() == [0, 1, 1, 1, 1, 1, 0]


class Doubled(Function):
    """Straight-through with twice the gradient, also of the scale."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, lo: int, hi: int) -> Tensor:
        ctx.shape = scale.shape
        return torch.floor(x / scale + 0.5).clamp_(lo, hi) * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return 2 * grads[0], grads[0].sum_to_size(ctx.shape), None, None


@pytest.fixture
def register() -> Iterator[Callable[..., None]]:
    """Registers functions; they are forgotten after the test."""
    functions, names = dict(registry._FUNCTIONS), set(registered_functions)
    yield register_quantiser
    registry._FUNCTIONS.clear()
    registry._FUNCTIONS.update(functions)
    registered_functions.clear()
    registered_functions.update(names)


def test_ones_own_function_is_called_by_quantisers_of_weights_and_activations(register: Callable[..., None]) -> None:
    register("doubled", Doubled)
    spec = QuantiserSpec(range=INT4, function="doubled")
    x = torch.tensor([0.3, -70.0], requires_grad=True)
    for quantiser in (WeightQuantiser(spec), FakeQuantiser(spec, INT4)):
        quantiser.scale.set(0.5)
        assert not quantiser.scale.learned
        y = quantiser.quantise(x)
        assert y.tolist() == [0.5, -4.0]
        (got,) = torch.autograd.grad(y.sum(), x)
        assert got.tolist() == [2, 2]


def test_ones_own_function_may_learn_its_scale(register: Callable[..., None]) -> None:
    register("doubled", Doubled, learns_scale=True, power_of_two=True)
    quantiser = WeightQuantiser(QuantiserSpec(range=INT4, function="doubled"))
    assert (quantiser.scale.learned, quantiser.scale.power_of_two) == (True, True)
    quantiser.calibrate(torch.tensor([0.3, -0.7]))
    quantiser(torch.tensor([0.3, -0.7])).sum().backward()
    assert float(quantiser.scale.value.grad) != 0


def test_a_function_may_be_registered_anew(register: Callable[..., None]) -> None:
    register("doubled", Doubled)
    register("doubled", StraightThrough, learns_scale=True)
    assert quantiser_function("doubled").function is StraightThrough
    assert quantiser_function("doubled").learns_scale


@pytest.mark.parametrize("name", BUILT_IN_FUNCTIONS)
def test_built_in_functions_stay(name: str, register: Callable[..., None]) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is built in; choose another name than ste, pact"):
        register(name, Doubled)


def test_unregistered_functions_are_refused() -> None:
    with pytest.raises(ValidationError, match="function 'doubled' is not known"):
        QuantiserSpec(function="doubled")
    with pytest.raises(ValueError, match="no quantiser function 'doubled'; known are ste, pact, tqt, ternary, binary"):
        quantiser_function("doubled")


EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_quantiser.py"


def test_the_example_of_ones_own_quantiser_runs(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    register: Callable[..., None],
) -> None:
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    spec = importlib.util.spec_from_file_location("own_quantiser", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(tmp_path)
    assert "hardware_exact" in capsys.readouterr().out
    assert (tmp_path / "bundle" / "htvm" / "model.onnx").is_file()


def layer_of(spec: dict[str, Any]) -> FakeLinear:
    layer = nn.Linear(6, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)))
        layer.bias.zero_()
    fake = fake_linear_op(layer, WeightQuantiser(QuantiserSpec.model_validate(spec)))
    assert isinstance(fake, FakeLinear)
    fake.quantiser.calibrate(fake.weight)
    return fake


LEARNED = [
    {"range": "ternary", "function": "ternary", "granularity": "per-outchannel_weights"},
    {"range": "binary", "function": "binary", "granularity": "per-outchannel_weights"},
    {"range": {"bitwidth": 3, "signed": True}, "function": "tqt", "granularity": "per-outchannel_weights"},
    {"range": {"bitwidth": 3, "signed": True}, "function": "tqt"},
]


@pytest.mark.parametrize("spec", LEARNED, ids=lambda s: f"{s['function']}-{s.get('granularity', 'per-array')}")
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_learned_scales_train_and_do_not_decay(spec: dict[str, Any], optimiser: str) -> None:
    layer = layer_of(spec)
    settings = Training(optimiser=optimiser, learning_rate=0.05, momentum=0.0, weight_decay=0.1)
    steps = make_optimiser(layer, settings)
    decay = {id(p): group["weight_decay"] for group in steps.param_groups for p in group["params"]}
    assert decay == {id(layer.weight): 0.1, id(layer.bias): 0.0, id(layer.quantiser.scale.value): 0.0}
    before = layer.quantiser.scale.value.detach().clone()
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
    wanted = 3 * torch.nn.functional.linear(x, layer(torch.eye(6)).detach().t() - layer.bias.detach().unsqueeze(1))
    losses = []
    for _ in range(60):
        loss = (layer(x) - wanted).square().mean()
        losses.append(float(loss.detach()))
        steps.zero_grad()
        loss.backward()
        steps.step()
    assert losses[-1] < 0.7 * losses[0]
    assert not torch.equal(layer.quantiser.scale.value, before)
    assert bool((layer.quantiser.scale() > 0).all())


def test_pact_learns_the_bound_of_an_activation() -> None:
    quantiser = FakeQuantiser(QuantiserSpec(function="pact"), QRange(bitwidth=4, signed=False))
    quantiser.scale.set(0.1, 8, 15)
    steps = make_optimiser(quantiser, Training(learning_rate=2.0, momentum=0.0, weight_decay=0.5))
    x = torch.linspace(0, 4, 50)
    first = float((quantiser(x).detach() - x).square().mean())
    for _ in range(200):
        loss = (quantiser(x) - x).square().mean()
        steps.zero_grad()
        loss.backward()
        steps.step()
    assert float(loss.detach()) < 0.1 * first
    assert quantiser.scale.get() * 15 > 3
