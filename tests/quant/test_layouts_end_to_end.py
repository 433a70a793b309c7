"""Networks in other layouts through whole jobs: data in either order, the bundle's files, what the report tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from dianaq.cli import main
from dianaq.errors import InvalidDataset, InvalidModel, InvalidSpec
from dianaq_quant import quantise as quantise_module

from .support import quantise, run_onnx
from .test_lower_layouts import built, line, nhwc_autoencoder, nhwc_maps, nhwc_residual


def agrees(report: dict) -> bool:
    """Whether the four executions agreed: on both files in onnxruntime, in torch, and in integers."""
    executions = report["verification"]["executions"]
    return {"hardware-exact torch", "integer torch", "htvm/model.onnx"} <= set(executions) and len(executions) >= 4


def samples(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(40, *shape)).astype(np.float32)


@pytest.fixture(scope="module")
def channels_last(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a job whose network and data are NHWC."""
    labels = np.arange(40) % 4
    arrays = {"x_train": samples(6, 7, 3), "y_train": labels}
    spec = {"preprocessing": {"mean": [0.1, 0.2, 0.3], "std": [1, 2, 3]}}
    outcome = quantise(built(nhwc_residual, (6, 7, 3)), arrays, tmp_path_factory.mktemp("nhwc"), **spec)
    assert agrees(outcome.report)
    return outcome.folder


def test_the_report_tells_the_layout_that_firmware_feeds(channels_last: Path) -> None:
    readme = (channels_last / "README.md").read_text()
    assert "Input: 3 x 6 x 7 values, CHW" in readme
    assert "The float network takes (6, 7, 3) for a sample x: x.transpose(2, 0, 1).reshape(3, 6, 7) in numpy" in readme


def test_golden_inputs_are_what_the_exported_file_takes(channels_last: Path) -> None:
    fed, given = (np.load(channels_last / "htvm" / f"{name}.npy") for name in ("input", "output"))
    assert fed.shape == (1, 3, 6, 7)
    np.testing.assert_array_equal(run_onnx(onnx.load(str(channels_last / "htvm" / "model.onnx")), fed), given)


def test_the_same_data_in_the_other_layout_give_the_same_bundle(channels_last: Path, tmp_path: Path) -> None:
    arrays = {"x_train": samples(6, 7, 3).transpose(0, 3, 1, 2).copy(), "y_train": np.arange(40) % 4}
    spec = {"preprocessing": {"mean": [0.1, 0.2, 0.3], "std": [1, 2, 3]}}
    other = quantise(built(nhwc_residual, (6, 7, 3)), arrays, tmp_path, **spec).folder
    for name in ("htvm/model.onnx", "dory/model.onnx", "htvm/input.npy"):
        assert (other / name).read_bytes() == (channels_last / name).read_bytes()


def test_normalisation_is_per_channel_wherever_that_is(tmp_path: Path) -> None:
    arrays = {"x_train": samples(6, 7, 3)}
    with pytest.raises(InvalidSpec, match=r"preprocessing\.mean has 6 values; an input of shape \(3, 6, 7\) takes"):
        quantise(built(nhwc_residual, (6, 7, 3)), arrays, tmp_path, preprocessing={"mean": [0.0] * 6})


def test_data_of_neither_layout_are_refused_with_both(tmp_path: Path) -> None:
    arrays = {"x_train": samples(7, 6, 3)}
    with pytest.raises(InvalidDataset, match=r"\(6, 7, 3\), or \(3, 6, 7\)"):
        quantise(built(nhwc_residual, (6, 7, 3)), arrays, tmp_path)


@pytest.mark.parametrize("shape", [(3, 16), (16, 3), (3, 1, 16)])
def test_a_1d_network_goes_all_the_way(tmp_path: Path, shape: tuple[int, ...]) -> None:
    outcome = quantise(built(line, (3, 16)), {"x_train": samples(*shape)}, tmp_path)
    report = outcome.report
    assert agrees(report)
    kinds = [layer["operation"] for layer in report["layers"]]
    assert kinds == ["quantise", *["Conv1d"] * 2, "Add", *["Conv1d"] * 3, "Flatten", "Linear"]
    assert report["interface"]["input"]["shape"] == [3, 1, 16]
    assert report["interface"]["input"]["float_network"] == {"shape": [3, 16], "axes": [0, 1]}


class Line(nn.Module):
    """A temporal network in (N, C, L), as one writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(3, 8, 5, padding=2, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(8, 8, 3, padding=1, groups=8), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.body(x))
        return y


def test_a_checkpoint_of_a_1d_network_can_be_started_from(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = {"x_train": samples(3, 16), "y_train": np.arange(40) % 4}
    quantise_module(Line(), data, tmp_path / "one")
    again = {"start_from": f"{tmp_path / 'one'}/fake_quantised"}
    result = quantise_module(Line(), data, tmp_path / "two", input_shape=(3, 16), **again)
    assert agrees(result.report)
    assert result.report["interface"]["input"]["float_network"]["shape"] == [3, 16]


def test_a_map_is_given_and_labelled_in_the_layout_of_the_export(tmp_path: Path) -> None:
    """The labels of a regression follow the output, which the float network gives channels last."""
    model = built(nhwc_maps, (6, 7, 3))
    x = samples(6, 7, 3)
    arrays = {"x_train": x, "y_train": run_onnx(model, x)}
    outcome = quantise(model, arrays, tmp_path, task="regression")
    first = outcome.report["accuracy"][0]
    assert first["r2"] > 0.9999
    assert outcome.report["interface"]["output"]["float_network"]["shape"] == [4, 5, 4]
    assert "The float network gives (4, 5, 4) for a sample x" in (outcome.folder / "README.md").read_text()


def test_inspection_calls_1d_layers_by_what_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = quantise(built(line, (3, 16)), {"x_train": samples(3, 16)}, tmp_path).folder
    main(["inspect", str(folder / "htvm" / "model.onnx")])
    kinds = [row.split()[1] for row in capsys.readouterr().out.splitlines()[1:] if row.strip()]
    assert kinds[:7] == ["conv1d", "depthwise1d", "add", "depthwise1d", "conv1d", "depthwise1d", "fc"]
    main(["inspect", str(tmp_path / "model.onnx")])
    assert "x, 3x16, which is fed as 3x1x16" in capsys.readouterr().out


def test_a_vector_in_the_order_of_another_layout_is_no_reconstruction(tmp_path: Path) -> None:
    """Its values would be compared with others of the input."""
    with pytest.raises(InvalidModel, match="gives a vector in the order of its input"):
        quantise(built(nhwc_autoencoder, (4, 4, 3)), {"x_train": samples(4, 4, 3)}, tmp_path, task="reconstruction")
