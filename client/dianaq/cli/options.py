"""From command-line options to a job specification: the same options for every command that takes a job.

A job starts from a preset; a YAML file overrides it; options override both.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import yaml

from dianaq.errors import InvalidSpec
from dianaq.inspection.formats import file_format
from dianaq.inspection.interface import check_kind
from dianaq.inspection.weights import inspect_weights
from dianaq.schemas.events import ITERATIONS
from dianaq.schemas.recipe import Preset, Recipe, merge
from dianaq.schemas.spec import (
    SCHEDULING,
    Device,
    InputKind,
    JobSpec,
    OutputKind,
    Priority,
    TaskName,
    ZooModel,
    parse_spec,
)
from dianaq.schemas.substitution import ACTIVATIONS, REPLACEMENTS
from dianaq.schemas.zoo import Architecture

DEFAULT_PRESET: Preset = "ptq"
"""Without a preset, and without one in the YAML file, only what the options and the file name is trained: a file
means the same to a command as to the API, and no training of hours begins unasked."""

DEFAULT_TASK: TaskName = JobSpec.model_fields["task"].default


_ZOO_OPTIONS = ("input_shape", "classes", "width")
"""Fields of a `ZooModel` that are options, as the parser calls them."""

_SPEC_KEYS = tuple(JobSpec.model_fields)
_RECIPE_KEYS = tuple(field.alias or name for name, field in Recipe.model_fields.items())


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `job_spec` reads."""
    group = parser.add_argument_group("job options", "precedence: preset, then --recipe, then the other options")
    group.add_argument(
        "--preset",
        choices=get_args(Preset),
        help=f"ptq: post-training; qat: quantisation-aware training (default: {DEFAULT_PRESET})",
    )
    group.add_argument("--task", choices=get_args(TaskName), help=f"what the network is for (default: {DEFAULT_TASK})")
    group.add_argument("--recipe", type=Path, metavar="FILE.yaml", help="a whole job specification, or any part of it")
    group.add_argument(
        "--epochs",
        type=_epochs,
        nargs="+",
        action="extend",
        default=[],
        metavar="ITERATION=N",
        help=f"training epochs of an iteration ({', '.join(ITERATIONS)})",
    )
    group.add_argument(
        "--substitute",
        type=_substitution,
        nargs="+",
        action="extend",
        default=[],
        metavar="ACTIVATION=OTHER",
        help=f"replace activations that no core computes ({', '.join(ACTIVATIONS)}) by {' or '.join(REPLACEMENTS)}",
    )
    group.add_argument("--mean", type=float, nargs="+", metavar="X", help="per channel, of samples scaled to 0..1")
    group.add_argument("--std", type=float, nargs="+", metavar="X", help="per channel, of samples scaled to 0..1")
    group.add_argument(
        "--input-type",
        choices=get_args(InputKind),
        help="what the firmware feeds: the normalised float input, its integers, or pixel - 128 (default: float)",
    )
    group.add_argument(
        "--output-type", choices=get_args(OutputKind), help="what the firmware gets, real or integer (default: float)"
    )
    group.add_argument("--calibration", type=int, metavar="N", help="training samples that the observers see")
    group.add_argument("--seed", type=int, metavar="N", help="seed of everything random")
    group.add_argument(
        "--profile", action="store_true", help="profile one training step of each iteration (Chrome trace)"
    )
    for end, what in (("from", "begins"), ("to", "ends")):
        group.add_argument(
            f"--{end}",
            dest=f"part_{end}",
            metavar="TENSOR",
            help=f"quantise a part of the network, which {what} there; `dianaq inspect MODEL` lists names",
        )
    group.add_argument(
        "--start-from",
        metavar="JOB/ITERATION",
        help="go on after an iteration of another job (python -m dianaq_quant: BUNDLE/ITERATION)",
    )
    zoo = parser.add_argument_group("network of the zoo", "instead of an ONNX file; MODEL is then its weights, if any")
    zoo.add_argument("--zoo", choices=get_args(Architecture), metavar="ARCHITECTURE", help="%(choices)s")
    zoo.add_argument("--input-shape", type=int, nargs="+", metavar="N", help="C H W, or the number of values")
    zoo.add_argument("--classes", type=int, metavar="N", help="outputs; none for the autoencoder")
    zoo.add_argument("--width", type=float, metavar="X", help="factor on the channels of every layer (default: 1)")


def add_scheduling_options(parser: argparse.ArgumentParser) -> None:
    """Add where and when a service runs the job; `job_spec` reads them where they are there."""
    group = parser.add_argument_group("scheduling")
    group.add_argument("--device", choices=get_args(Device), help="kind of worker that takes the job (default: any)")
    group.add_argument("--priority", choices=get_args(Priority), help="among the jobs that wait (default: normal)")
    group.add_argument("--deadline-hours", type=float, metavar="X", help="fail the job once it has run for so long")


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """Add the file that the network comes from, as `args.model`; `job_spec` says when it is missing."""
    parser.add_argument(
        "model",
        type=Path,
        nargs="?",
        metavar="MODEL",
        help="float network, ONNX; with --zoo its weights, safetensors or .pt (default: random)",
    )


