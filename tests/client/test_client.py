"""The client: finding a service, uploads, listings, and errors under their own names."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from dianaq import Client, JobSpec, ModelInfo, ServiceUnavailable, WeightsInfo
from dianaq.config import save_local
from dianaq.errors import DianaqError, InvalidDataset, InvalidModel, NotFound, Problem, ServiceError, Unauthorised

from .fake_service import KEY, MODEL_INFO, FakeService
from .weights_samples import safetensors


def test_says_how_to_start_a_service_when_none_is_known() -> None:
    with pytest.raises(ServiceUnavailable, match="dianaq up"):
        Client()


def test_says_how_to_start_a_service_when_none_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(ServiceUnavailable, match="dianaq up"):
        list(client.models())


def test_a_silent_service_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with Client(url, timeout=0.1) as client, pytest.raises(ServiceUnavailable, match="in time"):
            client.health()


@pytest.mark.parametrize("url", ["ftp://host", "http://", "127.0.0.1:8000"])
def test_refuses_what_is_no_address(url: str) -> None:
    with pytest.raises(ServiceUnavailable), Client(url) as client:
        client.health()


def test_finds_the_local_service(service: FakeService) -> None:
    save_local(service.url, KEY)
    with Client() as client:
        assert [model.id for model in client.models()] == ["mod_1", "mod_0"]


def test_environment_wins_over_the_local_service(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    save_local("http://127.0.0.1:1", "another")
    monkeypatch.setenv("DIANAQ_URL", service.url)
    monkeypatch.setenv("DIANAQ_KEY", KEY)
    with Client() as client:
        assert list(client.datasets())


def test_the_local_key_goes_to_the_local_service_only(service: FakeService) -> None:
    save_local("http://127.0.0.1:1", KEY)
    with Client(service.url) as client, pytest.raises(Unauthorised, match="unknown key"):
        list(client.models())


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with Client(service.url, KEY) as client:
        assert list(client.models())


def test_uploads_whole_files(service: FakeService, client: Client, model_file: Path, dataset_file: Path) -> None:
    model = client.upload_model(model_file)
    dataset = client.upload_dataset(dataset_file, name="a name & more")
    assert (model.id, dataset.id) == ("mod_1", "dat_1")
    assert service.uploads == {"net.onnx": model_file.read_bytes(), "a name & more": dataset_file.read_bytes()}


def test_a_network_that_is_refused_is_uploaded_with_a_warning(
    service: FakeService, client: Client, model_file: Path
) -> None:
    refusal = {"type": "invalid-model", "title": "T", "detail": "two outputs: 'a', 'b'"}
    service.model_info = {**MODEL_INFO, "refusal": refusal}
    with pytest.warns(UserWarning, match=r"no job takes net\.onnx as a whole: two outputs: 'a', 'b'") as caught:
        info = client.upload_model(model_file).info
    assert caught[0].filename == __file__
    assert isinstance(info, ModelInfo)
    assert info.refusal is not None
    client.upload_model(model_file, warn_of_refusal=False)


def test_uploads_weights(service: FakeService, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    path.write_bytes(safetensors())
    info = client.upload_model(path).info
    assert isinstance(info, WeightsInfo)
    assert (info.format, info.tensors, info.shapes) == ("safetensors", 3, {"w": (7,)})
    assert service.uploads == {"best.safetensors": safetensors()}


def test_refuses_bad_files_before_sending_them(service: FakeService, client: Client, tmp_path: Path) -> None:
    empty, checkpoint, array = tmp_path / "empty", tmp_path / "net.pt", tmp_path / "x.npy"
    empty.write_bytes(b"")
    checkpoint.write_bytes(b"PK\x03\x04...")
    array.write_bytes(b"\x93NUMPY\x01\x00")
    for path, words in ((empty, "is empty"), (checkpoint, "zip archive"), (tmp_path / "none", "No such file")):
        with pytest.raises(InvalidModel, match=rf"{path.name}: .*{words}"):
            client.upload_model(path)
    for path, words in ((empty, "is empty"), (array, "savez"), (tmp_path, "cannot be read")):
        with pytest.raises(InvalidDataset, match=words):
            client.upload_dataset(path)
    assert service.requests == []


def test_submits_uploads_as_they_are(
    service: FakeService, client: Client, model_file: Path, dataset_file: Path
) -> None:
    spec = JobSpec(model=client.upload_model(model_file), dataset=client.upload_dataset(dataset_file))  # type: ignore[arg-type]
    assert client.submit_job(spec).id == "job_1"
    assert (service.spec.model, service.spec.dataset) == ("mod_1", "dat_1")


def test_lists_all_pages(client: Client) -> None:
    assert [job.id for job in client.jobs(state="queued")] == ["job_1", "job_2"]


def test_an_id_cannot_lead_elsewhere(service: FakeService, client: Client) -> None:
    with pytest.raises(NotFound):
        client.job("../models?x=")
    assert service.requests == ["GET /v1/jobs/..%2Fmodels%3Fx%3D"]


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (Problem(type="invalid-model", title="t", detail="node 'a'", status=422), InvalidModel, "node 'a'"),
        (Problem(type="from-the-future", title="t", detail="new", status=418), ServiceError, "new"),
        ((502, "<html>bad gateway</html>"), ServiceUnavailable, "502: <html>bad gateway"),
        ((404, ""), ServiceError, "404: an empty answer"),
        ((200, "<html>a router</html>"), ServiceError, "something else than a dianaq service"),
    ],
)
def test_errors_keep_their_names(
    service: FakeService,
    client: Client,
    model_file: Path,
    answer: Problem | tuple[int, str],
    error: type[DianaqError],
    words: str,
) -> None:
    service.answer = answer
    with pytest.raises(error, match=words):
        client.upload_model(model_file)
