"""A checkpoint is whole, of the training that asks for it, or not there."""

import pytest
import torch
from torch import nn

from compress.errors import CheckpointError, StorageError
from compress.modules.tensors import optimizer_tensors, put_back_optimizer
from compress.training.checkpoint import Checkpoint, CheckpointContent, pack, unpack

pytestmark = pytest.mark.fast

TENSORS = {
    "a": torch.randn(3, 4),
    "half": torch.randn(3).bfloat16(),
    "count": torch.tensor(7),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "nothing": torch.zeros(0),
    "turned": torch.randn(2, 8, 3, 3).contiguous(memory_format=torch.channels_last),
}
FACTS = {"epochs": 3, "history": [{"loss": float("nan")}], "text": "h\u00e9"}


@pytest.fixture
def place(tmp_path):
    return Checkpoint(tmp_path / "checkpoint", "key")


def test_what_is_read_is_what_was_written(place):
    place.write(CheckpointContent(TENSORS, FACTS))
    saved = unpack(place.read())
    assert saved.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(saved.tensors[name], tensor)
        assert saved.tensors[name].dtype == tensor.dtype
    assert saved.facts["epochs"] == 3
    assert saved.facts["text"] == "h\u00e9"


def test_it_is_a_plain_safetensors_file(place):
    from safetensors.torch import load_file

    place.write(CheckpointContent(TENSORS, FACTS))
    assert torch.equal(load_file(place.path)["a"], TENSORS["a"])


def test_where_there_is_none_there_is_none(place):
    assert place.read() == b""


def test_one_of_another_training_is_not_used(place):
    place.write(CheckpointContent(TENSORS, FACTS))
    other = place.within("more")
    assert other.path == place.path
    assert other.read() == b""
    other.write(CheckpointContent(TENSORS, FACTS))
    assert place.read() == b""
    assert list(place.folder.iterdir()) == [place.path]


CONTENT = pack(TENSORS, {"key": "key"})


@pytest.mark.parametrize("kept", [1, 7, 8, 60, len(CONTENT) // 2, len(CONTENT) - 1])
def test_a_truncated_one_is_found(kept, place):
    place.folder.mkdir()
    place.path.write_bytes(CONTENT[:kept])
    with pytest.raises(CheckpointError, match=r"\.safetensors: the checkpoint is damaged \("):
        place.read()


@pytest.mark.parametrize("offset", range(0, len(CONTENT), 37))
def test_a_single_wrong_bit_is_found(offset, place):
    place.folder.mkdir()
    damaged = bytearray(CONTENT)
    damaged[offset] ^= 4
    place.path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"is not used; the training starts over\.$"):
        place.read()


@pytest.mark.parametrize("content", [b"nothing", b"\x08" + b"\0" * 7 + b"{}      ", b"[1, 2]" * 9])
def test_another_file_in_its_place_is_found(content, place):
    place.folder.mkdir()
    place.path.write_bytes(content)
    with pytest.raises(CheckpointError, match="the checkpoint is damaged"):
        place.read()


def test_what_a_killed_writer_left_is_removed(place):
    place.write(CheckpointContent(TENSORS, FACTS))
    (place.folder / f".{place.path.name}.4711.part").write_bytes(b"half")
    assert place.read()
    assert list(place.folder.iterdir()) == [place.path]


def test_a_disk_that_refuses_leaves_the_one_before(place, monkeypatch):
    place.write(CheckpointContent(TENSORS, FACTS))
    before = place.read()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        place.write(CheckpointContent(TENSORS, {}))
    assert place.read() == before


def test_removing_leaves_nothing_and_may_be_repeated(place):
    place.write(CheckpointContent(TENSORS, FACTS))
    place.remove()
    place.remove()
    assert not place.folder.exists()


@pytest.mark.parametrize("make", [torch.optim.AdamW, lambda p: torch.optim.SGD(p, 0.1, 0.9)])
def test_an_optimizer_that_is_put_back_goes_on_alike(make):
    def net():
        torch.manual_seed(0)
        conv = nn.Conv2d(2, 8, 3).to(memory_format=torch.channels_last)
        return nn.ModuleList([conv, nn.Linear(3, 1), nn.Linear(2, 2)])

    def step(module, optimizer, seed):
        torch.manual_seed(seed)
        optimizer.zero_grad()
        for parameter in [*module[0].parameters(), *module[1].parameters()]:
            parameter.grad = torch.randn_like(parameter)  # and none for the last layer
        optimizer.step()

    one, other = net(), net()
    first, second = make(one.parameters()), make(other.parameters())
    step(one, first, 1)
    step(one, first, 2)
    other.load_state_dict(one.state_dict())
    step(other, second, 9)  # another past, which must be forgotten
    other.load_state_dict(one.state_dict())
    kept = unpack(pack(optimizer_tensors(first), {})).tensors
    put_back_optimizer(kept, second)
    moments = [s for s in second.state[other[0].weight].values() if s.dim() == 4]
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in moments)
    for seed in (3, 4):
        step(one, first, seed)
        step(other, second, seed)
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
