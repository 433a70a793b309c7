"""The API is restarted while clients upload, submit and follow."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dianaq import Client, Dataset, JobHandle, ServiceUnavailable

from . import aftermath
from .conftest import MakeStack
from .job import Reference
from .recovery import Recorder
from .stack import Stack
from .watch import in_training, wait_for

SUBMITTERS, EACH = 4, 5
UPLOAD_SAMPLES = 300_000
"""Of 6 x 6 RGB images: 32 MB, enough to be caught on their way."""


def end(stack: Stack, how: str) -> None:
    if how == "TERM":
        stack.api.terminate()
    else:
        stack.api.kill()


def again(stack: Stack, record: Recorder, how: str, when: str, effect: str) -> None:
    """End the API and start it again."""
    end(stack, how)
    with record.recovery(f"restart of the API ({how}) {when}", effect, "the API answers"):
        stack.api.start()
        wait_for(stack.answers, "the API answers again")


def persist(action: Callable[[], object]) -> object:
    """What a user does: try until the service is there again."""

    def tried() -> list[object]:
        try:
            return [action()]
        except ServiceUnavailable:
            return []

    return wait_for(tried, "the service does what it is asked")[0]


def test_restart_while_events_are_followed(make_stack: MakeStack, short: Reference, record: Recorder) -> None:
    stack = make_stack(short)
    with stack.client() as client, ThreadPoolExecutor(1) as pool:
        job = client.submit_job(short.spec)
        following = pool.submit(lambda: list(job.events(follow=True)))
        in_training(job)
        again(
            stack, record, "kill -9", "while events are followed", "followers come back after the last event they saw"
        )
        seen = following.result(120)
        aftermath.check(stack, [job], short)
        # Histories are thinned; who follows has seen all that is left, and each of it once.
        numbers = [event.seq for event in seen]
        assert numbers == sorted(set(numbers))
        assert [event for event in job.events() if event.seq not in numbers] == []
        assert job.refresh().attempt == 1


@pytest.mark.slow
@pytest.mark.parametrize("how", ["TERM", "kill -9"])
def test_restart_during_submit(make_stack: MakeStack, long: Reference, record: Recorder, how: str) -> None:
    """Several clients submit one job after another, and try again until each is accepted."""
    stack = make_stack(long)
    with stack.client() as client, ThreadPoolExecutor(SUBMITTERS) as pool:
        running = client.submit_job(long.spec)
        in_training(running)
        broken: list[Exception] = []

        def submit(other: Client) -> JobHandle:
            try:
                return other.submit_job(long.spec)
            except ServiceUnavailable as error:
                broken.append(error)
                raise

        def submit_all(_: int) -> list[str]:
            with stack.client() as other:
                made = []
                for _ in range(EACH):
                    job = persist(lambda: submit(other))
                    assert isinstance(job, JobHandle)
                    made.append(job.id)
                return made

        submitting = [pool.submit(submit_all, number) for number in range(SUBMITTERS)]
        time.sleep(0.5)
        again(stack, record, how, "during submit", "a job is accepted and kept, or its client gets an error")
        accepted = [id for made in submitting for id in made.result(120)]
        assert len(set(accepted)) == SUBMITTERS * EACH
        there = [job for job in client.jobs() if job.id != running.id]
        assert set(accepted) <= {job.id for job in there}
        assert len(there) <= len(accepted) + len(broken)
        for job in there:
            job.cancel()
        aftermath.check(stack, [running, *there], long)
        assert running.refresh().attempt == 1


@pytest.mark.slow
@pytest.mark.parametrize("how", ["TERM", "kill -9"])
def test_restart_during_upload(
    make_stack: MakeStack, long: Reference, record: Recorder, tmp_path: Path, how: str
) -> None:
    stack = make_stack(long)
    file = tmp_path / "large.npz"
    random = np.random.default_rng(0)
    np.savez(file, x_train=random.integers(0, 255, (UPLOAD_SAMPLES, 6, 6, 3), dtype=np.uint8))
    with stack.client() as client, ThreadPoolExecutor(1) as pool:
        running = client.submit_job(long.spec)
        in_training(running)
        uploading = pool.submit(persist, lambda: client.upload_dataset(file))
        wait_for(lambda: any(stack.storage.incoming.iterdir()), "the upload is under way")
        again(stack, record, how, "during an upload", "what had arrived is dropped, and the client uploads again")
        uploaded = uploading.result(120)
        assert isinstance(uploaded, Dataset)
        assert stack.storage.blob("default", uploaded.sha256).read_bytes() == file.read_bytes()
        assert uploaded.id in [dataset.id for dataset in client.datasets()]
        aftermath.check(stack, [running], long)
        assert running.refresh().attempt == 1
