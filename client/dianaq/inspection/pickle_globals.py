"""Which classes and functions a pickle would call, found by reading its opcodes and running none of them."""

from __future__ import annotations

import pickletools

from dianaq.errors import InvalidModel
from dianaq.inspection.foreign import EXPORT, SAVE_STATE_DICT

_TENSORS = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        "torch FloatStorage",
        "torch IntStorage",
        "torch LongStorage",
    }
)
"""All that dense tensors of float32, and counters, are made of (torch/_utils.py, torch/serialization.py)."""

_UNNAMED = frozenset({"STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"})
"""Opcodes whose class is not written beside them. torch.save does not write them by default."""


_MODULE = b"X\x08\x00\x00\x00_modules"
"""The opcode BINUNICODE with the attribute in which every torch.nn.Module has its parts."""


def check_globals(pickle: bytes) -> None:
    """Refuse a pickle of anything but dense float32 tensors and plain values.

    Raises:
        InvalidModel: names what the pickle holds instead, and how to save weights.
    """
    try:
        # Reading it would find classes first, which say less.
        if _MODULE in pickle:
            raise InvalidModel(
                f"the file holds a pickled module, whose reading could run anything; as a network, {EXPORT} makes ONNX "
                f"of it; for one of the zoo, {SAVE_STATE_DICT}"
            )
        for opcode, argument, _ in pickletools.genops(pickle):
            if opcode.name in _UNNAMED:
                raise InvalidModel(
                    f"data.pkl has the opcode {opcode.name}, which torch.save does not write by default; "
                    f"{SAVE_STATE_DICT}"
                )
            if opcode.name == "GLOBAL" and argument not in _TENSORS:
                raise _refusal(str(argument))
    except (ValueError, IndexError) as error:
        raise InvalidModel(f"data.pkl is no pickle, or damaged: {str(error)[:200]}") from None


def _refusal(name: str) -> InvalidModel:
    module, _, item = name.partition(" ")
    if module == "torch" and item.endswith("Storage"):
        kind = item.removesuffix("Storage").lower()
        return InvalidModel(f"the file holds a tensor of type {kind}; weights must be float32: call .float() first")
    return InvalidModel(f"the file holds {module[:60]}.{item[:60]}, not weights alone; {SAVE_STATE_DICT}")
