"""The job specification: one definition for the SDK, the API, the worker and the standalone command.

Unknown fields are errors everywhere.
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

from dianaq.errors import InvalidSpec
from dianaq.schemas.cores import CoreMapping, Target
from dianaq.schemas.deployment import Remedies
from dianaq.schemas.events import ITERATIONS, Iteration
from dianaq.schemas.recipe import Recipe, of_squares
from dianaq.schemas.strict import StrictModel
from dianaq.schemas.substitution import Substitute
from dianaq.schemas.unknown import explained
from dianaq.schemas.zoo import MAX_WIDTH, Architecture, shape_fault

TaskName = Literal["classification", "reconstruction", "regression", "imitation"]
"""What the network is for: it names a class; gives its input back (an autoencoder; anomalies come back worse); gives
the numbers that label a sample; or gives whatever the float network gives, which is all that is asked of it."""


class Preprocessing(StrictModel):
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


InputKind = Literal["float", "int8", "pixels"]
OutputKind = Literal["float", "int8"]


class NetworkInterface(StrictModel):
    """What the firmware feeds to the exported network and gets from it; the report says how to compute either.

    It shapes the file for HTVM. The one for DORY takes and gives integers, whatever is chosen here.
    """

    input: InputKind = "float"
    """`float`: the float network's own input, normalised, which the first operation quantises. `int8`: the same
    integers, quantised by the firmware. `pixels`: `pixel - 128` of uint8 images; their normalisation becomes part of
    the first layer, so that nothing is computed in floating point and no input precision is lost."""
    output: OutputKind = "float"
    """`float`: the output in real numbers. `int8`: its integers, whose scale the report has."""


MAX_GOLDEN_SAMPLES = 64
"""Each is a text file per layer, and a download takes 100,000 files; for MobileNetV1 at 96 x 96, this many samples are
80 MB."""


class Golden(StrictModel):
    """Golden vectors of the bundle: what every layer computes, for the first samples of the calibration data."""

    samples: Annotated[int, Field(ge=1, le=MAX_GOLDEN_SAMPLES)] = 1
    """Of them both compilers are handed the first; all are in the folder `golden`."""


def _reference(value: Any) -> Any:
    """An uploaded model or dataset stands for its id."""
    return getattr(value, "id", value)


Reference = Annotated[str, BeforeValidator(_reference), Field(min_length=1)]

MAX_INPUT_VALUES = 2**20
"""Of a zoo network's input: seven images of 224 x 224 x 3, far beyond what the chip's 512 kB of memory hold."""

MAX_CLASSES = 65_536
"""Three times the classes of the full ImageNet; the last layer of a wider network would outweigh the rest."""


class ZooModel(StrictModel):
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


MAX_TENSOR_NAME = 1_000
"""Characters. Exporters join the names of nested modules; those of deep networks have 200."""

TensorName = Annotated[str, Field(min_length=1, max_length=MAX_TENSOR_NAME, pattern=r"^[^\x00]*$")]


class NetworkPart(StrictModel):
    """The part of an uploaded ONNX network that a job quantises, by names as `dianaq inspect` lists them.

    For files with several outputs, with an end that no core computes, or with a pre-processing in front.
    """

    model_config = ConfigDict(populate_by_name=True)

    from_: TensorName | None = Field(default=None, alias="from")
    """The tensor that becomes the input, or a node that reads it; default: the network's input. The dataset holds
    values of this tensor."""
    to: TensorName | None = None
    """The tensor that becomes the output, or the node that computes it; default: the network's output."""

    @model_validator(mode="after")
    def _some_end(self) -> Self:
        if self.from_ is None and self.to is None:
            raise ValueError("names neither from nor to; leave it out for the whole network")
        return self

    def __str__(self) -> str:
        ends = (("from", self.from_), ("to", self.to))
        return " ".join(f"{end} {name!r}" for end, name in ends if name is not None)


Device = Literal["any", "cpu", "gpu"]
"""What a job wants to be trained on; `any` takes whichever is free first."""

Priority = Literal["low", "normal", "high"]

MAX_DEADLINE_HOURS = 24.0 * 365
"""A job that may run for a year has no deadline."""

SCHEDULING = frozenset({"device", "priority", "deadline_hours"})
"""Fields that say where and when a job runs. The same device gives the same result, whatever they are, so neither
bundles nor reports nor snapshots record them."""


