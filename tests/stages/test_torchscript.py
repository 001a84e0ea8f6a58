"""Tensors of TorchScript archives: all of them, right, and nothing else from the file."""

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from stages.torch_session import BadCheckpoint, load_state
from stages.torchscript import is_torchscript, tensors

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit.:DeprecationWarning"
)  # archives of this kind have to be made with it


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        self.register_buffer("steps", torch.tensor([1, 2, 3]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Inner(), nn.ReLU())
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.sizes = [3, 4]
        self.fine = nn.Parameter(torch.arange(6.0).reshape(2, 3).half())
        self.turned = nn.Parameter(torch.arange(6.0).reshape(2, 3).T)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x) * self.scale


@pytest.fixture(params=["script", "trace"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[nn.Module, str]:
    torch.manual_seed(0)
    network = Outer().eval()
    made = (
        torch.jit.script(network)
        if request.param == "script"
        else torch.jit.trace(network, torch.rand(1, 2, 4, 4))
    )
    path = str(tmp_path / "network.pt")
    torch.jit.save(made, path)
    return network, path


def test_every_tensor_is_read_as_it_was_saved(saved: tuple[nn.Module, str]) -> None:
    network, path = saved
    found, wanted = tensors(path), network.state_dict()
    assert found.keys() == wanted.keys()
    assert all(
        found[name].dtype == wanted[name].dtype and torch.equal(found[name], wanted[name])
        for name in wanted
    )


def test_checkpoints_of_this_kind_load_like_others(saved: tuple[nn.Module, str]) -> None:
    network, path = saved
    assert load_state(path).keys() == network.state_dict().keys()


def test_ordinary_checkpoints_are_not_taken_for_archives(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "plain.pth")
    (tmp_path / "text.pth").write_text("text")
    assert not is_torchscript(str(tmp_path / "plain.pth"))
    assert not is_torchscript(str(tmp_path / "text.pth"))


class Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.target),)


def archive(path: Path, body: bytes, compression: int = zipfile.ZIP_STORED) -> str:
    with zipfile.ZipFile(path, "w", compression) as made:
        made.writestr("n/constants.pkl", pickle.dumps(()))
        made.writestr("n/data.pkl", body)
    return str(path)


def test_code_in_an_archive_does_not_run(tmp_path: Path) -> None:
    path = archive(tmp_path / "evil.pt", pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(BadCheckpoint, match=r"evil\.pt: .*mkdir, which no network needs"):
        load_state(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name",
    [
        "builtins.eval",
        "torch.load",
        "torch._utils._rebuild_parameter",
        "collections.deque",
        "os.system",
    ],
)
def test_no_other_name_is_looked_up(tmp_path: Path, name: str) -> None:
    module, _, attribute = name.rpartition(".")
    path = archive(tmp_path / "names.pt", f"c{module}\n{attribute}\n.".encode())
    with pytest.raises(pickle.UnpicklingError, match="which no network needs"):
        tensors(path)


def test_an_archive_cannot_change_how_the_next_one_is_read(
    tmp_path: Path, saved: tuple[nn.Module, str]
) -> None:
    """The opcode BUILD may set attributes of whatever a name stands for."""
    for number, (name, attribute) in enumerate(
        [("__torch__.A\nB", "__setstate__"), ("torch._utils\n_rebuild_tensor_v2", "__defaults__")]
    ):
        body = f"c{name}\nN}}V{attribute}\nNs\x86b.".encode("latin-1")
        with pytest.raises(BadCheckpoint):
            load_state(archive(tmp_path / f"{number}.pt", body))
    network, path = saved
    assert tensors(path).keys() == network.state_dict().keys()


def test_damaged_and_compressed_archives_are_refused(
    tmp_path: Path, saved: tuple[nn.Module, str]
) -> None:
    with pytest.raises(BadCheckpoint, match="never compressed"):
        load_state(archive(tmp_path / "small.pt", pickle.dumps({}), zipfile.ZIP_DEFLATED))
    with pytest.raises(BadCheckpoint, match="does not hold a module"):
        load_state(archive(tmp_path / "dictionary.pt", pickle.dumps({})))
    with zipfile.ZipFile(saved[1]) as source, zipfile.ZipFile(tmp_path / "cut.pt", "w") as cut:
        for info in source.infolist():
            body = source.read(info)
            cut.writestr(info.filename, body[:-4] if "/data/" in info.filename else body)
    with pytest.raises(BadCheckpoint, match="were announced"):
        load_state(str(tmp_path / "cut.pt"))
