"""How the kernel of an ONNX convolution or pool moves over its map."""

from __future__ import annotations

from collections.abc import Iterable

from dianaq_quant.importers.step import Importer, Step
from dianaq_quant.modules.structure import Pads


def window(step: Step, importer: Importer, kernel: tuple[int, int]) -> tuple[tuple[int, int], Pads]:
    """Stride and padding of a convolution or pooling."""
    stride = pair(step.attributes.get("strides", (1, 1)))
    dilation = pair(step.attributes.get("dilations", (1, 1)))
    auto = step.attributes.get("auto_pad", b"NOTSET").decode()
    if auto in ("NOTSET", "VALID"):
        pads = tuple(step.attributes.get("pads", (0, 0, 0, 0))) if auto == "NOTSET" else (0, 0, 0, 0)
        if any(p < 0 for p in pads):
            raise step.refuse(f"negative padding {pads}")
        return stride, pads
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise step.refuse(f"auto_pad {auto!r}; supported are NOTSET, VALID, SAME_UPPER, SAME_LOWER")
    before, after = [], []
    for size, k, s, d in zip(step.example(importer).shape[2:], kernel, stride, dilation, strict=True):
        total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        small, large = total // 2, total - total // 2
        before.append(small if auto == "SAME_UPPER" else large)
        after.append(large if auto == "SAME_UPPER" else small)
    return stride, (before[0], before[1], after[0], after[1])


def pair(values: Iterable[int]) -> tuple[int, int]:
    """The values of an attribute that has one per spatial dimension."""
    first, second = values
    return int(first), int(second)
