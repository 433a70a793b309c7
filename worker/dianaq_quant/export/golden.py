"""Golden vectors: what the exported network computes for some samples, layer by layer, in the forms its users read.

`golden/`
- `input.npy`, `layers/<layer>.npy`: integers, int8, (N, C, H, W) or (N, C), of the network as DORY gets it: after its
  remedies, padded channels included. Their bytes are those in the chip's memory, `value & 0xFF`, in the order CHW.
- `htvm_input.npy`, `htvm_output.npy`: what `htvm/model.onnx` takes and gives for the same samples.
- `dory/<sample>/`: DORY's text form; copied over those in `dory/`, these files make DORY check another sample.
- `checksums.json`: sums as DORY computes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from dianaq_quant.export.layers import IntegerNetwork
from dianaq_quant.modules.integer import IntegerConv2d, IntegerLinear

FORMAT = 1
"""Version of `checksums.json`; raised when a reader of the former one would misread it."""

_MEANING = (
    "Sums as DORY computes them. A tensor's is the sum of its values' bytes, value & 0xFF; `weights` is that of the "
    "layer's weight bytes and of the four bytes of every int32 bias, and 0 where DORY computes none: for analog "
    "layers, additions and pools."
)


def write_golden(
    network: IntegerNetwork,
    fused: Sequence[str],
    folder: Path,
    values: Mapping[str, Tensor],
    fed: Tensor,
    given: Tensor,
) -> None:
    """Write the folder `golden/` of a bundle; see the module's docstring.

    Args:
        fused: the layers that DORY counts, in its order.
        folder: created; must not exist.
        values: integers of every layer and of `"input"`, for N samples (`run_recording`).
        fed, given: what `htvm/model.onnx` takes and gives for them.
    """
    (folder / "layers").mkdir(parents=True)
    np.save(folder / "htvm_input.npy", fed.contiguous().numpy())
    np.save(folder / "htvm_output.npy", given.contiguous().numpy())
    integers = {name: _int8(values[name], name) for name in ("input", *fused)}
    np.save(folder / "input.npy", integers["input"])
    files = dict(zip(fused, _file_names(fused), strict=True))
    for name, file in files.items():
        np.save(folder / "layers" / file, integers[name])
    for sample in range(len(fed)):
        write_text(folder / "dory" / str(sample), fused, {name: array[sample] for name, array in integers.items()})
    modules = {layer.name: layer.module for layer in network.layers}
    layers = [
        {
            "layer": name,
            "array": f"layers/{files[name]}",
            "text": f"out_layer{index}.txt",
            "weights": weights_checksum(modules[name]),
        }
        for index, name in enumerate(fused)
    ]
    samples = [
        {"input": checksum(integers["input"][i]), "layers": {name: checksum(integers[name][i]) for name in fused}}
        for i in range(len(fed))
    ]
    sums = {"format": FORMAT, "meaning": _MEANING, "layers": layers, "samples": samples}
    (folder / "checksums.json").write_text(json.dumps(sums, indent=2) + "\n")


def write_text(folder: Path, fused: Sequence[str], values: Mapping[str, Any]) -> None:
    """`input.txt` and `out_layer<i>.txt` of one sample, one integer per line with a comma behind it, in order CHW.

    Args:
        folder: created where it does not exist.
        values: arrays or tensors of integers, of `"input"` and of every fused layer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # DORY reads the input as bytes; layer outputs it masks itself.
    _write_lines(folder / "input.txt", "input", (int(v) & 0xFF for v in values["input"].flatten().tolist()))
    for index, name in enumerate(fused):
        lines = (int(v) for v in values[name].flatten().tolist())
        _write_lines(folder / f"out_layer{index}.txt", name, lines)


def checksum(values: np.ndarray) -> int:
    """The sum of the bytes of int8 values.

    DORY (`HW_node.add_checksum_activations_integer`) adds up `value & 0xFF` of the golden text files, and the code that
    it generates compares this with the sum of a layer's bytes in memory, `char`, which RISC-V takes for unsigned. Of
    the last layer that code adds up the values in the output's own type instead: where that is signed and a value
    negative, it prints `Failed` for a result that is right. A sum of 512,000 bytes, all the memory there is, stays far
    below the 2^31 at which that code's `int` would wrap.
    """
    return int((values.astype(np.int64) & 0xFF).sum())


def weights_checksum(module: nn.Module) -> int:
    """The sum of the bytes of a layer's weights (int8) and biases (int32, four bytes each); 0 for other layers.

    DORY (`HW_node.add_checksum_w_integer`) computes it for convolutions and fully connected layers of 8-bit weights,
    after it has reordered them and padded them with zeros, neither of which changes a sum. For weights of 2 bits, the
    analog core's, DORY's target sets it to 0.
    """
    if not isinstance(module, IntegerConv2d | IntegerLinear):
        return 0
    bias = module.bias.numpy().astype("<i4")
    return checksum(module.weight.numpy()) + int(bias.view(np.uint8).astype(np.int64).sum())


def _int8(values: Tensor, layer: str) -> np.ndarray:
    array = np.ascontiguousarray(values.numpy().astype(np.int8))
    assert np.array_equal(array, values.numpy()), f"{layer} leaves int8"  # as no layer of the chip does
    return array


def _file_names(layers: Sequence[str]) -> list[str]:
    """A file per layer, called as it is as far as every file system takes that; its index tells equal ones apart."""
    names: list[str] = []
    for index, layer in enumerate(layers):
        name = re.sub("[^A-Za-z0-9_.-]", "_", layer)
        taken = name.lower() in {other.lower() for other in names}
        names.append(f"{name}_{index}" if taken else name)
    return [f"{name}.npy" for name in names]


def _write_lines(path: Path, name: str, values: Iterable[int]) -> None:
    path.write_text(f"# {name}\n" + "".join(f"{v},\n" for v in values))
