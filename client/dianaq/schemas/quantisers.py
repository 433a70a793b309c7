"""What a recipe says of a quantiser: its range, who shares a scale, how the scale starts, and how it is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from dianaq.schemas.ranges import QRange
from dianaq.schemas.strict import StrictModel

Core = Literal["digital", "analog"]
"""Where a linear layer runs."""

Granularity = Literal["per-array", "per-outchannel_weights"] | tuple[Annotated[int, Field(ge=0, le=3)], ...]
"""Which slices of a tensor share statistics and a scale: the whole array, a weight's output channels, or the slices
along the named dimensions (`(0,)` is per output channel; `(0, 1)` every kernel by itself)."""

BUILT_IN_FUNCTIONS = ("ste", "pact", "tqt", "ternary", "binary")
"""Straight-through with clipping; a learned upper bound (Choi et al., 2018); a learned power-of-two threshold (Jain et
al., 2020); ternary with a learned scale, started as in Li et al., 2016; binary (Rastegari et al., 2016)."""

registered_functions: set[str] = set()
"""Names that this process has registered besides (`dianaq_quant.register_quantiser`); a service never has any."""


class InitStrategy(StrictModel):
    """How a scale (and a free offset) follow from observed statistics. A bare name stands for its defaults.

    `const`: the interval [a, b]; `minmax`: the extremes; `meanstd`: mean +- `n_std` standard deviations;
    `percentile`: the interval that leaves out a share of (100 - `percentile`) % on each side; `mse`: the threshold with
    the least squared error (the power-of-two one where the scale must be a power of two).
    """

    strategy: Literal["const", "minmax", "meanstd", "mse", "percentile"]
    a: float | None = None
    b: float | None = None
    n_std: Annotated[float, Field(gt=0)] | None = None
    """Default 3."""
    percentile: Annotated[float, Field(gt=50, le=100)] | None = None
    """Default 99.99, the value in common use for 8-bit activations (e.g. Wu et al., 2020)."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, data: Any) -> Any:
        return {"strategy": data} if isinstance(data, str) else data

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        whole = handler.resolve_ref_schema(handler(schema))
        names: JsonSchemaValue = {"type": "string", "enum": ["minmax", "meanstd", "mse", "percentile"]}
        return {"anyOf": [whole, names]}

    @model_validator(mode="after")
    def _only_its_own(self) -> Self:
        owners = {"a": "const", "b": "const", "n_std": "meanstd", "percentile": "percentile"}
        for name, owner in owners.items():
            if getattr(self, name) is not None and self.strategy != owner:
                raise ValueError(f"{name} belongs to the strategy {owner!r}, not to {self.strategy!r}")
        if self.strategy == "const":
            if self.a is None or self.b is None:
                raise ValueError("the strategy 'const' needs both a and b, the ends of the interval")
            if not self.a < self.b or not self.a <= 0 <= self.b:
                raise ValueError(f"the interval of 'const' must hold 0, with a < b; got a {self.a} and b {self.b}")
        return self


MSE = InitStrategy(strategy="mse")


