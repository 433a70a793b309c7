"""What the network of a job takes and gives, whether it comes from a file or from the zoo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dianaq.errors import InvalidModel, InvalidSpec, from_problem
from dianaq.inspection.foreign import EXPORT
from dianaq.inspection.formats import Format
from dianaq.schemas.resources import Arrangement, FinalActivation, ModelInfo, TensorInfo, WeightsInfo
from dianaq.schemas.spec import JobSpec, ZooModel


@dataclass(frozen=True)
class Own:
    """The input as the float network has it, without the batch, and what makes of it that of the quantised one."""

    shape: tuple[int, ...]
    arrangement: Arrangement


@dataclass(frozen=True)
class Interface:
    """Input and output of a network, the names of its linear layers, and those of all that it computes.

    `arrangement` makes of its input what the quantised network takes, where that is something else. The names are None
    where only the job knows them. `substitutable` and `final` are as in `ModelInfo`, and empty for a network whose
    import has seen to that.
    """

    input: TensorInfo
    output: TensorInfo
    layers: tuple[str, ...] | None
    substitutable: Mapping[str, str] = field(default_factory=dict)
    final: FinalActivation | None = None
    arrangement: Arrangement | None = None
    nodes: tuple[str, ...] | None = None

    @property
    def taken(self) -> tuple[int, ...]:
        """Shape of what the quantised network takes: (channels, height, width), or (values,)."""
        return self.input.shape if self.arrangement is None else self.arrangement.shape

    @property
    def own(self) -> Own | None:
        """The float network's own input, where the quantised network takes another."""
        return None if self.arrangement is None else Own(self.input.shape, self.arrangement)


def interface(spec: JobSpec, file: ModelInfo | WeightsInfo | None) -> Interface:
    """What the network of a job takes and gives.

    Args:
        file: what inspection found in the file that the network comes from, or in that part of it which the
            specification names; None without a file.

    Raises:
        InvalidModel: the file is not of the kind that the specification needs, or a network that is refused.
        InvalidSpec: the architecture does not fit the task.
    """
    zoo = spec.model
    check_kind(spec, None if file is None else file.format)
    if not isinstance(zoo, ZooModel):
        assert isinstance(file, ModelInfo)
        if file.refusal is not None:
            raise from_problem(file.refusal)
        nodes = file.nodes or None  # which what was inspected by an earlier version does not say
        return Interface(file.input, file.output, file.layers, file.substitutable, file.final, file.arrangement, nodes)
    if spec.task == "classification" and zoo.classes is None:
        raise InvalidSpec(
            f"task is 'classification', but the {zoo.architecture} gives its input back; take another architecture",
            param="model.architecture",
        )
    output = zoo.input_shape if zoo.classes is None else (zoo.classes,)
    return Interface(TensorInfo(name="input", shape=zoo.input_shape), TensorInfo(name="output", shape=output), None)


def check_kind(spec: JobSpec, file: Format | None) -> None:
    """Refuse weights where a network is needed, and the reverse.

    Args:
        file: the format of the file that the network comes from; None without one.

    Raises:
        InvalidModel: says what to do instead.
    """
    if not isinstance(spec.model, ZooModel):
        if file != "onnx":
            raise InvalidModel(
                f"the model file holds weights ({file}), not a network; name the architecture: "
                f"model {{architecture, input_shape, classes, weights}} or --zoo; or export it: {EXPORT} makes ONNX",
                param="model",
            )
    elif file == "onnx":
        raise InvalidModel(
            f"the weights of {spec.model.architecture} must be safetensors or a PyTorch state dict, the file is an "
            "ONNX network; give it as the model itself, without an architecture",
            param="model.weights",
        )
