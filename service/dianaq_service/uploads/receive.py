"""A request's body, streamed to a file while it is hashed."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request
from starlette.requests import ClientDisconnect

from dianaq.errors import InvalidRequest, TooLarge
from dianaq_service import disk

BUFFER = 1024 * 1024
"""Bytes gathered before a thread writes and hashes them; the event loop never waits for the disk."""

SILENCE_SECONDS = 60.0
"""A client that sends nothing for so long is gone, even if its connection never says so; its file and key go, too."""


@dataclass(frozen=True)
class Received:
    path: Path
    sha256: str
    size: int


@asynccontextmanager
async def receive(request: Request, folder: Path, limit: int, floor: int) -> AsyncIterator[Received]:
    """The body as a file in `folder`, gone when the block ends unless it was moved.

    Raises:
        TooLarge: more than `limit` bytes are announced or arrive.
        InsufficientStorage: it would leave less than `floor` bytes on the disk.
        InvalidRequest: there is no body.
        ClientDisconnect: the client left before the end, or fell silent.
    """
    header = request.headers.get("content-length", "")
    announced = int(header) if header.isdecimal() else 0
    if announced > limit:
        raise _too_large(limit)
    disk.check_upload(folder, floor, announced)
    path = folder / secrets.token_hex(16)
    try:
        yield await _stream(request, path, limit)
    finally:
        path.unlink(missing_ok=True)


async def _stream(request: Request, path: Path, limit: int) -> Received:
    digest = hashlib.sha256()
    size = 0
    buffer = bytearray()
    with path.open("xb") as file:

        def put(data: bytes) -> None:
            digest.update(data)
            file.write(data)

        async for chunk in _chunks(request):
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            buffer += chunk
            if len(buffer) >= BUFFER:
                await asyncio.to_thread(put, bytes(buffer))
                buffer.clear()
        await asyncio.to_thread(put, bytes(buffer))
    if size == 0:
        raise InvalidRequest("the body is empty; send the file itself as the request's body", param="body")
    return Received(path, digest.hexdigest(), size)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    stream = request.stream()
    while True:
        try:
            yield await asyncio.wait_for(anext(stream), SILENCE_SECONDS)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise ClientDisconnect from None


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"an upload may have at most {limit} bytes", param="body")
