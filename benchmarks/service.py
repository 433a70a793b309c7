"""`make bench`: what a running stack costs, on this machine.

- a post-training job on ResNet-8 with 512 calibration images, from submit to downloaded bundle (median of 3), and the
  peak memory of its child process
- memory of the API process after those jobs
- import time of the SDK, against an interpreter that imports nothing (interleaved, medians of 11)
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from accuracy import DATA, cifar10
from results import record, table

from dianaq import Client, JobSpec, Preprocessing, Recipe
from dianaq_worker.embedded import LocalStack

JOBS = 3
IMPORTS = 11
MIB = 2**20


class Watch(threading.Thread):
    """Follows this process's descendants and keeps the largest memory of the API and of any job's child."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.stop = threading.Event()
        self.child = self.api = 0

    def run(self) -> None:
        while not self.stop.wait(0.1):
            for process in psutil.Process().children(recursive=True):
                try:
                    command = " ".join(process.cmdline())
                    peak = _peak(process.pid)
                except (psutil.Error, OSError):
                    continue  # it ended between the listing and the look
                if "dianaq_worker.child" in command:
                    self.child = max(self.child, peak)
                elif "dianaq_service" in command:
                    self.api = max(self.api, peak)


def _peak(pid: int) -> int:
    """The largest resident memory that a process has had, in bytes (`VmHWM`)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def job_seconds(folder: Path) -> tuple[list[float], Watch]:
    """Seconds from submit to downloaded bundle, of each job."""
    watch, seconds = Watch(), []
    with LocalStack(data_dir=folder / "stack") as stack, Client(url=stack.url, key=stack.key) as client:
        watch.start()
        model = client.upload_model(DATA / "models" / "diana_resnet8.onnx")
        dataset = client.upload_dataset(cifar10(folder))
        spec = JobSpec(
            model=model,
            dataset=dataset,
            preprocessing=Preprocessing(mean=(0.5,), std=(0.5,)),
            recipe=Recipe(preset="ptq"),
        )
        for number in range(JOBS):
            start = time.monotonic()
            job = client.submit_job(spec)
            job.wait(progress=False)
            job.download(folder / f"bundle{number}")
            seconds.append(time.monotonic() - start)
        watch.stop.set()
        watch.join()
    return seconds, watch


def import_seconds() -> tuple[float, float]:
    """Median seconds of an interpreter that makes `dianaq.Client` known, and of one that does nothing."""
    codes = ("from dianaq import Client, JobSpec", "pass")
    times: dict[str, list[float]] = {code: [] for code in codes}
    for _ in range(IMPORTS):
        for code in codes:
            start = time.monotonic()
            subprocess.run([sys.executable, "-c", code], check=True)
            times[code].append(time.monotonic() - start)
    with_sdk, without = (statistics.median(times[code]) for code in codes)
    return with_sdk, without


def main() -> int:
    """Measure, print and record."""
    if not DATA.is_dir():
        print(f"no real data at {DATA}; set DIANAQ_SHARED_DATA", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as temporary:
        seconds, watch = job_seconds(Path(temporary))
    sdk, nothing = import_seconds()
    rows = [
        ["ResNet-8 post-training job, submit to bundle (median of 3)", f"{statistics.median(seconds):.1f} s", "20 s"],
        ["peak memory of its child process", f"{watch.child / MIB:.0f} MiB", "1.2 GB"],
        ["peak memory of the API process", f"{watch.api / MIB:.0f} MiB", "200 MB"],
        ["SDK import, beyond the interpreter's own start", f"{sdk - nothing:.3f} s", "0.3 s"],
    ]
    text = table(["what", "measured", "limit"], rows)
    print(text)
    record("Service", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
