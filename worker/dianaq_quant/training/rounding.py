"""Weights rounded so that their errors cancel in the layer's output, instead of each to its nearest integer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, fx

from dianaq_quant.modules.exact import ExactConv2d, ExactLinear, ExactLinearOp
from dianaq_quant.modules.structure import pad2d
from dianaq_quant.training.data import Normalisation, Split

ROUNDING_SAMPLES = 512
"""Samples that the layers' inputs are taken from; they are all in memory, one layer at a time."""

ROWS = 1 << 14
"""Positions of the kernel, over all samples, that the second moments are estimated from: several per unknown of
a block, at 64 kB per input of a channel."""

BLOCK = 1024
"""Inputs of a channel whose errors may cancel each other. Moments of more would fill the memory (8 MB each)."""

BATCH = 32
"""Inputs after which the errors are passed on to all that follow, in one product: the same sums in fewer and larger
steps."""

DAMPING = 0.01
"""Part of the mean second moment that is added to all of them, which keeps them invertible and the weights close to
what they were where the data say little (Frantar et al., 2023)."""


def round_weights(exact: fx.GraphModule, split: Split, normalise: Normalisation) -> None:
    """Put every layer's weights on its integer grid, in place, so that its output changes least on a split.

    Layer by layer, on the inputs that the layers rounded before it give.
    """
    exact.eval()
    with torch.no_grad():
        _Round(exact).run(normalise(split.take(ROUNDING_SAMPLES).x))


class _Round(fx.Interpreter):
    """Runs an exact network, and rounds each layer's weights before its output is computed."""

    def run_node(self, n: fx.Node) -> Tensor:
        layer = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        if isinstance(layer, ExactConv2d | ExactLinear) and layer.weight_range.step == 1:  # signs are no rounding
            _round_layer(layer, self.env[n.args[0]])  # type: ignore[index]
        value: Tensor = super().run_node(n)
        return value


def _round_layer(layer: ExactLinearOp, x: Tensor) -> None:
    inputs = kernel_inputs(layer, x)
    step, qrange = layer.requantise.weight_scale, layer.weight_range
    weight = (layer.weight.double() / step).reshape(len(inputs), -1, inputs.shape[2])
    rounded = []
    for start in range(0, inputs.shape[2], BLOCK):
        x, w = inputs[:, :, start : start + BLOCK], weight[:, :, start : start + BLOCK]
        rounded.append(round_with_feedback(w, (x.mT @ x).double() / x.shape[1], qrange.lo, qrange.hi))
    layer.weight.copy_((torch.cat(rounded, 2) * step).reshape(layer.weight.shape))


def kernel_inputs(layer: ExactLinearOp, x: Tensor) -> Tensor:
    """What the weights of a channel multiply, at some `ROWS` regularly spaced positions; shape (groups, rows, inputs).

    Args:
        x: the layer's input, (N, C_in, H, W) or (N, C_in).
    """
    if isinstance(layer, ExactLinear):
        return x.unsqueeze(0)
    geometry = layer.geometry
    x = pad2d(x, geometry.pads)
    (height, width), (down, right) = x.shape[2:], geometry.stride
    positions = len(x) * math.ceil(height / down) * math.ceil(width / right)
    spacing = math.ceil(math.sqrt(positions / ROWS))
    # A view of the kernel's windows, so that only those that are kept are copied, in one go.
    (kernel_height, kernel_width), (apart_down, apart_right) = layer.weight.shape[2:], geometry.dilation
    windows = x.unfold(2, apart_down * (kernel_height - 1) + 1, down * spacing)
    windows = windows.unfold(3, apart_right * (kernel_width - 1) + 1, right * spacing)
    windows = windows[..., ::apart_down, ::apart_right]
    grouped = windows.reshape(len(x), geometry.groups, -1, *windows.shape[2:])
    return grouped.permute(1, 0, 3, 4, 2, 5, 6).flatten(4).flatten(1, 3)


def round_with_feedback(weight: Tensor, moments: Tensor, lo: int, hi: int) -> Tensor:
    """Integers Q that approach the least `E |(W - Q) x|^2`, one input after another, those that matter most first.

    What rounding input j costs is taken back by the inputs not yet rounded, `k > j`, as far as they go along with it:
    `W_k -= (W_j - Q_j) U_jk / U_jj`, where `U^T U = H^-1` with U upper triangular and `H = E[x x^T]`, damped.
    Frantar et al., 2023, "GPTQ", section 3; the step is that of Hassibi and Stork, 1993, "Optimal Brain Surgeon".

    Args:
        weight: W in integer steps, (groups, channels, inputs), float64.
        moments: H of each group before damping, (groups, inputs, inputs), float64.
        lo, hi: the least and the largest integer.

    Returns:
        Q, in the shape of W. With a diagonal H each weight goes to its nearest integer.
    """
    size = moments.diagonal(dim1=1, dim2=2)
    mean = size.mean(1)
    damping = torch.where(mean > 0, DAMPING * mean, 1.0)
    order = size.argsort(1, descending=True)
    rows = order.unsqueeze(2).expand_as(moments)
    damped = moments + torch.diag_embed(damping.unsqueeze(1).expand_as(size))
    damped = damped.gather(1, rows).gather(2, rows.mT)
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    columns = order.unsqueeze(1).expand_as(weight)
    rest, rounded = weight.gather(2, columns), torch.empty_like(weight)
    for start in range(0, weight.shape[2], BATCH):
        end = min(start + BATCH, weight.shape[2])
        part, links = rest[:, :, start:end], factor[:, start:end, start:end]
        errors = torch.empty_like(part)
        for j in range(end - start):
            integer = (part[:, :, j] + 0.5).floor().clamp(lo, hi)
            rounded[:, :, start + j] = integer
            errors[:, :, j] = (part[:, :, j] - integer) / links[:, j, j].unsqueeze(1)
            part[:, :, j + 1 :] -= errors[:, :, j, None] * links[:, j, None, j + 1 :]
        rest[:, :, end:] -= errors @ factor[:, start:end, end:]
    return torch.empty_like(weight).scatter_(2, columns, rounded)
