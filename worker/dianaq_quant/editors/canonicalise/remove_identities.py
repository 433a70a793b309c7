"""What leaves its input as it is disappears."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import fx, nn
from torch.nn import functional as F

from dianaq_quant.editors.canonicalise.traced_call import Call, CallEditor, Chain, Reader


def identity(call: Call, input: fx.Node) -> Chain:
    """`nn.Identity`, `.contiguous()`, `.clone()`."""
    call.shape(input)
    return Chain((input,))


def copy(call: Call, input: fx.Node, *, memory_format: object = None) -> Chain:
    """`.contiguous()` and `.clone()`; the memory format does not change a value."""
    return identity(call, input)


def dropout_module(call: Call, input: fx.Node) -> Chain:
    """`nn.Dropout` and its kin, in evaluation."""
    call.shape(input)
    return Chain((input,), note="dropped: it is the identity in evaluation")


def dropout(
    call: Call, input: fx.Node, p: float = 0.5, training: object = True, inplace: bool = False, train: object = None
) -> Chain:
    """`F.dropout`, whose `training` is true unless the caller says otherwise; `torch.dropout` calls it `train`."""
    call.shape(input)
    if training is True and train is not False:
        return Chain((input,), note=ACTIVE)
    return dropout_module(call, input)


ACTIVE = "dropped, although it drops values in evaluation too: pass training=self.training"
"""The note of a functional dropout that was not told to stop; its network computes something else at every call."""


class RemoveIdentities(CallEditor):
    """`identity(x) -> x`: dropout in evaluation, `nn.Identity`, copies."""

    readers: ClassVar[Mapping[Any, Reader]] = (
        {nn.Identity: identity}
        | dict.fromkeys((nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d), dropout_module)
        | dict.fromkeys((nn.AlphaDropout, nn.FeatureAlphaDropout), dropout_module)
        | dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout), dropout)
        | dict.fromkeys((F.feature_alpha_dropout, torch.dropout, torch.dropout_), dropout)
        | dict.fromkeys(("contiguous", "clone", torch.clone), copy)
    )
