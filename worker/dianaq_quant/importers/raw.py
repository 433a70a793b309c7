"""Modules that an import leaves where no canonical one computes the same: why, and what would work."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import fx, nn

from dianaq.inspection.arrangement import keeps_order
from dianaq.inspection.refusals import MOVED, Refusal
from dianaq.inspection.unsupported import Unsupported
from dianaq_quant.editors.canonicalise.traced_call import operation
from dianaq_quant.graph.surgery import calls, layer_of
from dianaq_quant.modules.layout import Rearrange, Reorder
from dianaq_quant.modules.structure import Affine, Clamp, Pad2d, Slice2d

RAW: tuple[type[nn.Module], ...] = (Rearrange, Reorder, Affine, Clamp, Pad2d, Slice2d)
"""What `editors.lower` brings into a canonical form where it can."""


def left_raw(network: fx.GraphModule) -> Iterator[Unsupported]:
    """What is left, by its layer and operation as the user wrote them. Shapes must have been recorded."""
    for node, module in calls(network, *RAW):
        yield Unsupported(layer_of(node), operation(network, node), raw_refusal(node, module))


def raw_refusal(node: fx.Node, module: nn.Module) -> Refusal:
    """Why a module of `RAW` is left, and what would work in its place."""
    before = node.all_input_nodes[0].meta["shape"]
    if isinstance(module, Rearrange):
        after = module.arrangement.shape
        if keeps_order(before, module.arrangement):
            return Refusal(
                f"it makes {after} of {before} per sample",
                f"a flatten to one dimension, here {math.prod(before)}, would work",
            )
        return Refusal(f"it makes {after} of {before} per sample in another order: {MOVED.why}", MOVED.instead)
    if isinstance(module, Reorder):
        return Refusal(
            f"it flattens {before[0]} values in another order than (C, H, W), which no layer after it takes: "
            f"{MOVED.why}",
            MOVED.instead,
        )
    if isinstance(module, Affine):
        where = {2: "the height", 3: "the width"}.get(module.dim, f"dimension {module.dim}")
        return Refusal(f"its constant differs along {where}", "one value, or one per channel, would work")
    if isinstance(module, Clamp):
        shown = ", ".join("none" if abs(b) == float("inf") else f"{b:g}" for b in (module.lo, module.hi))
        return Refusal(
            f"bounds [{shown}]",
            "a lower bound of 0 and a positive or no upper bound would work (ReLU, ReLU6, Clip(0, c))",
        )
    if isinstance(module, Slice2d):
        return Refusal(
            f"it takes {module.size} rows and columns from {module.start} on out of a larger map",
            "the whole map, or every n-th row and column of it (x[:, :, ::2, ::2]), would work; a crop of the input "
            "can be made in the dataset",
        )
    return Refusal("it pads what is no map (C, H, W)", "padding a map would work")
