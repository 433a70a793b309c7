"""The job specification: one definition for the SDK, the API, the worker and the standalone command.

A recipe may start from a preset and override any part of it:
`{"preset": "qat", "hardware_exact": {"epochs": 5}}`. Unknown fields are errors everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from dianaq.errors import InvalidSpec
from dianaq.events import ITERATIONS, Iteration
from dianaq.ranges import InitStrategy, QRange

Preset = Literal["ptq", "qat"]
Core = Literal["digital"]
"""Where a linear layer runs. The analog core is not supported yet."""


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Preprocessing(_Spec):
    """How stored samples become the network's input: scaled to 0..1 by `value_range`, then normalised.

    `x_in = ((x - lo) / (hi - lo) - mean) / std`, with `mean` and `std` per channel (one value serves all).
    """

    layout: Literal["auto", "nchw", "nhwc"] = "auto"
    """Order of an image's dimensions; `auto` takes the one that fits the model's input."""
    value_range: tuple[float, float] | None = None
    """`(lo, hi)` of the stored values. Default: (0, 255) for uint8, and no scaling for float32."""
    mean: tuple[float, ...] = (0.0,)
    std: tuple[Annotated[float, Field(gt=0)], ...] = (1.0,)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ValueError(f"value_range must be (lo, hi) with lo < hi, got {self.value_range}")
        if not self.mean or not self.std:
            raise ValueError("mean and std take one value, or one per channel; got an empty list")
        if len(self.mean) != len(self.std) and 1 not in (len(self.mean), len(self.std)):
            raise ValueError(f"mean has {len(self.mean)} values and std has {len(self.std)}")
        return self


class Training(_Spec):
    """How one iteration is trained. Zero epochs leave the network as the iteration before gave it."""

    epochs: Annotated[int, Field(ge=0, le=10_000)] = 0
    optimiser: Literal["sgd", "adam"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Nesterov momentum; `sgd` only."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of weights; never of biases, BatchNorm parameters or thresholds."""
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Epochs (or part of one) over which the learning rate rises linearly from zero."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 128
    distillation: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the loss that pulls the outputs towards the float network's (Kullback-Leibler divergence, Hinton et
    al., 2015); the rest is the cross-entropy of the labels. At 1 no labels are needed."""
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per step of the moving average of the weights that is evaluated and kept; at 0 the last weights are."""
    augmentation: Literal["none", "flip_crop"] = "none"
    """`flip_crop`: random horizontal flip and a random crop after padding by an eighth; images only."""


class Calibration(_Spec):
    """What the observers see before scales are chosen, and how they are chosen."""

    samples: Annotated[int, Field(ge=1)] = 512
    """Training samples that the observers see; all of them when there are fewer."""
    weights: InitStrategy = "mse"
    activations: InitStrategy = "mse"


class PostTraining(_Spec):
    """What is done to a network without training it."""

    equalise: bool = True
    """Cross-layer equalisation of channel ranges (Nagel et al., 2019) where no addition is in between."""
    rounding: Literal["nearest", "error_feedback"] = "error_feedback"
    """How weights become integers. `error_feedback`: one after another, each taking back part of the error that those
    before it made in the layer's output on the calibration data (Frantar et al., 2023); not where `hardware_exact`
    is trained, which moves the weights itself."""
    bias_correction: bool = True
    """Correct each layer's bias for the mean error of its quantised output on the calibration data."""


class Ranges(_Spec):
    """Integer ranges of the quantisers. The digital core stores int8: no range may exceed it."""

    weights: QRange = QRange(bitwidth=8)
    activations: QRange = QRange(bitwidth=8)
    """Of signed activations; rectified ones keep the non-negative half, as the chip's ReLU does."""

    @model_validator(mode="after")
    def _signed(self) -> Self:
        for name in ("weights", "activations"):
            if not getattr(self, name).signed:
                raise ValueError(f"{name}: the digital core computes on signed int8, so signed must be true")
        return self


