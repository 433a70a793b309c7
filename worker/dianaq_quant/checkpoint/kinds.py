"""The classes of modules that networks are made of, and how the configuration of each is written down.

Parameters, buffers and children are not its business: see `records`. The modules of the integer network have no place
here, because no iteration ends with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from dianaq.errors import InvalidModel, QuantisationError
from dianaq.schemas.quantisers import QuantiserSpec
from dianaq.schemas.ranges import QRange
from dianaq_quant.modules.activations import HardSigmoid, SlopedReLU, Swish
from dianaq_quant.modules.adc import Adc, RowTiles
from dianaq_quant.modules.exact import (
    ExactAdd,
    ExactAnalogConv2d,
    ExactConv2d,
    ExactGlobalAvgPool2d,
    ExactInput,
    ExactLinear,
    ExactOutput,
    Requantisation,
)
from dianaq_quant.modules.fake import FakeAnalogConv2d, FakeConv2d, FakeLinear
from dianaq_quant.modules.pixels import PixelGrid, PixelInput, PixelQuantiser
from dianaq_quant.modules.quantiser import FakeQuantiser, Scale, WeightQuantiser
from dianaq_quant.modules.structure import (
    Add,
    AvgPool2d,
    Ceiling,
    Conv2d,
    Flatten,
    Geometry,
    GlobalAvgPool2d,
    MaxPool2d,
)
from dianaq_quant.quantisers import quantiser_function

Put = Callable[[Tensor], int]
"""Writes a tensor down and gives its number."""


@dataclass(frozen=True)
class Kind:
    """How a class of modules is made.

    Args:
        arguments: attributes that its constructor takes under their names; None where it is made without a constructor
            (one that wants another module, say).
        attributes: attributes that are set afterwards.
        on_meta: whether the constructor would make tensors at length, and takes a device to leave that out.
    """

    arguments: tuple[str, ...] | None = ()
    attributes: tuple[str, ...] = ()
    on_meta: bool = False


_CONV = ("in_channels", "out_channels", "kernel_size", "stride", "dilation", "groups", "pads")
_POOL = ("kernel", "stride", "pads")
_LINEAR = ("in_features", "out_features")
_NORM = Kind(("num_features", "eps", "momentum", "affine", "track_running_stats"), on_meta=True)

_KINDS: dict[type[nn.Module], Kind] = {
    nn.Module: Kind(),  # what holds the modules of nested names
    # Float networks.
    Conv2d: Kind(_CONV, on_meta=True),
    nn.Linear: Kind(_LINEAR, on_meta=True),
    nn.BatchNorm1d: _NORM,
    nn.BatchNorm2d: _NORM,
    nn.ReLU: Kind(("inplace",)),
    # Of the network before its activations were substituted, which teaches the others.
    nn.LeakyReLU: Kind(("negative_slope", "inplace")),
    nn.PReLU: Kind(("num_parameters",)),
    SlopedReLU: Kind(None),
    **dict.fromkeys((nn.Hardswish, nn.SiLU, nn.Mish, nn.SELU, nn.Hardsigmoid), Kind()),
    **dict.fromkeys((nn.Sigmoid, nn.Tanh), Kind()),
    **dict.fromkeys((nn.ELU, nn.CELU), Kind(("alpha",))),
    nn.GELU: Kind(("approximate",)),
    nn.Softplus: Kind(("beta", "threshold")),
    HardSigmoid: Kind(("alpha", "beta")),
    Swish: Kind(("beta",)),
    Ceiling: Kind(None, ("min_val", "max_val", "inplace")),
    MaxPool2d: Kind(_POOL),
    AvgPool2d: Kind(_POOL),
    GlobalAvgPool2d: Kind(),
    Add: Kind(),
    Flatten: Kind(),
    # Fake-quantised networks, mapped to the cores or not.
    Scale: Kind(("learned", "power_of_two"), ("gradient_factor",)),
    FakeQuantiser: Kind(("spec", "qrange", "ceiling"), ("values_per_sample", "mode")),
    PixelQuantiser: Kind(("spec", "grid"), ("values_per_sample", "mode")),
    WeightQuantiser: Kind(("spec",), ("qrange",)),
    FakeConv2d: Kind(_CONV, ("mode",), on_meta=True),
    FakeLinear: Kind(_LINEAR, ("mode",), on_meta=True),
    Adc: Kind(),
    FakeAnalogConv2d: Kind(_CONV, ("mode", "tiles", "slope"), on_meta=True),
    # Exact networks.
    ExactInput: Kind(("scale", "qrange")),
    PixelInput: Kind(("grid",)),
    ExactOutput: Kind(("scale",)),
    ExactConv2d: Kind(None, ("weight_range", "requantise", "geometry")),
    ExactLinear: Kind(None, ("weight_range", "requantise")),
    ExactAnalogConv2d: Kind(None, ("tiles", "geometry", "requantise", "bits")),
    ExactAdd: Kind(("requantise",)),
    ExactGlobalAvgPool2d: Kind(("qrange",)),
}

_NAMES = {kind.__name__: kind for kind in _KINDS}


def register_module(
    kind: type[nn.Module], *, arguments: tuple[str, ...] | None = (), attributes: tuple[str, ...] = ()
) -> None:
    """Let checkpoints of this process hold a module class of one's own; see `Kind` for the arguments.

    Raises:
        ValueError: another class of that name is known.
    """
    if _NAMES.setdefault(kind.__name__, kind) is not kind:
        raise ValueError(f"a module class {kind.__name__!r} is known already; choose another name")
    _KINDS[kind] = Kind(arguments, attributes)


def describe(module: nn.Module, put: Put) -> dict[str, Any]:
    """A module's class and configuration as JSON data.

    Raises:
        QuantisationError: the module's class is not in the table.
    """
    cls = type(module)
    if cls not in _KINDS:
        raise QuantisationError(
            f"a checkpoint cannot hold modules of class {cls.__name__!r}; register one of your own with register_module"
        )
    kind = _KINDS[cls]
    names = (*(kind.arguments or ()), *kind.attributes)
    return {"class": cls.__name__, "config": {name: _encode(getattr(module, name), put) for name in names}}


def build(record: Mapping[str, Any], tensors: Sequence[Tensor]) -> nn.Module:
    """The module that `describe` has described, without tensors and children of its own.

    Raises:
        InvalidModel: its class, or a quantiser's function, is not known to this process.
    """
    if record["class"] not in _NAMES:
        raise InvalidModel(
            f"the checkpoint holds a module of class {record['class']!r}, which is not known; if it is your own, "
            "register it first with register_module"
        )
    cls = _NAMES[record["class"]]
    kind = _KINDS[cls]
    values = {name: _decode(value, tensors) for name, value in record["config"].items()}
    if kind.arguments is None:
        module = cls.__new__(cls)
        nn.Module.__init__(module)
    else:
        device = {"device": "meta"} if kind.on_meta else {}
        module = cls(**{name: values[name] for name in kind.arguments}, **device)
    for name in kind.attributes:
        setattr(module, name, values[name])
    return module


def _encode(value: Any, put: Put) -> Any:
    """A configured value as JSON data: a number or word as it is, a tuple as a list, the rest by its type's name."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return [_encode(item, put) for item in value]
    if isinstance(value, Tensor):
        return {"tensor": put(value)}
    if isinstance(value, QRange):
        return {"range": value.model_dump(mode="json", exclude_none=True)}
    if isinstance(value, QuantiserSpec):
        return {"quantiser": value.model_dump(mode="json", exclude_none=True)}
    if isinstance(value, Geometry):
        return {"geometry": asdict(value)}
    if isinstance(value, PixelGrid):
        return {"pixels": {name: _encode(item, put) for name, item in asdict(value).items()}}
    if isinstance(value, RowTiles):
        return {"row_tiles": asdict(value)}
    if isinstance(value, Requantisation):
        fields = {"in_scale": value.in_scale, "out_scale": value.out_scale, "shift": value.shift}
        return {"requantisation": {**fields, "qrange": _encode(value.qrange, put)}}
    raise QuantisationError(f"a checkpoint cannot hold values of class {type(value).__name__!r}")


def _decode(data: Any, tensors: Sequence[Tensor]) -> Any:
    """The value that `_encode` was given."""
    if isinstance(data, list):
        return tuple(_decode(item, tensors) for item in data)
    if not isinstance(data, dict):
        return data
    ((form, value),) = data.items()
    if form == "tensor":
        return tensors[value]
    if form == "range":
        return QRange.model_validate(value)
    if form == "quantiser":
        try:
            quantiser_function(value["function"])
        except ValueError as error:
            raise InvalidModel(
                f"{error}; if it is one of your own, register it first with register_quantiser"
            ) from None
        return QuantiserSpec.model_validate(value)
    plain = {name: _decode(item, tensors) for name, item in value.items()}
    return {"geometry": Geometry, "pixels": PixelGrid, "row_tiles": RowTiles, "requantisation": Requantisation}[form](
        **plain
    )
