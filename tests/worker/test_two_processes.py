"""Two workers' processes that claim the same jobs."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

from databases import ON_BOTH

from dianaq_service.database import Database
from dianaq_service.settings import Settings
from dianaq_service.storage import Storage

from .support import add_job_of, add_uploads, history, row_of, states

JOBS = 200
CLAIM = """
import sys
from dianaq_service.database import Database
from dianaq_worker.choice import claim_best
from dianaq_worker.leases import claim

database = Database(sys.argv[1])
print("ready", flush=True)
jobs = sys.stdin.readline().split()
# Half in turn, as workers do; half by name, so that both want the same ones all the time.
for job in jobs[::2]:
    attempt = claim(database, job, "w", 600)
    if attempt is not None:
        print(job, attempt)
while claimed := claim_best(database, "cpu", "w", 600, 3600):
    print(*claimed)
"""


@ON_BOTH
def test_each_job_is_claimed_once(settings: Settings, database: Database, storage: Storage) -> None:
    uploads = add_uploads(database, storage)
    jobs = [add_job_of(database, uploads) for _ in range(JOBS)]
    command = [sys.executable, "-W", "error", "-c", CLAIM, settings.database]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(" ".join(jobs) + "\n")
        worker.stdin.flush()
    outputs = [worker.communicate(timeout=120)[0].splitlines() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert all(outputs), "both were at it"
    claimed = Counter(line.split()[0] for output in outputs for line in output)
    assert claimed == Counter(jobs)
    for job in jobs:
        row = row_of(database, job)
        assert (row.state, row.attempt, row.losses) == ("running", 1, 0)
        assert states(history(database, job)) == ["queued", "running"]
