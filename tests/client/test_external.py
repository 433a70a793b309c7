"""Weights in the file beside an ONNX file: taken from there, and from nowhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dianaq import Client
from dianaq.errors import InvalidModel, MissingExtra
from dianaq.inspection import inspect_model
from dianaq.inspection.external import joined, self_contained, tensors_of
from dianaq.inspection.formats import MAX_BYTES, data_file

from .fake_service import FakeService
from .onnx_samples import classifier, make_model, node, save, tensor

DATA = "model.onnx.data"


def external(folder: Path, model: onnx.ModelProto | None = None) -> Path:
    """A model whose tensors all lie in `DATA`, as onnx writes it."""
    path = folder / "model.onnx"
    options = {"location": DATA, "size_threshold": 0, "convert_attribute": True}
    onnx.save(model or classifier(), str(path), save_as_external_data=True, **options)
    assert b"location" in path.read_bytes()
    return path


def redirected(folder: Path, **entries: str) -> Path:
    """The same, in which the first tensor lies elsewhere."""
    path = external(folder)
    model = onnx.load(str(path), load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = entries.get(entry.key, entry.value)
    path.write_bytes(model.SerializeToString())
    return path


def test_a_file_with_all_weights_inside_stays_as_it_is(tmp_path: Path) -> None:
    path = save(classifier(), tmp_path)
    assert data_file(path) is None
    assert joined(path) is None
    with self_contained(path) as file:
        assert file == path


def test_text_that_looks_like_a_neighbour_is_none(tmp_path: Path) -> None:
    model = classifier()
    helper.set_model_props(model, {"location": DATA})
    path = save(model, tmp_path)
    assert data_file(path) == DATA
    assert joined(path) is None


def test_weights_of_the_neighbour_are_put_in(tmp_path: Path) -> None:
    path = external(tmp_path)
    assert data_file(path) == DATA
    with pytest.raises(InvalidModel, match=r"another file.*external_data=False"):
        inspect_model(path)
    whole = save(classifier(), tmp_path_of(tmp_path, "whole"))
    with self_contained(path) as file:
        assert file.name == path.name
        assert inspect_model(file) == inspect_model(whole)
        arrays = {t.name: numpy_helper.to_array(t) for t in onnx.load(str(file)).graph.initializer}
    assert not file.exists()
    for stored in classifier().graph.initializer:
        np.testing.assert_array_equal(arrays[stored.name], numpy_helper.to_array(stored))


def test_tensors_of_nodes_and_of_graphs_inside_are_put_in_too(tmp_path: Path) -> None:
    inner = helper.make_graph([node("Constant", [], "c", value=tensor("deep", 3, value=7.0))], "inner", [], [])
    nodes = [
        node("Constant", [], "w", value=tensor("shallow", 2, value=5.0)),
        node("If", ["x"], "y", then_branch=inner, else_branch=inner),
    ]
    model = onnx.ModelProto.FromString(joined(external(tmp_path, make_model(nodes, []))) or b"")
    found = {t.name: numpy_helper.to_array(t).tolist() for t in tensors_of(model.graph) if t.name}
    assert found == {"shallow": [5.0, 5.0], "deep": [7.0] * 3}


def tmp_path_of(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir()
    return made


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"location": "../model.onnx.data"}, ["'conv.weight'", "'../model.onnx.data'", "in the folder"]),
        ({"location": "/etc/passwd"}, ["'/etc/passwd'", "in the folder"]),
        ({"location": "sub/w.data"}, ["'sub/w.data'", "in the folder"]),
        ({"location": "..\\w.data"}, ["in the folder"]),
        ({"location": ".."}, ["in the folder"]),
        ({"location": ""}, ["in the folder"]),
        ({"location": "none.data"}, ["'none.data'", "cannot be read", "put it beside", "external_data=False"]),
        ({"offset": "-4"}, ["offset '-4'"]),
        ({"offset": "10000000"}, ["'conv.weight'", "truncated"]),
        ({"offset": "9" * 30}, ["offset"]),
        ({"length": "8"}, ["432 bytes", "has 8 of it"]),
        ({"length": "99999999999"}, ["432 bytes"]),
    ],
)
def test_data_are_read_from_nowhere_else(tmp_path: Path, entries: dict[str, str], words: list[str]) -> None:
    path = redirected(tmp_path_of(tmp_path, "models"), **entries)
    (tmp_path / DATA).write_bytes(bytes(100_000))
    with pytest.raises(InvalidModel) as caught:
        joined(path)
    assert [word for word in words if word not in caught.value.detail] == [], caught.value.detail


def _to_pipe(data: Path) -> None:
    data.unlink()
    os.mkfifo(data)


def _to_folder(data: Path) -> None:
    data.unlink()
    data.mkdir()


def _to_link_out(data: Path) -> None:
    data.rename(data.parent.parent / "weights")
    data.symlink_to("../weights")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_to_pipe, "is no file"),
        (_to_folder, "is no file"),
        (_to_link_out, "a link to"),
        (Path.unlink, "cannot be read"),
    ],
)
def test_a_neighbour_is_a_plain_file_of_the_folder(tmp_path: Path, change: Callable[[Path], None], words: str) -> None:
    path = external(tmp_path_of(tmp_path, "models"))
    change(path.parent / DATA)
    with pytest.raises(InvalidModel, match=words):
        joined(path)


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / DATA).rename(tmp_path / "weights")
    (tmp_path / DATA).symlink_to("weights")
    assert joined(path) is not None


def test_a_truncated_neighbour_is_refused(tmp_path: Path) -> None:
    path = external(tmp_path)
    os.truncate(tmp_path / DATA, 100)
    with pytest.raises(InvalidModel, match="which has 100: it is truncated, or of another model"):
        joined(path)


def test_nothing_is_read_that_is_too_large_together(tmp_path: Path) -> None:
    """Many tensors of the same bytes of a sparse file: each would fit alone."""
    path = external(tmp_path)
    os.truncate(tmp_path / DATA, MAX_BYTES)
    model = onnx.load(str(path), load_external_data=False)
    for number in range(3):
        huge = model.graph.initializer.add(name=f"h{number}", data_type=TensorProto.FLOAT, dims=[MAX_BYTES // 8])
        huge.data_location = TensorProto.EXTERNAL
        huge.external_data.add(key="location", value=DATA)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidModel, match="in the files beside it; at most"):
        joined(path)


@pytest.mark.parametrize(("type", "dims"), [(TensorProto.STRING, [1]), (TensorProto.INT4, [8]), (99, [1]), (1, [-1])])
def test_odd_tensors_are_refused(tmp_path: Path, type: int, dims: list[int]) -> None:
    path = external(tmp_path)
    model = onnx.load(str(path), load_external_data=False)
    model.graph.initializer[0].data_type = type
    model.graph.initializer[0].dims[:] = dims
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidModel, match=r"'conv\.weight'"):
        joined(path)


def test_what_is_uploaded_is_one_file(tmp_path: Path, service: FakeService, client: Client) -> None:
    path = external(tmp_path)
    client.upload_model(path)
    sent = onnx.ModelProto.FromString(service.uploads["model.onnx"])
    assert not [t.name for t in tensors_of(sent.graph) if t.external_data]
    (tmp_path / DATA).unlink()
    with pytest.raises(InvalidModel, match=r"model\.onnx: tensor 'conv\.weight' keeps its data in 'model\.onnx\.data'"):
        client.upload_model(path)


def test_without_the_extra_one_sentence_names_the_neighbour(
    tmp_path: Path, service: FakeService, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = external(tmp_path)
    monkeypatch.setitem(sys.modules, "dianaq.inspection.external", None)
    with pytest.raises(MissingExtra, match=r"'model\.onnx\.data'.*external_data=False.*dianaq\[inspection\]"):
        client.upload_model(path)
    assert not service.uploads
    (tmp_path / DATA).unlink()
    client.upload_model(path)  # the service has the last word
    assert service.uploads["model.onnx"] == path.read_bytes()
