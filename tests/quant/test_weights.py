"""Weights from files: what is accepted, and how each fault is named."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dianaq.errors import InvalidModel
from dianaq_quant.importers import load_weights


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)).eval()


def trained() -> dict[str, Tensor]:
    """A state dict of other values than a new network's."""
    generator = torch.Generator().manual_seed(0)
    state = network().state_dict()
    return {
        name: torch.rand(t.shape, generator=generator) if t.is_floating_point() else torch.tensor(7)
        for name, t in state.items()
    }


def assert_loaded(net: nn.Module) -> None:
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, trained()[name]), name


def test_safetensors(tmp_path: Path) -> None:
    save_file(trained(), tmp_path / "w.safetensors")
    net = network()
    assert load_weights(net, tmp_path / "w.safetensors") == []
    assert_loaded(net)


def written(path: Path, state: dict[str, Any], format: str) -> Path:
    save_file(state, path) if format == "safetensors" else torch.save(state, path)
    return path


@pytest.mark.parametrize("format", ["safetensors", "pytorch"])
@pytest.mark.parametrize("name", ["9f86d081884c7d65", "w.bin", "w.safetensors", "w.pt"])
def test_the_content_tells_the_format_and_not_the_name(tmp_path: Path, name: str, format: str) -> None:
    net = network()
    assert load_weights(net, written(tmp_path / name, trained(), format)) == []
    assert_loaded(net)


@pytest.mark.parametrize(
    ("wrap", "notes"),
    [
        (lambda s: s, []),
        (lambda s: {"state_dict": s, "epoch": 3}, ["the tensors are those under 'state_dict'"]),
        (lambda s: {"model": s, "optimizer": {"lr": 0.1}}, ["the tensors are those under 'model'"]),
        (
            lambda s: {f"module.{name}": tensor for name, tensor in s.items()},
            ["the prefix 'module.' of all tensors was removed"],
        ),
    ],
    ids=["plain", "state_dict", "model", "prefix"],
)
def test_checkpoint(tmp_path: Path, wrap: Any, notes: list[str]) -> None:
    path = tmp_path / "my weights.pth"
    torch.save(wrap(trained()), path)
    net = network()
    assert load_weights(net, path) == notes
    assert_loaded(net)


def test_prefix_that_is_the_networks_own_stays(tmp_path: Path) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = network()

    torch.save({f"module.{name}": tensor for name, tensor in trained().items()}, tmp_path / "w.pt")
    net = Wrapped()
    assert load_weights(net, tmp_path / "w.pt") == []
    assert_loaded(net.module)


def test_counter_of_batches_may_be_missing(tmp_path: Path) -> None:
    state = trained()
    del state["1.num_batches_tracked"]
    torch.save(state, tmp_path / "w.pt")
    net = network()
    load_weights(net, tmp_path / "w.pt")
    assert torch.equal(net[1].running_mean, state["1.running_mean"])


FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "missing": ({"0.bias": None}, "0.bias", "missing '0.bias'; the network's own are '0.weight', '0.bias'"),
    "unexpected": ({"2.weight": torch.ones(1)}, "2.weight", "unexpected '2.weight'"),
    "shape": ({"0.weight": torch.ones(3, 2, 3, 3)}, "0.weight", r"\(3, 2, 3, 3\); \(3, 2, 1, 1\) is accepted"),
    "NaN": ({"0.bias": torch.tensor([0, torch.nan, 1])}, "0.bias", "0.bias'? holds (NaN|nan)"),
    "infinity": (
        {"1.weight": torch.tensor([0, torch.inf, 1])},
        "1.weight",
        "finite numbers are accepted|1.weight' holds inf",
    ),
    "variance": ({"1.running_var": -torch.ones(3)}, "1.running_var", r"holds a negative variance \(-1.0\)"),
}


