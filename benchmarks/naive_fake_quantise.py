"""What a user of torch's fused fake-quantisation operator writes first: the operator on everything, plain modules."""

from __future__ import annotations

import operator

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize


def naive_fake_quantise(module: nn.Module) -> fx.GraphModule:
    """The network with `torch.fake_quantize_per_tensor_affine` on its weights and stored activations.

    What goes into a BatchNorm or a ReLU alone is not stored, and reshaping makes no new values. The first batch sets
    the activations' ranges.
    """
    traced = fx.symbolic_trace(module)
    for node in list(traced.graph.nodes):
        unstored = len(node.users) == 1 and _is(traced, next(iter(node.users)), _FUSED)
        if node.op in ("output", "get_attr") or unstored or _is(traced, node, _RESHAPING):
            continue
        traced.add_submodule(f"{node.name}_quantiser", _Activation())
        with traced.graph.inserting_after(node):
            quantised = traced.graph.call_module(f"{node.name}_quantiser", (node,))
        node.replace_all_uses_with(quantised, delete_user_cb=lambda user, new=quantised: user is not new)
    traced.recompile()
    for layer in list(traced.modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            parametrize.register_parametrization(layer, "weight", _Weight())
    return traced


_FUSED = (nn.BatchNorm2d, nn.ReLU, nn.ReLU6, F.relu, F.relu6, torch.relu, "relu")
_RESHAPING = (nn.Flatten, nn.Identity, nn.Dropout, torch.flatten, operator.getitem, "flatten", "reshape", "view")


def _is(traced: fx.GraphModule, node: fx.Node, kinds: tuple[object, ...]) -> bool:
    """Whether a node calls a module of one of these classes, or one of these functions or methods."""
    return (type(traced.get_submodule(str(node.target))) if node.op == "call_module" else node.target) in kinds


class _Activation(nn.Module):
    """8 bits per tensor, unsigned where nothing is negative; the first batch sets the range for good."""

    def __init__(self) -> None:
        super().__init__()
        self.grid: tuple[float, int, int] | None = None
        """Scale, lowest and highest integer."""

    def forward(self, x: Tensor) -> Tensor:
        if self.grid is None:
            low, high = (-128, 127) if bool((x < 0).any()) else (0, 255)
            self.grid = (max(float(x.abs().max()), 1e-8) / high, low, high)
        scale, low, high = self.grid
        return torch.fake_quantize_per_tensor_affine(x, scale, 0, low, high)


class _Weight(nn.Module):
    """8 bits per tensor, symmetric; the range is that of the weights at every step."""

    def forward(self, weight: Tensor) -> Tensor:
        scale = weight.detach().abs().max().clamp(min=1e-8) / 127
        zero_point = torch.zeros((), dtype=torch.int32, device=weight.device)
        return torch.fake_quantize_per_tensor_affine(weight, scale, zero_point, -127, 127)
