"""Leases that nobody renews are told by their not changing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from dianaq_service.database.tables import now
from dianaq_worker import overdue
from dianaq_worker.leases import Lease
from dianaq_worker.overdue import Observer

LEASE = Lease("job", 1, now())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, as a list of the one moment that it shows."""
    moment = [0.0]
    monkeypatch.setattr(overdue, "monotonic", lambda: moment[0])
    return moment


def test_one_that_does_not_change_is_overdue_after_its_time(clock: list[float]) -> None:
    observer = Observer(30)
    assert observer.overdue([LEASE]) == []
    clock[0] = 29
    assert observer.overdue([LEASE]) == []
    clock[0] = 31
    assert observer.overdue([LEASE]) == [LEASE]


@pytest.mark.parametrize("hours", [1, -1])
def test_what_time_it_names_does_not_matter(clock: list[float], hours: int) -> None:
    observer, lease = Observer(30), replace(LEASE, expires=LEASE.expires + timedelta(hours=hours))
    assert observer.overdue([lease]) == []
    clock[0] = 31
    assert observer.overdue([lease]) == [lease]


def test_one_that_changes_or_was_away_is_looked_at_anew(clock: list[float]) -> None:
    observer = Observer(30)
    changes = [LEASE, replace(LEASE, expires=LEASE.expires + timedelta(seconds=1)), replace(LEASE, attempt=2)]
    for lease in [*changes, *changes]:
        clock[0] += 29
        assert observer.overdue([lease]) == []
    clock[0] += 29
    assert observer.overdue([]) == []
    clock[0] += 29
    assert observer.overdue(changes) == []
