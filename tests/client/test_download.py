"""Downloaded bundles: checked file by file, complete or absent, and never over something else."""

from __future__ import annotations

import hashlib
import io
import stat
import zipfile
from pathlib import Path

import pytest

from dianaq import Client, JobHandle
from dianaq.errors import Conflict, ServiceError

from .fake_service import FakeService, make_bundle

FILES = {"report.json": b"{}", "htvm/model.onnx": b"network", "dory/out_layer0.txt": b"1,\n"}


@pytest.fixture
def job(service: FakeService, client: Client) -> JobHandle:
    service.move("succeeded")
    service.bundle = make_bundle(FILES)
    return client.job("job_1")


def test_fetches_every_file(service: FakeService, job: JobHandle, tmp_path: Path) -> None:
    out = job.download(tmp_path / "deep" / "out")
    found = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert found.pop("bundle.zip") == service.bundle
    assert found.pop("manifest.json")
    assert found == FILES
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_replaces_an_older_bundle_and_an_empty_folder(service: FakeService, job: JobHandle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    job.download(out)
    service.bundle = make_bundle({"report.json": b"newer"})
    job.download(out)
    assert (out / "report.json").read_bytes() == b"newer"
    assert not (out / "htvm").exists()
    assert list(tmp_path.iterdir()) == [out]


def test_leaves_other_things_alone(job: JobHandle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job.download(out)
    (out / "htvm" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="other things"):
        job.download(out)
    assert (out / "htvm" / "notes.txt").read_text() == "mine"
    job.download(out, overwrite=True)
    assert not (out / "htvm" / "notes.txt").exists()


def test_refuses_a_file_and_the_current_folder(job: JobHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="is a file"):
        job.download(tmp_path / "file", overwrite=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileExistsError, match="current folder"):
        job.download(".", overwrite=True)


def test_needs_a_succeeded_job(service: FakeService, job: JobHandle, tmp_path: Path) -> None:
    service.move("failed")
    with pytest.raises(Conflict, match="failed and has no bundle"):
        job.download(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def _zip(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    whole = io.BytesIO(make_bundle(FILES))
    with zipfile.ZipFile(whole, "a") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return whole.getvalue()


def _link() -> zipfile.ZipInfo:
    link = zipfile.ZipInfo("htvm/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    return link


DIGESTS = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
BAD_BUNDLES = {
    "parent": (_zip(("../evil", b"x")), r"'\.\./evil', which cannot be extracted safely"),
    "deep parent": (_zip(("htvm/../../evil", b"x")), "safely"),
    "absolute": (_zip(("/tmp/evil", b"x")), "'/tmp/evil'"),
    "backslash": (_zip(("htvm\\..\\evil", b"x")), "safely"),
    "drive": (_zip(("C:evil", b"x")), "safely"),
    "link": (_zip((_link(), b"/etc/passwd")), "'htvm/link'"),
    "itself": (_zip(("bundle.zip", b"x")), r"'bundle\.zip'"),
    "unlisted": (_zip(("htvm/extra.npy", b"x")), "the manifest does not list it"),
    "changed": (make_bundle(FILES, {**DIGESTS, "report.json": "0" * 64}), r"'report\.json' is not what"),
    "missing": (make_bundle(FILES, {**DIGESTS, "htvm/input.npy": "0" * 64}), r"lacks 'htvm/input\.npy'"),
    "no zip": (b"hello", "not a readable zip"),
    "damaged manifest": (make_bundle({}, []), "manifest.json is damaged"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", BAD_BUNDLES)
def test_refuses_a_bad_bundle(service: FakeService, job: JobHandle, tmp_path: Path, case: str) -> None:
    service.bundle, words = BAD_BUNDLES[case]
    (tmp_path / "inside").mkdir()
    with pytest.raises(ServiceError, match=words):
        job.download(tmp_path / "inside" / "out")
    assert [p.name for p in tmp_path.rglob("*")] == ["inside"]


def test_refuses_a_bundle_without_a_manifest(service: FakeService, job: JobHandle, tmp_path: Path) -> None:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("report.json", b"{}")
    service.bundle = whole.getvalue()
    with pytest.raises(ServiceError, match=r"no manifest\.json"):
        job.download(tmp_path / "out")


def test_refuses_what_was_not_listed(service: FakeService, job: JobHandle, tmp_path: Path) -> None:
    service.listed_sha256 = "0" * 64
    with pytest.raises(ServiceError, match="arrived damaged"):
        job.download(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
