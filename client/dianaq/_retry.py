"""Sending a POST until it is answered, under one idempotency key, so that it is done once.

What is tried again: a connection that fails or falls silent, an answer of a proxy in front of a service that restarts
(502, 503, 504), and the service's word that an upload's first try is still under way. The last is a sign of life, after
which the tries are counted anew. Everything else is an answer.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from typing import TypeVar

import httpx

from dianaq.errors import KeyInUse, Problem

T = TypeVar("T")

HEADER = "Idempotency-Key"
TRIES = 5
"""With the pauses between them they span some eight seconds: a service restarts in two or three."""
PAUSE_SECONDS = 0.5
"""Before the second try; doubled before each further one."""
MAX_PAUSE_SECONDS = 30.0
"""Whatever `Retry-After` says: a person may be waiting."""

_AWAY = (httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT)
_HOPELESS = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
"""Errors of transport that lie in the request itself."""


def send_once(send: Callable[[dict[str, str]], httpx.Response]) -> httpx.Response:
    """The answer to a request that is sent as often as it takes.

    Args:
        send: sends the request, all of it each time, with these headers.

    Raises:
        httpx.HTTPError: why the last try failed.
    """
    headers = {HEADER: uuid.uuid4().hex}
    failures = 0
    while True:
        response = None
        try:
            response = send(headers)
            failures = 0 if _is_under_way(response) else failures + 1
            if failures and (response.status_code not in _AWAY or failures == TRIES):
                return response
        except httpx.TransportError as error:
            failures += 1
            if failures == TRIES or isinstance(error, _HOPELESS):
                raise
        time.sleep(_pause(response, failures))


def _is_under_way(response: httpx.Response) -> bool:
    if response.status_code != KeyInUse.status:
        return False
    try:
        return Problem.model_validate_json(response.content).type == KeyInUse.slug
    except ValueError:
        return False


def _pause(response: httpx.Response | None, failures: int) -> float:
    """What the service asks for, else twice as long each time; up to half more, so that not all come back at once."""
    asked = "" if response is None else response.headers.get("retry-after", "")
    seconds = float(asked) if asked.isdecimal() else PAUSE_SECONDS * 2.0 ** max(failures - 1, 0)
    return min(seconds, MAX_PAUSE_SECONDS) * random.uniform(1.0, 1.5)
