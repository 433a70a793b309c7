"""Quantisers as modules: their scale, and what they do to a tensor in each mode."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from dianaq.schemas.quantisers import QuantiserSpec
from dianaq.schemas.ranges import QRange
from dianaq_quant.quantisers import Observer, Seen, choose_offset, choose_scales, integers_of, quantiser_function
from dianaq_quant.quantisers.scales import binary_scale, ternary_scale

Mode = Literal["observe", "bypass", "quantise"]

SMALLEST = 2.0**-64
"""A learned scale stays positive: far below every scale in use, far above where its reciprocal overflows."""


EXPONENT_ERROR = 1e-5
"""What float32 may add to the logarithm of a power of two between 2^-64 and 2^64: 2^-18 of it, some 4e-6."""


class Scale(nn.Module):
    """A positive scale, learned or not. Quantisers that the hardware forces to one scale share one of these.

    Args:
        learned: whether it is a parameter.
        power_of_two: whether it is `2^ceil(t)` of a stored t, with `ds/dt = s ln 2` (Jain et al., 2020). It is set in
            the middle of the ts that give it, so that neither a first step nor a rounding error doubles it.
    """

    def __init__(self, *, learned: bool = False, power_of_two: bool = False) -> None:
        super().__init__()
        self.learned, self.power_of_two = learned, power_of_two
        self.gradient_factor = 1.0
        """`1 / sqrt(values * largest integer)`: makes the relative step of a learned scale comparable to that of what
        it quantises (Esser et al., 2020, section 2.2)."""
        self.value: Tensor
        self._store(torch.zeros(()) if power_of_two else torch.ones(()))

    def _store(self, value: Tensor) -> None:
        if self.learned:
            self.value = nn.Parameter(value)
        else:
            self.register_buffer("value", value)

    @property
    def base(self) -> float | None:
        """What `choose_scales` is to make a scale of by powers of two; None where any will do."""
        return 1.0 if self.power_of_two else None

    def set(self, scale: Tensor | float, values: int = 1, largest: int = 1) -> None:
        """Set the scale, in units of the tensor it quantises.

        Args:
            scale: a number, or a tensor that broadcasts over what it quantises.
            values: values that share the scale (of one sample, for activations).
            largest: the largest integer of the range.
        """
        real = torch.as_tensor(scale, dtype=torch.float32, device=self.value.device).clone()
        self._store(torch.ceil(torch.log2(real) - EXPONENT_ERROR) - 0.5 if self.power_of_two else real)
        self.gradient_factor = 1 / math.sqrt(max(1, values * largest))

    def rescale(self, factor: float) -> None:
        """Multiply the scale, whether learned or not."""
        if factor != 1.0:
            stored = self.value.detach()
            self._store(stored + math.log2(factor) if self.power_of_two else stored * factor)

    def freeze(self, scale: float | None = None) -> None:
        """Learn no longer, for all quantisers that share the scale; take any given value, power of two or not."""
        real = torch.full_like(self.value, scale) if scale is not None else self().detach().clone()
        del self.value
        self.learned = self.power_of_two = False
        self._store(real)

    def forward(self) -> Tensor:
        """The scale as a tensor, through which its parameter learns."""
        value = self.value
        if self.learned and torch.is_grad_enabled():
            value = value.detach() + (value - value.detach()) * self.gradient_factor
        if self.power_of_two:
            return torch.exp2(torch.ceil(value).detach() + (value - value.detach()))
        return value.clamp(min=SMALLEST) if self.learned else value

    def get(self) -> float:
        """The scale of a whole array as a Python number."""
        with torch.no_grad():
            return float(self())


class _Quantiser(nn.Module):
    """What quantisers of weights and of activations have in common."""

    def __init__(self, spec: QuantiserSpec, qrange: QRange, scale: Scale | None) -> None:
        super().__init__()
        self.spec, self.qrange = spec, qrange
        self.function = quantiser_function(spec.function)
        self.scale = scale or Scale(learned=self.function.learns_scale, power_of_two=self.function.power_of_two)

    def quantise(self, x: Tensor) -> Tensor:
        """`s * clip(floor(x/s + 1/2), lo, hi)`: the nearest representable value, same shape as `x`."""
        result: Tensor = self.function.function.apply(x, self.scale(), self.qrange.lo, self.qrange.hi)  # type: ignore[no-untyped-call]
        return result


class FakeQuantiser(_Quantiser):
    """Quantises an activation, per array; a range that starts at 0 is the ReLU as well.

    Args:
        spec: what the recipe says of it.
        qrange: integers of the quantised tensor; its offset may be free until it is calibrated.
        scale: its scale, possibly shared.
        ceiling: real value at which the activation saturates by its definition (6 for ReLU6).

    In mode `observe` it records the (activated) values and lets them pass; in `bypass` it lets them pass.
    """

    def __init__(
        self, spec: QuantiserSpec, qrange: QRange, scale: Scale | None = None, ceiling: float | None = None
    ) -> None:
        super().__init__(spec, qrange, scale)
        self.ceiling = ceiling
        self.observer = Observer()
        self.values_per_sample = 1
        self.mode: Mode = "quantise"

    @property
    def rectifies(self) -> bool:
        """Whether the quantiser is a ReLU too."""
        return not self.qrange.is_free and self.qrange.lo >= 0

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "quantise":
            return self.quantise(x)
        if self.rectifies:
            x = x.clamp(0, self.ceiling)
        if self.mode == "observe":
            self.observer.observe(x)
            self.values_per_sample = x[0].numel()
        return x

    def share(self, other: FakeQuantiser) -> None:
        """Have the scale of another quantiser from now on, and start and learn it as that one does."""
        self.scale, self.function = other.scale, other.function
        self.spec = self.spec.model_copy(update={"function": other.spec.function, "init": other.spec.init})

    def fix_offset(self) -> None:
        """Fix a free offset by what was observed."""
        if self.qrange.is_free:
            self.qrange = choose_offset(Seen.by(self.observer, self.qrange), self.spec.strategy)


class WeightQuantiser(_Quantiser):
    """Quantises a weight, with one scale per slice of the granularity."""

    def __init__(self, spec: QuantiserSpec) -> None:
        super().__init__(spec, spec.range, None)

    def forward(self, weight: Tensor) -> Tensor:
        return self.quantise(weight)

    def integers(self, weight: Tensor) -> Tensor:
        """The integers of the range nearest to `w / s`, with straight-through gradients, of the weight's shape."""
        return integers_of(weight / self.scale(), self.qrange)

    def calibrate(self, weight: Tensor) -> None:
        """Choose the scales (and a free offset) from the weight."""
        weight, dimensions = weight.detach(), self.spec.dimensions
        if self.spec.function == "ternary":
            scales = ternary_scale(weight, dimensions)
        elif self.spec.function == "binary":
            scales = binary_scale(weight, dimensions)
        else:
            if self.qrange.is_free:
                self.qrange = choose_offset(Seen.of(weight, self.qrange), self.spec.strategy)
            seen = [Seen.of(weight, self.qrange, dimensions)]
            scales = choose_scales(seen, self.spec.strategy, base=self.scale.base)
        shape = [weight.shape[d] if d in dimensions else 1 for d in range(weight.dim())] if dimensions else []
        self.scale.set(scales.reshape(shape), weight.numel() // len(scales), self.qrange.hi)
