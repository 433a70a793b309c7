"""What does not fit into memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_CPU_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory")
"""What torch's allocator for the CPU says, on Linux and on Windows, in an error that has no class of its own."""


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether an error says that something did not fit into memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in _CPU_OUT_OF_MEMORY)


def in_parts(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A network's outputs for a batch, in evaluation: of its halves one after the other where it does not fit.

    Raises:
        RuntimeError: one sample alone does not fit either; or anything else that the network raises.
    """
    try:
        return network(x)
    except (RuntimeError, MemoryError) as error:
        if len(x) == 1 or not is_out_of_memory(error):
            raise
    # Only here, where the error is gone, are the tensors that it held free again.
    return torch.cat([in_parts(network, half) for half in x.tensor_split(2)])