@pytest.mark.parametrize("format", ["pytorch", "safetensors"])
@pytest.mark.parametrize(("change", "name", "message"), FAULTS.values(), ids=FAULTS)
def test_fault_names_the_tensor(tmp_path: Path, format: str, change: dict[str, Any], name: str, message: str) -> None:
    state = {key: value for key, value in (trained() | change).items() if value is not None}
    path = written(tmp_path / "w", state, format)
    net = network()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(InvalidModel, match=message) as caught:
        load_weights(net, path)
    assert caught.value.param == name
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("bias", "messages"),
    [
        (torch.ones(3).half(), ("type half; weights must be float32", "'0.bias' is 'F16'")),
        (torch.ones(3).double(), ("type double; weights must be float32", "'0.bias' is 'F64'")),
        (torch.ones(3).int(), ("0.bias is torch.int32; torch.float32 is accepted", "'0.bias' is I32")),
        (torch.ones(3).to_sparse(), ("_rebuild_sparse_tensor, not weights alone", None)),
    ],
    ids=["half", "double", "integers", "sparse"],
)
def test_other_types_are_refused(tmp_path: Path, bias: Tensor, messages: tuple[str, str | None]) -> None:
    for format, message in zip(("pytorch", "safetensors"), messages, strict=True):
        if message is not None:
            with pytest.raises(InvalidModel, match=message):
                load_weights(network(), written(tmp_path / format, trained() | {"0.bias": bias}, format))


def test_a_tensor_that_pretends_to_be_huge_is_refused_by_its_shape(tmp_path: Path) -> None:
    torch.save(trained() | {"0.bias": torch.ones(1).expand(2**50)}, tmp_path / "w.pt")
    with pytest.raises(InvalidModel, match=r"0.bias has the shape \(1125899906842624,\); \(3,\) is accepted"):
        load_weights(network(), tmp_path / "w.pt")


@pytest.mark.parametrize("format", ["pytorch", "safetensors"])
@pytest.mark.parametrize("kept", [0, 5, 300, 0.9])
def test_truncated_file(tmp_path: Path, format: str, kept: float) -> None:
    path = written(tmp_path / "w", trained(), format)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(InvalidModel, match=r"^w: ") as caught:
        load_weights(network(), path)
    assert caught.value.param == "w"


def test_missing_file(tmp_path: Path) -> None:
    for name in ("w.pt", "w.safetensors"):
        with pytest.raises(InvalidModel, match=f"there is no file .*{name}"):
            load_weights(network(), tmp_path / name)


class Surprise:
    """What must not be run when a checkpoint is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("surprise"),))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (Surprise(), ".*, not weights alone"),
        ({"state_dict": Surprise()}, ".*, not weights alone"),
        (network(), "a pickled module, whose reading could run anything"),
    ],
    ids=["bare", "within", "module"],
)
def test_objects_are_not_unpickled(tmp_path: Path, content: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(InvalidModel, match=f"w.pt: the file holds {said}"):
        load_weights(network(), tmp_path / "w.pt")
    assert not (tmp_path / "surprise").exists()


def test_bare_pickles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(pickle.dumps(Surprise()))
    torch.save(trained(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("w.pt", "old.pt"):
        with pytest.raises(InvalidModel, match=f"^{name}: the file is a pickle"):
            load_weights(network(), tmp_path / name)


@pytest.mark.parametrize(
    "content", [torch.ones(3), [torch.ones(3)], {}, {"a": 3}, {"state_dict": {}}, {3: torch.ones(1)}]
)
def test_other_contents_are_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(InvalidModel, match=r"w.pt(: | holds a )"):
        load_weights(network(), tmp_path / "w.pt")


def rewritten(path: Path, compression: int = zipfile.ZIP_STORED, **members: bytes) -> Path:
    """A checkpoint whose members are compressed, replaced or added to."""
    torch.save(trained(), path)
    with zipfile.ZipFile(path) as archive:
        old = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in (old | members).items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compression": zipfile.ZIP_DEFLATED}, "w/data.pkl' of the zip archive is compressed"),
        ({"w/code/__torch__.py": b""}, "holds a program"),
        ({"w/data.pkl": b"\x80\x02."}, "cannot be read"),
    ],
    ids=["compressed", "program", "damaged"],
)
def test_archives_that_torch_does_not_write(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        load_weights(network(), rewritten(tmp_path / "w.pt", **options))


def test_an_archive_written_anew_is_accepted(tmp_path: Path) -> None:
    net = network()
    load_weights(net, rewritten(tmp_path / "w.pt"))
    assert_loaded(net)
