"""HTTP to the service: the key on every request, and every failure as one of our errors."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from dianaq import __version__
from dianaq._retry import send_once
from dianaq.errors import Problem, ServiceError, ServiceUnavailable, from_problem

T = TypeVar("T")

_SHOWN = 200
"""Characters of an answer that is no problem document; enough to recognise a proxy's error page."""


class Transport:
    """A connection to one service.

    Args:
        url: base address, without `/v1`.
        key: API key; None sends none.
        timeout: seconds that connecting, or a pause within an answer, may take.
        mount: replaces the network (tests).
    """

    def __init__(self, url: str, key: str | None, timeout: float, mount: httpx.BaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        headers = {"User-Agent": f"dianaq/{__version__}"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        try:
            self._http = httpx.Client(
                base_url=self.url,
                headers=headers,
                timeout=timeout,
                transport=mount,
                # A proxy from the environment must not come between this machine and itself.
                trust_env=not _is_loopback(httpx.URL(self.url).host),
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise ServiceUnavailable(f"{url!r} is not the address of a service: {error}") from None
        self.timeout = timeout

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, answer: type[T], params: Mapping[str, Any] | None = None) -> T:
        """GET a resource.

        Raises:
            ServiceUnavailable: no answer.
            DianaqError: what the service answered.
        """
        with self._named_failures():
            response = self._http.get(path, params=params)
        return self._read(path, response, answer)

    def post(
        self,
        path: str,
        answer: type[T],
        body: BaseModel | None = None,
        content: Callable[[], Iterator[bytes]] | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> T:
        """POST a model as JSON, or a stream of bytes, and what httpx's `options` say. It is done once, although it
        may be sent several times; errors as for `get`.

        Args:
            content: starts the stream, for each time that the request is sent.
        """
        if body is not None:
            options["json"] = body.model_dump(mode="json", by_alias=True)

        def send(key: dict[str, str]) -> httpx.Response:
            stream = None if content is None else content()
            return self._http.post(path, content=stream, headers={**(headers or {}), **key}, **options)

        with self._named_failures():
            response = send_once(send)
        return self._read(path, response, answer)

    def delete(self, path: str) -> None:
        """DELETE a resource; errors as for `get`."""
        with self._named_failures():
            response = self._http.delete(path)
        _raise_for_problem(response)

    @contextmanager
    def stream(self, path: str, **options: Any) -> Iterator[httpx.Response]:
        """GET an answer whose body the caller reads; errors, also while reading, as for `get`."""
        with self._named_failures(), self._http.stream("GET", path, **options) as response:
            if not response.is_success:
                response.read()
            _raise_for_problem(response)
            yield response

    def _read(self, path: str, response: httpx.Response, answer: type[T]) -> T:
        _raise_for_problem(response)
        try:
            return TypeAdapter(answer).validate_json(response.content)
        except ValidationError:
            raise ServiceError(
                f"{self.url}{path} answered something else than a dianaq service of this version: {_shown(response)}"
            ) from None

    @contextmanager
    def _named_failures(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise ServiceUnavailable(f"{self.url} did not answer in time ({type(error).__name__})") from error
        except httpx.UnsupportedProtocol as error:
            raise ServiceUnavailable(f"{self.url!r} is not an http address: {error}") from error
        except httpx.ConnectError as error:
            raise ServiceUnavailable(
                f"no service answers at {self.url} ({error}); start one on this machine with `dianaq up`"
            ) from error
        except httpx.HTTPError as error:
            raise ServiceUnavailable(f"the connection to {self.url} broke: {error}") from error


def _raise_for_problem(response: httpx.Response) -> None:
    if response.is_success:
        return
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        error = ServiceUnavailable if response.status_code in (502, 503, 504) else ServiceError
        raise error(f"the service answered {response.status_code}: {_shown(response)}") from None
    raise from_problem(problem)


def _shown(response: httpx.Response) -> str:
    return " ".join(response.text.split())[:_SHOWN] or "an empty answer"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
