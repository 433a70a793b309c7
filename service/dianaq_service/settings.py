"""What the service and the worker read from their environment.

One dataclass serves both, because they must agree on the database, the broker and the data folder.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, Self, get_args

from dianaq.errors import InvalidSpec

PREFIX = "DIANAQ_"

LogFormat = Literal["plain", "json"]

MIN_KEY_CHARACTERS = 32
"""Keys are stored as a plain sha256, which is only safe for keys that nobody can guess."""


@dataclass(frozen=True)
class Settings:
    """The environment variable of a field is its name in capitals after `DIANAQ_`."""

    data_dir: Path
    """Folder of blobs, artifacts and logs. API and workers must see the same one."""
    database_url: str = ""
    """SQLAlchemy URL. Default: SQLite in the data folder."""
    broker_url: str = "redis://127.0.0.1:6379/0"
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str = ""
    """A key that the API makes valid when it starts."""
    owner: str = "default"
    """Whom `api_key` belongs to."""

    log_format: LogFormat = "plain"
    """Of what is written to stderr: lines for people, or a JSON object per line."""

    max_upload_bytes: int = 2 * 1024**3
    """CIFAR-10 as float32 is 0.7 GiB; ImageNet-sized data does not fit the in-memory training loop anyway."""
    min_free_bytes: int = 256 * 1024**2
    """No job starts, and no upload is taken, with less room on the disk of the data folder. A job of the zoo's largest
    network leaves some hundred MB of checkpoints and snapshots, and the database must go on when the disk is full."""
    inspection_seconds: float = 120.0
    inspection_memory_bytes: int = 4 * 1024**3
    """Address space of the process that looks into an upload: the largest array, twice, and the libraries."""

    lease_seconds: float = 30.0
    """How long a running job stays with a worker that gives no sign of life."""
    sweep_seconds: float = 5.0
    """How often workers look for jobs whose message or worker was lost."""
    ping_seconds: float = 5.0
    """How often an idle worker sends itself a message, to know that it still receives any."""
    resend_seconds: float = 30.0
    """A queued job is not sent again before this has passed."""
    max_losses: int = 3
    """Attempts that may die without a word before the job fails."""
    cancel_grace_seconds: float = 10.0
    """How long a cancelled job may take to notice by itself."""
    stop_grace_seconds: float = 5.0
    """Time between TERM and KILL."""
    priority_seconds: float = 3600.0
    """A job that has waited for so long counts as one priority higher, so that no flood of more urgent ones, and nobody
    who calls all of their jobs urgent, keeps it waiting for ever. An hour is long beside a job in a hurry, and short
    beside a night of jobs."""

    gpus: str = "auto"
    """Which GPUs a worker serves: `auto` those that `nvidia-smi` lists, `none`, or their numbers or UUIDs with commas
    between."""
    gpu_jobs: int = 1
    """Supervisors of each GPU: so many jobs share it, and its memory by `DIANAQ_GPU_MEMORY_GB` of each. A small
    network leaves most of a GPU idle."""
    cpu_workers: int = 0
    """Supervisors without a GPU beside those with one; a machine without GPUs has one in any case. On machines with
    GPUs there are none by default, as one would take jobs for any device, and train for many times as long."""

    child_memory_bytes: int = 0
    """Memory of a job's process. 0: what the machine has, in any case 16 GiB. On CPU workers it limits the address
    space; CUDA reserves more of that than there is memory, so on GPU workers it takes a `cgroup`."""
    child_cpu_seconds: int = 60 * 24 * 3600
    """Processor time of an attempt, over all threads: what 16 cores do in almost four days, which is for runaways.
    `deadline_hours` of a job is the limit to plan with."""
    child_file_bytes: int = 16 * 1024**3
    """Size of each file that a job's process writes: eight times the largest upload."""
    child_open_files: int = 4096
    """A job opens tens of files; a leak ends here and not at the machine's limit."""
    cgroup: str = ""
    """Folder of a cgroup (version 2) that the worker may make groups in, with the memory controller enabled for
    them: each attempt then has one of its own, with `child_memory_bytes` as `memory.max`."""

    retention_days_artifacts: float = 90.0
    """The artifacts of a job go so long after its end; the job, its figures and events stay. Here and below, 0 keeps
    for ever."""
    retention_days_uploads: float = 180.0
    """A model or dataset goes so long after the end of the last job that used it, or after it came. Longer than
    artifacts: to make an expired bundle again takes both."""
    retention_days_incoming: float = 1.0
    """An upload that has not grown for a day has lost its client."""
    retention_days_orphans: float = 1.0
    """Files that nothing refers to: folders of attempts that died, blobs of crashed uploads. A day is much longer than
    a file waits for its row, and leaves time to look."""
    retention_days_logs: float = 30.0
    """What the attempts of an ended job printed."""
    housekeeping_seconds: float = 3600.0
    """How often what has expired is looked for."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Settings from the environment.

        Raises:
            InvalidSpec: a variable is missing or holds a value that its field does not take.
        """
        env = os.environ if environ is None else environ
        values: dict[str, object] = {}
        for field in fields(cls):
            name = PREFIX + field.name.upper()
            text = env.get(name, "")
            if text:
                values[field.name] = _parse(name, text, str(field.type))
        if "data_dir" not in values:
            raise InvalidSpec("DIANAQ_DATA_DIR must name the data folder; it is not set", param="DIANAQ_DATA_DIR")
        settings = cls(**values)  # type: ignore[arg-type]
        settings.check()
        return settings

    def check(self) -> None:
        """Refuse settings that would be unsafe.

        Raises:
            InvalidSpec: names the variable at fault.
        """
        if self.api_key and len(self.api_key) < MIN_KEY_CHARACTERS:
            raise InvalidSpec(
                f"DIANAQ_API_KEY must have at least {MIN_KEY_CHARACTERS} characters, "
                f"got {len(self.api_key)}; `openssl rand -hex 32` makes a good one",
                param="DIANAQ_API_KEY",
            )
        if self.log_format not in get_args(LogFormat):
            raise InvalidSpec(
                f"DIANAQ_LOG_FORMAT takes {' or '.join(get_args(LogFormat))}, got {self.log_format!r}",
                param="DIANAQ_LOG_FORMAT",
            )
        if not self.owner.isascii() or not self.owner.replace("-", "").replace("_", "").isalnum():
            raise InvalidSpec(f"DIANAQ_OWNER takes letters, digits, - and _; got {self.owner!r}", param="DIANAQ_OWNER")

    def check_exposure(self) -> None:
        """Refuse to serve other machines without a key of the operator's choosing.

        Raises:
            InvalidSpec: the address is not loopback and no key is configured.
        """
        if not is_loopback(self.host) and not self.api_key:
            raise InvalidSpec(
                f"the API does not listen on {self.host} without DIANAQ_API_KEY; set it, or listen on 127.0.0.1",
                param="DIANAQ_API_KEY",
            )

    def to_env(self) -> dict[str, str]:
        """The environment that gives these settings to a child process."""
        return {PREFIX + f.name.upper(): str(getattr(self, f.name)) for f in fields(self)}

    @property
    def database(self) -> str:
        """The database URL, with its default filled in."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute()}/dianaq.sqlite"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _parse(name: str, text: str, kind: str) -> object:
    converters = {"Path": Path, "str": str, "int": int, "float": float, "LogFormat": str}
    try:
        value = converters[kind](text)
    except ValueError:
        raise InvalidSpec(f"{name} takes {kind}, got {text!r}", param=name) from None
    if isinstance(value, int | float) and value < 0:
        raise InvalidSpec(f"{name} must not be negative, got {text}", param=name)
    return value
