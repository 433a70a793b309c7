"""What the service stores and shows: models, datasets, jobs, artifacts, and what was found inside the uploads."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator

from dianaq.errors import Problem
from dianaq.schemas.events import Stage, State
from dianaq.schemas.spec import JobSpec

T = TypeVar("T")


class Resource(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class TensorInfo(Resource):
    """A tensor of a model. `shape` leaves out the batch dimension."""

    name: str
    shape: tuple[int, ...]


class FinalActivation(Resource):
    """A function that gives the network's output and that a classification drops: a Sigmoid, or a Softmax."""

    node: str
    kind: Literal["sigmoid", "softmax"] = "sigmoid"
    reads: str
    """The tensor before it."""


class Arrangement(Resource):
    """A tensor in another order and shape: `x.transpose(axes).reshape(shape)`, the batch left out."""

    axes: tuple[int, ...]
    shape: tuple[int, ...]


class ModelInfo(Resource):
    """What inspection found in an ONNX file, or a part of one.

    Of a network that is refused as a whole, `input` and `output` are the first ones of the file, with 0 for dimensions
    that are not fixed.
    """

    format: Literal["onnx"] = "onnx"
    opset: int
    input: TensorInfo
    """As the file declares it."""
    arrangement: Arrangement | None = None
    """What makes of it the map (channels, height, width) or the vector that the exported network takes, where it is
    not one: of (height, width, channels), say."""
    output: TensorInfo
    operators: dict[str, int]
    """How often each operator occurs."""
    layers: tuple[str, ...]
    """Names of the linear layers (Conv, Gemm, MatMul nodes), as `mapping.layers` may name them."""
    nodes: tuple[str, ...] = ()
    """Names of all nodes that compute something, as rules of `recipe.quantisers` may name them."""
    parameters: int
    """Number of values in the initialisers."""
    substitutable: dict[str, str] = {}
    """Nodes with activations that no core computes, and their kinds, which a job's `substitute` must name."""
    final: FinalActivation | None = None
    """The Sigmoid or Softmax at the end, if there is one; a Sigmoid is among the `substitutable`."""
    refusal: Problem | None = None
    """Why no job takes the network as a whole; a part of it may do."""


class WeightsInfo(Resource):
    """What inspection found in a weights file: safetensors, or a state dict as torch.save writes it."""

    format: Literal["safetensors", "pytorch"]
    tensors: int
    """How many tensors are stored."""
    bytes: int
    """What their values take together."""
    shapes: dict[str, tuple[int, ...]] | None = None
    """Shape of each tensor; None for PyTorch files, where only the job reads the names."""


LabelKind = Literal["integers", "whole", "one_hot", "numbers"]
"""What labels are: integers by type; floats that are all whole; rows of numbers with a 1 among zeros; any numbers."""


class SplitInfo(Resource):
    """One split of a dataset. `sample_shape` leaves out the sample dimension; labels are absent or whole."""

    samples: int
    sample_shape: tuple[int, ...]
    dtype: str
    label_min: int | None = None
    label_max: int | None = None
    """Smallest and largest label; of integers of shape (samples,) alone."""
    label_dtype: str | None = None
    label_shape: tuple[int, ...] | None = None
    """Without the sample dimension: `()` for one number a sample. None without labels."""
    label_kind: LabelKind | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_class_numbers(cls, data: Any) -> Any:
        """Splits that were inspected before there were other labels: integers of shape (samples,), if any."""
        if isinstance(data, Mapping) and data.get("label_max") is not None and data.get("label_shape") is None:
            return {**data, "label_dtype": "int64", "label_shape": (), "label_kind": "integers"}
        return data

    @property
    def labelled(self) -> bool:
        """Whether the split has labels."""
        return self.label_shape is not None


class DatasetInfo(Resource):
    """What inspection found in an npz file; `train` is always there."""

    splits: dict[str, SplitInfo]


class Model(Resource):
    """An uploaded network (ONNX), or the weights of a zoo network; `info.format` tells which."""

    id: str
    name: str
    sha256: str
    size: int
    created: datetime
    expires: datetime | None = None
    """When the service removes it, if no job uses it before."""
    info: ModelInfo | WeightsInfo


class Dataset(Resource):
    id: str
    name: str
    sha256: str
    size: int
    created: datetime
    expires: datetime | None = None
    """When the service removes it, if no job uses it before."""
    info: DatasetInfo


class Job(Resource):
    """A job as the service knows it.

    `metrics` holds the latest figures by stage, `error` why it failed, `attempt` how often it was started.
    `waits_for` is the job that it starts from as long as that has not ended: until then it stays queued.
    `sweep_id` and `point` tell which sweep made it, and what the sweep's grid set in its specification.
    """

    id: str
    state: State
    stage: Stage | None = None
    attempt: int = 0
    created: datetime
    started: datetime | None = None
    finished: datetime | None = None
    spec: JobSpec
    metrics: dict[str, dict[str, float]] = {}
    error: Problem | None = None
    waits_for: str | None = None
    sweep_id: str | None = None
    point: dict[str, Any] | None = None
    expires: datetime | None = None
    """When the service removes its artifacts, or removed them."""
    note: str | None = None
    """Of a job that is asked for by its id: why it is queued, where no worker is there that would take it."""


class Artifact(Resource):
    """A file that a succeeded job left: a member of the bundle, or `bundle.zip` itself."""

    path: str
    size: int
    sha256: str


class Page(Resource, Generic[T]):
    """A page of a listing, newest first. `next` is the cursor of the following page, if there is one."""

    items: list[T]
    next: str | None = None


class Health(Resource):
    status: str
    version: str
