"""Cross-layer equalisation: channels of two layers are rescaled so that one weight scale serves all."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn

from dianaq_quant.graph import Editor, Point, Rejection
from dianaq_quant.graph.surgery import calls, module_of, only_user, tied_nodes
from dianaq_quant.modules.structure import Ceiling, Conv2d, Flatten, GlobalAvgPool2d, MaxPool2d

SWEEPS = 20
"""Pairs overlap in chains, so the rescaling is iterated; it converges geometrically and 20 sweeps leave less than
a percent (Nagel et al., 2019, iterate to convergence as well)."""


class Equalise(Editor):
    """`W2 f(W1 x + b1) -> (W2 S) f(S^-1 W1 x + S^-1 b1)` with S diagonal, exact because `f(s x) = s f(x)`.

    `S_c = sqrt(r1_c / r2_c)` makes the ranges of both layers equal in every channel c (Nagel et al., 2019,
    "Data-Free Quantization Through Weight Equalization and Bias Correction"). With a BatchNorm in between, its
    gamma and beta are rescaled instead of W1 and b1. Layers that share parameters with another call are left alone:
    what rescales one of the calls would change the other.
    """

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        pairs: list[fx.Node] = []
        tied = tied_nodes(network)
        for node, _ in calls(network, Conv2d, nn.Linear):
            consumer = _consumer(network, node)
            if isinstance(consumer, str):
                yield Rejection(node, consumer)
            elif tied & {node, consumer, *node.users}:
                yield Rejection(node, "parameters of it, its BatchNorm or the next layer are shared with another call")
            else:
                pairs.append(node)
        if pairs:
            # One point for the chain of all pairs: neighbours share a layer, and the sweeps go over all of them.
            yield Point(tuple(pairs), f"channel ranges of {len(pairs)} layers equalised with the next layer's")

    def apply(self, network: fx.GraphModule, point: Point) -> None:
        with torch.no_grad():
            for _ in range(SWEEPS):
                for node in point.nodes:
                    _equalise(network, node)


def _consumer(network: fx.GraphModule, node: fx.Node) -> fx.Node | str:
    """The only linear layer that reads a linear layer's output, or the reason why there is none."""
    user = only_user(node)
    while user is not None and user.op == "call_module":
        module = module_of(network, user)
        if isinstance(module, Conv2d | nn.Linear):
            return user
        if isinstance(module, Ceiling):
            return "its activation saturates at a fixed value, so its channels cannot be rescaled"
        if not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.ReLU | MaxPool2d | GlobalAvgPool2d | Flatten):
            return "its output is added to another tensor"
        user = only_user(user)
    return "its output is read at several places or is the network's output"


def _equalise(network: fx.GraphModule, node: fx.Node) -> None:
    consumer = _consumer(network, node)
    assert isinstance(consumer, fx.Node)
    first, second = module_of(network, node), module_of(network, consumer)
    assert isinstance(first, Conv2d | nn.Linear)
    assert isinstance(second, Conv2d | nn.Linear)
    follower = only_user(node)
    norm = module_of(network, follower) if follower else None
    out_range = first.weight.abs().flatten(1).amax(1)
    if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
        assert norm.running_var is not None
        out_range = out_range * (norm.weight / torch.sqrt(norm.running_var + norm.eps)).abs()
    in_range = _by_input_channel(second).abs().amax(1)
    repeat = len(in_range) // len(out_range)  # a flattened map has H * W columns per channel
    in_range = in_range.reshape(-1, repeat).amax(1)
    alive = (out_range > 0) & (in_range > 0)
    factor = torch.where(alive, out_range.sqrt() / in_range.sqrt(), torch.ones_like(out_range))
    if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
        norm.weight.div_(factor)
        norm.bias.div_(factor)
    else:
        first.weight.div_(factor.reshape(-1, *[1] * (first.weight.dim() - 1)))
        if first.bias is not None:
            first.bias.div_(factor)
    _scale_input_channels(second, factor.repeat_interleave(repeat))


def _by_input_channel(layer: Conv2d | nn.Linear) -> Tensor:
    """The weight as (C_in, everything that multiplies that channel)."""
    weight = layer.weight
    if isinstance(layer, nn.Linear):
        return weight.t()
    per_group = weight.reshape(layer.groups, -1, *weight.shape[1:])
    return per_group.transpose(1, 2).reshape(layer.in_channels, -1)


def _scale_input_channels(layer: Conv2d | nn.Linear, factor: Tensor) -> None:
    """`W[:, c] *= factor[c]`, in place; channels of a grouped convolution are counted over all groups."""
    if isinstance(layer, nn.Linear):
        layer.weight.mul_(factor)
        return
    per_group = layer.weight.view(layer.groups, -1, *layer.weight.shape[1:])
    per_group.mul_(factor.reshape(layer.groups, 1, -1, 1, 1))