def job_spec(args: argparse.Namespace, *, model: str | None, dataset: str) -> JobSpec:
    """The job that parsed options ask for.

    Args:
        args: what a parser with `add_job_options` gave.
        model: id of an upload, or its path for the standalone command: a network, or the weights of the zoo network
            that the options or the YAML file describe. None leaves the weights to the file.
        dataset: id of an upload, or its path. Both win over those of the file.

    Raises:
        InvalidSpec: the YAML file cannot be read or holds an unknown key, a value is out of bounds, or there is no
            network.
    """
    data = read_recipe(args.recipe) if args.recipe is not None else {}
    data = merge(data, _from_options(args))
    recipe = data.get("recipe")
    if recipe is None or (isinstance(recipe, Mapping) and "preset" not in recipe):
        data = merge(data, {"recipe": {"preset": DEFAULT_PRESET, **(recipe or {})}})
    return parse_spec({**data, "model": _network(args, data.get("model"), model), "dataset": dataset})


def check_model_file(spec: JobSpec, path: Path | None) -> None:
    """Refuse a file that is weights where the job needs a network, or the reverse.

    Raises:
        InvalidModel: the file is that, is no model at all, or cannot be read.
    """
    if path is not None:
        format = file_format(path)
        if format == "pytorch" and not isinstance(spec.model, ZooModel):
            inspect_weights(path)  # a pickled module, which looks like weights at first sight, is called one
        check_kind(spec, format)


def _network(args: argparse.Namespace, from_file: Any, upload: str | None) -> str | dict[str, Any]:
    """`model` of the specification: an uploaded network, or one of the zoo with its weights."""
    given = {name: value for name in _ZOO_OPTIONS if (value := getattr(args, name)) is not None}
    described = dict(from_file) if isinstance(from_file, Mapping) else {}
    if args.zoo is not None:
        described["architecture"] = args.zoo
    if not described:
        if given:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise InvalidSpec(f"{options} describes a network of the zoo; add --zoo ARCHITECTURE", param="model")
        if upload is None:
            raise InvalidSpec("no network is given; name an ONNX file, or --zoo ARCHITECTURE", param="model")
        return upload
    return {**described, **given, **({} if upload is None else {"weights": upload})}


def read_recipe(path: Path) -> dict[str, Any]:
    """A YAML file as (part of) a job specification. A bare recipe becomes its `recipe`.

    Raises:
        InvalidSpec: the file cannot be read, is not a mapping, or has a key that neither form knows.
    """
    data = read_yaml(path)
    known = _SPEC_KEYS if any(key in _SPEC_KEYS for key in data) else _RECIPE_KEYS
    for key in data:
        if key not in known:
            raise InvalidSpec(
                f"{path} holds the unknown key {key!r}{_meant(str(key))}; a job specification takes "
                f"{', '.join(_SPEC_KEYS)}, a recipe {', '.join(_RECIPE_KEYS)}",
                param=str(key),
            )
    return data if known is _SPEC_KEYS else {"recipe": data}


def _meant(key: str) -> str:
    """The key that is nearest to an unknown one. Keys of a recipe stand below `recipe` where others stand beside."""
    close = difflib.get_close_matches(key, (*_SPEC_KEYS, *_RECIPE_KEYS), 1)
    if not close:
        return ""
    below = " below recipe" if close[0] in _RECIPE_KEYS else ""
    return f": did you mean {close[0]!r}{below}?"


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML (or JSON) file that holds a mapping, or nothing.

    Raises:
        InvalidSpec: the file cannot be read, or is not a mapping.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSpec(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except yaml.YAMLError as error:
        raise InvalidSpec(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InvalidSpec(f"{path} must hold a mapping, it holds a {type(data).__name__}")
    return data


def _from_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, as part of a job specification."""
    recipe: dict[str, Any] = {iteration: {"epochs": epochs} for iteration, epochs in args.epochs}
    if args.preset is not None:
        recipe["preset"] = args.preset
    if args.calibration is not None:
        recipe["calibration"] = {"samples": args.calibration}
    if args.seed is not None:
        recipe["seed"] = args.seed
    preprocessing = {name: getattr(args, name) for name in ("mean", "std") if getattr(args, name) is not None}
    ends = {"input": args.input_type, "output": args.output_type}
    part = {"from": args.part_from, "to": args.part_to}
    parts: dict[str, Any] = {
        "recipe": recipe,
        "preprocessing": preprocessing,
        "interface": {name: kind for name, kind in ends.items() if kind is not None},
        "part": {end: name for end, name in part.items() if name is not None},
        "task": args.task,
        "substitute": dict(args.substitute),
        "profile": args.profile,
        "start_from": args.start_from,
    }
    scheduling = {name: getattr(args, name, None) for name in sorted(SCHEDULING)}
    given = {name: value for name, value in scheduling.items() if value is not None}
    return given | {name: part for name, part in parts.items() if part}


def _substitution(text: str) -> tuple[str, str]:
    kind, _, other = text.partition("=")
    if not kind or not other:
        raise argparse.ArgumentTypeError(f"{text!r} is not ACTIVATION=OTHER, such as hardswish=relu6")
    return kind, other


def _epochs(text: str) -> tuple[str, int]:
    iteration, _, epochs = text.partition("=")
    if iteration not in ITERATIONS or not epochs.isdecimal():
        raise argparse.ArgumentTypeError(
            f"{text!r} is not ITERATION=N with one of {', '.join(ITERATIONS)} and a whole number"
        )
    return iteration, int(epochs)
