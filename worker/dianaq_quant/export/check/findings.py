"""What a check finds: breaches of rules, and the layers that a compiler would recognise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from dianaq_quant.targets.diana.placement import LayerGeometry
from dianaq_quant.targets.diana.rules import Fault, Rule, Severity

Dialect = Literal["htvm", "dory"]

FAILURES: frozenset[Severity] = frozenset({"rejected", "wrong"})
"""A file with one of these is not ready for its compiler."""


@dataclass(frozen=True)
class Finding:
    """A rule is broken at a node (a file's name for what is not in the graph, empty for the whole graph)."""

    rule: str
    node: str
    message: str
    severity: Severity
    says: str
    """What the rule says."""
    of_network: bool
    """Whether it is the layer that the compiler does not take, and not the way that the file is written."""


@dataclass(frozen=True)
class CheckedLayer:
    """A layer that the compiler recognises.

    `offloaded`: it runs on the core of its geometry (and for DORY: computes there what the file says); the reasons say
    why it does not.
    """

    name: str
    geometry: LayerGeometry
    offloaded: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Checked:
    """A file's findings and layers. `dialect` is None for a file of neither dialect."""

    path: str
    dialect: Dialect | None
    findings: tuple[Finding, ...]
    layers: tuple[CheckedLayer, ...] = ()

    @property
    def failures(self) -> tuple[Finding, ...]:
        """Findings by which the file is not ready for its compiler."""
        return tuple(f for f in self.findings if f.severity in FAILURES)

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "file": self.path,
            "dialect": self.dialect,
            "ok": self.dialect is not None and not self.failures,
            "layers": [
                {
                    "name": e.name,
                    **asdict(e.geometry),
                    "called": e.geometry.called,
                    "offloaded": e.offloaded,
                    "reasons": list(e.reasons),
                }
                for e in self.layers
            ],
            "findings": [asdict(f) for f in self.findings],
        }


@dataclass
class Log:
    """Collects findings and layers while a file is read."""

    findings: list[Finding] = field(default_factory=list)
    layers: list[CheckedLayer] = field(default_factory=list)
    places: bool = True
    """Whether layers are entered: without shapes there is nothing to say about where they run."""

    def add(self, rule: Rule, node: str, message: str) -> None:
        """A breach of a rule."""
        self.findings.append(Finding(rule.id, node, message, rule.severity, rule.says, rule.of_network))

    def layer(self, name: str, geometry: LayerGeometry, faults: Iterable[Fault], *, wrong_is_off: bool) -> None:
        """A layer, and the rules of its placement that it breaks.

        Args:
            wrong_is_off: whether a layer that computes something else counts as not offloaded.
        """
        if not self.places:
            return
        found = list(faults)
        for fault in found:
            self.add(fault.rule, name, fault.message)
        reasons = [f for f in found if wrong_is_off or f.rule.severity != "wrong"]
        self.layers.append(CheckedLayer(name, geometry, not reasons, tuple(f.message for f in reasons)))
