"""Activations that no core computes: replaced as the job says, in both ways in, and what that costs is reported."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dianaq.errors import InvalidSpec, UnsupportedOperator
from dianaq.schemas.events import LogBody
from dianaq.schemas.report import read_report
from dianaq.schemas.substitution import ACTIVATIONS, Activation
from dianaq_quant import quantise
from dianaq_quant.checkpoint import load
from dianaq_quant.importers import Network, Wishes, import_module, import_onnx
from dianaq_quant.modules.activations import KINDS

from . import support
from .builder import ModelBuilder
from .jobs import images
from .support import kinds

Act = Callable[[Tensor], Tensor]


class Small(nn.Module):
    """A convolution, an activation, a linear layer."""

    def __init__(self, act: Act) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.act, self.head = nn.Conv2d(3, 8, 3), act, nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.act(self.conv(x)).mean((2, 3)))
        return y


FORMS: dict[str, tuple[Activation, Act]] = {
    "nn.Hardswish": ("hardswish", nn.Hardswish(inplace=True)),
    "x * relu6(x + 3) / 6": ("hardswish", lambda x: x * F.relu6(x + 3, inplace=True) / 6),
    "x * clamp(x + 3) / 6": ("hardswish", lambda x: x * torch.clamp(x + 3, 0, 6) / 6),
    "x * hardsigmoid(x)": ("hardswish", lambda x: x * F.hardsigmoid(x)),
    "nn.LeakyReLU": ("leaky_relu", nn.LeakyReLU(0.2)),
    "nn.RReLU": ("leaky_relu", nn.RReLU()),
    "maximum": ("leaky_relu", lambda x: torch.maximum(x, 0.1 * x)),
    "where": ("leaky_relu", lambda x: torch.where(x > 0, x, 0.3 * x)),
    "nn.PReLU": ("prelu", nn.PReLU(8)),
    "F.silu": ("silu", F.silu),
    "x * sigmoid(x)": ("silu", lambda x: x * torch.sigmoid(x)),
    "swish": ("silu", lambda x: x * (1.5 * x).sigmoid()),
    "F.gelu": ("gelu", F.gelu),
    "gelu by tanh": ("gelu", nn.GELU("tanh")),
    "gelu by erf": ("gelu", lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5))),
    "nn.ELU": ("elu", nn.ELU(0.7)),
    "F.selu": ("selu", F.selu),
    "nn.CELU": ("celu", nn.CELU(1.3)),
    "F.mish": ("mish", F.mish),
    "x * tanh(softplus(x))": ("mish", lambda x: x * torch.tanh(F.softplus(x))),
    "nn.Softplus": ("softplus", nn.Softplus()),
    "nn.Hardsigmoid": ("hardsigmoid", nn.Hardsigmoid()),
    "(0.2 x + 0.5).clamp": ("hardsigmoid", lambda x: (0.2 * x + 0.5).clamp(0, 1)),
    "torch.sigmoid": ("sigmoid", torch.sigmoid),
    "nn.Tanh": ("tanh", nn.Tanh()),
}


def exported(module: nn.Module, wishes: Wishes) -> Network:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(module, (torch.zeros(1, 3, 6, 6),), str(path), dynamo=False, opset_version=17)
        return import_onnx(path, wishes)


@pytest.mark.filterwarnings("ignore")  # of the exporter, which will go
@pytest.mark.parametrize("form", FORMS)
def test_every_spelling_is_substituted_in_both_ways_in(form: str) -> None:
    kind, act = FORMS[form]
    module = Small(act).eval()
    x = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 3
    for way in (lambda wishes: import_module(module, (3, 6, 6), wishes), lambda wishes: exported(module, wishes)):
        with pytest.raises(
            UnsupportedOperator, match=rf"no core computes {kind} \(node '.+'\)\. substitute: {{{kind}: "
        ):
            way(Wishes())
        for other, name in (("relu", "ReLU"), ("relu6", "Ceiling")):
            network = way(Wishes({kind: other}))  # type: ignore[dict-item]
            assert kinds(network.graph) == ["Conv2d", name, "GlobalAvgPool2d", "Flatten", "Linear"]
            assert network.notes[-1] == f"{kind} became {other} at 1 place"
            assert [(e.editor, e.note) for e in network.edits][-1] == ("Substitute", f"{kind} became {other}")
            assert network.original is not None
            with torch.no_grad():
                torch.testing.assert_close(network.original(x), module(x), rtol=1e-5, atol=1e-5)
                got = module.head(getattr(F, other)(module.conv(x)).mean((2, 3)))
                torch.testing.assert_close(network.graph(x), got, rtol=1e-5, atol=1e-5)


def test_every_kind_is_tried() -> None:
    assert {kind for kind, _ in FORMS.values()} == {*ACTIVATIONS} == {*KINDS.values()}


def test_all_that_is_left_is_named_at_once_and_what_is_not_there_is_noted() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.SiLU(), nn.Conv2d(4, 4, 1), nn.Hardswish(), nn.SiLU())
    with pytest.raises(UnsupportedOperator) as caught:
        import_module(module, (3, 6, 6))
    assert caught.value.detail.startswith("no core computes hardswish (node '3'); silu (node '1', '4'). substitute: ")
    network = import_module(module, (3, 6, 6), Wishes({"silu": "relu", "hardswish": "relu6", "gelu": "relu"}))
    assert network.notes == [
        "silu became relu at 2 places",
        "hardswish became relu6 at 1 place",
        "substitute names gelu, which the network does not have",
    ]


def sigmoid_file(folder: Path) -> Path:
    b = ModelBuilder((3, 6, 6))
    y = b.gemm(b.flatten(b.relu(b.conv(b.input, 2))), 3)
    path = folder / "model.onnx"
    onnx.save(b.build(b.node("Sigmoid", [y], (3,), "squash")), str(path))
    return path


def test_a_sigmoid_at_the_end_is_dropped_where_the_ranking_counts_alone(tmp_path: Path) -> None:
    written = import_module(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Sigmoid()), (3, 6, 6))
    read = import_onnx(sigmoid_file(tmp_path))
    assert (kinds(written.graph)[-1], kinds(read.graph)[-1]) == ("Flatten", "Linear")
    for network, name in ((written, "2"), (read, "squash")):
        assert network.notes == [f"{name}: dropped: the network's output is its input, of the same ranking of classes"]
        assert network.original is None


def test_a_sigmoid_at_the_end_is_not_dropped_where_its_values_count(tmp_path: Path) -> None:
    wishes = Wishes(task="reconstruction")
    for way in (
        lambda w: import_onnx(sigmoid_file(tmp_path), w),
        lambda w: import_module(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid()), (3, 6, 6), w),
    ):
        with pytest.raises(UnsupportedOperator, match=r"gives the network's output.*reconstruction needs its values"):
            way(wishes)
        substituted = way(Wishes({"sigmoid": "relu6"}, task="reconstruction"))
        assert kinds(substituted.graph)[-1] == "Ceiling"


def classifier() -> onnx.ModelProto:
    b = ModelBuilder((3, 6, 6), seed=2)
    y = b.batch_norm(b.conv(b.input, 8, pads=(1, 1, 1, 1), bias=False, name="first"))
    y = b.node("LeakyRelu", [y], y.shape, "act", alpha=0.3)
    return b.build(b.gemm(b.flatten(b.global_pool(y)), 3, name="head"))


def data(*, labels: bool = True) -> dict[str, np.ndarray]:
    found = {}
    for name, (count, seed) in {"train": (60, 0), "val": (20, 1), "test": (20, 2)}.items():
        found[f"x_{name}"], y = images(count, seed)
        if labels:
            found[f"y_{name}"] = y
    return found


SUBSTITUTE = {"leaky_relu": "relu"}


def test_what_the_substitution_costs_is_a_warning_where_nothing_is_trained(tmp_path: Path) -> None:
    outcome = support.quantise(classifier(), data(), tmp_path, substitute=SUBSTITUTE)
    report = read_report(outcome.folder)
    found = report.substitution
    assert found is not None
    assert (found.by, found.trained, found.split) == (SUBSTITUTE, [], "test")
    assert found.before is not None
    assert found.after is not None
    assert found.after["top1"] == report.stages["float"].top1  # the same network: it was not trained
    assert found.outputs.keys() == {"agreement", "sqnr_db"}
    (warning,) = [w for w in report.warnings if w.startswith("substituted activations")]
    assert f"accuracy (test) goes from {found.before['top1']:.2%} to {found.after['top1']:.2%}" in warning
    assert warning.endswith("; nothing is trained afterwards, which a qat preset or recipe.float.epochs would")
    assert any(isinstance(e, LogBody) and e.level == "warning" and e.message == warning for e in outcome.events)
    assert ("import", "Substitute", "act", "leaky_relu became relu") in {
        (e.stage, e.editor, e.node, e.note) for e in report.edits
    }
    assert report.spec["substitute"] == SUBSTITUTE


def test_without_labels_the_outputs_are_compared(tmp_path: Path) -> None:
    outcome = support.quantise(classifier(), data(labels=False), tmp_path, substitute=SUBSTITUTE)
    found = read_report(outcome.folder).substitution
    assert found is not None
    assert (found.split, found.before, found.after, found.samples) == (None, None, None, 60)
    (warning,) = [w for w in read_report(outcome.folder).warnings if w.startswith("substituted")]
    assert f"beside it, on 60 calibration samples: SQNR (dB) {found.outputs['sqnr_db']:#.4g}, agreement " in warning


def test_an_imitation_is_measured_by_the_network_as_it_was(tmp_path: Path) -> None:
    outcome = support.quantise(classifier(), data(), tmp_path, substitute=SUBSTITUTE, task="imitation")
    report = read_report(outcome.folder)
    assert report.substitution is not None
    assert (report.substitution.before, report.substitution.trained) == (None, [])
    assert report.stages["float"].sqnr_db is not None
    assert report.stages["float"].sqnr_db < 60  # beside the float network itself it would be 144


def test_training_is_told_and_the_teacher_is_the_network_as_it_was(tmp_path: Path) -> None:
    training = {"epochs": 1, "learning_rate": 0.01, "batch_size": 20, "distillation": 1.0}
    outcome = support.quantise(
        classifier(), data(), tmp_path, substitute=SUBSTITUTE, recipe={"fake_quantised": training}
    )
    report = read_report(outcome.folder)
    assert report.substitution is not None
    assert report.substitution.trained == ["fake_quantised"]
    assert any(note.endswith("; trained afterwards: fake_quantised") for note in report.notes)
    assert not any(warning.startswith("substituted") for warning in report.warnings)
    teacher = load(outcome.folder / "checkpoints" / "fake_quantised.pt").teacher
    assert "LeakyReLU" in kinds(teacher)
    x = np.random.default_rng(0).normal(size=(4, 3, 6, 6)).astype(np.float32)
    np.testing.assert_allclose(support.outputs(teacher, x), support.run_onnx(classifier(), x), rtol=1e-5, atol=1e-5)
    checkpoint = load(outcome.folder / "checkpoints" / "float.pt")
    assert (checkpoint.origin.substitute, "ReLU" in kinds(checkpoint.network)) == (SUBSTITUTE, True)


def test_a_job_that_goes_on_cannot_substitute_otherwise(tmp_path: Path) -> None:
    support.quantise(classifier(), data(), tmp_path, substitute=SUBSTITUTE)
    arguments: dict[str, Any] = {"start_from": f"{tmp_path / 'bundle'}/fake_quantised"}
    files = (tmp_path / "model.onnx", tmp_path / "data.npz")
    with pytest.raises(InvalidSpec, match=r"substitute is leaky_relu relu6, but the checkpoint's .* leaky_relu relu;"):
        quantise(*files, tmp_path / "a", substitute={"leaky_relu": "relu6"}, **arguments)
    for number, same in enumerate(({}, {"substitute": SUBSTITUTE})):
        result = quantise(*files, tmp_path / f"b{number}", **same, **arguments)
        assert result.report["spec"]["start_from"] == arguments["start_from"]


def test_the_command_takes_substitutions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dianaq_quant.__main__ import main

    onnx.save(classifier(), str(tmp_path / "model.onnx"))
    np.savez(tmp_path / "data.npz", **data())
    base = [str(tmp_path / "model.onnx"), "--data", str(tmp_path / "data.npz"), "-o", str(tmp_path / "out")]
    assert main(base) == 1
    assert "error: no core computes leaky_relu (node 'act')" in capsys.readouterr().err
    assert main([*base, "--substitute", "leaky_relu=relu"]) == 0
    assert "warning: substituted activations make another network of it" in capsys.readouterr().out


@pytest.mark.parametrize("exporter", ["dynb", "dynfix", "sim", "ts13", "ts13fix"])
def test_what_exporters_write_is_the_same_before_it_is_substituted(shared_data: Path, exporter: str) -> None:
    path = shared_data / "cases" / "exporters" / f"hswish.{exporter}.onnx"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    network = import_onnx(path, Wishes({"hardswish": "relu6"}))
    assert network.original is not None
    x = np.random.default_rng(0).normal(size=(64, *network.input_shape)).astype(np.float32)
    wanted = support.run_onnx(onnx.load(str(path)), x)
    assert np.abs(support.outputs(network.original, x) - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.LogSoftmax(1)])
def test_a_softmax_of_a_module_is_not_dropped_where_its_values_count(end: nn.Module) -> None:
    module = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 6), flat=nn.Flatten(), scores=end))
    for task in ("classification", "imitation"):
        import_module(module, (3, 6, 6), Wishes(task=task))
    with pytest.raises(UnsupportedOperator, match=r"'scores' \(Softmax\).*regression needs.*part: {to: flat}"):
        import_module(module, (3, 6, 6), Wishes(task="regression"))
