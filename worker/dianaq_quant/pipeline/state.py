"""What the stages of a job hand on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import fx, nn

from dianaq.inspection.interface import Own
from dianaq.schemas.events import EventBody, LogBody, MetricsBody, Stage
from dianaq.schemas.resources import DatasetInfo
from dianaq.schemas.spec import JobSpec
from dianaq_quant.bundle.report import Report
from dianaq_quant.checkpoint import Checkpoint
from dianaq_quant.editors import deploy
from dianaq_quant.export.dory import DoryModel
from dianaq_quant.export.htvm import HtvmModel
from dianaq_quant.export.layers import IntegerNetwork
from dianaq_quant.graph import Editor, run_editors
from dianaq_quant.importers import Operators
from dianaq_quant.modules.exact import Requantisation
from dianaq_quant.training.data import EVALUATION_BATCH, Data, batches
from dianaq_quant.training.device import placed
from dianaq_quant.training.evaluate import evaluate
from dianaq_quant.training.load import load_data
from dianaq_quant.training.memory import in_parts
from dianaq_quant.training.moments import Moments
from dianaq_quant.training.snapshots import Snapshots
from dianaq_quant.training.task import Task
from dianaq_quant.training.tasks import TASKS


@dataclass
class State:
    """What the stages hand on. `network` is the present network; each stage says what it has become."""

    spec: JobSpec
    model_path: Path | None
    module: nn.Module | None
    dataset_path: Path
    folder: Path
    emit: Callable[[EventBody], None]
    should_stop: Callable[[], bool]
    report: Report
    network: fx.GraphModule
    editors: Mapping[Stage, Sequence[Editor]]
    input_shape: tuple[int, ...]
    device: torch.device
    """Where networks are trained and measured; everywhere else they are on the CPU."""
    own: Own | None = None
    given: Own | None = None
    """The input and the output as the float network had them before its import, where they are in other layouts."""
    data: Data | None = None
    operators: Operators = field(default_factory=Operators)
    original: fx.GraphModule | None = None
    """The float network before its activations were substituted; it is the teacher then."""
    teacher: fx.GraphModule | None = None
    start: Checkpoint | None = None
    integer: IntegerNetwork | None = None
    scales: dict[str, float | Requantisation] | None = None
    deployed: dict[deploy.Dialect, IntegerNetwork] = field(default_factory=dict)
    files: tuple[HtvmModel, DoryModel] | None = None
    snapshots: Snapshots | None = None

    @property
    def loaded(self) -> Data:
        """The dataset; loaded by the first stage."""
        assert self.data is not None
        return self.data

    @functools.cached_property
    def data_on_device(self) -> Data:
        """The dataset where networks are trained."""
        return self.loaded if self.device.type == "cpu" else self.loaded.to(self.device)

    def load(self, found: DatasetInfo) -> None:
        """Load the dataset for the network's input; `found` is what its inspection found."""
        self.data = load_data(self.dataset_path, self.spec, self.input_shape, self.own, self.given)
        if TASKS[self.spec.task].imitates and any(split.labelled for split in found.splits.values()):
            self.note("the dataset's labels are ignored: an imitation is measured by the float network's outputs")
        if (moments := self._labels) is not None:
            self.report.labels = {"mean": moments.mean.tolist(), "std": moments.std.tolist()}
        splits = {"train": self.data.train, "val": self.data.val, "test": self.data.test}
        self.report.samples = {name: len(split) for name, split in splits.items() if split is not None}
        self.report.samples["calibration"] = len(self.data.calibration)

    @property
    def _labels(self) -> Moments | None:
        """Of a regression's training labels; None of other tasks, and without labels."""
        labels = self.loaded.train.y
        if self.spec.task != "regression" or labels is None:
            return None
        return Moments(torch.split(labels, EVALUATION_BATCH))

    @functools.cached_property
    def task(self) -> Task:
        """What is trained for, its losses in standard deviations of the training labels; without any, and where the
        float network is imitated, of that network's outputs for the calibration samples."""
        task, moments, data = TASKS[self.spec.task], self._labels, self.loaded
        if not task.in_units:
            return task
        if moments is None:
            assert self.teacher is not None, "the float network itself is trained on labels"
            with torch.no_grad():
                moments = Moments(in_parts(self.teacher, data.normalise(raw)) for raw, _ in batches(data.calibration))
        return task.scaled(moments.std.float().to(self.device))

    def edit(self, stage: Stage, editors: Sequence[Editor]) -> None:
        """Run editors on the network; the report tells what they did."""
        self.report.add_edits(stage, run_editors(self.network, editors))

    def note(self, message: str) -> None:
        """Something that the user should know."""
        self.report.notes.append(message)
        self.emit(LogBody(message=message))

    def warn(self, message: str) -> None:
        """Something that the user should look at before the network is deployed."""
        self.report.warnings.append(message)
        self.emit(LogBody(level="warning", message=message))

    def measure(self, stage: Stage) -> None:
        """Report the present network's figures, if there are data to measure them on."""
        # A GPU may convolve by detours (Winograd, Fourier) that are not exact on integers: those are the CPU's.
        device = torch.device("cpu") if stage in ("hardware_exact", "integerise") else self.device
        data = self.loaded if device.type == "cpu" else self.data_on_device
        found = data.report_split
        if found is None:
            return
        name, split = found
        task = TASKS[self.spec.task]
        with placed(device, self.network, self.teacher if task.imitates else None):
            measured = evaluate(self.network, split, data.normalise, task, self.teacher)
        self.report.add_accuracy(stage, name, measured)
        self.emit(MetricsBody(stage=stage, values=measured.named(name)))
