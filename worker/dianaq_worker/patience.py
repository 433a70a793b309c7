"""Doing something with the database again while that is away, for as long as a lease may last.

A server that is restarted is back within seconds, and hours of training must not be lost for that. Whoever outlives its
lease may give up: others may have the job by then.

The connection may break after a transaction is committed and before that is known, so what is done again must be able
to find that it was done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from dianaq_service.database.away import is_away

PAUSE_SECONDS = 0.25
"""Between two tries, of which most fail at once: the server does not listen."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


def patiently(action: Callable[[], T], seconds: float) -> T:
    """The action's result.

    Raises:
        SQLAlchemyError: the database stayed away for `seconds`, or it is something else.
    """
    deadline = time.monotonic() + seconds
    told = False
    while True:
        try:
            return action()
        except SQLAlchemyError as error:
            if not is_away(error) or time.monotonic() > deadline:
                raise
            if not told:
                _log.warning("the database is away, and is tried again for %g s: %s", seconds, error)
                told = True
        time.sleep(PAUSE_SECONDS)
