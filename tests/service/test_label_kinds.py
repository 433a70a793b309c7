"""A dataset is uploaded before any job says its task: what the labels may be is decided when a job is submitted."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from dianaq_service.database import DatasetRow
from dianaq_service.ids import new_id

from .conftest import Api


def upload(api: Api, y: np.ndarray) -> dict[str, Any]:
    buffer = io.BytesIO()
    np.savez(buffer, x_train=np.zeros((6, 8, 8, 3), np.uint8), y_train=y)
    response = api.client.post("/v1/datasets", params={"name": "d.npz"}, content=buffer.getvalue())
    assert response.status_code == 201, response.text
    return dict(response.json())


def submit(api: Api, dataset: str, task: str) -> Any:
    return api.client.post("/v1/jobs", json={"model": api.add_model(), "dataset": dataset, "task": task})


@pytest.mark.parametrize(
    ("y", "taken", "words"),
    [
        (np.eye(10)[:6], ["regression", "imitation"], "y_train.argmax(1)"),
        (np.arange(6.0), ["imitation"], "y_train.astype('int64')"),
    ],
)
def test_the_task_says_which_labels_fit(api: Api, y: np.ndarray, taken: list[str], words: str) -> None:
    dataset = upload(api, y)
    assert dataset["info"]["splits"]["train"]["label_shape"] == list(y.shape[1:])
    details = []
    for task in ("classification", "regression", "imitation"):
        response = submit(api, dataset["id"], task)
        assert (response.status_code == 201) == (task in taken), response.text
        if response.status_code != 201:
            details.append(response.json()["detail"])
            assert response.json()["param"] == "y_train"
    assert any(words in detail for detail in details), details


def test_rows_from_before_labels_had_shapes_are_read(api: Api) -> None:
    split = {"samples": 6, "sample_shape": [8, 8, 3], "dtype": "uint8", "label_min": 0, "label_max": 9}
    row = DatasetRow(
        id=new_id("dat"), owner="alice", name="old", sha256="0" * 64, size=1, info={"splits": {"train": split}}
    )
    with api.services.database.write() as session:
        session.add(row)
        old = row.id
    assert submit(api, old, "classification").status_code == 201
    response = submit(api, old, "regression")
    assert response.status_code == 422
    assert "y_train has the shape (6,)" in response.json()["detail"]
