"""Epochs on disk: whole or not at all, and never those of someone else."""

import json
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

from compress.distillation.cache_files import ArraySpec, EpochArrays
from compress.errors import DataError, StorageError

pytestmark = pytest.mark.fast

ROWS, BATCH = 10, 4
SPECS = {"outputs": ArraySpec((3,), "float32"), "feature-0": ArraySpec((2, 2), "float16")}
CHECKSUMS = ["a", "b", "c"]


def store(folder, owner="me", rows=(4, 4, 2)):
    return EpochArrays(folder, owner, SPECS, rows)


def arrays():
    outputs = np.arange(ROWS * 3, dtype=np.float32).reshape(ROWS, 3)
    return {"outputs": outputs, "feature-0": outputs[:, :1, None] + np.ones((2, 2))}


def batches():
    for place, checksum in enumerate(CHECKSUMS):
        rows = slice(place * BATCH, (place + 1) * BATCH)
        yield checksum, {name: array[rows] for name, array in arrays().items()}


@pytest.fixture
def written(tmp_path):
    store(tmp_path).write(0, batches())
    return tmp_path


@pytest.mark.parametrize("fresh", [False, True], ids=["at once", "by another process"])
def test_what_was_written_is_read_in_any_order(fresh, tmp_path):
    kept = store(tmp_path)
    kept.write(1, batches())
    kept = store(tmp_path) if fresh else kept
    for place in (2, 0, 1):
        read = kept.read(1, place, CHECKSUMS[place])
        for name, array in arrays().items():
            rows = slice(place * BATCH, (place + 1) * BATCH)
            assert np.array_equal(read[name], array[rows])
            assert read[name].dtype == SPECS[name].dtype
            assert not isinstance(read[name], np.memmap)


def test_batches_may_be_of_any_length(tmp_path):
    lengths, array = [2, 5, 0, 3], arrays()["outputs"]
    ends = np.cumsum(lengths)
    pieces = np.split(array, ends[:-1])
    kept = EpochArrays(tmp_path, "me", {"outputs": SPECS["outputs"]}, lengths)
    kept.write(0, [(str(place), {"outputs": piece}) for place, piece in enumerate(pieces)])
    for place, piece in enumerate(pieces):
        assert np.array_equal(kept.read(0, place, str(place))["outputs"], piece)


def test_files_are_plain_arrays(written):
    array = np.load(written / "0000" / "outputs.npy", allow_pickle=False)
    assert np.array_equal(array, arrays()["outputs"])


def test_an_epoch_that_was_never_written_is_none(written):
    kept = store(written)
    assert 0 in kept
    assert 1 not in kept
    assert kept.read(1, 0, "a") is None


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-5])


def reshape(path):
    np.save(path, arrays()["outputs"].reshape(3, ROWS))


def recast(path):
    np.save(path, arrays()["outputs"].astype(np.float64))


def pickled(path):
    np.save(path, np.array([object()] * ROWS), allow_pickle=True)


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


DAMAGES = [flip, truncate, reshape, recast, pickled, empty, remove]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_a_damaged_array_is_found_and_can_be_written_anew(damage, written):
    damage(written / "0000" / "outputs.npy")
    kept = store(written)
    with pytest.raises(DataError, match=r"outputs\.npy: (there is no such|its checksum|holds)"):
        kept.read(0, 1, "b")
    kept.write(0, batches())
    assert np.array_equal(kept.read(0, 1, "b")["outputs"], arrays()["outputs"][4:8])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"owner": "me"}', '{"owner": 1, "checksums": 2}'])
def test_facts_that_are_none_are_found(text, written):
    (written / "0000" / "epoch.json").write_text(text)
    with pytest.raises(DataError, match=r"epoch\.json: (cannot be read|not readable)"):
        store(written).read(0, 0, "a")


@pytest.mark.parametrize(
    "other", [{"owner": "you"}, {"rows": (5, 5)}, {"rows": (4, 4, 4)}], ids=lambda o: next(iter(o))
)
def test_what_belongs_to_another_is_not_used(other, written):
    with pytest.raises(DataError, match=r"belongs to another teacher or to other data|: holds"):
        store(written, **other).read(0, 0, "a")


def test_other_inputs_are_noticed_by_their_checksum(written):
    with pytest.raises(DataError, match="batch 2 belongs to other inputs"):
        store(written).read(0, 1, "x")


class Stop(BaseException):
    pass


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_an_epoch_that_was_cut_short_is_not_there(after, tmp_path):
    def cut():
        for place, batch in enumerate([*batches(), None]):
            if place == after:
                raise Stop
            yield batch

    with pytest.raises(Stop):
        store(tmp_path).write(0, cut())
    assert store(tmp_path).read(0, 0, "a") is None


def test_a_process_that_is_killed_while_it_writes_leaves_no_epoch(tmp_path):
    code = (
        "import os, sys, signal, numpy as np\n"
        "from pathlib import Path\n"
        "from compress.distillation.cache_files import ArraySpec, EpochArrays\n"
        "def batches():\n"
        "    yield 'a', {'outputs': np.ones((4, 100_000), np.float32)}\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "specs = {'outputs': ArraySpec((100_000,), 'float32')}\n"
        "EpochArrays(Path(sys.argv[1]), 'me', specs, [4, 4]).write(0, batches())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "0000" / "outputs.npy").stat().st_size > 0
    assert store(tmp_path).read(0, 0, "a") is None
    store(tmp_path).write(0, batches())
    assert store(tmp_path).read(0, 0, "a") is not None


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    # The limit on file size stands in for a full disk: writes beyond it fail in the same place.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = store(tmp_path)
    kept.write(0, batches())
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(StorageError, match=r"0001: could not be written \(File too large\);"):
            kept.write(1, batches())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert 1 not in kept
    assert not (tmp_path / "0001").exists()
    assert kept.read(0, 0, "a") is not None


def test_checksums_cover_the_header_too(written):
    facts = json.loads((written / "0000" / "epoch.json").read_text())
    assert facts["checksums"].keys() == SPECS.keys()
    path = written / "0000" / "outputs.npy"
    path.write_bytes(path.read_bytes().replace(b"'fortran_order'", b'"fortran_order"'))
    assert np.array_equal(np.load(path), arrays()["outputs"])
    with pytest.raises(DataError, match="its checksum is another"):
        store(written).read(0, 0, "a")
