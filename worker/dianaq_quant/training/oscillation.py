"""Weights that jump to and fro between two integers, and what is done about them.

A weight whose best value lies between two integers is pushed towards the other one wherever it is, and never settles:
which of the two the network is left with is chance. It matters where integers are few, because each jump is a large
part of the range (Nagel et al., 2022, "Overcoming Oscillations in Quantization-Aware Training").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dianaq.schemas.ranges import QRange
from dianaq.schemas.recipe import Oscillations as Handling
from dianaq_quant.modules.exact import ExactAnalogConv2d, ExactConv2d, ExactLinear
from dianaq_quant.modules.fake import FakeAnalogConv2d, FakeConv2d, FakeLinear

FEW_LEVELS = 16
"""Weights of at most so many integers are looked after: 4 bits. A jump of one of 256 does no harm."""

MEMORY = 0.01
"""Weight of a step in the moving averages of frequencies and integers: they look back on about 100 steps."""

FREEZE_ABOVE = 0.04, 0.01
"""Oscillations per step above which a weight is frozen, at the beginning and at the end of a training, on a half
cosine: early only weights that jump back every 25 steps, so that others can still find their place; at the end those
that did so twice in the last 100."""

DAMPING = 0.1
"""The largest factor of the damping term, reached at the end on a half cosine from zero. At the edge of a bin of 0.1 (a
usual step of ternary weights) its gradient is then 0.01, as large as those of the loss or larger; at half of the
training it is still small enough for weights to change sides."""


@dataclass(frozen=True)
class _Layer:
    """A layer whose weights have few integers: `weight` is near `integers() * scale()`."""

    weight: Tensor
    qrange: QRange
    integers: Callable[[], Tensor]
    scale: Callable[[], Tensor]


class Oscillations:
    """Follows the weights of few integers through a training, and damps or freezes those that oscillate.

    All these weights are one vector here: a step takes some ten operations on it, and a few per layer.

    Args:
        network: its layers must have the ranges that they are trained with.
        handling: the recipe's.
        average: the network of the weights' moving average, if there is one.

    Attributes:
        weights: how many are looked after; 0 where the network has no such layer, or nothing is to be done.
    """

    def __init__(self, network: nn.Module, handling: Handling, average: nn.Module | None = None) -> None:
        self._layers = _layers(network) if handling != "none" else []
        self._averaged = _layers(average) if average is not None and handling == "freeze" else []
        self._sizes = [layer.weight.numel() for layer in self._layers]
        self.weights = sum(self._sizes)
        self._damps, self._freezes = (bool(self._layers) and handling == word for word in ("damp", "freeze"))
        self._state: dict[str, Tensor] = {}
        if self._freezes:
            now = self._integers()
            self._lo, self._hi, self._step = (self._spread(name) for name in ("lo", "hi", "step"))
            self._state = {
                "former": now,  # the integers of the last step
                "direction": torch.zeros_like(now),  # of each one's last change
                "frequency": torch.zeros_like(now),  # of oscillations per step
                "mean": now.clone(),
                "frozen": torch.zeros_like(now, dtype=torch.bool),
                "kept": now.clone(),  # the integers that frozen weights stay at
            }

    @property
    def frozen(self) -> float | None:
        """The part of the weights that is frozen; None where none are to be."""
        return float(self._state["frozen"].double().mean()) if self._freezes else None

    @torch.no_grad()
    def damp(self, progress: float) -> None:
        """Pull weights to the middle of their bins, by what the damping term adds to their gradients.

        The term is `L |clip(w, s lo, s hi) - s q|^2` with `s q` held fixed; its gradient, twice the difference, is
        added without the detour of a loss. Nothing is done unless the handling is `damp`.

        Args:
            progress: the part of the training that is done, 0..1.
        """
        if not self._damps:
            return
        factor = DAMPING * _half_cosine(progress)
        for layer in self._layers:
            if layer.weight.grad is not None:
                scale = layer.scale()
                clipped = layer.weight.clamp(layer.qrange.lo * scale, layer.qrange.hi * scale)
                layer.weight.grad.add_(clipped - layer.integers() * scale, alpha=2 * factor)

    @torch.no_grad()
    def freeze(self, progress: float) -> None:
        """After a step, freeze the weights that oscillate too often, and put those back that are frozen already.

        A weight oscillates when its integer changes against the direction of its last change. It is frozen at the
        integer nearest to the moving average of its integers: where it has been most. Nothing is done unless the
        handling is `freeze`.

        Args:
            progress: the part of the training that is done, 0..1.
        """
        if not self._freezes:
            return
        state, now = self._state, self._integers()
        change = torch.sign(now - state["former"])
        oscillates = change * state["direction"] < 0
        state["frequency"].lerp_(oscillates.to(now.dtype), MEMORY)
        state["mean"].lerp_(now, MEMORY)
        state["direction"] = torch.where(change == 0, state["direction"], change)
        first, last = FREEZE_ABOVE
        newly = (state["frequency"] > first + (last - first) * _half_cosine(progress)) & ~state["frozen"]
        nearest = torch.floor((state["mean"] - self._lo) / self._step + 0.5) * self._step + self._lo
        state["kept"] = torch.where(newly, nearest.clamp(self._lo, self._hi), state["kept"])
        state["frozen"] = state["frozen"] | newly
        state["former"] = torch.where(state["frozen"], state["kept"], now)
        self._put_back(self._layers)

    @torch.no_grad()
    def freeze_average(self) -> None:
        """After the moving average was updated: its frozen weights, too, are at the integers where those stay."""
        if self._averaged:
            self._put_back(self._averaged)

    def state(self) -> dict[str, Tensor]:
        """What a training that goes on later has to know."""
        return dict(self._state)

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up what `state` gave."""
        self._state = {name: state[name].to(now.device) for name, now in self._state.items()}

    def _put_back(self, layers: list[_Layer]) -> None:
        """Set frozen weights to their integers."""
        frozen_parts, kept_parts = (torch.split(self._state[name], self._sizes) for name in ("frozen", "kept"))
        for layer, frozen, kept in zip(layers, frozen_parts, kept_parts, strict=True):
            shape = layer.weight.shape
            layer.weight.copy_(torch.where(frozen.view(shape), kept.view(shape) * layer.scale(), layer.weight))

    def _integers(self) -> Tensor:
        """The integers of all weights; (weights,)."""
        with torch.no_grad():
            return torch.cat([layer.integers().flatten() for layer in self._layers])

    def _spread(self, name: str) -> Tensor:
        """A number of each layer's range, for each of its weights; (weights,)."""
        return torch.cat(
            [layer.weight.new_full((layer.weight.numel(),), getattr(layer.qrange, name)) for layer in self._layers]
        )


def _half_cosine(progress: float) -> float:
    """From 0 to 1, slowly at both ends."""
    return 0.5 * (1 - math.cos(math.pi * progress))


def _layers(network: nn.Module) -> list[_Layer]:
    found: dict[int, _Layer] = {}
    for module in network.modules():
        if isinstance(module, FakeAnalogConv2d | ExactAnalogConv2d) or (
            isinstance(module, FakeConv2d | FakeLinear) and module.mode == "quantise"
        ):
            layer = _fake(module)
        elif isinstance(module, ExactConv2d | ExactLinear):
            layer = _exact(module)
        else:
            continue
        if layer.qrange.levels <= FEW_LEVELS:
            found[id(layer.weight)] = layer
    return list(found.values())


def _fake(module: FakeConv2d | FakeLinear | FakeAnalogConv2d | ExactAnalogConv2d) -> _Layer:
    weight, quantiser = module.weight, module.quantiser
    return _Layer(weight, quantiser.qrange, lambda: quantiser.integers(weight), lambda: quantiser.scale())


def _exact(module: ExactConv2d | ExactLinear) -> _Layer:
    scale = module.weight.new_tensor(module.requantise.weight_scale)
    return _Layer(module.weight, module.weight_range, module.integer_weight, lambda: scale)
