"""The README of a bundle: what each file is, and what was and was not verified."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dianaq.schemas.figures import FIGURES, figures_of, written
from dianaq.schemas.spec import NetworkPart, TaskName
from dianaq_quant.bundle.bundle_files import described
from dianaq_quant.bundle.report import Report
from dianaq_quant.bundle.report_html.units import si


def bundle_readme(report: Report, files: Iterable[str]) -> str:
    """The text, from what the job measured.

    Args:
        files: paths of the bundle's files, those excepted that are made last.
    """
    checked = report.verification
    boot = " --boot_analog" if any(layer.get("core") == "analog" for layer in report.layers) else ""
    return f"""# Integer network for DIANA

| file | what it is |
|---|---|
{_files(files)}
Open `report.html` in a browser to see whether to deploy the network.

## Accuracy
{_accuracy(report)}{_noise(report)}
## What to feed, and what comes out
{_ends(report)}
## What was verified
Every layer's output agreed bit for bit on {checked["data_samples"]} data samples and \
{checked["random_samples"]} random ones in: {", ".join(checked["executions"])}.
The compilers and the chip were not run.

## What cannot be verified off the chip
- What the compilers' generated code computes: they accept some files that they then compile wrongly. The golden vectors
  are there to compare the chip's outputs with, layer by layer.
- Time and energy: {_cost(report)}
- The analog core's converters: they are computed here without noise, and no noise model of the chip is published.

## Run it without a compiler
```sh
python -m dianaq.run htvm/model.onnx htvm/input.npy   # integers only: pip install "dianaq[inspection]"
```
The output must be that of `htvm/output.npy`; `dianaq compare` tells where two bundles first differ.
In onnxruntime `htvm/model.onnx` runs as it is; `dory/model.onnx` runs
there without DORY's attributes, which ONNX does not know.

## Handing it on
- HTVM, from its folder (it loads every `.npy` beside the model, so leave `htvm/` as it is):
  ```sh
  python diana/byoc/driver.py --onnx <bundle>/htvm/model.onnx --no-run{boot}
  ```
- DORY, from its folder; the other target is `Diana.Diana_TVM`:
  ```sh
  python network_generate.py Quantlab Diana.Diana_SoC <bundle>/dory/dory.json
  ```
  At the time of writing DORY's rewriter for a power-of-two requantisation without an addition (its rule `Relu`) raises
  `NameError`: in `Frontend_frameworks/Quantlab/Pattern_rewriter.py`, in `Relu_pattern_rewriter`, the line that assigns
  `output_activation_type` must name `DORY_Relu_node`.
{_warnings(report)}{_notes(report)}"""


def _files(files: Iterable[str]) -> str:
    """The files' rows of a table."""
    return "".join(f"| `{pattern}` | {words} |\n" for pattern, words in described(files).items())


def _cost(report: Report) -> str:
    """What the model says of both, and what it leaves out."""
    cost, memory = report.cost, report.memory
    if cost is None or memory is None:
        return "not computed."
    return (
        f"by the published ODiMO model {si(cost['latency_s'], 's')} and {si(cost['energy_j'], 'J')} for a sample at "
        f"260 MHz, without pooling and additions. Memory: {memory['weight_bytes']:,} bytes of weights and at most "
        f"{memory['peak_activation_bytes']:,} of activations, of {memory['limits']['l2']:,}."
    )


def _accuracy(report: Report) -> str:
    """Every figure of every stage as a table, and what the figures are where their names do not say it."""
    if not report.accuracy:
        return "Not measured: no labels.\n"
    names = figures_of(report.accuracy)
    rows = [["stage", *(FIGURES[name] for name in names), "samples"], ["---"] * (len(names) + 2)]
    for entry in report.accuracy:
        figures = (written(name, entry.get(name)) for name in names)
        rows.append([entry["stage"], *figures, f"{entry['samples']} ({entry['split']})"])
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    meaning = _MEANING[report.spec.task]
    return table + "".join(f"\n{meaning[name]}\n" for name in names if name in meaning)


