"""The files beside a DORY model: its JSON, `input.txt`, and one `out_layer<i>.txt` per fused layer."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, TypeGuard

from dianaq_quant.export.check.dory_layers import DoryReading
from dianaq_quant.export.check.findings import Log
from dianaq_quant.targets.diana.rules import Rule

CONFIGURATION = Rule("dory.json", "rejected", "a JSON beside the model, with an object of DORY's fields")
RELU_BITS = Rule("dory.json-bnrelu-bits", "rejected", "BNRelu_bits 32")
FILE = Rule("dory.json-onnx-file", "rejected", "onnx_file relative to the JSON")
RESERVED = Rule("dory.json-code-reserved-space", "rejected", "code reserved space (>= code + weights + input)")
INPUTS = Rule("dory.json-n-inputs", "rejected", "n_inputs 1")
INPUT_BITS = Rule("dory.json-input-bits", "rejected", "input_bits with input_signed (both or neither)")
MISSING = Rule("dory.golden-missing", "rejected", "input.txt, and an out_layer<i>.txt per fused layer")
LENGTH = Rule("dory.golden-length", "wrong", "as many values as the tensor has")
TEXT = Rule("dory.golden-text", "rejected", "one integer per line followed by a comma; # header allowed")
BYTES = Rule("dory.golden-bytes", "wrong", "the input as x & 0xFF: 0 to 255")
VALUES = Rule("dory.golden-values", "wrong", "a layer's values are within its clip range")
STRAY = Rule("dory.golden-stray", "wrong", "one out_layer<i>.txt per fused layer (pool and add included)")

CONFIGURATION_NAME = "dory.json"
"""The usual name. A folder with another one JSON is taken too."""


def check_golden(reading: DoryReading) -> None:
    """Findings about the folder that a model lies in."""
    graph, log, folder = reading.graph, reading.log, reading.graph.path.parent
    _configuration(reading, folder)
    clips = {layer.name: layer.geometry.clip for layer in log.layers}
    wanted = {"input.txt": (graph.inputs[0] if graph.inputs else "", (0, 255), BYTES)}
    for index, (name, tensor) in enumerate(reading.fused):
        wanted[f"out_layer{index}.txt"] = (tensor, clips.get(name) or (-128, 127), VALUES)
    for name, (tensor, bounds, rule) in wanted.items():
        values = _read(folder / name, log)
        shape = graph.shape(tensor)
        if values is None:
            continue
        if shape is not None and len(values) != math.prod(shape):
            log.add(LENGTH, name, f"it has {len(values)} values, tensor {tensor!r} has {math.prod(shape)}")
        outside = [v for v in values if not bounds[0] <= v <= bounds[1]]
        if outside:
            log.add(rule, name, f"it holds {outside[0]}, outside {list(bounds)}")
    for path in sorted(folder.glob("out_layer*.txt")):
        if path.name not in wanted:
            log.add(STRAY, path.name, f"there are {len(reading.fused)} fused layers")


def _read(path: Path, log: Log) -> list[int] | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        log.add(MISSING, path.name, f"there is no {path.name} that can be read")
        return None
    except UnicodeDecodeError:
        log.add(TEXT, path.name, "it is not text")
        return None
    values = []
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            continue
        if not re.fullmatch(r"-?[0-9]{1,10},", line.strip()):
            log.add(TEXT, path.name, f"line {number} is {line[:40]!r}")
            return None
        values.append(int(line.strip()[:-1]))
    return values


def _configuration(reading: DoryReading, folder: Path) -> None:
    log = reading.log
    found = sorted(folder.glob("*.json"), key=lambda path: (path.name != CONFIGURATION_NAME, path.name))
    if not found:
        log.add(CONFIGURATION, CONFIGURATION_NAME, f"there is no {CONFIGURATION_NAME}")
        return
    path = found[0]
    try:
        fields = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        log.add(CONFIGURATION, path.name, f"it cannot be read: {error}")
        return
    if not isinstance(fields, dict):
        log.add(CONFIGURATION, path.name, f"it holds {type(fields).__name__}, not an object")
        return
    _fields(reading, path, fields)


def _fields(reading: DoryReading, path: Path, fields: dict[str, Any]) -> None:
    log = reading.log
    for key, value, rule in (("BNRelu_bits", 32, RELU_BITS), ("n_inputs", 1, INPUTS)):
        if not _integer(fields.get(key)) or fields[key] != value:
            log.add(rule, path.name, f"{key} is {fields.get(key, 'missing')!r}")
    name = fields.get("onnx_file")
    if not isinstance(name, str) or (path.parent / name).resolve() != reading.graph.path.resolve():
        log.add(FILE, path.name, f"onnx_file is {name!r}, which is not {reading.graph.path.name!r} beside it")
    inputs = [reading.graph.shape(tensor) for tensor in reading.graph.inputs]
    least = sum(layer.geometry.weight_bytes for layer in log.layers) + sum(math.prod(s) for s in inputs if s)
    reserved = fields.get("code reserved space")
    if not _integer(reserved) or reserved <= least:  # what the code takes is not known, but it takes something
        log.add(RESERVED, path.name, f"code reserved space is {reserved!r}; weights and input alone take {least:,} B")
    bits, signed = fields.get("input_bits"), fields.get("input_signed")
    if (bits is None) != (signed is None) or not (bits is None or (_integer(bits) and isinstance(signed, bool | int))):
        log.add(INPUT_BITS, path.name, f"input_bits is {bits!r}, input_signed is {signed!r}")


def _integer(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
