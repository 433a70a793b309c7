"""Outlasting a database that is away for a moment: it is restarted, or another machine takes its place."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from sqlalchemy.exc import OperationalError

from dianaq_service.disk import is_full

T = TypeVar("T")

PAUSE_SECONDS = 0.2

_log = logging.getLogger(__name__)


def outlast(action: Callable[[], T], seconds: float) -> T:
    """Do something with the database, and again for so long as that one is away.

    The first try may have done its work and only its answer been lost, so the action must be one that may be repeated.

    Raises:
        OperationalError: the database stayed away, or its disk is full, for which waiting is no remedy.
    """
    deadline = monotonic() + seconds
    while True:
        try:
            return action()
        except OperationalError as error:
            if is_full(error) or monotonic() > deadline:
                raise
            _log.warning("the database is away, it is tried again: %s", error)
        time.sleep(PAUSE_SECONDS)
