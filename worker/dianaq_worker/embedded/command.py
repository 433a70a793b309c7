"""`dianaq up`: the local service in the foreground."""

from __future__ import annotations

import argparse
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from types import FrameType

from dianaq.config import config_path, save_local
from dianaq.errors import DianaqError
from dianaq_worker.embedded.paths import default_data_dir
from dianaq_worker.embedded.stack import Interrupted, LocalStack

DEFAULT_PORT = 8000
CHECK_SECONDS = 0.5
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `up` to the command line."""
    parser = subparsers.add_parser(
        "up",
        help="run the service on this machine until Ctrl-C",
        description="Run Redis, one worker and the API on this machine, in the foreground. Data is kept.",
    )
    parser.add_argument(
        "--port",
        type=int,
        help=f"port of the API on 127.0.0.1 (default: {DEFAULT_PORT}, or a free one when that is taken)",
    )
    parser.add_argument("--data-dir", type=Path, help=f"data folder (default: {default_data_dir()})")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Keep the service up until a signal or a failure."""
    with _flag_on_signals() as stopping:
        try:
            with _start(args.data_dir, args.port, stopping) as stack:
                save_local(stack.url, stack.key)
                _say(f"dianaq is up at {stack.url}")
                _say(f"  data: {stack.data_dir}")
                _say(f"  key:  in {config_path()}, where the SDK and the command line find it")
                _say("  stop: Ctrl-C")
                while not stopping.wait(CHECK_SECONDS):
                    stack.check()
                _say("stopping")
        except Interrupted:
            return 0
        except DianaqError as error:
            print(f"dianaq: {error.detail}", file=sys.stderr)
            return 1
        except OSError as error:
            # A folder that cannot be written, a full disk.
            print(f"dianaq: {error}", file=sys.stderr)
            return 1
    _say("stopped; data is kept")
    return 0


def _start(data_dir: Path | None, port: int | None, stopping: Event) -> LocalStack:
    """A stack that takes the default port if it is free, and the given one in any case."""
    if port is None:
        port = DEFAULT_PORT if _is_free(DEFAULT_PORT) else 0
    return LocalStack(data_dir, port, interrupted=stopping)


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@contextmanager
def _flag_on_signals() -> Iterator[Event]:
    """An event that is set by the signals that ask a process to end, instead of interrupting the clean-up."""
    stopping = Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(line: str) -> None:
    # A terminal that is gone (SIGHUP) is no reason to stop half-way.
    with suppress(OSError):
        print(line, flush=True)
