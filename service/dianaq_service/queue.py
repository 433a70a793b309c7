"""The broker, as the service sees it: a queue of job ids for each kind of worker, and one for both.

A message is only a hint that a job waits: whoever gets it takes the best job that waits for its kind of worker,
which need not be this one (`dianaq_worker.choice`). So neither the order of messages nor a doubled one matters. It
is sent after the job's row is committed, and workers look for jobs whose message is missing (`dianaq_worker.sweeper`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Literal, cast

from celery import Celery
from kombu.entity import Exchange, Queue
from kombu.exceptions import OperationalError
from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError

from dianaq.schemas.spec import Device
from dianaq_service.database import Database, JobRow
from dianaq_service.database.away import is_away
from dianaq_service.database.tables import now
from dianaq_service.disk import is_full

Kind = Literal["cpu", "gpu"]
"""Of a worker."""

TASK = "dianaq.run_job"
QUEUES: dict[Device, str] = {"any": "dianaq.any", "cpu": "dianaq.cpu", "gpu": "dianaq.gpu"}
"""By what the jobs of a queue want to be trained on."""

PING = "dianaq.ping"
"""The task that shows a worker that it consumes (`dianaq_worker.pulse`), and the exchange of its queues."""
PING_QUEUE_SECONDS = 3600.0
"""The broker forgets the queue of a worker that is gone; a living one uses it every few seconds, or makes it anew."""

BATCH = 100
"""Ids that are sent together: less than a tenth of a second's work, which is what closing waits for."""

SEND_SECONDS = 2.0
"""A sender waits this long for a broker that does not answer, and then leaves the job to the sweepers."""

_log = logging.getLogger(__name__)


def taken_by(kind: Kind) -> tuple[Device, ...]:
    """The jobs that a worker of this kind takes, by what they want to be trained on."""
    return ("any", kind)


def ping_queue(worker: str) -> Queue:
    """The queue that only this worker consumes, and only it sends to."""
    name = f"{PING}.{worker}"
    exchange = Exchange(PING)  # type: ignore[no-untyped-call]
    return Queue(name, exchange, name, expires=PING_QUEUE_SECONDS)  # type: ignore[no-untyped-call]


def make_celery(broker_url: str) -> Celery:
    """The Celery application of a worker, which waits for its broker as long as it takes."""
    app = Celery("dianaq", broker=broker_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_default_queue=QUEUES["any"],
        task_ignore_result=True,
        # The row, not the broker, owns the job: see dianaq_worker.leases.
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        # No message may wait in a busy worker while another one idles.
        worker_disable_prefetch=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={"socket_keepalive": True},
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=False,
        # Without a broker there is nobody to keep alive; jobs are not tied to the connection.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        enable_utc=True,
    )
    return app


class JobQueue:
    """Sends job ids, and notes in the rows that it did."""

    def __init__(self, broker_url: str, database: Database) -> None:
        self._app = make_celery(broker_url)
        # A sender does not wait.
        self._app.conf.broker_transport_options = {
            "max_retries": 0,
            "socket_connect_timeout": SEND_SECONDS,
            "socket_timeout": SEND_SECONDS,
        }
        self._database = database

    def send(self, *job_ids: str) -> bool:
        """Tell some worker about each job; False when the broker cannot be reached, and the rest is not sent."""
        return all(self._send(job_ids[first : first + BATCH]) for first in range(0, len(job_ids), BATCH))

    def _send(self, job_ids: Sequence[str]) -> bool:
        with self._database.read() as session:
            query = select(JobRow.id, JobRow.device).where(JobRow.id.in_(job_ids))
            devices = {job_id: cast("Device", device) for job_id, device in session.execute(query)}
        sent = list(takewhile(lambda job_id: self._publish(job_id, devices.get(job_id, "any")), job_ids))
        try:
            with self._database.write() as session:
                session.execute(update(JobRow).where(JobRow.id.in_(sent)).values(sent=now()))
        except DBAPIError as error:
            if not (is_full(error) or is_away(error)):
                raise
            # They are sent twice at worst.
            _log.warning("jobs %s were sent, which could not be noted: %s", ", ".join(sent), error)
        return len(sent) == len(job_ids)

    def _publish(self, job_id: str, device: Device) -> bool:
        try:
            self._app.send_task(TASK, args=[job_id], queue=QUEUES[device], retry=False)
        except (OperationalError, OSError) as error:
            _log.warning("job %s was not sent, the broker cannot be reached: %s", job_id, error)
            return False
        return True

    def ping(self, worker: str) -> bool:
        """Send a message to the worker's own queue; False when the broker cannot be reached."""
        try:
            self._app.send_task(PING, queue=ping_queue(worker), retry=False)
        except (OperationalError, OSError) as error:
            _log.warning("the broker cannot be reached: %s", error)
            return False
        return True

    def waiting(self) -> dict[Device, int]:
        """Number of messages that no worker has taken yet, by queue.

        Raises:
            OperationalError: the broker cannot be reached.
        """
        with self._app.connection_for_write() as connection:
            channel: Any = connection.default_channel
            return {
                device: int(channel.queue_declare(queue, durable=True).message_count)
                for device, queue in QUEUES.items()
            }

    def close(self) -> None:
        self._app.close()
