"""Inspection of a weights file. Nothing is unpickled, and neither torch nor numpy is needed."""

from __future__ import annotations

import os

from dianaq.errors import InvalidModel
from dianaq.inspection.formats import file_format
from dianaq.inspection.weights_pytorch import inspect_pytorch
from dianaq.inspection.weights_safetensors import inspect_safetensors
from dianaq.schemas.resources import WeightsInfo


def inspect_weights(path: str | os.PathLike[str]) -> WeightsInfo:
    """What a safetensors file or a PyTorch state dict holds, once all that needs no network was checked.

    Raises:
        InvalidModel: names the tensor or member at fault and what would be accepted.
    """
    format = file_format(path)
    if format == "onnx":
        raise InvalidModel(
            "the file holds no weights: it is neither safetensors nor a state dict of PyTorch; a network as ONNX is "
            "uploaded alone, without an architecture"
        )
    try:
        return inspect_safetensors(path) if format == "safetensors" else inspect_pytorch(path)
    except OSError as error:
        raise InvalidModel(f"the weights file cannot be read: {error.strerror or error}") from None
