"""The job specification: one definition for the SDK, the API, the worker and the standalone command.

A recipe may start from a preset and override any part of it:
`{"preset": "qat", "hardware_exact": {"epochs": 5}}`. Unknown fields are errors everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from dianaq.cores import AnalogWeights, CoreMapping, Noise, NoiseSweep, Target
from dianaq.errors import InvalidSpec
from dianaq.events import ITERATIONS, Iteration
from dianaq.quantisers import Quantisers
from dianaq.zoo import MAX_WIDTH, Architecture, shape_fault

Preset = Literal["ptq", "qat"]
TaskName = Literal["classification", "reconstruction"]
"""What the network is for: it names a class, or gives its input back (an autoencoder; anomalies come back worse)."""


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
    """Share of the loss that pulls the outputs towards the float network's: for classification the Kullback-Leibler
    divergence (Hinton et al., 2015), the rest being the cross-entropy of the labels, which are not needed at 1; for
    reconstruction the mean squared error to them, the rest being that to the input."""
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per step of the moving average of the weights that is evaluated and kept; at 0 the last weights are."""
    augmentation: Literal["none", "flip", "flip_crop"] = "none"
    """Images only. `flip`: half of them, left to right; `flip_crop`: and a random crop after padding by an eighth,
    which suits a network that was trained so, or has the epochs to get used to it."""


class Calibration(_Spec):
    """What the observers see before scales are chosen."""

    samples: Annotated[int, Field(ge=1)] = 512
    """Training samples that the observers see; all of them when there are fewer."""


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


class Recipe(_Spec):
    """The training and quantisation settings of a job, in the order they apply."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_by_name=True, serialize_by_alias=True
    )

    preset: Preset | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Part of `train` held out, by the seed, when the dataset has no `val`."""
    quantisers: Quantisers = Quantisers()
    calibration: Calibration = Calibration()
    post_training: PostTraining = PostTraining()
    float_: Training = Field(default=Training(), alias="float")
    fake_quantised: Training = Training()
    hardware_mapped: Training = Training()
    hardware_exact: Training = Training()
    progressive: tuple[AnalogWeights, ...] = ()
    """Ranges that the analog layers' weights pass through before they become ternary, each trained for its epochs
    with the settings of `hardware_mapped` (progressive quantisation: 8 bits, 4 bits, ternary)."""
    noise: Noise = Noise()
    """What the analog layers suffer while `hardware_mapped` and `hardware_exact` are trained; the exported network and
    all reported accuracies are without."""
    noise_sweep: NoiseSweep | None = None

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

    def epochs(self, iteration: Iteration) -> int:
        """Epochs of an iteration, those of progressive steps included."""
        steps = self.progressive if iteration == "hardware_mapped" else ()
        return self.training(iteration).epochs + sum(step.epochs for step in steps)

    @property
    def trains(self) -> bool:
        """Whether any iteration has epochs."""
        return any(self.epochs(i) for i in ITERATIONS)

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


def _reference(value: Any) -> Any:
    """An uploaded model or dataset stands for its id."""
    return getattr(value, "id", value)


Reference = Annotated[str, BeforeValidator(_reference), Field(min_length=1)]

MAX_INPUT_VALUES = 2**20
"""Of a zoo network's input: seven images of 224 x 224 x 3, far beyond what the chip's 512 kB of memory hold."""

MAX_CLASSES = 65_536
"""Three times the classes of the full ImageNet; the last layer of a wider network would outweigh the rest."""


