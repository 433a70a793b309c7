"""The SDK and the service over a connection that is cut after the work was done."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select

from dianaq import Client, JobSpec, Recipe, ZooModel
from dianaq_service.database import DatasetRow, JobRow

from .conftest import Api

PATIENCE = 30.0


class Proxy(socketserver.ThreadingTCPServer):
    """Passes connections on to the API; of the next `lost` answers, it reads the head and gives none."""

    daemon_threads = True
    lost = 0

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Pass)
        self.target = target

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Pass(socketserver.BaseRequestHandler):
    server: Proxy

    def handle(self) -> None:
        with socket.create_connection(self.server.target, PATIENCE) as there:
            forth = threading.Thread(target=_pump, args=(self.request, there))
            forth.start()
            while data := there.recv(65536):
                if self.server.lost:
                    self.server.lost -= 1
                    break
                self.request.sendall(data)
            for end in (self.request, there):
                with suppress(OSError):  # the other side was faster
                    end.shutdown(socket.SHUT_RDWR)
            forth.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):  # the answer's direction ended the connection
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy(api: Api) -> Iterator[Proxy]:
    base = api.client.base_url
    assert base.port is not None
    with Proxy((base.host, base.port)) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_what_was_done_is_not_done_again(
    api: Api, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dianaq._retry.PAUSE_SECONDS", 0.05)
    file = tmp_path / "data.npz"
    np.savez(file, x_train=np.zeros((20, 8, 8, 3), np.uint8), y_train=np.arange(20) % 10)
    with Client(proxy.url, api.services.settings.api_key) as client:
        proxy.lost = 1
        dataset = client.upload_dataset(file)
        proxy.lost = 2
        zoo = ZooModel(architecture="resnet8", input_shape=(3, 8, 8), classes=10)
        spec = JobSpec(model=zoo, dataset=dataset, recipe=Recipe.model_validate({"float": {"epochs": 1}}))
        job = client.submit_job(spec)
        proxy.lost = 1
        assert job.cancel().state == "cancelled"
        assert proxy.lost == 0
        assert [event.body.state for event in job.events()] == ["queued", "cancelled"]
        # A lost answer of what changes nothing is no matter either.
        proxy.lost = 2
        assert [event.seq for event in job.events(follow=True)] == [1, 2]
    with api.services.database.read() as session:
        assert [session.scalar(select(func.count()).select_from(table)) for table in (DatasetRow, JobRow)] == [1, 1]
