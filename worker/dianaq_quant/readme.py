"""The README of a bundle: what each file is, and what was and was not verified."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dianaq.figures import FIGURES, figures_of, written
from dianaq_quant.report import Report


def bundle_readme(report: Report) -> str:
    """The text, from what the job measured."""
    checked = report.verification
    return f"""# Integer network for DIANA

| file | what it is |
|---|---|
| `htvm/model.onnx` | the network for HTVM: plain ONNX, integers in float32 tensors; runs in onnxruntime |
| `htvm/input.npy`, `htvm/output.npy` | one input and the network's output for it |
| `dory/model.onnx`, `dory/dory.json` | the network for DORY (Quantlab front end), and its configuration |
| `dory/input.txt`, `dory/out_layer*.txt` | the same sample as integers, and every layer's output |
| `golden/` | every layer's output for {_golden(report)}, as int8 arrays and, per sample, in DORY's text form; \
`checksums.json` holds the sums of bytes that DORY computes |
| `checkpoints/<iteration>.pt` | the network after each iteration of this job; another job can start from one |
| `report.json` | accuracies, layers, scales, edits, versions, timings |
| `manifest.json` | sha256 of every file, and the job's specification |

## Accuracy
{_accuracy(report)}{_noise(report)}
## What to feed, and what comes out
{_ends(report)}
## What was verified
Every layer's output agreed bit for bit on {checked["data_samples"]} data samples and \
{checked["random_samples"]} random ones in: {", ".join(checked["executions"])}.
The compilers and the chip were not run.

`python -m dianaq.run htvm/model.onnx htvm/input.npy` repeats the execution in numpy, without onnxruntime \
(`pip install "dianaq[inspection]"`), and `dianaq compare` tells where two bundles first differ.

## Handing it on
- HTVM: pass `htvm/model.onnx` to its driver. The folder holds no other `.npy` files, because HTVM loads every one.
- DORY: pass `dory/dory.json` to `network_generate.py`, front end Quantlab. At the time of writing DORY's rewriter for
  a power-of-two requantisation without an addition (its rule `Relu`) raises `NameError`: in
  `Frontend_frameworks/Quantlab/Pattern_rewriter.py`, in `Relu_pattern_rewriter`, the line that assigns
  `output_activation_type` must name `DORY_Relu_node`.
{_notes(report)}"""


def _golden(report: Report) -> str:
    count = min(report.spec.golden.samples, report.samples["calibration"])
    return "one sample" if count == 1 else f"{count} samples"


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
    return table + "".join(f"\n{_MEANING[name]}\n" for name in names if name in _MEANING)


def _ends(report: Report) -> str:
    """Both ends of the network, for who writes the firmware."""
    fed, given = report.interface["input"], report.interface["output"]
    lines = [
        f"- Input: {_size(fed['shape'])} values, {fed['layout']}. `htvm/model.onnx` takes {_HOLDS[fed['htvm']]}, "
        f"`dory/model.onnx` integers. {_FEEDING[fed['kind']]}",
        f"  Integers q are in {fed['range']}: {fed['formula']}, with {_constants(fed)}.",
        f"- Output: {_size(given['shape'])} values. `htvm/model.onnx` gives {_HOLDS[given['htvm']]}, `dory/model.onnx` "
        f"integers, in {given['range']}: {given['formula']} is what the float network gives, with {_constants(given)}.",
    ]
    return "\n".join(lines) + "\n"


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


def _notes(report: Report) -> str:
    return "".join(f"- {note}.\n" for note in report.notes)


_MEANING = {
    "mse": "MSE: mean squared error between the network's normalised input and its output, over the samples that are "
    "not labelled as anomalies.",
    "auc": "AUC: area under the ROC curve of the mean squared error as a sample's anomaly score; ties count half.",
}