class ZooModel(_Spec):
    """A network of the zoo, built by the job."""

    architecture: Architecture
    input_shape: tuple[Annotated[int, Field(gt=0)], ...]
    """Without the batch: (channels, height, width), or (values,)."""
    classes: Annotated[int, Field(ge=2, le=MAX_CLASSES)] | None = Field(default=None, validate_default=True)
    """Outputs of a classifier; not given for the autoencoder, which gives its input back."""
    width: Annotated[float, Field(gt=0, le=MAX_WIDTH)] = 1.0
    """Factor on the number of channels of every layer."""
    weights: Reference | None = None
    """Id of an uploaded weights file; without one the weights are random, and the float iteration trains them."""

    @field_validator("input_shape")
    @classmethod
    def _bounded(cls, shape: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        architecture = info.data.get("architecture")  # missing when it has an error of its own
        if architecture is not None and (fault := shape_fault(architecture, shape)):
            raise ValueError(fault)
        if math.prod(shape) > MAX_INPUT_VALUES:
            raise ValueError(f"has {math.prod(shape):,} values; at most {MAX_INPUT_VALUES:,} are accepted")
        return shape

    @field_validator("classes")
    @classmethod
    def _of_classifiers(cls, classes: int | None, info: ValidationInfo) -> int | None:
        architecture = info.data.get("architecture")  # missing when it has an error of its own
        if architecture == "autoencoder" and classes is not None:
            raise ValueError("the autoencoder has no classes; leave them out")
        if architecture not in ("autoencoder", None) and classes is None:
            raise ValueError(f"{architecture} needs the number of its outputs, 2 or more")
        return classes

    def same_network(self, other: ZooModel) -> bool:
        """Whether both describe one network, whatever its weights."""
        return self.model_copy(update={"weights": None}) == other.model_copy(update={"weights": None})


_UPLOAD, _ZOO = "<upload>", "<zoo>"


def _form_of_model(value: Any) -> str:
    return _ZOO if isinstance(value, Mapping | ZooModel) else _UPLOAD


NetworkSource = Annotated[
    Annotated[Reference, Tag(_UPLOAD)] | Annotated[ZooModel, Tag(_ZOO)], Discriminator(_form_of_model)
]


class JobSpec(_Spec):
    """A whole job. Uploads are named by their ids (by file paths for the standalone command)."""

    model: NetworkSource
    """An uploaded ONNX file, or a network of the zoo."""
    dataset: Reference
    task: TaskName = "classification"
    """For `reconstruction`, labels are anomaly labels (0 normal, 1 anomaly), and optional everywhere: without them the
    mean squared error is measured, with both kinds also the AUC. Samples of `train` that are labelled as anomalies are
    neither trained on nor calibrated with."""
    preprocessing: Preprocessing = Preprocessing()
    recipe: Recipe = Recipe()
    mapping: CoreMapping = CoreMapping()
    target: Target = Target()
    start_from: str | None = None
    """`<job id>/<iteration>`: start with the network that this iteration of a succeeded job left, and go on with the
    iteration after it. For the standalone command the job is named by the folder of its bundle."""

    @field_validator("start_from")
    @classmethod
    def _known_start(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        parent, _, iteration = value.rpartition("/")
        if not parent or iteration not in ITERATIONS:
            raise ValueError(f"must be <job id>/<iteration> with one of {', '.join(ITERATIONS)}")
        recipe = info.data.get("recipe")  # missing when it has errors of its own
        for skipped in ITERATIONS[: ITERATIONS.index(iteration) + 1]:
            if recipe is not None and (epochs := recipe.training(skipped).epochs):
                raise ValueError(
                    f"skips the iterations up to {iteration}, but recipe.{skipped}.epochs is {epochs}; set it to 0, "
                    f"or start from an earlier iteration"
                )
        if recipe is not None and recipe.progressive and iteration in ("hardware_mapped", "hardware_exact"):
            raise ValueError(
                f"skips the iterations up to {iteration}, but recipe.progressive trains in hardware_mapped; "
                "leave it out, or start from an earlier iteration"
            )
        return value

    @model_validator(mode="after")
    def _weights_from_somewhere(self) -> Self:
        zoo = self.model
        if isinstance(zoo, ZooModel) and not (zoo.weights or self.start_from or self.recipe.float_.epochs):
            raise ValueError(
                f"model.weights is missing, so {zoo.architecture} starts with random weights, and nothing trains them: "
                "name an uploaded weights file, or set recipe.float.epochs to 1 or more"
            )
        return self

    @property
    def upload(self) -> str | None:
        """The id of the file that the network comes from: an ONNX file, or the weights of a zoo network."""
        return self.model.weights if isinstance(self.model, ZooModel) else self.model

    @property
    def start(self) -> tuple[str, Iteration] | None:
        """`start_from` as the job (or bundle folder) and the iteration that it names."""
        if self.start_from is None:
            return None
        parent, _, name = self.start_from.rpartition("/")
        return parent, next(iteration for iteration in ITERATIONS if iteration == name)


def checkpoint_of(iteration: Iteration) -> str:
    """The member of a bundle that holds the network which an iteration left."""
    return f"checkpoints/{iteration}.pt"


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
        where = field_path(entry["loc"]) or "spec"
        got = "" if entry["type"] == "missing" else f" (got {entry['input']!r:.200})"
        lines.append(f"{where}: {entry['msg']}{got}")
    return InvalidSpec("; ".join(lines), param=field_path(error.errors()[0]["loc"]) or None)


def field_path(location: Sequence[int | str]) -> str:
    """Where a pydantic error lies, as users write it: `model.classes`. Forms that a union tells apart do not show."""
    return ".".join(str(part) for part in location if part not in (_UPLOAD, _ZOO))
