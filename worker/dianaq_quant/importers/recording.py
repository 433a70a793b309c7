"""What a traced network's values are: recorded while it runs, for the editors that canonicalise it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from dianaq.errors import InvalidModel
from dianaq_quant.editors.canonicalise.traced_call import Call
from dianaq_quant.graph.surgery import layer_of

BATCHES = (2, 3)
"""Numbers of samples that the network is run on: what differs between them depends on the number. Not 1, which
broadcasts and is squeezed."""


@dataclass(frozen=True)
class Memory:
    """Where a tensor lies: two that are equal are the same numbers, two of one storage may overlap."""

    storage: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def record(network: fx.GraphModule, input_shape: tuple[int, ...]) -> None:
    """Set the `meta` of every node of a traced network.

    `shape`: the shape per sample of a tensor that has one; `tensor`: one that was the same whatever the number of
    samples; `value`: what is no tensor and the same for any number of samples; `memory`: where a tensor lies; `writes`:
    whether the node writes into what it reads first.

    Raises:
        InvalidModel: a node does not fit its input.
        UnsupportedOperator: a tensor's first dimension is not the sample.
    """
    runs = []
    for batch in BATCHES:
        recorder = _Recorder(network)
        with torch.no_grad():
            recorder.run(torch.zeros(batch, *input_shape))
        runs.append(recorder)
    for node in network.graph.nodes:
        if node.op == "output":
            continue
        small, large = (recorder.values[node] for recorder in runs)
        if isinstance(small, Tensor):
            _record_tensor(network, node, tuple(small.shape), tuple(large.shape))
            if small.shape == large.shape and torch.equal(small, large):
                node.meta["tensor"] = small
            node.meta["memory"] = _memory(small)
            node.meta["writes"] = node in runs[0].writers
        elif _is_plain(small) and small == large:
            node.meta["value"] = tuple(small) if isinstance(small, torch.Size) else small


def _record_tensor(network: fx.GraphModule, node: fx.Node, small: tuple[int, ...], large: tuple[int, ...]) -> None:
    if small == large:
        return
    if (small[0], large[0]) != BATCHES or small[1:] != large[1:]:
        raise Call(network, node).refuse(
            f"its shape is {small} for {BATCHES[0]} samples and {large} for {BATCHES[1]}; "
            "what keeps the samples apart in the first dimension would work"
        )
    node.meta["shape"] = small[1:]


def _is_plain(value: Any) -> bool:
    """Whether a value may stand in a graph as it is."""
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, int | float | str | torch.device | torch.dtype)


def _memory(tensor: Tensor) -> Memory:
    return Memory(
        tensor.untyped_storage().data_ptr(), int(tensor.storage_offset()), tuple(tensor.shape), tuple(tensor.stride())
    )


class _Recorder(fx.Interpreter):
    """Keeps every value, so that no two lie in one memory by chance, and sees which nodes write."""

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network, garbage_collect_values=False)
        self.extra_traceback = False
        self.values: dict[fx.Node, Any] = {}
        self.writers: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        first = args[0] if args else kwargs.get("input")
        read = first if isinstance(first, Tensor) else None
        version = None if read is None else read._version
        assert isinstance(self.module, fx.GraphModule)
        try:
            value = super().run_node(n)
        except Exception as error:
            shapes = [tuple(a.shape) for a in args if isinstance(a, Tensor)]
            raise InvalidModel(
                f"{Call(self.module, n).describe()} does not fit its input of shape "
                f"{', '.join(map(str, shapes))}: {str(error).splitlines()[0]}",
                param=layer_of(n),
            ) from error
        if read is not None and read._version != version:
            self.writers.add(n)
        self.values[n] = value
        return value
