"""Both ends of an exported network: what the firmware author must know of them, and what pixels ask of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx

from dianaq.errors import InvalidSpec
from dianaq.inspection.interface import Own
from dianaq_quant.editors.deploy import Dialect
from dianaq_quant.export.layers import IntegerNetwork, Layer
from dianaq_quant.graph.scales import linear_readers
from dianaq_quant.graph.surgery import core_of, input_node, layer_of, module_of
from dianaq_quant.modules.integer import Shift
from dianaq_quant.modules.pixels import ZERO, PixelGrid, PixelInput
from dianaq_quant.modules.structure import Conv2d
from dianaq_quant.targets.diana import ANALOG_INPUT, INT8
from dianaq_quant.training.data import Normalisation

FEWEST_STEPS = 4
"""Steps of the output that a label's standard deviation should have: rounding to them adds an error of a step over
the root of 12, which is half a percent of the variance then."""


def describe_interface(
    network: IntegerNetwork,
    normalise: Normalisation,
    deployed: Mapping[Dialect, IntegerNetwork],
    own: Own | None = None,
    given: Own | None = None,
) -> dict[str, Any]:
    """`interface` of the report: of either end its type, shape, layout, range, scale, and a formula in words.

    `htvm` and `dory` are the types of the values that either file takes or gives. `scale` and `offset` turn integers
    into the float network's numbers, `scale * q + offset`; where pixels are fed, they are per channel. `padding` says
    how many channels (or values) follow those of `shape` in either file: zeros at the input, at the output the least
    integer. `float_network` is there where the float network's own input or output is in another layout: its `shape`,
    without the batch, and the `axes` in whose order its dimensions make the values of `shape`, once reshaped.

    Args:
        normalise: what turns a stored sample into the float network's input.
        deployed: the network after the remedies for each compiler.
        own, given: the input and the output as the float network had them, where they are others.
    """
    ends = {"input": _input(network, normalise), "output": _output(network)}
    for name, former in (("input", own), ("output", given)):
        if former is not None:
            ends[name]["float_network"] = {"shape": list(former.shape), "axes": list(former.arrangement.axes)}
    for other, compiled in deployed.items():
        for name, shape in (("input", compiled.input_shape), ("output", compiled.layers[-1].shape)):
            ends[name].setdefault("padding", {})[other] = shape[0] - ends[name]["shape"][0]
    return ends


def _input(network: IntegerNetwork, normalise: Normalisation) -> dict[str, Any]:
    entrance, kind = network.entrance, network.interface.input
    lo, hi = entrance.qrange.lo, entrance.qrange.hi
    found: dict[str, Any] = {
        "kind": kind,
        "htvm": "float32" if kind == "float" else "int8",
        "dory": "int8",
        "shape": list(network.input_shape),
        "layout": "CHW" if len(network.input_shape) == 3 else "in their order",
        "range": [lo, hi],
    }
    if isinstance(entrance, PixelInput):
        return found | {
            "scale": list(entrance.grid.steps),
            "offset": list(entrance.grid.origins),
            "formula": f"q = pixel - {ZERO}",
        }
    factor, offset = (tensor.flatten().tolist() for tensor in (normalise.factor, normalise.offset))
    return found | {
        "scale": entrance.scale,
        "offset": entrance.scale / 2,  # the middle of the bin that is floored to q
        "formula": f"x = stored value * factor + bias, per channel; q = floor(x / scale), clipped to [{lo}, {hi}]",
        "factor": factor,
        "bias": offset,
    }


def _output(network: IntegerNetwork) -> dict[str, Any]:
    kind, qrange = network.interface.output, _shift_of(network).qrange
    return {
        "kind": kind,
        "htvm": "float32" if kind == "float" else "int8",
        "dory": "int8",
        "shape": list(network.layers[-1].shape),
        "range": [qrange.lo, qrange.hi],
        "scale": network.exit.scale,
        "offset": 0.0,
        "formula": "y = scale * q",
    }


def coarse_note(network: IntegerNetwork, std: Sequence[float]) -> str | None:
    """That the output's integers are too far apart for a regression's labels; None where they are not.

    Args:
        std: standard deviations of the labels, of each output or (of maps) each channel.
    """
    step = network.exit.scale
    coarse = [number for number, value in enumerate(std) if value < FEWEST_STEPS * step]
    if not coarse:
        return None
    named = ", ".join(map(str, coarse[:5])) + (f" and {len(coarse) - 5} more" if len(coarse) > 5 else "")
    return (
        f"one step of the output is {step:g}, and the labels of output{'s' * (len(coarse) > 1)} {named} have a "
        f"standard deviation of {min(std[number] for number in coarse):.4g}; all outputs share one scale, without an "
        "offset: train the float network on labels less their mean, each of a size with the others, and let the "
        "firmware turn them back"
    )


def _shift_of(network: IntegerNetwork) -> Shift:
    """The requantisation of the output's integers: the last layer's, or of what pools and reshapes made it from."""
    layers: dict[str, Layer] = {layer.name: layer for layer in network.layers}
    layer = network.layers[-1]
    while not isinstance(shift := getattr(layer.module, "shift", None), Shift):
        layer = layers[layer.inputs[0]]
    return shift


def check_pixels(network: fx.GraphModule) -> None:
    """Refuse pixels for a network whose cores are assigned, where the analog core reads them.

    Raises:
        InvalidSpec: names the layer.
    """
    for node in linear_readers(network, input_node(network)):
        if core_of(node) == "analog":
            raise InvalidSpec(
                f"interface.input is 'pixels', of 8 bits, but {layer_of(node)} reads the input on the analog core, "
                f"which takes [{ANALOG_INPUT.lo}, {ANALOG_INPUT.hi}] and not [{INT8.lo}, {INT8.hi}]; leave "
                "mapping.ends 'digital', or set interface.input to 'float' or 'int8'",
                param="interface.input",
            )


def border_note(network: fx.GraphModule, grid: PixelGrid) -> str | None:
    """What zero padding of pixels changes, where it is more than a pixel's step; None where it is not, or no layer
    that reads the input pads."""
    readers = list(linear_readers(network, input_node(network)))
    padded = [n for n in readers if isinstance(m := module_of(network, n), Conv2d) and any(m.pads)]
    if not padded or grid.padding_error <= 1:
        return None
    zeros = ", ".join(f"{zero:.4g}" for zero in grid.zeros)
    return (
        f"{', '.join(map(layer_of, padded))}: zero padding is pixel {ZERO} where pixels are fed, and pixel {zeros} in "
        f"the float network; the border differs by up to {grid.padding_error:.3g} pixel steps. What is trained and "
        "measured from fake_quantised on has the border that is deployed; with interface.input 'int8' or 'float' it is "
        "the float network's"
    )
