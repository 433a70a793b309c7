"""`python -m dianaq_worker`: the worker of one machine.

It serves every place of the machine (`places`), each by a Celery process that receives messages and supervises child
processes. One place needs no further process; several have a crew of them, each started as `dianaq_worker KIND`.
Messages are acknowledged when they arrive, because the job's row, and not the broker, knows whether it is done.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from typing import Any, get_args

from celery import Celery, signals
from celery.apps import worker as celery_worker
from celery.platforms import SecurityWarning

from dianaq.errors import DianaqError
from dianaq_service import logs
from dianaq_service.database import Database
from dianaq_service.jobs import kinds
from dianaq_service.queue import PING, QUEUES, TASK, JobQueue, Kind, make_celery, ping_queue, taken_by
from dianaq_service.settings import Settings
from dianaq_service.storage import Storage
from dianaq_worker import alive, processes
from dianaq_worker.crew import Crew
from dianaq_worker.places import find_places
from dianaq_worker.pulse import Pulse
from dianaq_worker.supervisor import Supervisor
from dianaq_worker.sweeper import Sweeper

SPARE_SECONDS = 5.0
"""What a shutdown may take beyond stopping the child."""

_log = logging.getLogger("dianaq_worker")


def main(kind: Kind | None = None) -> int:
    """Serve all places of the machine, or the one of this kind that the environment shows."""
    try:
        settings = Settings.from_env()
        logs.configure(settings.log_format)
        _log.setLevel(logging.INFO)
        places = find_places(settings, os.environ) if kind is None else []
        Storage(settings.data_dir).create()
        database = Database(settings.database)
        database.create_tables()
    except DianaqError as error:
        print(f"dianaq: {error.detail}", file=sys.stderr)
        return 2
    if places:
        alive.expect(settings, [place.name for place in places])
    if len(places) > 1:
        database.close()
        return Crew(places).run()
    for place in places:
        os.environ.update(place.env, **{alive.PLACE: place.name})
        kind = place.kind
    return serve(settings, database, kind or "cpu")


def serve(settings: Settings, database: Database, kind: Kind) -> int:
    """Receive and run jobs for a kind of worker until TERM or INT; gives the exit code."""
    app = make_celery(settings.broker_url)
    queue = JobQueue(settings.broker_url, database)
    place = os.environ.get(alive.PLACE, kind)
    name = f"{socket.gethostname()}.{os.getpid()}"
    heard = threading.Event()
    supervisor = Supervisor(settings, database, queue, kind=kind, looked=heard.set)

    def swept() -> None:
        alive.mark(settings, place, "sweeps")
        kinds.mark(settings, kind)

    sweeper = Sweeper(settings, database, queue, swept)
    pulse = Pulse(
        settings.ping_seconds,
        supervisor,
        heard,
        ping=lambda: queue.ping(name),
        mark=lambda: alive.mark(settings, place, "consumes"),
        restart=processes.restarter(),
    )
    _register(app, supervisor, heard)

    def on_ready(**_: Any) -> None:
        # Celery takes a second Ctrl-C as leave to abandon the job. It is handed back in seconds, so both wait for that.
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.getsignal(signal.SIGTERM))
        sweeper.start()
        _log.info("ready for jobs for %s", " or ".join(taken_by(kind)))

    def on_stop(**_: Any) -> None:
        # Called inside a signal handler: only flags and threads here.
        sweeper.stop()
        pulse.stop()
        supervisor.stop()
        _give_up_after(settings.stop_grace_seconds + SPARE_SECONDS)

    # Whoever receives this sets up logging, instead of Celery, which also prints that it stops.
    signals.setup_logging.connect(lambda **_: None, weak=False)
    celery_worker.safe_say = lambda *_: None
    signals.worker_ready.connect(on_ready, weak=False)
    signals.worker_shutting_down.connect(on_stop, weak=False)
    # It warns root of unpickled messages; this worker takes JSON only.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    pings = ping_queue(name)
    app.amqp.queues.add(pings)
    worker = app.Worker(
        # Threads: the consumer stays responsive to signals and to the broker while a job runs.
        pool_cls="threads",
        concurrency=1,
        queues=[*(QUEUES[device] for device in taken_by(kind)), pings.name],
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    # Before it is ready: a consumer may also hang on its way there.
    pulse.start()
    worker.start()
    return int(worker.exitcode or 0)


def _register(app: Celery, supervisor: Supervisor, heard: threading.Event) -> None:
    @app.task(name=TASK)  # type: ignore[untyped-decorator]
    def run_job(hint: str) -> None:
        supervisor.run(hint)

    @app.task(name=PING)  # type: ignore[untyped-decorator]
    def ping() -> None:
        heard.set()


def _give_up_after(seconds: float) -> None:
    """A shutdown that hangs, say because the broker went first, ends the process; leases do the rest."""
    timer = threading.Timer(seconds, os._exit, [1])
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(prog="python -m dianaq_worker", description="Run the jobs of the service.")
    arguments.add_argument("kind", nargs="?", choices=get_args(Kind), help="serve one place (default: find them all)")
    sys.exit(main(arguments.parse_args().kind))
