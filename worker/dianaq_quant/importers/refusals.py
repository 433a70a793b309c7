"""Why an operation is not supported, and what would work in its place."""

from __future__ import annotations

import math

from torch import fx, nn

from dianaq.errors import UnsupportedOperator
from dianaq.inspection.arrangement import keeps_order
from dianaq_quant.graph.surgery import calls, layer_of
from dianaq_quant.modules.layout import Rearrange, Reorder
from dianaq_quant.modules.structure import Affine, Clamp, Pad2d, Slice2d

ACTIVATION = "no core computes it; ReLU or ReLU6 would work"
PER_SAMPLE_NORM = "no core computes statistics of a sample; BatchNorm2d would work, it becomes a part of its layer"
DIMENSIONS = "only 1-d and 2-d layers are supported; layers of 2-d maps would work"
TRANSPOSED = "no core computes it; a convolution with stride 1 would work"
JOINED = "no core joins tensors; adding them, or one wider layer, would work"
PRODUCT = "no core multiplies two tensors of the samples; a constant factor would work, or an addition"
MOVED = "no core moves values between dimensions; a layout (N, C, H, W) from the start would work"
COMPUTED = (
    "its weight is computed while the network runs; torch.nn.utils.parametrize.remove_parametrizations would work"
)
SPLIT = "no core splits a tensor; one layer for each part would work"

REASONS: dict[str, str] = (
    dict.fromkeys(("threshold", "softsign", "logsigmoid", "softshrink", "hardshrink", "tanhshrink"), ACTIVATION)
    | dict.fromkeys(
        ("layernorm", "groupnorm", "instancenorm1d", "instancenorm2d", "localresponsenorm"), PER_SAMPLE_NORM
    )
    | dict.fromkeys(("layer_norm", "group_norm", "instance_norm", "local_response_norm"), PER_SAMPLE_NORM)
    | dict.fromkeys(("conv3d", "batchnorm3d", "maxpool3d", "avgpool3d", "max_pool3d", "avg_pool3d"), DIMENSIONS)
    | dict.fromkeys(("convtranspose1d", "convtranspose2d", "convtranspose3d", "conv_transpose2d"), TRANSPOSED)
    | dict.fromkeys(("upsample", "interpolate", "pixelshuffle"), TRANSPOSED)
    | dict.fromkeys(("cat", "concat", "concatenate", "stack", "hstack", "vstack"), JOINED)
    | dict.fromkeys(("mul", "imul", "matmul", "bmm", "einsum"), PRODUCT)
    | dict.fromkeys(("permute", "transpose", "t", "movedim", "swapaxes"), MOVED)
    | dict.fromkeys(("chunk", "split", "unbind"), SPLIT)
    | dict.fromkeys(("parametrizedconv2d", "parametrizedlinear"), COMPUTED)
)
"""By the operation's name in lower case."""

SUPPORTED = (
    "convolutions (1-d and 2-d), fully connected layers, batch normalisation, ReLU, ReLU6 and hardtanh from 0, "
    "additions of two tensors, constant factors and offsets, zero padding, max and average pools, means over the map, "
    "flattens, other layouts than (N, C, H, W), and what is the identity in evaluation"
)


def reason(operation: str) -> str:
    """Why a module, function or method of that name is refused."""
    name = operation.strip(".()").rstrip("_").lower()
    return REASONS.get(name, f"not supported; supported are {SUPPORTED}")


RAW: tuple[type[nn.Module], ...] = (Rearrange, Reorder, Affine, Clamp, Pad2d, Slice2d)
"""Modules that an import may leave where no canonical one computes the same."""


def refuse_raw(network: fx.GraphModule) -> None:
    """Refuse what `editors.lower` could bring into no canonical form.

    Raises:
        UnsupportedOperator: names the layer and the operation as the user wrote them, why it is left, and what would
            work in its place.
    """
    for node, module in calls(network, *RAW):
        name, operation = layer_of(node), node.meta.get("operation", type(module).__name__)
        raise UnsupportedOperator(f"node {name!r} ({operation}): {raw_reason(node, module)}", param=name)


def raw_reason(node: fx.Node, module: nn.Module) -> str:
    """Why a module of `RAW` is left, and what would work in its place."""
    before = node.all_input_nodes[0].meta["shape"]
    if isinstance(module, Rearrange):
        after = module.arrangement.shape
        if keeps_order(before, module.arrangement):
            return (
                f"it makes {after} of {before} per sample; a flatten to one dimension, here "
                f"{math.prod(before)}, would work"
            )
        return f"it makes {after} of {before} per sample in another order: {MOVED}"
    if isinstance(module, Reorder):
        return f"it flattens {before[0]} values in another order than (C, H, W), which no layer after it takes: {MOVED}"
    return _arithmetic_reason(module)


def _arithmetic_reason(module: nn.Module) -> str:
    if isinstance(module, Affine):
        where = {2: "the height", 3: "the width"}.get(module.dim, f"dimension {module.dim}")
        return f"its constant differs along {where}; one value, or one per channel, would work"
    if isinstance(module, Clamp):
        shown = ", ".join("none" if abs(b) == float("inf") else f"{b:g}" for b in (module.lo, module.hi))
        return (
            f"bounds [{shown}]; a lower bound of 0 and a positive or no upper bound would work (ReLU, ReLU6, "
            "Clip(0, c))"
        )
    if isinstance(module, Slice2d):
        return (
            f"it takes {module.size} rows and columns from {module.start} on out of a larger map; the whole map, or "
            "every n-th row and column of it (x[:, :, ::2, ::2]), would work; a crop of the input can be made in "
            "the dataset"
        )
    return "it pads what is no map (C, H, W); padding a map would work"
