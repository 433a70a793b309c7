"""Which leases are no longer renewed, told without comparing wall clocks.

Clocks of machines differ, and jump when they are set. A lease therefore says nothing by its time, only by its
change: whoever has seen the same one for as long as leases last, by a clock that does not jump, may end it.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic

from dianaq_worker.leases import Lease


class Observer:
    """Looks at the leases again and again.

    Args:
        seconds: how long a lease lasts.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[Lease, float] = {}

    def overdue(self, leases: Iterable[Lease]) -> list[Lease]:
        """Of the leases that there are now, those that have not changed for as long as they last."""
        moment = monotonic()
        self._since = {lease: self._since.get(lease, moment) for lease in leases}
        return [lease for lease, since in self._since.items() if moment - since > self._seconds]
