"""How much of each layer's signal survives quantisation: the exact network beside one that does not round."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from dianaq_quant.graph.surgery import Interpreter, calls, module_of, output_node
from dianaq_quant.modules.exact import (
    ExactAdd,
    ExactAnalogConv2d,
    ExactConv2d,
    ExactGlobalAvgPool2d,
    ExactInput,
    ExactLinear,
    ExactOutput,
)
from dianaq_quant.modules.fake import FakeAnalogConv2d, set_mode
from dianaq_quant.modules.quantiser import FakeQuantiser
from dianaq_quant.modules.structure import Flatten
from dianaq_quant.targets.diana import ADC
from dianaq_quant.training.data import Normalisation, Split, batches
from dianaq_quant.training.decibels import decibels

SAMPLES = 64
"""Samples that a figure is taken from. Each has thousands of values per layer: the figure is settled to a tenth of a
decibel or so."""

BATCH = 8
"""Samples at a time: all values of the unrounded network are in memory, some 2 MB for a sample of 96 x 96."""

FOLDED = (
    "the folded float network: real weights and activations; analog layers have their ternary weights, and converters "
    "that saturate but do not round"
)
UNROUNDED = (
    "the network itself without rounding: its trained weights before they are rounded (analog ones ternary), "
    "activations and converters that saturate but do not round"
)


@dataclass(frozen=True)
class Fidelity:
    """Signal to quantisation noise per layer's output, in dB, over a number of samples; beside which network.

    `"input"` is the quantised input. None where a layer gives nothing but zeros.
    """

    samples: int
    reference: str
    decibels: dict[str, float | None]


def fidelity(
    exact: fx.GraphModule, split: Split, normalise: Normalisation, reference: fx.GraphModule | None = None
) -> Fidelity:
    """`10 log10(sum y^2 / sum (y - s y_int)^2)` of every layer's output, all samples and channels together.

    Errors of the layers before are in it, as they are on the chip.

    Args:
        exact: the hardware-exact network.
        reference: the folded network that it was made from, equalised as it is; node names agree. None where there
            is none, or where the exact network was trained since: then it is run without rounding.
    """
    unrounded = _Unrounded(exact if reference is None else reference)
    rounded = _Rounded(exact)
    modes = (exact.training, None if reference is None else reference.training)
    exact.eval()
    if reference is not None:
        reference.eval()
        set_mode(reference, "bypass")
    split = split.take(SAMPLES)
    with torch.no_grad():
        for raw, _ in batches(split, BATCH):
            x = normalise(raw)
            unrounded.run(x)
            rounded.wanted = unrounded.values
            rounded.run(x)
    exact.train(modes[0])
    if reference is not None:
        set_mode(reference, "quantise")
        reference.train(bool(modes[1]))
    found = {n: round(decibels(signal, noise), 2) if signal else None for n, (signal, noise) in rounded.sums.items()}
    return Fidelity(len(split), UNROUNDED if reference is None else FOLDED, found)


class _Unrounded(Interpreter):
    """Runs a folded or an exact network in real numbers, and keeps what each operation gives by the node's name.

    Of a folded network, a quantiser's value is that of the operation before it, whose place the exact one takes.
    """

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network)
        self.values: dict[str, Tensor] = {}
        self.names = {node: node.name for node, _ in calls(network, torch.nn.Module)}
        for node, _ in calls(network, FakeQuantiser):
            source = node.args[0]
            assert isinstance(source, fx.Node)
            if source.op == "call_module":
                self.names[node] = source.name

    def run_node(self, n: fx.Node) -> Tensor:
        module = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        args = [self.env[a] for a in n.args if isinstance(a, fx.Node)] if n.op == "call_module" else []
        value: Tensor
        if isinstance(module, FakeAnalogConv2d):
            value = _analog(module, args[0])
        elif isinstance(module, ExactInput | ExactOutput):
            value = args[0]
        elif module is not None and reads_input(n) and not isinstance(module, FakeQuantiser):
            # An entrance of another kind: what it gives is what the network is fed.
            value = super(Interpreter, self).run_node(n) * scale_of_entrance(module)
        elif isinstance(module, ExactConv2d | ExactLinear | ExactAnalogConv2d):
            value = _linear(module, args[0], _entrance(self.module, n))
        elif isinstance(module, ExactAdd):
            low, high = _bounds(module)
            value = (args[0] + args[1]).clamp(low, high)
        elif isinstance(module, ExactGlobalAvgPool2d):
            value = args[0].mean((2, 3), keepdim=True)
        else:
            value = super(Interpreter, self).run_node(n)
        self.see(n, value)
        return value

    def see(self, node: fx.Node, value: Tensor) -> None:
        if node in self.names:
            self.values[self.names[node]] = value


def _analog(layer: FakeAnalogConv2d, x: Tensor) -> Tensor:
    """A mapped analog layer, its converter saturating only."""
    step = layer.step() if layer.slope is None else layer.step() * layer.slope
    converted = layer.tiles.collect(layer.conversions(x).clamp(ADC.lo, ADC.hi + 1)) * step.reshape(1, -1, 1, 1)
    return converted if layer.bias is None else converted + layer.bias.reshape(1, -1, 1, 1)


def _linear(layer: ExactConv2d | ExactLinear | ExactAnalogConv2d, x: Tensor, half_step: float) -> Tensor:
    """An exact layer in real numbers, saturating only.

    Args:
        half_step: half a step of the network's input where the layer reads it, else 0: the exact layer's bias makes
            up for the floor at the entrance, of which there is none here.
    """
    low, high = _bounds(layer)
    if not isinstance(layer, ExactAnalogConv2d):
        bias = layer.bias - half_step * layer.weight.flatten(1).sum(1)
        return layer.linear(x, layer.weight, bias).clamp(low, high)
    weight, gain, tiles = layer.integer_weight(), layer.adc.gain, layer.tiles
    v = tiles.multiply(x, weight / (layer.requantise.in_scale * gain), layer.geometry)
    # An integer of the converter stands for the middle of its bin, which `bias` makes up for.
    a = tiles.collect(v.clamp(ADC.lo, ADC.hi + 1)) - tiles.count / 2
    shift = half_step / layer.requantise.in_scale / gain * weight.flatten(1).sum(1)
    bias = layer.bias - layer.step * shift
    return (a * layer.step.reshape(1, -1, 1, 1) + bias.reshape(1, -1, 1, 1)).clamp(low, high)


def _bounds(layer: ExactConv2d | ExactLinear | ExactAnalogConv2d | ExactAdd) -> tuple[float, float]:
    requantise = layer.requantise
    return requantise.qrange.lo * requantise.out_scale, requantise.qrange.hi * requantise.out_scale


def _entrance(network: torch.nn.Module, node: fx.Node) -> float:
    """Half a step of the network's input if a layer reads it, else 0."""
    assert isinstance(network, fx.GraphModule)
    source = node.args[0]
    while isinstance(source, fx.Node):
        module = module_of(network, source)
        if isinstance(module, ExactInput):
            return module.scale / 2
        if not isinstance(module, Flatten):
            break
        source = source.args[0]
    return 0.0


