"""A softmax at the end goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import fx, nn
from torch.nn import functional as F

from dianaq_quant.editors.canonicalise.traced_call import Call, CallEditor, Chain, Reader


def softmax(call: Call, input: fx.Node, *arguments: object, **options: object) -> Chain:
    call.shape(input)
    if any(user.op != "output" for user in call.node.users):
        raise call.refuse("supported only as the last operation, where it is dropped")
    return Chain((input,), note="dropped: the network's output is its input, of the same ranking of classes")


class DropSoftmax(CallEditor):
    """`return softmax(x) -> return x`: the chip computes no exponential, and the ranking of the classes is the same."""

    readers: ClassVar[Mapping[Any, Reader]] = dict.fromkeys(
        (
            nn.Softmax,
            nn.LogSoftmax,
            F.softmax,
            F.log_softmax,
            torch.softmax,
            torch.log_softmax,
            "softmax",
            "log_softmax",
        ),
        softmax,
    )
