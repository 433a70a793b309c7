"""What the stages of a job hand on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import fx, nn

from dianaq.schemas.events import EventBody, LogBody, MetricsBody, Stage
from dianaq.schemas.spec import JobSpec
from dianaq_quant.bundle.report import Report
from dianaq_quant.checkpoint import Checkpoint
from dianaq_quant.editors import deploy
from dianaq_quant.export.dory import DoryModel
from dianaq_quant.export.htvm import HtvmModel
from dianaq_quant.export.layers import IntegerNetwork
from dianaq_quant.graph import Editor, run_editors
from dianaq_quant.modules.exact import Requantisation
from dianaq_quant.training.data import Data
from dianaq_quant.training.device import placed
from dianaq_quant.training.evaluate import evaluate
from dianaq_quant.training.load import load_data
from dianaq_quant.training.snapshots import Snapshots
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
    data: Data | None = None
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

    def load(self) -> None:
        """Load the dataset for the network's input."""
        self.data = load_data(self.dataset_path, self.spec, self.input_shape)
        splits = {"train": self.data.train, "val": self.data.val, "test": self.data.test}
        self.report.samples = {name: len(split) for name, split in splits.items() if split is not None}
        self.report.samples["calibration"] = len(self.data.calibration)

    def edit(self, stage: Stage, editors: Sequence[Editor]) -> None:
        """Run editors on the network; the report tells what they did."""
        self.report.add_edits(stage, run_editors(self.network, editors))

    def note(self, message: str) -> None:
        """Something that the user should know."""
        self.report.notes.append(message)
        self.emit(LogBody(message=message))

    def measure(self, stage: Stage) -> None:
        """Report the present network's figures, if there are data to measure them on."""
        # A GPU may convolve by detours (Winograd, Fourier) that are not exact on integers: those are the CPU's.
        device = torch.device("cpu") if stage in ("hardware_exact", "integerise") else self.device
        data = self.loaded if device.type == "cpu" else self.data_on_device
        found = data.report_split
        if found is None:
            return
        name, split = found
        with placed(device, self.network):
            measured = evaluate(self.network, split, data.normalise, TASKS[self.spec.task])
        self.report.add_accuracy(stage, name, measured)
        self.emit(MetricsBody(stage=stage, values=measured.named(name)))
