"""Inspection of what `POST /v1/models` takes: a network as ONNX, or the weights of a zoo network."""

from __future__ import annotations

import os
from collections.abc import Collection

from dianaq.inspection.formats import file_format
from dianaq.inspection.model import inspect_model, parse_model
from dianaq.inspection.weights import inspect_weights
from dianaq.inspection.whole import inspect_whole
from dianaq.schemas.resources import ModelInfo, WeightsInfo
from dianaq.schemas.spec import NetworkPart


def inspect_upload(
    path: str | os.PathLike[str], own: Collection[str] = (), part: NetworkPart | None = None
) -> ModelInfo | WeightsInfo:
    """What a model or weights file holds; its first bytes tell which it is.

    A network that no job takes as a whole has a `refusal`; a part of one is refused.

    Args:
        own: as for `inspect_model`.
        part: what of a network to look at; None for all of it.

    Raises:
        InvalidModel: see `inspect_whole`, `inspect_model` and `inspect_weights`.
        InvalidSpec: the file has no such part.
    """
    if file_format(path) != "onnx":
        return inspect_weights(path)
    return inspect_whole(parse_model(path), own) if part is None else inspect_model(path, own, part)
