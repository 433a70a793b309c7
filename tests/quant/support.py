"""What several test files do with small models."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, fx, nn

from dianaq.events import EventBody, MetricsBody, StageBody
from dianaq.ranges import QRange
from dianaq.spec import Calibration, JobSpec
from dianaq_quant.editors import canonicalise, fake_quantise, hardware, integerise
from dianaq_quant.editors.hardware.plan import ScalePlan, plan_scales
from dianaq_quant.export.layers import IntegerNetwork, read_layers
from dianaq_quant.graph import Edit, Editor, run_editors
from dianaq_quant.graph.shapes import record_shapes
from dianaq_quant.importers import import_onnx
from dianaq_quant.importers.onnx import Network
from dianaq_quant.pipeline import run
from dianaq_quant.training.calibrate import calibrate, observe
from dianaq_quant.training.data import Normalisation, Split

INT8 = QRange(bitwidth=8)
AS_IS = Normalisation(torch.ones(()), torch.zeros(()))


def run_onnx(model: onnx.ModelProto, x: np.ndarray, *, one_by_one: bool = True) -> np.ndarray:
    """The model's output in onnxruntime, as it is written; sample by sample if its batch is 1."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = [x[i : i + 1] for i in range(len(x))] if one_by_one else [x]
    return np.concatenate([session.run(None, {name: part})[0] for part in parts])


def load(model: onnx.ModelProto, folder: Path) -> Network:
    """The model, imported."""
    onnx.save(model, str(folder / "model.onnx"))
    return import_onnx(folder / "model.onnx")


def network_of(model: onnx.ModelProto) -> Network:
    """The import of a model in memory, with its notes."""
    with tempfile.TemporaryDirectory() as folder:
        return load(model, Path(folder))


def edited(model: onnx.ModelProto, *editors: Editor) -> tuple[fx.GraphModule, list[Edit]]:
    """A model in memory after some editors, and what they report."""
    network = network_of(model)
    record_shapes(network.graph, network.input_shape)
    return network.graph, run_editors(network.graph, editors)


def graph(model: onnx.ModelProto, folder: Path) -> fx.GraphModule:
    """The imported graph, its shapes recorded."""
    network = load(model, folder)
    record_shapes(network.graph, network.input_shape)
    return network.graph


def canonical(model: onnx.ModelProto, folder: Path) -> fx.GraphModule:
    """The model in canonical form."""
    network = graph(model, folder)
    run_editors(network, canonicalise.EDITORS)
    return network


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


def applied(edits: list[Edit]) -> list[tuple[str, str]]:
    """Editor and node of every edit that was applied."""
    return [(e.editor, e.node) for e in edits if e.applied]


def fake_quantised(
    model: onnx.ModelProto, folder: Path, x: np.ndarray, *, equalise: bool = False, qrange: QRange = INT8
) -> fx.GraphModule:
    """The model, fake-quantised and calibrated on `x`."""
    network = canonical(model, folder)
    run_editors(network, fake_quantise.editors(qrange, qrange, equalise=equalise))
    calibrate(network, Split(torch.from_numpy(x), None), AS_IS, Calibration())
    return network


def folded(model: onnx.ModelProto, folder: Path, x: np.ndarray) -> fx.GraphModule:
    """The model as `plan_scales` takes it."""
    network = fake_quantised(model, folder, x)
    run_editors(network, [*hardware.MAPPING, *hardware.FOLDING])
    observe(network, Split(torch.from_numpy(x), None), AS_IS)
    return network


@dataclass
class Stages:
    """A model on its way: folded with float semantics, its plan, exact, and integer."""

    folded: fx.GraphModule
    plan: ScalePlan
    exact: fx.GraphModule
    integer: IntegerNetwork


def stages(model: onnx.ModelProto, folder: Path, x: np.ndarray) -> Stages:
    """Quantise a model without training, without bias correction."""
    reference = folded(model, folder, x)
    network = folded(model, folder, x)
    plan = plan_scales(network, weights="mse", activations="mse", input_step=None)
    run_editors(network, hardware.exact_editors(plan))
    integer = folded(model, folder, x)
    run_editors(
        integer, hardware.exact_editors(plan_scales(integer, weights="mse", activations="mse", input_step=None))
    )
    run_editors(integer, integerise.EDITORS)
    record_shapes(integer, tuple(x.shape[1:]))
    return Stages(reference, plan, network.eval(), read_layers(integer))


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