class Recipe(_Spec):
    """The training and quantisation settings of a job, in the order they apply."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_by_name=True, serialize_by_alias=True
    )

    preset: Preset | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Part of `train` held out, by the seed, when the dataset has no `val`."""
    ranges: Ranges = Ranges()
    calibration: Calibration = Calibration()
    post_training: PostTraining = PostTraining()
    float_: Training = Field(default=Training(), alias="float")
    fake_quantised: Training = Training()
    hardware_mapped: Training = Training()
    hardware_exact: Training = Training()

    @model_validator(mode="before")
    @classmethod
    def _start_from_preset(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("preset"), str) and data["preset"] in PRESETS:
            return merge(PRESETS[data["preset"]], data)
        return data

    def training(self, iteration: Iteration) -> Training:
        """The training settings of one iteration."""
        found = self.float_ if iteration == "float" else getattr(self, iteration)
        assert isinstance(found, Training)
        return found

    @property
    def trains(self) -> bool:
        """Whether any iteration has epochs."""
        return any(self.training(i).epochs for i in ITERATIONS)

    @model_validator(mode="after")
    def _float_has_no_teacher(self) -> Self:
        if self.float_.distillation:
            raise ValueError("float.distillation must be 0: the float network is what the others are distilled from")
        return self


_TRAINED: dict[str, Any] = {
    "schedule": "cosine",
    "warmup_epochs": 0.1,
    "distillation": 0.5,
    # Rounding keeps the last weights jumping about their mean; their average over some 300 steps does not.
    "averaging": 0.997,
}

PRESETS: dict[str, dict[str, Any]] = {
    # Post-training: calibrate, equalise, round weights, correct biases; nothing is trained.
    "ptq": {},
    # Quantisation-aware training: with the chip's scales while BatchNorm is alive, then exactly as the chip computes.
    "qat": {
        "hardware_mapped": {**_TRAINED, "epochs": 2, "learning_rate": 0.02},
        # With BatchNorm folded, gradients grow with the folded slopes: at a rate of 0.01 ResNets diverge.
        "hardware_exact": {**_TRAINED, "epochs": 1, "learning_rate": 0.0005},
    },
}


class CoreMapping(_Spec):
    """Which core each linear layer runs on."""

    default: Core = "digital"
    layers: dict[str, Core] = {}
    """Exceptions, by the layer's name in the ONNX file."""


def _reference(value: Any) -> Any:
    """An uploaded model or dataset stands for its id."""
    return getattr(value, "id", value)


Reference = Annotated[str, BeforeValidator(_reference), Field(min_length=1)]


class JobSpec(_Spec):
    """A whole job. `model` and `dataset` are ids of uploads (file paths for the standalone command)."""

    model: Reference
    dataset: Reference
    task: Literal["classification"] = "classification"
    preprocessing: Preprocessing = Preprocessing()
    recipe: Recipe = Recipe()
    mapping: CoreMapping = CoreMapping()


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over` laid on top, mapping by mapping."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, BaseModel):
            value = value.model_dump(exclude_unset=True, by_alias=True)
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def parse_spec(data: Any) -> JobSpec:
    """A job specification from plain data.

    Raises:
        InvalidSpec: names the first offending field, its value and what would be accepted.
    """
    try:
        return JobSpec.model_validate(data)
    except ValidationError as error:
        raise invalid_spec(error) from None


def invalid_spec(error: ValidationError) -> InvalidSpec:
    """A pydantic error as ours: every offending field on a line, the first as `param`."""
    lines = []
    for entry in error.errors():
        where = ".".join(str(part) for part in entry["loc"]) or "spec"
        got = "" if entry["type"] == "missing" else f" (got {entry['input']!r:.200})"
        lines.append(f"{where}: {entry['msg']}{got}")
    first = ".".join(str(part) for part in error.errors()[0]["loc"]) or None
    return InvalidSpec("; ".join(lines), param=first)
