"""`report.json` of a bundle, typed: what a job measured and did. Its JSON schema is `dianaq schema report`.

The worker writes the file from these models. They let fields pass that they do not know, so that an older SDK reads
the report of a newer service; `format` is raised when a reader of the former one would misread it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from dianaq.errors import ServiceError
from dianaq.schemas.events import Iteration, Stage
from dianaq.schemas.quantisers import Core

REPORT = "report.json"
FORMAT = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Accuracy(_Part):
    """The figures of a stage's network on a split: shares in 0..1, losses and errors as they are."""

    stage: Stage
    split: str
    samples: int
    top1: float | None = None
    top5: float | None = None
    """Only with more than five classes."""
    loss: float | None = None
    mse: float | None = None
    """Of a reconstruction, between the normalised input and the output; of a regression, in the labels' units."""
    mae: float | None = None
    r2: float | None = None
    """Mean over the outputs whose labels vary on the split of `1 - sum (y - output)^2 / sum (y - mean)^2`."""
    auc: float | None = None
    agreement: float | None = None
    """Share of the samples (of maps: of their places) whose largest output is the float network's."""
    sqnr_db: float | None = None
    """Of the network's output, the float network's being the signal; 144 at most, which that itself has."""


class Epoch(_Part):
    """An epoch of training; every other field is a figure: `loss`, `accuracy_val`, `objective_val`..."""

    __pydantic_extra__: dict[str, float] = Field(init=False)

    stage: Stage
    epoch: int | None = None

    @property
    def figures(self) -> dict[str, float]:
        """The figures by name."""
        return dict(self.__pydantic_extra__)


class Spread(_Part):
    """A figure over several draws of noise: mean and standard deviation."""

    mean: float
    std: float


class NoiseLevel(_Part):
    """The exact network on noisy converters: `gaussian` is the noise in converter steps."""

    gaussian: float
    draws: int
    samples: int
    top1: Spread | None = None
    top5: Spread | None = None
    loss: Spread | None = None
    mse: Spread | None = None
    mae: Spread | None = None
    r2: Spread | None = None
    auc: Spread | None = None
    agreement: Spread | None = None
    sqnr_db: Spread | None = None


class LabelScale(_Part):
    """What a regression's labels are normalised by while it is trained, of each output (of maps: each channel)."""

    mean: list[float]
    std: list[float]


class SubstitutionReport(_Part):
    """What substituted activations cost by themselves: the float network before and after, nothing trained yet."""

    by: dict[str, str]
    """What replaced each kind of activation."""
    trained: list[Iteration]
    """The iterations that were trained afterwards."""
    split: str | None
    """What the figures were measured on; without labels there are none."""
    before: dict[str, float] | None
    after: dict[str, float] | None
    samples: int
    """Of the calibration, on which outputs were compared."""
    outputs: dict[str, float]
    """How well the network after imitates the one before: `sqnr_db`, and `agreement` where it has several outputs."""


class Histogram(_Part):
    """Integer weights per bin: bin i counts `lo + i * step` up to and without `lo + (i + 1) * step`."""

    lo: int
    step: int
    counts: list[int]
    saturated: float | None = None
    """Share of the weights at either end of their range; not for ternary and binary ones."""


class Placement(_Part):
    """Whether a compiler runs a layer on the core it is meant for (and for DORY: whether that computes what the file
    says), or the rules against it."""

    offloaded: bool
    reasons: list[str]


class LayerReport(_Part):
    """An operation of the integer network; the first entry, `input`, is the quantisation of the input.

    Fields that an operation does not have are left out.
    """

    name: str
    operation: str
    original: str | None = None
    """The user's layer that it came from."""
    inputs: list[str] | None = None
    """Names of the layers that it reads."""
    input_shapes: list[list[int]] | None = None
    shape: list[int]
    """Of its output, without the batch."""
    core: Core | None = None
    range: tuple[int, int] | None = None
    """Integers of the output."""
    scale: float | None = None
    """Real value of one step of the output."""
    scale_log2: int | None = None
    """Its exponent, where it is a power of two."""
    input_scale: float | None = None
    input_scale_log2: int | None = None
    weight_scale: float | None = None
    weight_scale_log2: int | None = None
    shift: int | None = None
    adc_gain: int | None = None
    row_tiles: int | None = None
    k_range: tuple[int, int] | None = None
    l_range: tuple[int, int] | None = None
    zero_weights: float | None = None
    weight_range: tuple[int, int] | None = None
    weight_shape: list[int] | None = None
    accumulator_bound: float | None = None
    float32_exact: bool | None = None
    """Whether float32 holds every value that the accumulator can take."""
    weights: Histogram | None = None
    sqnr_db: float | None = None
    """Signal to quantisation noise of the output; see `JobReport.sqnr`."""
    macs: int | None = None
    cycles: float | None = None
    """By the cost model; 0 where there is none (pooling, additions, flattening)."""
    latency_s: float | None = None
    energy_j: float | None = None
    weight_bytes: int | None = None
    input_bytes: int | None = None
    output_bytes: int | None = None
    live_bytes: int | None = None
    """Activations in memory while the layer runs."""
    placement: dict[str, Placement] | None = None
    """Where the compilers will run it, and why."""


