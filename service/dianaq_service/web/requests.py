"""Every request has an id, and none ends without a response of ours."""

from __future__ import annotations

import logging
import re
import secrets
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dianaq_service import logs
from dianaq_service.web.errors import RETRY, problem_of, respond

HEADER = "X-Request-ID"
_ACCEPTED = re.compile(r"[A-Za-z0-9_.-]{1,64}")

_log = logging.getLogger(__name__)


class RequestContext:
    """Gives the request an id (the caller's own, if it is a sane one), returns it in the response's header,
    and turns exceptions that nobody foresaw into a logged 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _ACCEPTED.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        with logs.bound(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except ClientDisconnect:
                _log.info("request %s: the client left", request_id)
            except Exception as error:
                problem = problem_of(error).model_copy(update={"request_id": request_id})
                away = problem.status == HTTPStatus.SERVICE_UNAVAILABLE
                what = (request_id, scope["method"], scope["path"], error if away else "")
                level = logging.WARNING if away else logging.ERROR
                _log.log(level, "request %s %s %s failed %s", *what, exc_info=not away)
                if started:
                    raise
                await respond(problem, RETRY if away else None)(scope, receive, send_with_id)