def _ends(report: Report) -> str:
    """Both ends of the network, for who writes the firmware."""
    fed, given = report.interface["input"], report.interface["output"]
    part = report.spec.part
    lines = [] if part is None else [_part(part)]
    lines += [
        f"- Input: {_size(fed['shape'])} values, {fed['layout']}. `htvm/model.onnx` takes {_HOLDS[fed['htvm']]}, "
        f"`dory/model.onnx` integers. {_FEEDING[fed['kind']]}",
        *_rearranged(fed, "takes"),
        f"  Integers q are in {fed['range']}: {fed['formula']}, with {_constants(fed)}.",
        f"- Output: {_size(given['shape'])} values. `htvm/model.onnx` gives {_HOLDS[given['htvm']]}, `dory/model.onnx` "
        f"integers, in {given['range']}: {given['formula']} is what the float network gives, with {_constants(given)}.",
        *_rearranged(given, "gives"),
    ]
    lines += [
        f"  `{dialect}/model.onnx` {verb} {count} more {unit} behind these: {what}."
        for end, verb, what in ((fed, "takes", "zeros"), (given, "gives", "the least integer"))
        for dialect, count in end["padding"].items()
        for unit in ["channels" if len(end["shape"]) == 3 else "values"]
        if count
    ]
    return "\n".join(lines) + "\n"


def _part(part: NetworkPart) -> str:
    """What the network is of the file that it was made from; the golden vectors have its ends, and not the file's."""
    ends = [
        f"{what} is `{name}` in that network"
        for what, name in (("its input", part.from_), ("its output", part.to))
        if name is not None
    ]
    return f"- This is a part of the float network: {', and '.join(ends)}. The rest of it is the firmware's to compute."


def _rearranged(end: Mapping[str, Any], verb: str) -> list[str]:
    """How what the float network takes or gives becomes this, where it was in another layout."""
    if (former := end.get("float_network")) is None:
        return []
    size, axes = tuple(former["shape"]), former["axes"]
    turned = "" if axes == sorted(axes) else f".transpose({', '.join(map(str, axes))})"
    made = f"x{turned}.reshape({', '.join(map(str, end['shape']))})"
    return [f"  The float network {verb} {size} for a sample x: {made} in numpy makes these values of it."]


def _size(shape: list[int]) -> str:
    return " x ".join(map(str, shape))


def _constants(end: Mapping[str, Any]) -> str:
    """The numbers of a formula; as they are stored, so that what is computed with them agrees."""
    names = [name for name in ("scale", "factor", "bias") if name in end and name in end["formula"]]
    parts = [f"{name} {', '.join(map(repr, v)) if isinstance(v := end[name], list) else repr(v)}" for name in names]
    return "; ".join(parts) if parts else "the normalisation in the first layer's weights and bias"


_HOLDS = {"float32": "real numbers", "int8": "integers in a float32 tensor (stored as int8 in the `.npy` file)"}

_FEEDING = {
    "float": "The first operation of `htvm/model.onnx` quantises; DORY's input has to be quantised before.",
    "int8": "Quantise it before.",
    "pixels": "Feed the bytes of an image, each less 128; nothing is computed in floating point.",
}


def _noise(report: Report) -> str:
    """The noise sweep as a table, if there was one."""
    if not report.noise_sweep:
        return ""
    names = [name for name in FIGURES if name in report.noise_sweep[0]]
    rows = [["noise (LSB)", *(FIGURES[name] for name in names), "draws"], ["---"] * (len(names) + 2)]
    for entry in report.noise_sweep:
        figures = (f"{written(name, entry[name]['mean'])} ± {written(name, entry[name]['std'])}" for name in names)
        rows.append([f"{entry['gaussian']:g}", *figures, str(entry["draws"])])
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return (
        "\nWith noise in the analog core's converters (an assumed model: Gaussian, in converter steps), mean and "
        f"standard deviation over draws:\n\n{table}"
    )


def _warnings(report: Report) -> str:
    warnings = report.as_model().warnings
    return "\n## Warnings\n" + "".join(f"- {warning}.\n" for warning in warnings) if warnings else ""


def _notes(report: Report) -> str:
    return "\n## Notes\n" + "".join(f"- {note}.\n" for note in report.notes) if report.notes else ""


_MEANING: dict[TaskName, dict[str, str]] = {
    "classification": {},
    "reconstruction": {
        "mse": "MSE: mean squared error between the network's normalised input and its output, over the samples that "
        "are not labelled as anomalies.",
        "auc": "AUC: area under the ROC curve of the mean squared error as a sample's anomaly score; ties count half.",
    },
    "regression": {
        "mse": "MSE and MAE: mean squared and mean absolute difference between the labels and the network's outputs, "
        "over all outputs, in the labels' unit.",
        "r2": "R²: one less the squared error over that of a constant, the labels' mean on the split; the mean over "
        "the outputs whose labels vary.",
    },
    "imitation": {
        "agreement": "Agreement: share of the samples (of maps: of their places) whose largest output is the float "
        "network's.",
        "sqnr_db": "SQNR: power of the float network's outputs over that of the differences from them, in decibels, "
        "144 at most; 20 dB are an error of a tenth of the signal.",
    },
}
"""What the figures are whose names do not say it."""
