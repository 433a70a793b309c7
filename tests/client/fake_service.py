"""A service of a few routes on a real socket, which drops, refuses and damages things when told to."""

from __future__ import annotations

import hashlib
import io
import json
import re
import socket
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from dianaq.errors import Problem
from dianaq.schemas.events import Event, State, StateBody
from dianaq.schemas.resources import Job
from dianaq.schemas.spec import JobSpec
from dianaq.schemas.sweep_table import SweepTable
from dianaq.schemas.sweeps import SweepJob, SweepSpec, SweepWithJobs

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = "dq_test"
MODEL_INFO: dict[str, Any] = {
    "opset": 17,
    "input": {"name": "x", "shape": [1, 8, 8]},
    "output": {"name": "y", "shape": [10]},
    "operators": {},
    "layers": [],
    "parameters": 1234,
}
WEIGHTS_INFO = {"format": "safetensors", "tensors": 3, "bytes": 28, "shapes": {"w": [7]}}
DATASET_INFO = {"splits": {"train": {"samples": 3, "sample_shape": [8, 8], "dtype": "uint8"}}}


def event(seq: int, body: Any) -> Event:
    return Event(seq=seq, time=NOW, attempt=1, body=body)


def make_bundle(files: Mapping[str, bytes], manifest: Mapping[str, str] | None = None) -> bytes:
    """A zip of these files and their manifest, or of another one."""
    listed = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()} if manifest is None else manifest
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in {**files, "manifest.json": json.dumps({"files": listed}).encode()}.items():
            archive.writestr(name, data)
    return buffer.getvalue()


class FakeService:
    """What the service holds and how it misbehaves; tests change the attributes.

    Attributes:
        events: the history of the job, which follows `job.state` wherever that is set.
        per_stream: events that a stream gives before the connection is cut; None ends streams properly.
        streams: whether the event stream works at all.
        on_stream_end: called whenever a stream has ended.
        answer: problem with which every request is answered.
        answers: problems with which the next POSTs are answered; `retry_after` is the header that goes with them.
        lost_answers: so many POSTs are done, and the connection is cut instead of an answer.
        done: the paths of the POSTs that were done; one whose key was seen before is not done again.
        keys: the idempotency key of each POST that came.
        bundle: the content of `artifact`; `listed_sha256` is what the listing says of it.
        model_info: what it finds in an uploaded network.
        sweep: the sweep that was submitted; whenever it is asked for, its jobs take on the next of `sweep_states`.
    """

    def __init__(self) -> None:
        self.spec = JobSpec(model="mod_1", dataset="dat_1")
        self.job = Job(id="job_1", state="queued", created=NOW, spec=self.spec)
        self.events: list[Event] = []
        self.per_stream: int | None = None
        self.streams = True
        self.on_stream_end: Callable[[], None] = lambda: None
        self.answer: Problem | tuple[int, str] | None = None
        self.answers: list[Problem | tuple[int, str]] = []
        self.retry_after = ""
        self.lost_answers = 0
        self.done: list[str] = []
        self.keys: list[str] = []
        self.kept: dict[str, bytes] = {}
        self.last_event_ids: list[str] = []
        self.bundle = make_bundle({"report.json": b'{"accuracy": []}'})
        self.artifact = "bundle.zip"
        self.listed_sha256: str | None = None
        self.uploads: dict[str, bytes] = {}
        self.model_info: dict[str, Any] = MODEL_INFO
        self.sweep: SweepWithJobs | None = None
        self.sweep_states: list[list[State]] = []
        self.table = SweepTable(id="swp_1", paths=[], rows=[])
        self.requests: list[str] = []
        self.deleted: list[str] = []
        self.page_size = 2
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def add(self, *bodies: Any) -> None:
        """Append events; a state event also moves the job."""
        for body in bodies:
            self.events.append(event(len(self.events) + 1, body))
            if isinstance(body, StateBody):
                self.move(body.state, error=body.error)

    def move(self, state: State, **changes: Any) -> None:
        """Change the job without an event."""
        self.job = self.job.model_copy(update={"state": state, **changes})

    def set_states(self, states: list[State]) -> None:
        """The states of the sweep's jobs."""
        assert self.sweep is not None
        jobs = [job.model_copy(update={"state": state}) for job, state in zip(self.sweep.jobs, states, strict=True)]
        self.sweep = self.sweep.model_copy(update={"states": dict(Counter(states)), "jobs": jobs})


