"""`python -m dianaq_worker`: the Celery process of one machine (one GPU).

It receives job ids and supervises child processes. Messages are acknowledged when they arrive, because the
job's row, and not the broker, knows whether it is done.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from typing import Any

from celery import Celery, signals
from celery.platforms import SecurityWarning

from dianaq.errors import DianaqError
from dianaq_service.database import Database
from dianaq_service.queue import TASK, JobQueue, make_celery
from dianaq_service.settings import Settings
from dianaq_service.storage import Storage
from dianaq_worker import alive
from dianaq_worker.supervisor import Supervisor
from dianaq_worker.sweeper import Sweeper

SPARE_SECONDS = 5.0
"""What a shutdown may take beyond stopping the child."""

_log = logging.getLogger("dianaq_worker")


def main() -> int:
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    _log.setLevel(logging.INFO)
    try:
        settings = Settings.from_env()
        Storage(settings.data_dir).create()
        database = Database(settings.database)
        database.create_tables()
    except DianaqError as error:
        print(f"dianaq: {error.detail}", file=sys.stderr)
        return 2
    return serve(settings, database)


def serve(settings: Settings, database: Database) -> int:
    """Receive and run jobs until TERM or INT; gives the exit code."""
    app = make_celery(settings.broker_url)
    queue = JobQueue(settings.broker_url, database)
    supervisor = Supervisor(settings, database, queue)
    sweeper = Sweeper(settings, database, queue, lambda: alive.mark(settings))
    _register(app, supervisor)

    def on_ready(**_: Any) -> None:
        sweeper.start()
        _log.info("ready")

    def on_stop(**_: Any) -> None:
        # Called inside a signal handler: only flags and threads here.
        sweeper.stop()
        supervisor.stop()
        _give_up_after(settings.stop_grace_seconds + SPARE_SECONDS)

    signals.worker_ready.connect(on_ready, weak=False)
    signals.worker_shutting_down.connect(on_stop, weak=False)
    # It warns root of unpickled messages; this worker takes JSON only.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    worker = app.Worker(
        # Threads: the consumer stays responsive to signals and to the broker while a job runs.
        pool_cls="threads",
        concurrency=1,
        loglevel=logging.WARNING,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


def _register(app: Celery, supervisor: Supervisor) -> None:
    @app.task(name=TASK)  # type: ignore[untyped-decorator]
    def run_job(job_id: str) -> None:
        supervisor.run(job_id)


def _give_up_after(seconds: float) -> None:
    """A shutdown that hangs, say because the broker went first, ends the process; leases do the rest."""
    timer = threading.Timer(seconds, os._exit, [1])
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    sys.exit(main())
