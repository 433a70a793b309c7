"""One's own operators: how a package, or a caller, teaches the import what it does not know.

A package names its `Operators` in the entry-point group `dianaq.operators`; see `dianaq.inspection.own_operators` for
the names of entry points. A caller hands its own to `quantise`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

from torch import fx, nn

from dianaq.errors import QuantisationError
from dianaq.inspection.own_operators import GROUP
from dianaq_quant.editors.canonicalise.traced_call import CallEditor, Reader, key_of
from dianaq_quant.graph import Point, Rejection
from dianaq_quant.importers.step import Handler

_Reader = TypeVar("_Reader", bound=Reader)
_Handler = TypeVar("_Handler", bound=Handler)


class Operators:
    """What becomes of operators that are one's own, before anything is refused.

    Example:
        >>> operators = Operators()
        >>> @operators.python(Squash)  # a module class; or a function, or a method's name
        ... def squash(call, x):
        ...     return Chain((x,), (nn.Hardtanh(0, call.module.bound),))
        >>> @operators.onnx("com.example.Squash")
        ... def squash_node(importer, step):
        ...     importer.call(step, Ceiling(step.attributes["bound"]))
        >>> quantise(model, data, "out", operators=operators)
    """

    def __init__(self) -> None:
        self.readers: dict[Any, Reader] = {}
        """By what a traced network calls."""
        self.handlers: dict[str, Handler] = {}
        """By operator, `domain.OpType`."""

    def python(self, *calls: Any) -> Callable[[_Reader], _Reader]:
        """Register a reader for module classes, functions or methods (by name) of networks made in Python.

        The reader takes the `Call` and the arguments, and gives the `Chain` of modules that replaces it, which are
        taken as if they were the user's. Modules of a registered class are not looked into.
        """

        def register(reader: _Reader) -> _Reader:
            self.readers.update(dict.fromkeys(calls, reader))
            return reader

        return register

    def onnx(self, *operators: str) -> Callable[[_Handler], _Handler]:
        """Register a handler for ONNX operators: `domain.OpType`, or `OpType` for one of ONNX itself.

        The handler takes the `Importer` and the `Step` and calls `importer.call(step, module)`, once or more, the last
        time for the step's output. It goes before the handler of the library, if there is one.
        """

        def register(handler: _Handler) -> _Handler:
            self.handlers.update({name.removeprefix("ai.onnx."): handler for name in operators})
            return handler

        return register

    def __or__(self, other: Operators) -> Operators:
        """Both; where they meet, the other's."""
        both = Operators()
        both.readers = self.readers | other.readers
        both.handlers = self.handlers | other.handlers
        return both


def installed() -> Operators:
    """Those of all installed packages.

    Raises:
        QuantisationError: an entry point does not lead to an `Operators`.
    """
    found = Operators()
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.value, entry.name)):
        try:
            operators = entry.load()
        except (ImportError, AttributeError) as error:
            raise QuantisationError(
                f"the operators of the entry point {entry.name} = {entry.value} cannot be loaded: {error}",
                param=entry.name,
            ) from error
        if not isinstance(operators, Operators):
            raise QuantisationError(
                f"the entry point {entry.name} = {entry.value} leads to a {type(operators).__name__}, not to a "
                "dianaq_quant.Operators",
                param=entry.name,
            )
        found |= operators
    return found


class ReadOwn(CallEditor):
    """`own(x) -> its modules`, as the readers of the user's `Operators` say."""

    def __init__(self, readers: Mapping[Any, Reader]) -> None:
        self.readers = readers  # type: ignore[misc]  # the others' tables are their class's

    def find(self, network: fx.GraphModule) -> Iterator[Point | Rejection]:
        for found in super().find(network):
            if isinstance(found, Point) and not found.note:
                name = key_of(network, found.nodes[0])
                found = Point(found.nodes, f"read as its own operator says ({getattr(name, '__name__', name)})")
            yield found


def is_own(operators: Operators, module: nn.Module) -> bool:
    """Whether a module's class is registered."""
    return type(module) in operators.readers