class JobSpec(StrictModel):
    """A whole job. Uploads are named by their ids (by file paths for the standalone command)."""

    model: NetworkSource
    """An uploaded ONNX file, or a network of the zoo."""
    dataset: Reference
    task: TaskName = "classification"
    """For `reconstruction`, labels are anomaly labels (0 normal, 1 anomaly), and optional everywhere: without them the
    mean squared error is measured, with both kinds also the AUC. Samples of `train` that are labelled as anomalies are
    neither trained on nor calibrated with. For `regression`, labels are numbers in the shape of the network's output,
    in any unit. For `imitation` there are none: those that the dataset has are ignored."""
    part: NetworkPart | None = None
    """Quantise only what lies between two tensors of the file; default: the whole network."""
    substitute: Substitute = Field(default_factory=dict)
    """What replaces the activations that no core computes, by kind, before the float iteration: `{hardswish: relu6}`.
    It makes another network of it: the report says what that costs, and training afterwards gains most of it back."""
    preprocessing: Preprocessing = Preprocessing()
    interface: NetworkInterface = NetworkInterface()
    recipe: Recipe = Recipe()
    mapping: CoreMapping = CoreMapping()
    target: Target = Target()
    golden: Golden = Golden()
    remedies: Remedies = Remedies()
    profile: bool = False
    """Add the profile of one training step of each iteration to the bundle, as Chrome traces (`profile/`): they have
    times, and are the one part of a bundle that differs from run to run. The training is the same without."""
    start_from: str | None = None
    """`<job id>/<iteration>`: start with the network that this iteration of another job left, and go on with the
    iteration after it; where that job is still queued or running, this one waits for it. For the standalone command the
    job is named by the folder of its bundle."""
    device: Device = "any"
    """Kind of the worker that takes the job. The standalone command takes what `DIANAQ_DEVICE` names instead."""
    priority: Priority = "normal"
    """Which of the waiting jobs a free worker takes first; those that have waited long count as more urgent."""
    deadline_hours: Annotated[float, Field(gt=0, le=MAX_DEADLINE_HOURS)] | None = None
    """How long the job may run, over all of its attempts; the time that it waits for a worker, before it starts or
    between two attempts, does not count. A job that takes longer fails."""

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

    @model_validator(mode="before")
    @classmethod
    def _preset_of_task(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("task") in ("regression", "imitation") and "recipe" in data:
            return {**data, "recipe": of_squares(data["recipe"])}
        return data

    @model_validator(mode="after")
    def _part_of_a_file(self) -> Self:
        if self.part is not None and isinstance(self.model, ZooModel):
            raise ValueError(
                f"part is {self.part}, and {self.model.architecture} is built whole; only an ONNX file is cut"
            )
        return self

    @model_validator(mode="after")
    def _weights_from_somewhere(self) -> Self:
        zoo = self.model
        if isinstance(zoo, ZooModel) and not (zoo.weights or self.start_from or self.recipe.float_.epochs):
            raise ValueError(
                f"model.weights is missing, so {zoo.architecture} starts with random weights, and nothing trains them: "
                "name an uploaded weights file, or set recipe.float.epochs to 1 or more"
            )
        return self

    @model_validator(mode="after")
    def _float_network_to_imitate(self) -> Self:
        if self.task == "imitation" and self.recipe.float_.epochs:
            raise ValueError(
                f"recipe.float.epochs is {self.recipe.float_.epochs}, but an imitation has nothing to train the float "
                "network on, which is what it imitates; set it to 0, and bring trained weights"
            )
        return self

    def recorded(self) -> dict[str, Any]:
        """The specification as plain data, without what its result does not follow from (`SCHEDULING`)."""
        return self.model_dump(mode="json", by_alias=True, exclude=set(SCHEDULING))

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


MAX_FAULTS = 20
"""That one error tells; a specification of a megabyte can have a hundred thousand."""


def checkpoint_of(iteration: Iteration) -> str:
    """The member of a bundle that holds the network which an iteration left."""
    return f"checkpoints/{iteration}.pt"


def parse_spec(data: Any) -> JobSpec:
    """A job specification from plain data.

    Raises:
        InvalidSpec: names the first offending field, its value and what would be accepted.
    """
    try:
        return JobSpec.model_validate(data)
    except ValidationError as error:
        raise invalid_spec(error, JobSpec) from None


def invalid_spec(error: ValidationError, model: type[BaseModel]) -> InvalidSpec:
    """A pydantic error as ours: every offending field, the first as `param`."""
    entries = error.errors()
    return InvalidSpec(faults(entries, model, "spec"), param=field_path(entries[0]["loc"]) or None)


def faults(entries: Sequence[Mapping[str, Any]], model: type[BaseModel] | None, whole: str) -> str:
    """What is wrong with every field, with its value.

    Args:
        entries: as `ValidationError.errors()` gives them.
        model: what was validated; None where that is not known.
        whole: what to call it, for what is wrong with no field of its own.
    """
    lines = []
    for entry in entries[:MAX_FAULTS]:
        where = field_path(entry["loc"]) or whole
        got = "" if entry["type"] == "missing" else f" (got {entry['input']!r:.200})"
        lines.append(f"{where}: {explained(entry, model)}{got}")
    if len(entries) > MAX_FAULTS:
        lines.append(f"and {len(entries) - MAX_FAULTS:,} more")
    return "; ".join(lines)


def field_path(location: Sequence[int | str]) -> str:
    """Where a pydantic error lies, as users write it: `model.classes`. Forms that a union tells apart do not show."""
    return ".".join(str(part) for part in location if part not in (_UPLOAD, _ZOO))
