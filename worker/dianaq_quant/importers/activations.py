"""Handlers of the ONNX operators that are activations which no core computes.

They become the modules of `modules.activations`, which the job's `substitute` replaces after the import.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from dianaq.inspection.elementwise import Written
from dianaq.inspection.operators import ACTIVATION_OPERATORS
from dianaq.schemas.substitution import Activation
from dianaq_quant.importers.step import Importer, Step
from dianaq_quant.modules.activations import SlopedReLU, activation

_DEFAULTS: Mapping[str, Mapping[str, float]] = {
    "LeakyRelu": {"alpha": 0.01},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
}
"""ONNX's defaults where they are not those of `activation`."""

_SELU = {"alpha": 1.6732632423543772, "gamma": 1.0507009873554805}
"""The constants of Klambauer et al., 2017, which are ONNX's defaults."""


def prelu(importer: Importer, step: Step) -> None:
    """PRelu: the slope must be a constant."""
    if importer.constant(step.node.input[1]) is None:
        raise step.refuse("its slope must be a constant")
    importer.call(step, SlopedReLU(importer.tensor(step.node.input[1])))


def _plain(kind: Activation) -> Callable[[Importer, Step], None]:
    def handler(importer: Importer, step: Step) -> None:
        given = dict(_DEFAULTS.get(step.node.op_type, {}))
        for name, value in step.attributes.items():
            if name in _SELU and kind == "selu":
                if not math.isclose(value, _SELU[name], rel_tol=1e-4):
                    raise step.refuse(f"{name} = {value}; supported is {_SELU[name]}, which makes it SELU")
            elif name == "approximate":
                given[name] = value == b"tanh"
            elif step.node.op_type == "Swish":
                given["beta"] = value  # which ONNX calls alpha
            else:
                given[name] = value
        if kind == "hardsigmoid" and math.isclose(given["alpha"], 1 / 6, rel_tol=1e-6):
            given["alpha"] = 1 / 6  # float32 of torch's own
        importer.call(step, activation(kind, given))

    return handler


def written(importer: Importer, step: Step, found: Written) -> None:
    """An activation that several nodes write out, of which `step` is the last."""
    importer.call(step, activation(found.kind, found.parameters), found.reads)


ACTIVATIONS: dict[str, Callable[[Importer, Step], None]] = {
    operator: prelu if kind == "prelu" else _plain(kind) for operator, kind in ACTIVATION_OPERATORS.items()
}
"""By operator."""