def _handler(service: FakeService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            service.requests.append(f"{self.command} {self.path}")

        def do_GET(self) -> None:
            self._route()

        def do_DELETE(self) -> None:
            if service.answer is not None:
                self._refuse(service.answer)
            else:
                service.deleted.append(self.path)
                self.send_response(204)
                self.end_headers()

        def do_POST(self) -> None:
            self._body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            service.keys.append(self.headers["Idempotency-Key"])
            if service.answers:
                self._refuse(service.answers.pop(0))
            else:
                self._route()

        def _route(self) -> None:
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            if service.answer is not None:
                self._refuse(service.answer)
            elif self.headers.get("Authorization") != f"Bearer {KEY}":
                self._refuse(Problem(type="unauthorised", title="A key is needed", detail="unknown key", status=401))
            elif self.command == "POST" and self.headers["Idempotency-Key"] in service.kept:
                self._send(200, service.kept[self.headers["Idempotency-Key"]], "application/json")
            elif url.path == "/v1/jobs/job_1/events/stream":
                service.last_event_ids.append(self.headers["Last-Event-ID"])
                self._stream(int(query["after"]))
            elif url.path.startswith("/v1/jobs/job_1/artifacts/"):
                self._send(200, service.bundle, "application/octet-stream")
            else:
                self._resource(url.path, query)

        def _resource(self, path: str, query: dict[str, str]) -> None:
            job = service.job.model_dump(mode="json", by_alias=True)
            if self.command == "POST" and (kind := re.fullmatch("/v1/(models|datasets)", path)):
                service.uploads[query["name"]] = self._body
                network = WEIGHTS_INFO if self._body[8:9] == b"{" else service.model_info
                info = network if kind[1] == "models" else DATASET_INFO
                self._json(_upload(f"{kind[1][:3]}_1", query["name"], self._body, info))
            elif self.command == "POST" and path == "/v1/jobs":
                service.spec = JobSpec.model_validate_json(self._body)
                self._json(job)
            elif path == "/v1/jobs/job_1/cancel":
                service.add(StateBody(state="cancelled"))
                self._json(service.job.model_dump(mode="json", by_alias=True))
            elif path == "/v1/jobs/job_1":
                self._json(job)
            elif path == "/v1/jobs":
                second = query.get("cursor") == "more"
                self._json({"items": [{**job, "id": "job_2"} if second else job], "next": None if second else "more"})
            elif path == "/v1/models":
                self._json(
                    {
                        "items": [
                            _upload("mod_1", "net", b"123", MODEL_INFO),
                            _upload("mod_0", "w", b"1", WEIGHTS_INFO),
                        ],
                        "next": None,
                    }
                )
            elif path == "/v1/datasets":
                self._json({"items": [_upload("dat_1", "data", b"123", DATASET_INFO)], "next": None})
            elif path == "/v1/jobs/job_1/events":
                after = int(query["after"])
                found = service.events[after : after + service.page_size]
                more = len(service.events) > after + service.page_size
                self._json(
                    {
                        "items": [e.model_dump(mode="json") for e in found],
                        "next": str(found[-1].seq) if more else None,
                    }
                )
            elif path == "/v1/jobs/job_1/artifacts":
                digest = service.listed_sha256 or hashlib.sha256(service.bundle).hexdigest()
                bundle = {"path": service.artifact, "size": len(service.bundle), "sha256": digest}
                self._json([bundle] if service.job.state == "succeeded" else [])
            elif path.startswith("/v1/sweeps"):
                self._sweeps(path)
            else:
                self._refuse(Problem(type="not-found", title="No such thing", detail=f"no {path}", status=404))

        def _sweeps(self, path: str) -> None:
            if self.command == "POST" and path == "/v1/sweeps":
                spec = SweepSpec.model_validate_json(self._body)
                jobs = [SweepJob(id=f"job_{i}", state="queued", point=p) for i, p in enumerate(spec.points(), 1)]
                service.sweep = SweepWithJobs(
                    id="swp_1", created=NOW, spec=spec, states={"queued": len(jobs)}, jobs=jobs
                )
            if path == "/v1/sweeps/swp_1/table":
                self._json(service.table.model_dump(mode="json"))
                return
            if service.sweep is None:
                self._refuse(Problem(type="not-found", title="No such thing", detail=f"no {path}", status=404))
                return
            if path == "/v1/sweeps/swp_1/cancel":
                service.set_states(["cancelled"] * len(service.sweep.jobs))
            elif path == "/v1/sweeps/swp_1" and service.sweep_states:
                service.set_states(service.sweep_states.pop(0))
            sweep = service.sweep.model_dump(mode="json")
            self._json({"items": [sweep], "next": None} if self.command == "GET" and path == "/v1/sweeps" else sweep)

        def _stream(self, after: int) -> None:
            if not service.streams:
                self._send(200, b"hello", "text/html")
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            self.wfile.write(b": following\nretry: 500\n\n")
            for e in service.events[after:][: service.per_stream]:
                self.wfile.write(f"data: {e.model_dump_json()}\nid: {e.seq}\n\n: ping\n\n".encode())
            self.wfile.flush()
            if service.per_stream is not None:  # half an event, then nothing more
                self.wfile.write(b'data: {"seq": ')
                self.connection.shutdown(socket.SHUT_RDWR)
            service.on_stream_end()

        def _json(self, value: Any) -> None:
            data = json.dumps(value).encode()
            if self.command == "POST":
                service.kept[self.headers["Idempotency-Key"]] = data
                service.done.append(urlsplit(self.path).path)
            self._send(200, data, "application/json")

        def _refuse(self, answer: Problem | tuple[int, str]) -> None:
            if isinstance(answer, Problem):
                self._send(answer.status, answer.model_dump_json().encode(), "application/problem+json")
            else:
                self._send(answer[0], answer[1].encode(), "text/html")

        def _send(self, status: int, data: bytes, kind: str) -> None:
            if self.command == "POST" and service.lost_answers:
                service.lost_answers -= 1
                self.log_request()
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(status)
            if service.retry_after:
                self.send_header("Retry-After", service.retry_after)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler


def _upload(id: str, name: str, data: bytes, info: dict[str, Any]) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    return {"id": id, "name": name, "sha256": digest, "size": len(data), "created": NOW.isoformat(), "info": info}
