"""One error, one shape: whatever goes wrong leaves as RFC 9457 problem details."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from dianaq.errors import (
    DianaqError,
    InsufficientStorage,
    InvalidRequest,
    InvalidSpec,
    KeyInUse,
    NotFound,
    Problem,
    ServiceUnavailable,
    Unauthorised,
)
from dianaq.schemas.spec import JobSpec, faults, field_path
from dianaq.schemas.sweeps import SweepSpec
from dianaq_service import disk
from dianaq_service.database.away import is_away
from dianaq_service.idempotency import REPLAYED_HEADER, Replay

MEDIA_TYPE = "application/problem+json"

RETRY_SECONDS = 1
"""Most answers take less; an upload is looked into for some seconds, and a server of a database restarts in some."""


RETRY = {"Retry-After": str(RETRY_SECONDS)}


def install(app: FastAPI) -> None:
    """Make the application answer every error in this shape.

    Unforeseen exceptions are caught further out, by `dianaq_service.web.requests`.
    """
    for kind in (DianaqError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _handle)
    app.add_exception_handler(Replay, _replay)


def respond(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """The problem as a response."""
    return JSONResponse(
        problem.model_dump(exclude_none=True),
        status_code=problem.status,
        headers=headers,
        media_type=MEDIA_TYPE,
    )


def problem_of(error: Exception) -> Problem:
    """Any exception as a problem. Unforeseen ones say nothing about the inside."""
    if isinstance(error, DianaqError):
        return error.problem()
    if isinstance(error, RequestValidationError):
        return _invalid(error).problem()
    if isinstance(error, HTTPException):
        return _http(error)
    if disk.is_full(error):
        return InsufficientStorage(
            "the service's disk is full, and nothing was changed; try again once its operator has made room"
        ).problem()
    if is_away(error):
        return ServiceUnavailable("the service's database does not answer; try again in a moment").problem()
    return Problem(
        type=DianaqError.slug,
        title=DianaqError.title,
        detail="the service met an unforeseen error; its log has the details under this request_id",
    )


async def _handle(request: Request, error: Exception) -> Response:
    headers = dict(getattr(error, "headers", None) or {})
    if isinstance(error, Unauthorised):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, KeyInUse | ServiceUnavailable):
        headers |= RETRY
    more: dict[str, object] = {"request_id": request.state.request_id}
    problem = problem_of(error)
    if problem.status == HTTPStatus.METHOD_NOT_ALLOWED:
        more["detail"] = f"{request.url.path} does not take {request.method}"
    return respond(problem.model_copy(update=more), headers)


async def _replay(_request: Request, answer: Exception) -> Response:
    assert isinstance(answer, Replay)
    headers = {REPLAYED_HEADER: "true"}
    return Response(answer.body, answer.status, headers, media_type="application/json")


def _http(error: HTTPException) -> Problem:
    if error.status_code == HTTPStatus.NOT_FOUND:
        return NotFound("there is nothing at this address").problem()
    if error.status_code == HTTPStatus.BAD_REQUEST:
        # The body is not even text.
        return InvalidRequest(str(error.detail), param="body").problem()
    phrase = HTTPStatus(error.status_code).phrase
    return Problem(
        type=phrase.lower().replace(" ", "-"),
        title=phrase,
        detail=str(error.detail),
        status=error.status_code,
    )


def _invalid(error: RequestValidationError) -> DianaqError:
    """Every offending value on its own; the first as `param`. The only bodies we validate are job specs."""
    entries = [{**entry, "loc": entry["loc"][1:]} for entry in error.errors()]
    in_body = error.errors()[0]["loc"][0] == "body"
    sweep = isinstance(error.body, Mapping) and "grid" in error.body
    body = faults(entries, (SweepSpec if sweep else JobSpec) if in_body else None, "body")
    return (InvalidSpec if in_body else InvalidRequest)(body, param=field_path(entries[0]["loc"]) or None)
