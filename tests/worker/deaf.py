"""Between a worker and its broker: connections that stay open and carry nothing, as half-open ones do."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path

CHUNK = 2**16


class Proxy:
    """Forwards a TCP port to the unix socket of a Redis server."""

    def __init__(self, broker: Path) -> None:
        self._broker = broker
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._consuming: list[_Pair] = []
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    @property
    def consumers(self) -> int:
        """Connections that wait for messages, and carry them."""
        return sum(not pair.swallows for pair in self._consuming)

    def deafen(self) -> None:
        """From now on, carry nothing over the connections that wait for messages. Others, and new ones, work."""
        for pair in self._consuming:
            pair.swallows = True

    def close(self) -> None:
        for opened in (self._listener, *self._sockets):
            opened.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                self._sockets += [client, server]
                server.connect(str(self._broker))
                pair = _Pair()
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._forward, args=(pair, source, target), daemon=True).start()

    def _forward(self, pair: _Pair, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                if b"BRPOP" in data and pair not in self._consuming:
                    self._consuming.append(pair)
                if not pair.swallows:
                    target.sendall(data)
            pair.swallows = True
            # The other end hears of it.
            target.shutdown(socket.SHUT_RDWR)


class _Pair:
    """A connection."""

    swallows = False