def reads_input(node: fx.Node) -> bool:
    """Whether a node is the network's entrance."""
    source = node.args[0] if node.args else None
    return isinstance(source, fx.Node) and source.op == "placeholder"


def scale_of_entrance(module: torch.nn.Module) -> float:
    """Real value of a step of the network's input."""
    scale = module.scale
    assert isinstance(scale, float)
    return scale


class _Rounded(Interpreter):
    """Runs the exact network and sums signal and noise of each layer, beside the values that were wanted of it."""

    def __init__(self, exact: fx.GraphModule) -> None:
        super().__init__(exact)
        self.wanted: dict[str, Tensor] = {}
        self.sums: dict[str, tuple[float, float]] = {}
        self.scales: dict[fx.Node, float] = {}
        self.sink = output_node(exact)

    def see(self, node: fx.Node, value: Tensor) -> None:
        module = self.fetch_attr(str(node.target)) if node.op == "call_module" else None
        if module is None or node is self.sink:
            return
        real = value * self._scale(node, module)
        if isinstance(module, ExactInput):
            real = real + module.scale / 2  # an integer of the input stands for the middle of its bin
        wanted = self.wanted.pop(node.name)
        name = "input" if reads_input(node) else str(node.target)
        signal, noise = self.sums.get(name, (0.0, 0.0))
        signal += float(wanted.double().square().sum())
        self.sums[name] = signal, noise + float((wanted.double() - real).square().sum())

    def _scale(self, node: fx.Node, module: torch.nn.Module) -> float:
        """The scale of a node's value: its own, or that of what it passes on."""
        if reads_input(node):
            scale = scale_of_entrance(module)
        elif isinstance(module, ExactConv2d | ExactLinear | ExactAnalogConv2d | ExactAdd):
            scale = module.requantise.out_scale
        else:
            source = node.args[0]
            assert isinstance(source, fx.Node)
            scale = self.scales[source]
        self.scales[node] = scale
        return scale