class QuantiserSpec(StrictModel):
    """One kind of quantiser."""

    range: QRange = QRange(bitwidth=8, signed=True)
    granularity: Granularity = "per-array"
    init: InitStrategy | None = None
    """Default: `mse`; ternary and binary quantisers start as their papers say, and take no other."""
    function: str = "ste"
    """How gradients pass, and whether the scale is learned: see `BUILT_IN_FUNCTIONS`."""

    @model_validator(mode="after")
    def _combines(self) -> Self:
        known = (*BUILT_IN_FUNCTIONS, *sorted(registered_functions))
        if self.function not in known:
            raise ValueError(
                f"function {self.function!r} is not known; there are {', '.join(known)} (one's own can be registered "
                "only where the library is used from Python)"
            )
        ternary = not self.range.is_free and self.range.integers == (-1, 0, 1)
        binary = self.range.step == 2
        if self.function == "ternary" and not ternary:
            raise ValueError(f"function 'ternary' takes the range 'ternary', not {self.range}")
        if binary != (self.function == "binary") and self.function in BUILT_IN_FUNCTIONS:
            raise ValueError(
                f"the range 'binary' and the function 'binary' go together; got range {self.range} and "
                f"function {self.function!r}"
            )
        if self.function in ("ternary", "binary") and self.init is not None:
            raise ValueError(f"function {self.function!r} starts from its own estimate of the scale; leave out init")
        if isinstance(self.granularity, tuple) and list(self.granularity) != sorted(set(self.granularity)):
            raise ValueError(f"granularity lists dimensions in ascending order, each once; got {self.granularity}")
        if self.range.is_free and self.granularity not in ("per-array", ()):
            raise ValueError("a free offset is one for the whole array: give offset or signed, or use 'per-array'")
        return self

    @property
    def strategy(self) -> InitStrategy:
        """The strategy to start from."""
        return self.init or MSE

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Dimensions of the tensor along which scales differ."""
        named = {"per-array": (), "per-outchannel_weights": (0,)}
        return named[self.granularity] if isinstance(self.granularity, str) else self.granularity


def _check_weights(spec: QuantiserSpec) -> QuantiserSpec:
    """Refuse what makes no sense for weights."""
    if not spec.range.is_free and not spec.range.lo < 0 < spec.range.hi:
        raise ValueError(f"weights have either sign, so their range must hold both; got {spec.range}")
    if spec.function == "pact":
        raise ValueError("function 'pact' learns the upper bound of an activation; for weights take 'ste' or 'tqt'")
    return spec


def _check_activations(spec: QuantiserSpec) -> QuantiserSpec:
    """Refuse what the chip cannot do to activations."""
    if not spec.range.is_free and not spec.range.lo <= 0 < spec.range.hi:
        raise ValueError(f"the range of activations must hold 0 and positive integers; got {spec.range}")
    if spec.granularity not in ("per-array", ()):
        raise ValueError(
            f"activations are quantised 'per-array' only, because a shift is one for a whole layer; "
            f"got {spec.granularity!r}"
        )
    if spec.function in ("ternary", "binary"):
        raise ValueError(f"function {spec.function!r} is for weights; activations take 'ste', 'pact' or 'tqt'")
    return spec


Weights = Annotated[QuantiserSpec, AfterValidator(_check_weights)]
Activations = Annotated[QuantiserSpec, AfterValidator(_check_activations)]


class QuantiserRule(StrictModel):
    """Quantisers of some layers: those that match every condition given. Later rules win."""

    layers: str = "*"
    """Pattern for the layer's name in the model, as a shell matches file names (`stage*.conv?`)."""
    type: Literal["conv", "depthwise", "linear", "add", "activation", "input", "output"] | None = None
    core: Core | None = None
    weights: Weights | None = None
    activations: Activations | None = None
    """Of the layer's output, after its BatchNorm and activation function."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.weights is None and self.activations is None:
            raise ValueError("a rule gives quantisers of weights, of activations, or both; this one gives none")
        if self.weights is not None and self.type in ("add", "activation", "input"):
            raise ValueError(f"a rule for type {self.type!r} cannot give a quantiser of weights: it has none")
        return self


class Quantisers(StrictModel):
    """The quantisers of the iteration `fake_quantised`. Later iterations bring their ranges to those of the cores."""

    weights: Weights = QuantiserSpec()
    activations: Activations = QuantiserSpec()
    """Rectified activations (after a ReLU) get a range of as many levels that starts at 0."""
    rules: tuple[QuantiserRule, ...] = ()

    @property
    def constant(self) -> bool:
        """Whether any quantiser starts from an interval that the recipe gives."""
        specs = [self.weights, self.activations, *(s for r in self.rules for s in (r.weights, r.activations) if s)]
        return any(spec.strategy.strategy == "const" for spec in specs)
