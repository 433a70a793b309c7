"""A rule of a compiler: its name, what it says, and what becomes of a file or a layer that breaks it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["rejected", "wrong", "cpu", "note"]
"""`rejected`: the compiler refuses the file, or crashes on it. `wrong`: it takes the file, and the result differs from
what the file says or does not run on the chip. `cpu`: the layer runs on the CPU. `note`: worth knowing."""


@dataclass(frozen=True)
class Rule:
    """One rule.

    `of_network` marks what no way of writing the file can help: the layer itself is one that the compiler does not
    take. The other rules are kept by every correct writer.
    """

    id: str
    severity: Severity
    says: str
    of_network: bool = False


@dataclass(frozen=True)
class Fault:
    """A layer breaks a rule; the message names the offending value."""

    rule: Rule
    message: str
