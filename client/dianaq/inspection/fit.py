"""Whether a model, a dataset and a job specification fit each other. Plain Python, needs nothing installed."""

from __future__ import annotations

import math
from typing import Literal

from dianaq.errors import InvalidDataset, InvalidModel, InvalidSpec
from dianaq.inspection.arrangement import keeps_order, unchanged
from dianaq.inspection.fit_labels import check_class_numbers, check_numbers
from dianaq.inspection.fit_names import check_mapping, check_rules
from dianaq.inspection.interface import Interface, Own, interface
from dianaq.inspection.substitution import check_substitution
from dianaq.schemas.events import ITERATIONS
from dianaq.schemas.resources import Arrangement, DatasetInfo, ModelInfo, WeightsInfo
from dianaq.schemas.spec import JobSpec

Shape = tuple[int, ...]
Layout = Literal["auto", "nchw", "nhwc"]


def input_layout(sample: Shape, target: Shape, layout: Layout, own: Own | None = None) -> Arrangement:
    """What turns samples of one shape into inputs of another.

    Args:
        sample: shape of a stored sample, without the sample dimension: (28, 28) or (32, 32, 3).
        target: shape of what the network takes, without the batch: (1, 28, 28) or (3, 32, 32) or (784,); (3, 1, 32)
            of a 1-d network.
        layout: order of the dimensions of a stored image; `auto` takes the one that fits. If both do, it is that of
            the float network.
        own: the input as the float network has it, where that is another one.

    Raises:
        InvalidDataset: no supported transformation leads from one to the other.
    """
    if own is not None and sample == own.shape and (layout != "nchw" or len(sample) != 3):
        return own.arrangement
    if sample == target and (layout != "nhwc" or len(sample) != 3):
        return unchanged(sample)
    if layout != "nchw" and len(sample) == 3 and (sample[2], sample[0], sample[1]) == target:
        return Arrangement(axes=(2, 0, 1), shape=target)
    if len(sample) < 3 and len(target) == 3:
        if (1, *sample) == target or (layout != "nhwc" and _without_ones(sample) == _without_ones(target)):
            return Arrangement(axes=tuple(range(len(sample))), shape=target)
        if layout != "nchw" and len(sample) == 2 and (sample[1], 1, sample[0]) == target:
            return Arrangement(axes=(1, 0), shape=target)
    if len(target) == 1 and math.prod(sample) == target[0]:
        return Arrangement(axes=tuple(range(len(sample))), shape=target)
    hint = "" if layout == "auto" else f" with preprocessing.layout {layout!r}"
    shapes = f"{target}" if own is None else f"{own.shape}, or {target}"
    raise InvalidDataset(
        f"samples of shape {sample} do not fit the model's input of shape {shapes}{hint}", param="x_train"
    )


def _without_ones(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)


def check_fit(spec: JobSpec, file: ModelInfo | WeightsInfo | None, dataset: DatasetInfo) -> None:
    """Refuse a job whose parts contradict each other.

    Args:
        file: the ONNX file (or that part of it which the job names), or the weights of a zoo network; None where it has
            none.

    Raises:
        InvalidDataset: samples that do not fit the model's input, or labels that the task does not know.
        InvalidModel: the network is refused, its output does not fit the task, or the file is weights where a network
            is needed or the reverse.
        UnsupportedOperator: it has activations that no core computes, and the job does not substitute them.
        InvalidSpec: mean, std, augmentation, epochs, interface or layer names that do not fit the model or the data.
    """
    check_interface(spec, interface(spec, file), dataset)


def check_interface(spec: JobSpec, model: Interface, dataset: DatasetInfo) -> None:
    """Refuse a job whose network, data and settings contradict each other; raises as `check_fit`."""
    if spec.start is None:  # else the network comes from a checkpoint, in which they are replaced
        check_substitution(spec, model.substitutable, model.final)
    if spec.task == "classification":
        _check_classifier(model, dataset)
    elif spec.task == "reconstruction":
        _check_autoencoder(model, dataset)
    elif spec.task == "regression":
        check_numbers(dataset, model.output)
    sample = dataset.splits["train"].sample_shape
    input_layout(sample, model.taken, spec.preprocessing.layout, model.own)
    _check_normalisation(spec, model.taken, sample)
    _check_pixels(spec, dataset)
    _check_training(spec, model.taken, dataset)
    if model.layers is not None:  # else a network of the zoo, whose layers the job knows
        check_mapping(spec, model.layers)
    if model.nodes is not None:
        check_rules(spec, model.nodes)


def _check_normalisation(spec: JobSpec, target: Shape, sample: Shape) -> None:
    channels = 1 if len(target) == 1 and sample != target else target[0]
    for name in ("mean", "std"):
        given = len(getattr(spec.preprocessing, name))
        if given not in (1, channels):
            accepted = "one value" if channels == 1 else f"one value or {channels}, one per channel"
            raise InvalidSpec(
                f"preprocessing.{name} has {given} values; an input of shape {target} takes {accepted}",
                param=f"preprocessing.{name}",
            )


