"""`python -m dianaq_service [--fd N]`: serve the API as the environment says.

With `--fd`, on a listening socket that the parent process made: the parent then knows the port, and clients
that come early wait instead of being refused.
"""

from __future__ import annotations

import argparse
import gc
import logging
import socket
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI

from dianaq.errors import DianaqError
from dianaq_service import logs
from dianaq_service.app import create_app
from dianaq_service.database import Database
from dianaq_service.settings import Settings
from dianaq_service.storage import Storage

STOP_SECONDS = 5
"""How long requests that are under way may take to finish once the server is asked to stop."""


class Server(uvicorn.Server):
    """Answers evenly from the start, and tells event streams to end as soon as it is asked to stop."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._application = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What is there now stays. To look through it for garbage takes a tenth of a second, and nobody is answered.
        gc.collect()
        gc.freeze()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        services = getattr(self._application.state, "services", None)
        if services is not None:
            services.stopping.set()
        super().handle_exit(sig, frame)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dianaq_service", description="Serve the dianaq API.")
    parser.add_argument("--fd", type=int, help="file descriptor of a listening socket")
    fd = parser.parse_args().fd
    try:
        settings = Settings.from_env()
        logs.configure(settings.log_format)
        logging.getLogger("dianaq_service").setLevel(logging.INFO)
        app = create_app(settings)
        # An application that fails while it starts leaves a traceback; here, a sentence is enough.
        Storage(settings.data_dir).create()
        database = Database(settings.database)
        database.create_tables()
        database.close()
    except DianaqError as error:
        print(f"dianaq: {error.detail}", file=sys.stderr)
        return 2
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=STOP_SECONDS,
        server_header=False,
    )
    Server(config, app).run(sockets=None if fd is None else [socket.socket(fileno=fd)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
