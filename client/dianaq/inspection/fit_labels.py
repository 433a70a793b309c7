"""Whether the labels of a dataset are those that a job's task takes. Plain Python, needs nothing installed."""

from __future__ import annotations

import math

from dianaq.errors import InvalidDataset
from dianaq.schemas.resources import DatasetInfo, SplitInfo, TensorInfo


def check_class_numbers(dataset: DatasetInfo, param: str = "classification") -> None:
    """Refuse labels that are no integers from 0 on, of shape (samples,).

    Args:
        param: the task that takes them, as messages name it.

    Raises:
        InvalidDataset: names the split and what would turn its labels into class numbers, where something would.
    """
    for name, split in dataset.splits.items():
        key = f"y_{name}"
        if not split.labelled:
            continue
        if split.label_kind == "one_hot":
            raise InvalidDataset(
                f"{key} holds one-hot rows of {_described(split)}; a {param} takes class numbers: store "
                f"{key}.argmax(1)",
                param=key,
            )
        if split.label_shape:
            raise InvalidDataset(
                f"{key} has the shape {_stored(split)}; the labels of a {param} must be class numbers of shape "
                f"(samples,){_REGRESSION}",
                param=key,
            )
        if split.label_kind != "integers":
            remedy = f": convert with {key}.astype('int64')" if split.label_kind == "whole" else _REGRESSION
            raise InvalidDataset(f"{key} is {split.label_dtype}; labels must be integers{remedy}", param=key)
        if split.label_min is not None and split.label_min < 0:
            raise InvalidDataset(f"{key} holds the label {split.label_min}; labels are 0 and above", param=key)


_REGRESSION = "; numbers to approach are labels of the task 'regression'"


def check_numbers(dataset: DatasetInfo, output: TensorInfo) -> None:
    """Refuse a regression's labels that are not in the shape of the network's output.

    Raises:
        InvalidDataset: names both shapes.
    """
    for name, split in dataset.splits.items():
        if not split.labelled or split.label_shape == output.shape:
            continue
        single = math.prod(output.shape) == 1
        if single and split.label_shape == ():
            continue
        wanted = ", ".join(map(str, output.shape))
        also = " or (samples,)" if single else ""
        raise InvalidDataset(
            f"y_{name} has the shape {_stored(split)}; the labels of a regression have that of the output "
            f"{output.name!r}: (samples, {wanted}){also}",
            param=f"y_{name}",
        )


def _stored(split: SplitInfo) -> str:
    return str((split.samples, *(split.label_shape or ())))


def _described(split: SplitInfo) -> str:
    return f"{split.label_dtype}, in the shape {_stored(split)}"
