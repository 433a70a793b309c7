"""Networks of every kind that the chip computes, by every exporter: taken as they are, bit for bit to the bundle."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_ir.passes import PassError
from torch.onnx import OnnxExporterError, TrainingMode
from torch.onnx.errors import SymbolicValueError

from dianaq.errors import DianaqError, UnsupportedOperator
from dianaq.inspection import inspect_model

from .agreement import BOUND, compared, fingerprint
from .exported_networks import NETWORKS
from .exporters import CLEANED, DYNAMO, TORCHSCRIPT, Way, torchscript
from .support import quantise

NOT_WRITTEN = {
    ("option_a", r"ts0\d.*"): (SymbolicValueError, "step!=1 is currently not supported"),
    ("adaptive_max", r"ts07.*"): (OnnxExporterError, "not implemented for opset 7"),
    ("padded", "ts09_optimised"): (PassError, "PassManager"),  # it looks for the second input of a Pad, of opset 11
    ("padded_by_function", "ts09_optimised"): (PassError, "PassManager"),
}
"""Networks that a way does not write at all, and how it says so."""

FAST = {
    "ts07_fixed": TORCHSCRIPT["ts07_fixed"],
    "ts09_unfolded": TORCHSCRIPT["ts09_unfolded"],
    "ts13": TORCHSCRIPT["ts13"],
    "ts17_kept_unfolded": TORCHSCRIPT["ts17_kept_unfolded"],
    "ts20_inputs_fixed": TORCHSCRIPT["ts20_inputs_fixed"],
    "dynamo": DYNAMO["dynamo"],
    "dynamo18": DYNAMO["dynamo18"],
}
"""One way of each kind: the oldest and the newest opset, fixed and dynamic, folded and not."""


def written(network: str, name: str, way: Way, path: Path) -> bool:
    """Export a network; False where the way is known not to write it, and said so."""
    said = next((s for (n, names), s in NOT_WRITTEN.items() if n == network and re.fullmatch(names, name)), None)
    if said is None:
        way.export(NETWORKS[network].module(), NETWORKS[network].shape, path)
        return True
    with pytest.raises(said[0], match=said[1]):
        way.export(NETWORKS[network].module(), NETWORKS[network].shape, path)
    return False


def imported(network: str, ways: Mapping[str, Way], folder: Path) -> dict[str, Path]:
    """The distinct networks that the files of some ways are taken for, each with a file that it came from.

    Fails with a list of those that were refused, or compute something else.
    """
    distinct, faults = dict[str, Path](), dict[str, str]()
    for name, way in ways.items():
        path = folder / f"{name}.onnx"
        if not written(network, name, way, path):
            continue
        try:
            found, difference = compared(path, NETWORKS[network].shape, NETWORKS[network].dropped)
        except DianaqError as error:
            faults[name] = str(error)
            continue
        if difference > BOUND:
            faults[name] = f"differs by {difference:.1e} of the largest output"
        distinct.setdefault(fingerprint(found.graph), path)
    assert not faults
    assert distinct
    return distinct


def assert_bundles(network: str, path: Path, folder: Path) -> None:
    """A job with the file ends, after all executions of its bundle have agreed bit for bit."""
    folder.mkdir()
    x = np.random.default_rng(4).normal(0, 1, (16, *NETWORKS[network].shape)).astype(np.float32)
    outcome = quantise(onnx.load(path), {"x_train": x}, folder, task=NETWORKS[network].task)
    assert outcome.finished()[-1] == "verify"
    assert len(outcome.report["verification"]["executions"]) == 6


@pytest.mark.parametrize("network", NETWORKS)
def test_one_way_of_each_kind_is_taken(network: str, tmp_path: Path) -> None:
    (path, *_) = imported(network, FAST, tmp_path).values()
    assert_bundles(network, path, tmp_path / "job")


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("ways", [TORCHSCRIPT, DYNAMO, CLEANED], ids=["torchscript", "dynamo", "cleaned"])
def test_every_way_is_taken(network: str, ways: Mapping[str, Way], tmp_path: Path) -> None:
    for number, path in enumerate(imported(network, ways, tmp_path).values()):
        assert_bundles(network, path, tmp_path / f"job{number}")


TRAINING = {
    "ts09": torchscript(9, training=TrainingMode.TRAINING),
    "ts13": torchscript(13, training=TrainingMode.TRAINING),
    "ts17": torchscript(17, training=TrainingMode.TRAINING),
    "ts13_preserved": torchscript(13, training=TrainingMode.PRESERVE),
}


@pytest.mark.parametrize("way", TRAINING)
def test_a_network_exported_while_training_says_how_to_export_it(way: str, tmp_path: Path) -> None:
    plain = NETWORKS["plain"]
    TRAINING[way].export(plain.module().train(), plain.shape, tmp_path / "training.onnx")
    with pytest.raises(UnsupportedOperator, match=r"training mode; export the model after model\.eval\(\)"):
        inspect_model(tmp_path / "training.onnx")
    settings = TORCHSCRIPT[way[:4]]
    settings.export(plain.module().train().eval(), plain.shape, tmp_path / "evaluation.onnx")
    assert compared(tmp_path / "evaluation.onnx", plain.shape)[1] <= BOUND
