"""Inspection of what `POST /v1/models` takes: a network as ONNX, or the weights of a zoo network."""

from __future__ import annotations

import os
from collections.abc import Collection

from dianaq.inspection.formats import file_format
from dianaq.inspection.model import inspect_model
from dianaq.inspection.weights import inspect_weights
from dianaq.schemas.resources import ModelInfo, WeightsInfo


def inspect_upload(path: str | os.PathLike[str], own: Collection[str] = ()) -> ModelInfo | WeightsInfo:
    """What a model or weights file holds; its first bytes tell which it is. `own` is as for `inspect_model`.

    Raises:
        InvalidModel: see `inspect_model` and `inspect_weights`.
    """
    return inspect_model(path, own) if file_format(path) == "onnx" else inspect_weights(path)
