"""What several test files do with small models."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, fx, nn

from dianaq.schemas.events import EventBody, MetricsBody, StageBody
from dianaq.schemas.spec import JobSpec
from dianaq_quant.graph import Edit, Editor, run_editors
from dianaq_quant.importers import Network, import_onnx
from dianaq_quant.pipeline import run

from .stages import imported

Forward = Callable[[Any, Tensor], Any]


class Net(nn.Module):
    """A module of the given parts, whose forward is a function of it and the input."""

    def __init__(self, forward: Forward, **parts: nn.Module | Tensor) -> None:
        super().__init__()
        torch.manual_seed(0)
        for name, part in parts.items():
            if isinstance(part, nn.Parameter | nn.Module):
                setattr(self, name, part)
            else:
                self.register_buffer(name, part)
        self.function = forward

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def run_onnx(model: onnx.ModelProto, x: np.ndarray, *, batched: bool = False) -> np.ndarray:
    """The model's output in onnxruntime, sample by sample or all at once, as the model is written."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    size = len(x) if batched else 1
    return np.concatenate([session.run(None, {name: x[i : i + size]})[0] for i in range(0, len(x), size)])


def network_of(model: onnx.ModelProto) -> Network:
    """The import of a model in memory, with its notes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        return import_onnx(path)


def edited(model: onnx.ModelProto, *editors: Editor) -> tuple[fx.GraphModule, list[Edit]]:
    """A model in memory after some editors, and what they report."""
    network = imported(model)
    return network, run_editors(network, editors)


def outputs(network: nn.Module, x: np.ndarray) -> np.ndarray:
    """A network's output in evaluation."""
    network.eval()
    with torch.no_grad():
        return network(torch.from_numpy(x)).numpy()


def kinds(network: fx.GraphModule) -> list[str]:
    """Names of the called modules' classes, in execution order."""
    return [type(network.get_submodule(str(n.target))).__name__ for n in network.graph.nodes if n.op == "call_module"]


def modules(network: fx.GraphModule, kind: type[nn.Module]) -> list[Any]:
    """Called modules of a class, in execution order."""
    found = [network.get_submodule(str(n.target)) for n in network.graph.nodes if n.op == "call_module"]
    return [m for m in found if isinstance(m, kind)]


@dataclass
class Outcome:
    """What a run of the pipeline left: its folder and its events."""

    folder: Path
    events: list[EventBody] = field(default_factory=list)

    @property
    def report(self) -> dict[str, Any]:
        return json.loads((self.folder / "report.json").read_text())  # type: ignore[no-any-return]

    def metrics(self, stage: str) -> list[MetricsBody]:
        return [e for e in self.events if isinstance(e, MetricsBody) and e.stage == stage]

    def finished(self) -> list[str]:
        return [e.stage for e in self.events if isinstance(e, StageBody) and e.status == "finished"]


def quantise(model: onnx.ModelProto, arrays: dict[str, np.ndarray], folder: Path, **spec: Any) -> Outcome:
    """Run the whole pipeline on a model and the arrays of a dataset."""
    onnx.save(model, str(folder / "model.onnx"))
    np.savez(folder / "data.npz", **arrays)
    outcome = Outcome(folder / "bundle")
    run(
        JobSpec.model_validate({"model": "model.onnx", "dataset": "data.npz", **spec}),
        model_path=folder / "model.onnx",
        dataset_path=folder / "data.npz",
        out_dir=outcome.folder,
        emit=outcome.events.append,
    )
    return outcome


def integers(*shape: int, lo: int = -128, hi: int = 127, seed: int = 0) -> Tensor:
    """Random integers of a range, in float32."""
    return torch.randint(lo, hi + 1, shape, generator=torch.Generator().manual_seed(seed)).float()
