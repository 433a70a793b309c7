"""The README of a bundle: what each file is, and what was and was not verified."""

from __future__ import annotations

from dianaq_quant.report import Report


def bundle_readme(report: Report) -> str:
    """The text, from what the job measured."""
    checked = report.verification
    rows = "\n".join(
        f"| {entry['stage']} | {100 * entry['top1']:.2f} % | {entry['samples']} ({entry['split']}) |"
        for entry in report.accuracy
    )
    accuracy = f"| stage | accuracy | samples |\n|---|---|---|\n{rows}\n" if rows else "Not measured: no labels.\n"
    return f"""# Integer network for DIANA

| file | what it is |
|---|---|
| `htvm/model.onnx` | the network for HTVM: plain ONNX, integers in float32 tensors; runs in onnxruntime |
| `htvm/input.npy`, `htvm/output.npy` | one input and the network's output for it |
| `dory/model.onnx`, `dory/dory.json` | the network for DORY (Quantlab front end), and its configuration |
| `dory/input.txt`, `dory/out_layer*.txt` | the same sample as integers, and every layer's output |
| `report.json` | accuracies, layers, scales, edits, versions, timings |
| `manifest.json` | sha256 of every file, and the job's specification |

## Accuracy
{accuracy}
## What was verified
Every layer's output agreed bit for bit on {checked["data_samples"]} data samples and \
{checked["random_samples"]} random ones in: {", ".join(checked["executions"])}.
The compilers and the chip were not run.

## Handing it on
- HTVM: pass `htvm/model.onnx` to its driver. The folder holds no other `.npy` files, because HTVM loads every one.
- DORY: pass `dory/dory.json` to `network_generate.py`, front end Quantlab. At the time of writing DORY's rewriter for
  a power-of-two requantisation without an addition (its rule `Relu`) raises `NameError`: in
  `Frontend_frameworks/Quantlab/Pattern_rewriter.py`, in `Relu_pattern_rewriter`, the line that assigns
  `output_activation_type` must name `DORY_Relu_node`.
"""