def _check_pixels(spec: JobSpec, dataset: DatasetInfo) -> None:
    stored = dataset.splits["train"].dtype
    if spec.interface.input == "pixels" and stored != "uint8":
        raise InvalidSpec(
            f"interface.input is 'pixels', but x_train is {stored}; pixels are uint8: store the images as they are, or "
            "set interface.input to 'float' or 'int8'",
            param="interface.input",
        )


def _check_classifier(model: Interface, dataset: DatasetInfo) -> None:
    if len(model.output.shape) != 1:
        raise InvalidModel(
            f"classification needs an output of shape (batch, classes); {model.output.name!r} has the shape "
            f"{_batched(model.output.shape)}",
            param=model.output.name,
        )
    check_class_numbers(dataset)
    classes = model.output.shape[0]
    for name, split in dataset.splits.items():
        if split.label_max is not None and split.label_max >= classes:
            raise InvalidDataset(
                f"y_{name} holds the label {split.label_max}; the model has {classes} classes, 0 to {classes - 1}",
                param=f"y_{name}",
            )


def _check_autoencoder(model: Interface, dataset: DatasetInfo) -> None:
    """An image may come back flattened: the numbers of values are compared."""
    if math.prod(model.output.shape) != math.prod(model.input.shape):
        raise InvalidModel(
            f"reconstruction needs an output with as many values as the input; {model.output.name!r} has the shape "
            f"{_batched(model.output.shape)} and the input {model.input.name!r} {_batched(model.input.shape)}",
            param=model.output.name,
        )
    check_class_numbers(dataset, "reconstruction")
    moved = model.arrangement is not None and not keeps_order(model.input.shape, model.arrangement)
    if moved and len(model.output.shape) == 1:
        raise InvalidModel(
            f"{model.output.name!r} gives a vector in the order of its input {_batched(model.input.shape)}, and the "
            f"exported network takes {_batched(model.taken)}; reconstruction would work with an output in the shape of "
            "the input, or with the network in that layout",
            param=model.output.name,
        )
    for name, split in dataset.splits.items():
        if split.label_max is not None and split.label_max > 1:
            raise InvalidDataset(
                f"y_{name} holds the label {split.label_max}; the labels of a reconstruction are anomaly labels: "
                "0 (normal) or 1 (anomaly)",
                param=f"y_{name}",
            )
        if split.label_min == 1:
            raise InvalidDataset(
                f"y_{name} labels all {split.samples} samples as anomalies (1); at least one must be normal (0)",
                param=f"y_{name}",
            )


def _batched(shape: Shape) -> str:
    return f"(batch, {', '.join(map(str, shape))})"


def _check_training(spec: JobSpec, target: Shape, dataset: DatasetInfo) -> None:
    for iteration in ITERATIONS:
        training = spec.recipe.training(iteration)
        epochs = spec.recipe.epochs(iteration)
        if not epochs:
            continue
        steps = " with progressive steps" if epochs > training.epochs else ""
        progressive = spec.recipe.progressive if iteration == "hardware_mapped" else ()
        fewest = min(filter(None, (training.epochs, *(step.epochs for step in progressive))))
        if training.warmup_epochs >= fewest:
            raise InvalidSpec(
                f"recipe.{iteration}.warmup_epochs is {training.warmup_epochs:g}, of a training that has "
                f"{fewest} epoch{'s' * (fewest != 1)}: the learning rate would never be what it is set to; it takes "
                f"less than {fewest}",
                param=f"recipe.{iteration}.warmup_epochs",
            )
        by_labels = spec.task in ("classification", "regression") and training.distillation < 1
        for name in ("train", "val") if by_labels else ():
            if name in dataset.splits and not dataset.splits[name].labelled:
                raise InvalidSpec(
                    f"recipe.{iteration}.epochs is {epochs}{steps}, but the dataset has no labels y_{name}; "
                    "add them, set its distillation to 1, or train for 0 epochs",
                    param=f"recipe.{iteration}.epochs",
                )
        if spec.task == "regression" and by_labels and (moved := training.augmentation.moves):
            raise InvalidSpec(
                f"recipe.{iteration}.augmentation.{moved} is {getattr(training.augmentation, moved)}, which moves what "
                "is seen, and the labels of a regression may say where it is; augment the dataset with its labels, or "
                "set distillation to 1, where the float network says what the moved sample's output is",
                param=f"recipe.{iteration}.augmentation.{moved}",
            )
        if fault := training.augmentation.fault(target):
            name, why = fault
            raise InvalidSpec(
                f"recipe.{iteration}.augmentation.{name} is {getattr(training.augmentation, name)}, {why}; "
                f"the model's input has the shape {target}",
                param=f"recipe.{iteration}.augmentation.{name}",
            )
