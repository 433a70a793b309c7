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
from dianaq_quant.importers import checkpoint, load_weights


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


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
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
def test_checkpoint(tmp_path: Path, suffix: str, wrap: Any, notes: list[str]) -> None:
    path = tmp_path / f"my weights{suffix}"
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
    "half": ({"0.bias": torch.ones(3).half()}, "0.bias", "0.bias is torch.float16; torch.float32 is accepted"),
    "double": ({"0.bias": torch.ones(3).double()}, "0.bias", "0.bias is torch.float64; torch.float32 is accepted"),
    "integers": ({"0.bias": torch.ones(3).int()}, "0.bias", "0.bias is torch.int32; torch.float32 is accepted"),
    "NaN": ({"0.bias": torch.tensor([0, torch.nan, 1])}, "0.bias", "0.bias holds NaN or infinity"),
    "infinity": ({"1.weight": torch.tensor([0, torch.inf, 1])}, "1.weight", "finite numbers are accepted"),
    "variance": ({"1.running_var": -torch.ones(3)}, "1.running_var", r"holds a negative variance \(-1.0\)"),
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(("change", "name", "message"), FAULTS.values(), ids=FAULTS)
def test_fault_names_the_tensor(tmp_path: Path, suffix: str, change: dict[str, Any], name: str, message: str) -> None:
    state = {key: value for key, value in (trained() | change).items() if value is not None}
    path = tmp_path / f"w{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    net = network()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(InvalidModel, match=message) as caught:
        load_weights(net, path)
    assert caught.value.param == name
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_tensors_that_are_not_dense_are_refused(tmp_path: Path) -> None:
    torch.save(trained() | {"0.bias": torch.ones(3).to_sparse()}, tmp_path / "w.pt")
    with pytest.raises(InvalidModel, match=r"0.bias is sparse"):
        load_weights(network(), tmp_path / "w.pt")


def test_a_tensor_that_pretends_to_be_huge_is_refused_by_its_shape(tmp_path: Path) -> None:
    torch.save(trained() | {"0.bias": torch.ones(1).expand(2**50)}, tmp_path / "w.pt")
    with pytest.raises(InvalidModel, match=r"0.bias has the shape \(1125899906842624,\); \(3,\) is accepted"):
        load_weights(network(), tmp_path / "w.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 5, 300, 0.9])
def test_truncated_file(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"w{suffix}"
    save_file(trained(), path) if suffix == ".safetensors" else torch.save(trained(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(InvalidModel, match=rf"w{suffix} is no ") as caught:
        load_weights(network(), path)
    assert caught.value.param == path.name


def test_unknown_suffix(tmp_path: Path) -> None:
    (tmp_path / "w.bin").touch()
    with pytest.raises(InvalidModel, match=r"w.bin: weights are accepted as .safetensors, .pt or .pth"):
        load_weights(network(), tmp_path / "w.bin")


def test_missing_file(tmp_path: Path) -> None:
    for name in ("w.pt", "w.safetensors"):
        with pytest.raises(InvalidModel, match=f"there is no file .*{name}"):
            load_weights(network(), tmp_path / name)


class Surprise:
    """What must not be run when a checkpoint is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("surprise"),))


@pytest.mark.parametrize(
    "content", [Surprise(), {"state_dict": Surprise()}, network()], ids=["bare", "within", "module"]
)
def test_objects_are_not_unpickled(tmp_path: Path, content: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(InvalidModel, match=r"w.pt holds more than tensors in plain containers"):
        load_weights(network(), tmp_path / "w.pt")
    assert not (tmp_path / "surprise").exists()


def test_bare_pickles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(pickle.dumps(Surprise()))
    torch.save(trained(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("w.pt", "old.pt"):
        with pytest.raises(InvalidModel, match=r"is no zip file as torch.save has written since PyTorch 1.6"):
            load_weights(network(), tmp_path / name)


@pytest.mark.parametrize(
    "content", [torch.ones(3), [torch.ones(3)], {}, {"a": 3}, {"state_dict": {}}, {3: torch.ones(1)}]
)
def test_other_contents_are_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(InvalidModel, match=r"w.pt(: | holds a )"):
        load_weights(network(), tmp_path / "w.pt")


def rewritten(
    path: Path, compression: int = zipfile.ZIP_STORED, rename: tuple[str, str] = ("", ""), **extra: bytes
) -> Path:
    """A checkpoint with members of other names, compressed, or added to."""
    torch.save(trained(), path)
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name.replace(*rename) if rename[0] else name, content)
        for name, content in extra.items():
            archive.writestr(name, content)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compression": zipfile.ZIP_DEFLATED}, "w/data.pkl is compressed or encrypted; stored members"),
        ({"rename": ("w/data/0", "../data/0")}, "holds '../data/0', which torch.save does not write"),
        ({"rename": ("w/data/0", "/etc/data/0")}, "holds '/etc/data/0'"),
        ({"rename": ("w/data/0", "x/data/0")}, "not exactly one folder with one data.pkl"),
        ({"rename": ("w/data.pkl", "w/version")}, "not exactly one folder with one data.pkl"),
        ({"w/code/__torch__.py": b""}, "TorchScript file. save its state_dict"),
        ({"w/data/0": b"again"}, "members of one name"),
    ],
)
def test_archives_that_torch_does_not_write(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    path = rewritten(tmp_path / "w.pt", **options)
    with pytest.raises(InvalidModel, match=message):
        load_weights(network(), path)


def test_an_archive_written_anew_is_accepted(tmp_path: Path) -> None:
    net = network()
    load_weights(net, rewritten(tmp_path / "w.pt"))
    assert_loaded(net)


@pytest.mark.parametrize(
    ("limit", "message"),
    [("MAX_BYTES", "bytes; up to 100"), ("MAX_MEMBERS", "members; up to 2"), ("MAX_PICKLE_BYTES", "bytes; up to 100")],
)
def test_sizes_are_bounded(tmp_path: Path, limit: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(trained(), tmp_path / "w.pt")
    monkeypatch.setattr(checkpoint, limit, 2 if limit == "MAX_MEMBERS" else 100)
    with pytest.raises(InvalidModel, match=message):
        load_weights(network(), tmp_path / "w.pt")
