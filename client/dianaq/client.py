"""The SDK: `Client` speaks to a service, `JobHandle` to one of its jobs, `SweepHandle` to one of its sweeps."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar
from urllib.parse import quote

import httpx

from dianaq import _upload
from dianaq._job import JobHandle
from dianaq._sweep import SweepHandle
from dianaq._transport import Transport
from dianaq.config import config_path, load_local
from dianaq.errors import ServiceUnavailable
from dianaq.schemas.events import State
from dianaq.schemas.resources import Dataset, Health, Job, Model, ModelInfo, Page
from dianaq.schemas.spec import JobSpec
from dianaq.schemas.sweeps import Sweep, SweepWithJobs, parse_sweep

__all__ = ["Client", "JobHandle", "SweepHandle"]

TIMEOUT_SECONDS = 30.0
"""Answers take milliseconds; a service that is silent for half a minute is not there."""

INSPECTION_SECONDS = 300.0
"""After its last byte an upload waits its turn and is inspected, which the service gives two minutes."""

T = TypeVar("T")


class Client:
    """A service, found by itself when it runs on this machine.

    Args:
        url: address of the service; default `$DIANAQ_URL`, then the service that `dianaq up` wrote down.
        key: API key; default `$DIANAQ_KEY`, then the key written down for that address.
        timeout: seconds that connecting, or a pause within an answer, may take.

    Raises:
        ServiceUnavailable: no address is known. An address that does not answer shows with the first request.

    Example:
        >>> client = Client()
        >>> job = client.submit_job(JobSpec(model=client.upload_model("resnet8.onnx"), dataset="ds_1"))
        >>> job.wait()
        >>> job.download("out/")
    """

    def __init__(self, url: str | None = None, key: str | None = None, timeout: float = TIMEOUT_SECONDS) -> None:
        url = url or os.environ.get("DIANAQ_URL")
        key = key or os.environ.get("DIANAQ_KEY")
        if url is None or key is None:
            local = load_local()
            url = url or (local.url if local else None)
            # The key of one service is nothing that another should see.
            if local is not None and url is not None and url.rstrip("/") == local.url.rstrip("/"):
                key = key or local.key
        if url is None:
            raise ServiceUnavailable(
                f"no service is known: start one on this machine with `dianaq up` (it is written down in "
                f"{config_path()}), or set DIANAQ_URL and DIANAQ_KEY"
            )
        self._transport = Transport(url, key, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client {self.url}>"

    @property
    def url(self) -> str:
        """Address of the service."""
        return self._transport.url

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def health(self) -> Health:
        """Whether the service answers, and its version."""
        return self._transport.get("/v1/health", Health)

    def upload_model(
        self, path: str | os.PathLike[str], name: str | None = None, *, warn_of_refusal: bool = True
    ) -> Model:
        """Upload a network (ONNX), or the weights of a zoo network (safetensors, or a PyTorch state dict).

        Weights that an ONNX file keeps in a file beside it are sent inside it. A network that no job takes as a whole
        is kept, for a part of it may do: its `info.refusal` tells why.

        Args:
            path: the file; its content tells what it is, not its name.
            name: what to call it; default the file's name.
            warn_of_refusal: warn where there is one. To be turned off where jobs take a part.

        Raises:
            InvalidModel, UnsupportedOperator: it cannot be used; nothing is kept.
            MissingExtra: its weights lie in another file, and onnx is not installed.
            TooLarge: beyond the service's size cap.
        """
        _upload.check_model(Path(path))
        with _upload.open_model(Path(path)) as file:
            model = self._upload("/v1/models", file, name or Path(path).name, Model)
        if warn_of_refusal and isinstance(model.info, ModelInfo) and model.info.refusal is not None:
            warnings.warn(
                f"no job takes {model.name} as a whole: {model.info.refusal.detail}", UserWarning, stacklevel=2
            )
        return model

    def upload_dataset(self, path: str | os.PathLike[str], name: str | None = None) -> Dataset:
        """Upload an npz file with `x_train` and optionally `y_train`, `x_val`, `y_val`, `x_test`, `y_test`.

        Args:
            name: what to call it; default the file's name.

        Raises:
            InvalidDataset: it cannot be used; nothing is kept.
            TooLarge: beyond the service's size cap.
        """
        _upload.check_dataset(Path(path))
        with Path(path).open("rb") as file:
            return self._upload("/v1/datasets", file, name or Path(path).name, Dataset)

    def submit_job(self, spec: JobSpec) -> JobHandle:
        """Submit a job. One that starts from a job that is still queued or running waits for it.

        Raises:
            InvalidSpec, InvalidDataset: the specification does not fit the model or the data.
            InvalidModel, UnsupportedOperator: the network (or the part of it) is refused; or the model is weights where
                a network is needed, or the reverse.
            Conflict: the job to start from failed or was cancelled, or left no checkpoint.
        """
        return JobHandle(self._transport, self._transport.post("/v1/jobs", Job, body=spec))

    def job(self, id: str) -> JobHandle:
        """A job by its id."""
        return JobHandle(self._transport, self._transport.get(f"/v1/jobs/{_segment(id)}", Job))

    def jobs(self, state: State | None = None) -> Iterator[JobHandle]:
        """The jobs, newest first; those in one state, if one is given."""
        for job in self._pages("/v1/jobs", Job, {} if state is None else {"state": state}):
            yield JobHandle(self._transport, job)

    def submit_sweep(self, job: JobSpec | Mapping[str, Any], grid: Mapping[str, Sequence[Any]]) -> SweepHandle:
        """Submit a job for every point of a grid: all of them, or none.

        Args:
            job: what the jobs have in common; a mapping may lack what the grid sets.
            grid: values by dotted path into the job specification; the last path varies fastest.

        Raises:
            InvalidSpec, InvalidDataset, InvalidModel, Conflict: as for a job; the error names the point.

        Example:
            >>> sweep = client.submit_sweep(
            ...     JobSpec(model="mdl_1", dataset="dat_1", recipe=Recipe(preset="qat-fast")),
            ...     {"recipe.hardware_mapped.learning_rate": [0.01, 0.02], "recipe.seed": [0, 1, 2]},
            ... )
            >>> sweep.wait()
            >>> print(sweep.table().markdown())
        """
        spec = parse_sweep({"job": job, "grid": grid})
        return SweepHandle(self._transport, self._transport.post("/v1/sweeps", SweepWithJobs, body=spec))

    def sweep(self, id: str) -> SweepHandle:
        """A sweep by its id."""
        return SweepHandle(self._transport, self._transport.get(f"/v1/sweeps/{_segment(id)}", SweepWithJobs))

    def sweeps(self) -> Iterator[Sweep]:
        """The sweeps, newest first."""
        return self._pages("/v1/sweeps", Sweep, {})

    def models(self) -> Iterator[Model]:
        """The uploaded models, newest first."""
        return self._pages("/v1/models", Model, {})

    def datasets(self) -> Iterator[Dataset]:
        """The uploaded datasets, newest first."""
        return self._pages("/v1/datasets", Dataset, {})

    def delete_model(self, id: str) -> None:
        """Have the service remove a model.

        Raises:
            Conflict: a job that has not ended needs it; the message names the job.
        """
        self._transport.delete(f"/v1/models/{_segment(id)}")

    def delete_dataset(self, id: str) -> None:
        """Have the service remove a dataset; errors as for `delete_model`."""
        self._transport.delete(f"/v1/datasets/{_segment(id)}")

    def job_spec_schema(self) -> dict[str, Any]:
        """JSON Schema of the job specification that the service takes."""
        return self._transport.get("/v1/schemas/job-spec", dict[str, Any])

    def _upload(self, path: str, file: BinaryIO, name: str, answer: type[T]) -> T:
        size = file.seek(0, os.SEEK_END)

        def content() -> Iterator[bytes]:
            file.seek(0)
            return _upload.body(file, size, name)

        return self._transport.post(
            path,
            answer,
            params={"name": name},
            content=content,
            headers={"Content-Type": "application/octet-stream", "Content-Length": str(size)},
            timeout=httpx.Timeout(self._transport.timeout, read=INSPECTION_SECONDS),
        )

    def _pages(self, path: str, item: type[T], params: dict[str, str]) -> Iterator[T]:
        while True:
            page: Page[T] = self._transport.get(path, Page[item], params=params)  # type: ignore[valid-type]
            yield from page.items
            if page.next is None:
                return
            params = {**params, "cursor": page.next}


def _segment(id: str) -> str:
    """An id as one segment of a path, whatever was typed."""
    return quote(id, safe="")
