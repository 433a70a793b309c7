"""What the API, workers and jobs' processes write to stderr: lines for people, or a JSON object per line for machines.

Whoever works on a request or an attempt binds its name once; every record from there, a library's too, carries it.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
from typing import get_args

from dianaq_service.settings import LogFormat

PLAIN = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_bound: ContextVar[Mapping[str, object]] = ContextVar("bound", default=MappingProxyType({}))

_log = logging.getLogger(__name__)


def configure(log_format: LogFormat, level: int = logging.WARNING, **fields: object) -> None:
    """Log to stderr, warnings and uncaught exceptions included.

    Args:
        level: of loggers that nobody set another one for.
        fields: what every record of this process carries, whichever thread it comes from.
    """
    formatters = {"plain": logging.Formatter(PLAIN), "json": JsonFormatter(fields)}
    assert set(formatters) == set(get_args(LogFormat))
    handler = logging.StreamHandler()
    handler.setFormatter(formatters[log_format])
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Records that are made within the block, and in what it calls or awaits, carry these fields."""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: `time` (UTC), `level`, `logger`, `message`, what is bound, `exception` if any."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._fields,
            **_bound.get(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is None or issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    _log.critical("uncaught %s", kind.__name__, exc_info=(kind, error, trace))