class Sqnr(_Part):
    """What the layers' `sqnr_db` were measured on, and beside which network."""

    samples: int
    reference: str


class Cost(_Part):
    """The whole network, its layers one after the other."""

    macs: int
    cycles: float
    latency_s: float
    energy_j: float
    not_modelled: list[str]
    """Layers without a published cost model, counted as nothing."""


class Exceeded(_Part):
    """A memory that is too small, for a layer or (without one) for the network: the compiler has to tile."""

    layer: str | None
    memory: str
    bytes: int
    limit: int


class Memory(_Part):
    """Bytes of the whole network, and the sizes of the chip's memories."""

    weight_bytes: int
    analog_weight_bytes: int
    """The part of it that is on the analog core."""
    peak_activation_bytes: int
    peak_layer: str
    total_bytes: int
    """Weights and the peak of activations."""
    limits: dict[str, int]
    exceeded: list[Exceeded]


class Deployed(_Part):
    """What the network costs as one compiler gets it: channels that are padded for it cost as well."""

    cost: Cost
    memory: Memory
    layers: int = 0
    """Operations that the compiler sees; for HTVM and DORY not the same, as remedies may add some."""
    offloaded: int = 0
    """Of these, those that run on the core they are meant for, and compute there what the file says."""


class RemedyReport(_Part):
    """What was rewritten at a place of the network for one compiler, or why it was not."""

    dialect: str
    editor: str
    node: str
    applied: bool
    note: str


class EditReport(_Part):
    """What an editor did at a place of the graph, or why it passed it over."""

    stage: Stage
    editor: str
    node: str
    applied: bool
    note: str


class Finding(_Part):
    """A rule of a compiler that a written file breaks."""

    rule: str
    node: str
    """Where; empty for the whole graph."""
    message: str
    severity: str
    """`rejected`, `wrong`, `cpu` or `note`: what becomes of the file or the layer."""
    says: str
    """What the rule says."""


class VerificationReport(_Part):
    """What was compared bit for bit, layer by layer."""

    data_samples: int
    random_samples: int
    tensors: int
    executions: list[str]


class StartedFrom(_Part):
    """The checkpoint that the job started from."""

    iteration: Iteration
    sha256: str
    versions: dict[str, str]


class JobReport(_Part):
    """Everything that `report.json` says."""

    format: int = Field(ge=1)
    spec: dict[str, Any]
    """The job's specification; `dianaq schema` describes it, `dianaq.schemas.spec.parse_spec` reads it."""
    seed: int
    versions: dict[str, str]
    started_from: StartedFrom | None
    device: str
    threads: int
    samples: dict[str, int]
    """Samples by split, and of the calibration."""
    accuracy: list[Accuracy]
    """In the order of the stages; empty without labels."""
    training: list[Epoch]
    substitution: SubstitutionReport | None = None
    noise_sweep: list[NoiseLevel]
    layers: list[LayerReport]
    sqnr: Sqnr | None = None
    cost: Cost | None = None
    memory: Memory | None = None
    deployed: dict[str, Deployed] = {}
    """By dialect, `htvm` and `dory`."""
    remedies: list[RemedyReport] = []
    tensors: dict[str, dict[str, str]] = {}
    """By exported file, the user's layer that each of its tensors belongs to: those that hold layers' outputs."""
    labels: LabelScale | None = None
    """Of a regression with labels to train on."""
    interface: dict[str, Any] = {}
    """What the exported network is fed and gives, for who writes the firmware."""
    checks: dict[str, list[Finding]] = {}
    """By dialect, the breaches of its compiler's rules that were found in the written file."""
    edits: list[EditReport]
    warnings: list[str] = []
    """What to look at before the network is deployed."""
    notes: list[str]
    verification: Annotated[VerificationReport | None, BeforeValidator(lambda found: found or None)]

    @property
    def stages(self) -> dict[str, Accuracy]:
        """The measured figures by stage."""
        return {entry.stage: entry for entry in self.accuracy}


def read_report(source: str | os.PathLike[str]) -> JobReport:
    """The report of a bundle's folder, or of a `report.json`.

    Raises:
        FileNotFoundError: there is none.
        ServiceError: it is not one that this version reads.
    """
    path = Path(source)
    path = path / REPORT if path.is_dir() else path
    return parse_report(path.read_bytes(), str(path))


def parse_report(data: bytes, name: str = REPORT) -> JobReport:
    """A report from the content of its file.

    Raises:
        ServiceError: it is not a report, or one of a format that this version does not know.
    """
    try:
        found = json.loads(data)
        report = JobReport.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ServiceError(f"{name} is not a report: {where}: {first['msg']}") from None
    except ValueError as error:
        raise ServiceError(f"{name} is not a report: {error}") from None
    if report.format != FORMAT:
        raise ServiceError(f"{name} has format {report.format}, this version reads {FORMAT}; install a newer dianaq")
    return report


def report_schema() -> dict[str, Any]:
    """JSON Schema of `report.json`."""
    return JobReport.model_json_schema()
