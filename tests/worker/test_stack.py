"""The whole stack: real Redis, real Celery, real HTTP; only the pipeline inside the children is fake."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from dianaq.schemas.events import Event
from dianaq_service.database import Database
from dianaq_service.storage import Storage
from dianaq_worker.embedded import LocalStack, StackError

from .fakes.dianaq_quant import pipeline as fake
from .support import CONTENT, add_job, add_uploads, all_gone, family, states, wait_for, with_fakes

FAST = {"sweep_seconds": 0.5, "stop_grace_seconds": 1.0, "cancel_grace_seconds": 1.0, "lease_seconds": 5.0}


@dataclass
class Service:
    stack: LocalStack
    http: httpx.Client
    database: Database

    def submit(self, behaviour: int) -> str:
        uploads = add_uploads(self.database, Storage(self.stack.data_dir))
        response = self.http.post("/v1/jobs", json={**uploads, "recipe": {"seed": behaviour}})
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    def start(self, **spec: Any) -> str:
        response = self.http.post("/v1/jobs", json=spec)
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    def artifact(self, job: str, path: str) -> bytes:
        return self.http.get(f"/v1/jobs/{job}/artifacts/{path}").content

    def job(self, job: str) -> dict[str, Any]:
        return dict(self.http.get(f"/v1/jobs/{job}").json())

    def wait(self, job: str, *wanted: str) -> dict[str, Any]:
        wait_for(lambda: self.job(job)["state"] in wanted)
        return self.job(job)

    def follow(self, job: str, **headers: str) -> Iterator[tuple[int, Event]]:
        path = f"/v1/jobs/{job}/events/stream"
        with self.http.stream("GET", path, headers=headers) as response:
            number = 0
            for line in response.iter_lines():
                field, _, value = line.partition(": ")
                if field == "data":
                    event = Event.model_validate_json(value)
                elif field == "id":
                    number = int(value)
                elif not line and number:
                    yield number, event
                    number = 0

    def child(self, job: str) -> psutil.Process | None:
        for process in psutil.Process(self.stack.pids["worker"]).children():
            if job in process.cmdline():
                return process
        return None


def _service(stack: LocalStack) -> Service:
    http = httpx.Client(base_url=stack.url, headers={"Authorization": f"Bearer {stack.key}"}, timeout=20)
    return Service(stack, http, Database(f"sqlite:///{stack.data_dir}/dianaq.sqlite"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", with_fakes())
        with LocalStack(tmp_path_factory.mktemp("stack") / "data", settings=FAST) as stack:
            service = _service(stack)
            yield service
            service.http.close()
            service.database.close()


def test_from_submission_to_download(service: Service) -> None:
    job = service.submit(fake.SUCCEED)
    events = [event for _, event in service.follow(job)]
    assert states(events) == ["queued", "running", "succeeded"]
    numbers = [event.seq for event in events]
    assert numbers == sorted(set(numbers))
    assert service.job(job)["metrics"]["float"]["test_accuracy"] == 0.75
    artifacts = service.http.get(f"/v1/jobs/{job}/artifacts").json()
    assert [a["path"] for a in artifacts] == fake.MEMBERS
    assert service.http.get(f"/v1/jobs/{job}/artifacts/htvm/model.onnx").content == CONTENT


def test_networks_of_the_zoo_with_and_without_weights(service: Service) -> None:
    header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    weights = len(header).to_bytes(8, "little") + header + b"\x00" * 8
    uploaded = service.http.post("/v1/models?name=w.safetensors", content=weights).json()
    assert uploaded["info"]["format"] == "safetensors"
    dataset = add_uploads(service.database, Storage(service.stack.data_dir))["dataset"]
    zoo = {"architecture": "cifarnet", "input_shape": [3, 8, 8], "classes": 10}
    random = service.start(model=zoo, dataset=dataset, recipe={"float": {"epochs": 1}})
    loaded = service.start(model={**zoo, "weights": uploaded["id"]}, dataset=dataset)
    for job, content in ((random, fake.RANDOM), (loaded, weights)):
        done = service.wait(job, "succeeded", "failed")
        assert done["state"] == "succeeded", done["error"]
        assert service.artifact(job, "htvm/model.onnx") == content


def test_a_job_starts_from_a_checkpoint_of_another(service: Service) -> None:
    first = service.submit(fake.SUCCEED)
    parent = service.wait(first, "succeeded")["spec"]
    again = {name: parent[name] for name in ("model", "dataset")}
    second = service.start(**again, start_from=f"{first}/hardware_mapped")
    assert service.wait(second, "succeeded", "failed")["state"] == "succeeded"
    assert service.artifact(second, "checkpoints/hardware_exact.pt") == b"hardware_mapped hardware_exact "
    third = service.start(**again, start_from=f"{second}/hardware_exact")
    assert service.wait(third, "succeeded", "failed")["state"] == "succeeded"
    assert service.artifact(third, "checkpoints/float.pt") == b"hardware_mapped hardware_exact float "


def test_a_child_waits_for_its_parent_and_ends_with_it(service: Service) -> None:
    def three_generations(behaviour: int) -> tuple[str, str, str]:
        parent = service.submit(behaviour)
        spec = {name: service.job(parent)["spec"][name] for name in ("model", "dataset")}
        child = service.start(**spec, start_from=f"{parent}/float")
        return parent, child, service.start(**spec, start_from=f"{child}/fake_quantised")

    _, child, grandchild = three_generations(fake.SUCCEED)
    assert service.wait(grandchild, "succeeded", "failed")["state"] == "succeeded"
    assert service.artifact(child, "checkpoints/float.pt") == b"float float "
    _, child, grandchild = three_generations(fake.REFUSE)
    assert service.wait(grandchild, "failed")["error"]["type"] == "parent-failed"
    parent, child, grandchild = three_generations(fake.WAIT)
    service.wait(parent, "running")
    assert service.job(child)["waits_for"] == parent
    service.http.post(f"/v1/jobs/{parent}/cancel")
    detail = service.wait(grandchild, "failed")["error"]["detail"]
    assert detail == f"job {child} failed: job {parent} was cancelled"


def test_following_live_and_resuming(service: Service) -> None:
    job = service.submit(fake.WAIT)
    seen: list[tuple[int, Event]] = []
    for number, event in service.follow(job):
        seen.append((number, event))
        if event.body.type == "stage":
            break
    service.http.post(f"/v1/jobs/{job}/cancel")
    seen += service.follow(job, **{"Last-Event-ID": str(seen[-1][0])})
    numbers = [number for number, _ in seen]
    assert numbers == sorted(set(numbers))
    assert states(event for _, event in seen) == ["queued", "running", "cancelling", "cancelled"]


def test_the_long_lived_processes_are_small_and_know_no_torch(service: Service) -> None:
    service.wait(service.submit(fake.SUCCEED), "succeeded")
    for part in ("api", "worker"):
        process = psutil.Process(service.stack.pids[part])
        mapped = " ".join(region.path for region in process.memory_maps())
        assert not [name for name in ("torch", "onnx", "numpy") if f"/{name}/" in mapped], part
        assert process.memory_info().rss < 200e6, part


def test_a_killed_child_is_replaced(service: Service) -> None:
    job = service.submit(fake.HANG_ONCE)
    wait_for(lambda: service.job(job)["stage"] == "float")
    child = service.child(job)
    assert child is not None
    os.kill(child.pid, signal.SIGKILL)
    done = service.wait(job, "succeeded", "failed")
    assert (done["state"], done["attempt"]) == ("succeeded", 2)


def test_cancelling_while_queued_and_while_running(service: Service) -> None:
    running = service.submit(fake.IGNORE_CANCEL)
    wait_for(lambda: service.job(running)["stage"] == "float")
    queued = service.submit(fake.SUCCEED)
    assert service.http.post(f"/v1/jobs/{queued}/cancel").json()["state"] == "cancelled"
    child = service.child(running)
    assert service.http.post(f"/v1/jobs/{running}/cancel").json()["state"] == "cancelling"
    service.wait(running, "cancelled")
    assert child is not None
    wait_for(lambda: all_gone([child]))
    # The worker is free again, and the message of the cancelled job does nothing.
    service.wait(service.submit(fake.SUCCEED), "succeeded")
    assert service.job(queued)["attempt"] == 0


def test_a_job_whose_message_was_lost_is_found(service: Service) -> None:
    # Put into the database behind the API's back: nobody sends it.
    job = add_job(service.database, Storage(service.stack.data_dir), fake.SUCCEED)
    service.wait(job, "succeeded")


def test_an_upload_that_breaks_off_leaves_nothing(service: Service) -> None:
    host, port = service.stack.url.removeprefix("http://").split(":")
    incoming = service.stack.data_dir / "incoming"
    with socket.create_connection((host, int(port))) as connection:
        head = (
            "POST /v1/models?name=broken HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n"
            f"Authorization: Bearer {service.stack.key}\r\n\r\n"
        )
        connection.sendall(head.encode() + b"x" * 2_000_000)
        wait_for(lambda: list(incoming.iterdir()))
    wait_for(lambda: not list(incoming.iterdir()))
    assert "broken" not in [model["name"] for model in service.http.get("/v1/models").json()["items"]]
    assert service.http.get("/v1/health").status_code == 200


def test_a_second_stack_on_the_same_folder_names_the_first(service: Service) -> None:
    with (
        pytest.raises(StackError, match=f"process {os.getpid()}"),
        LocalStack(service.stack.data_dir),
    ):
        pass
    assert service.http.get("/v1/health").status_code == 200


def test_a_taken_port_is_an_error(service: Service, tmp_path: Path) -> None:
    port = int(service.stack.url.rsplit(":", 1)[1])
    with pytest.raises(StackError, match=str(port)), LocalStack(tmp_path / "d", port):
        pass


def test_a_job_is_handed_back_at_shutdown_and_finished_by_the_next_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", with_fakes())
    # Too long for a socket: Redis has to listen elsewhere.
    data = tmp_path / ("d" * 100)
    with LocalStack(data, settings=FAST) as stack:
        service = _service(stack)
        job = service.submit(fake.HANG_ONCE)
        wait_for(lambda: service.job(job)["stage"] == "float")
        processes = [p for pid in stack.pids.values() for p in family(pid)]
        key = stack.key
    assert all_gone(processes)
    assert len(processes) == 4
    with LocalStack(data, settings=FAST) as stack:
        assert stack.key == key
        again = _service(stack)
        done = again.wait(job, "succeeded", "failed")
        assert (done["state"], done["attempt"]) == ("succeeded", 2)
        events = [event for _, event in again.follow(job)]
        assert states(events) == ["queued", "running", "queued", "running", "succeeded"]
    for part in (service, again):
        part.http.close()
        part.database.close()
    assert (data / "key").stat().st_mode & 0o777 == 0o600
