"""`make bench-service`: what the service does under load while a job trains, on this machine.

- 1,000 jobs submitted by 50 clients at a time, each as fast as it can: none lost, none doubled; how long it takes
- another 1,000, each client one a second, as programs do that have something else to do as well
- memory of the API process before and after the second thousand, and how fast it grows meanwhile

The clients are processes of their own, as they are elsewhere, but share the machine's cores with all the rest: what
they compute is part of what is measured.
"""

from __future__ import annotations

import gc
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil

from dianaq import Client, JobHandle, JobSpec
from dianaq_worker.embedded import LocalStack

JOBS, CLIENTS, PROCESSES = 1_000, 50, 5
SUBMIT_LIMIT = 0.250
"""Seconds, at the 99th percentile."""
PACE = 1.0
"""Seconds from one submission of a client to its next."""
SAMPLES = 20_000
MIB = 2**20


class Memory(threading.Thread):
    """Looks at the resident memory of a process until it is stopped: (seconds, bytes)."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self._stop_looking = threading.Event()
        self.seen: list[tuple[float, int]] = []

    def run(self) -> None:
        while not self._stop_looking.wait(0.1):
            self.seen.append((time.monotonic(), self._process.memory_info().rss))

    def stop(self) -> None:
        self._stop_looking.set()
        self.join()

    def growth(self) -> float:
        """Bytes a second over the second half, as the line of least squares has it."""
        times, sizes = zip(*self.seen[len(self.seen) // 2 :], strict=True)
        return statistics.linear_regression(times, sizes).slope


def start_training(client: Client, folder: Path) -> JobHandle:
    """A job that trains for as long as all this takes, in the middle of its training."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 255, (SAMPLES, 32, 32, 3), dtype=np.uint8)
    np.savez(folder / "data.npz", x_train=images, y_train=generator.integers(0, 10, SAMPLES))
    spec = JobSpec.model_validate(
        {
            "model": {"architecture": "resnet8", "input_shape": (3, 32, 32), "classes": 10},
            "dataset": client.upload_dataset(folder / "data.npz").id,
            "recipe": {"float": {"epochs": 1_000}},
        }
    )
    job = client.submit_job(spec)
    for event in job.events(follow=True):
        if event.body.type == "progress":
            break
    return job


def submit_some(client: Client, spec: JobSpec, count: int, pace: float) -> list[tuple[str, float]]:
    """What one client does: submit jobs one after another. The id of each, and the seconds that it took.

    Args:
        pace: seconds from one to the next; 0 for at once.
    """
    made = []
    begin = time.monotonic() + random.uniform(0, pace)
    for number in range(count):
        time.sleep(max(0.0, begin + number * pace - time.monotonic()))
        start = time.monotonic()
        job = client.submit_job(spec)
        made.append((job.id, time.monotonic() - start))
    return made


def be_clients() -> None:
    """One of the processes that submit. It says when its clients are connected, and waits for the word to begin."""
    url, spec, pace = sys.argv[1], JobSpec.model_validate_json(sys.argv[2]), float(sys.argv[3])
    key = sys.stdin.readline().strip()
    clients = [Client(url, key) for _ in range(CLIENTS // PROCESSES)]
    for client in clients:
        client.health()
    # Its first search for garbage, among all modules, would be most of what the slowest submissions take.
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    sys.stdin.readline()
    with ThreadPoolExecutor(len(clients)) as pool:
        parts = list(pool.map(lambda client: submit_some(client, spec, JOBS // CLIENTS, pace), clients))
    print(json.dumps([made for part in parts for made in part]))


def submit_everything(url: str, key: str, spec: JobSpec, pace: float) -> list[tuple[str, float]]:
    """The clients of all processes, at the same time."""
    command = [sys.executable, __file__, url, spec.model_dump_json(by_alias=True), str(pace)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    running = [subprocess.Popen(command, **pipes, text=True) for _ in range(PROCESSES)]
    for process in running:
        assert process.stdin is not None
        process.stdin.write(f"{key}\n")
        process.stdin.flush()
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    with ThreadPoolExecutor(PROCESSES) as pool:
        answers = list(pool.map(lambda process: process.communicate("go\n")[0], running))
    assert not any(process.returncode for process in running), "a client failed"
    return [(id, seconds) for answer in answers for id, seconds in json.loads(answer)]


def main() -> int:
    """Measure, print and record."""
    from results import record, table  # it loads torch, which the clients do without

    with (
        tempfile.TemporaryDirectory() as folder,
        LocalStack(Path(folder) / "stack") as stack,
        Client(stack.url, stack.key) as client,
    ):
        training = start_training(client, Path(folder))
        burst = submit_everything(stack.url, stack.key, training.job.spec, 0)
        memory = Memory(stack.pids["api"])
        memory.start()
        paced = submit_everything(stack.url, stack.key, training.job.spec, PACE)
        memory.stop()
        ids = [id for id, _ in burst + paced]
        there = [job.id for job in client.jobs() if job.id != training.id]
        assert sorted(ids) == sorted(there), f"{len(ids):,} jobs were accepted, {len(there):,} are there"
        assert len(set(ids)) == 2 * JOBS
        assert training.state == "running", f"the job that was to train meanwhile is {training.state}"
        training.cancel()
    rows = [[f"jobs submitted by {CLIENTS} clients while a job trains", f"{2 * JOBS:,}; none lost, none doubled", "-"]]
    for how, made in (("each as fast as it can", burst), (f"each one every {PACE:g} s", paced)):
        seconds = statistics.quantiles((seconds for _, seconds in made), n=100)
        met = "met" if seconds[98] < SUBMIT_LIMIT else "MISSED"
        rows += [
            [f"one submission, {how}: median", f"{seconds[49] * 1000:.0f} ms", "-"],
            ["its 99th percentile", f"{seconds[98] * 1000:.0f} ms", f"{SUBMIT_LIMIT * 1000:.0f} ms {met}"],
        ]
    before, after = (size / MIB for _, size in (memory.seen[0], memory.seen[-1]))
    rows += [
        ["memory of the API before and after the second thousand", f"{before:.1f}, {after:.1f} MiB", "-"],
        ["its growth meanwhile, in the second half", f"{memory.growth() / MIB * 60:.2f} MiB a minute", "-"],
    ]
    text = table(["what", "measured", "limit"], rows)
    print(text)
    record("Load", text)
    return 0


if __name__ == "__main__":
    sys.exit(main() if len(sys.argv) == 1 else be_clients())
