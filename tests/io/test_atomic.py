"""Files that are there whole or not at all, and what kills leave of them."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from compress.errors import StorageError
from compress.io import atomic
from compress.io.atomic import part_of, sweep, sweep_beside, write_atomically
from compress.io.scratch import scratch, sweep_scratch
from compress.record import write_atomically as known_as

pytestmark = pytest.mark.fast


def test_it_is_known_to_importers_of_before():
    assert known_as is write_atomically


def test_nothing_is_left_beside_what_was_written(tmp_path):
    write_atomically(tmp_path / "below" / "a.json", "first")
    write_atomically(tmp_path / "below" / "a.json", b"second")
    assert (tmp_path / "below" / "a.json").read_text() == "second"
    assert os.listdir(tmp_path / "below") == ["a.json"]


@pytest.mark.parametrize("problem", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_what_was_there_stays_and_no_part_does(problem, tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text("before")

    def fail(_):
        raise problem

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((KeyboardInterrupt, StorageError)) as raised:
        write_atomically(path, "after")
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.json"]
    if problem is not KeyboardInterrupt:
        assert "could not be written (No space left on device)" in str(raised.value)
        assert "what was there before is intact" in str(raised.value)


def test_a_name_that_leaves_no_room_for_more_is_written(tmp_path):
    for name in ("n" * 250 + ".json", "ä" * 120 + ".json"):
        write_atomically(tmp_path / name, "content")
        assert (tmp_path / name).read_text() == "content"
    assert len(os.listdir(tmp_path)) == 2


def test_a_name_that_is_too_long_is_a_sentence(tmp_path):
    with pytest.raises(StorageError, match="File name too long"):
        write_atomically(tmp_path / ("n" * 300), "content")


def test_stray_bytes_of_a_path_are_escaped(tmp_path):
    write_atomically(tmp_path / "a", os.fsdecode(b"f\xff\xc3\xa4"))
    assert (tmp_path / "a").read_text("utf-8") == "f\\udcffä"


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path):
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "a").symlink_to("theirs")
    write_atomically(tmp_path / "a", "ours")
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert (tmp_path / "a").read_text() == "ours"


@pytest.mark.skipif(sys.platform == "win32", reason="has no such devices")
def test_devices_are_written_to_and_stay(capfd):
    write_atomically(Path("/dev/stdout"), "to whoever listens")
    assert capfd.readouterr().out == "to whoever listens"
    with pytest.raises(StorageError, match="No space left on device"):
        write_atomically(Path("/dev/full"), "content")


@pytest.fixture(scope="module")
def gone():
    """The number of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_parts_of_processes_that_are_gone_are_swept(tmp_path, gone, monkeypatch):
    (tmp_path / "below").mkdir()
    own = part_of(tmp_path / "a.json")
    left = part_of(tmp_path / "below" / "a\nb.json")
    left = left.with_name(left.name.replace(f"-{os.getpid()}.", f"-{gone}."))
    others = [tmp_path / name for name in (".a.part", "a.1.part", ".a.json.part", ".x.0a1.part")]
    elsewhere = tmp_path / f".a.json.01234567-{gone}.part"
    unknown = tmp_path / f".a.json.{gone}.part"  # of a version that did not say whose it was
    for path in (own, left, elsewhere, unknown, *others):
        path.write_text("cut off")
    assert sweep(tmp_path) == [left]
    later = time.time() + 2 * 86_400
    monkeypatch.setattr(atomic.time, "time", lambda: later)
    assert sorted(sweep(tmp_path)) == sorted([elsewhere, unknown])
    assert own.exists()
    assert all(path.exists() for path in others)


def test_parts_of_one_file_alone(tmp_path, gone):
    left = [part_of(tmp_path / name) for name in ("a.json", "a.json.b.json")]
    left = [p.with_name(p.name.replace(f"-{os.getpid()}.", f"-{gone}.")) for p in left]
    for path in left:
        path.write_text("cut off")
    assert sweep_beside(tmp_path / "a.json") == left[:1]
    assert sweep_beside(tmp_path / "none" / "a.json") == []
    assert left[1].exists()


def test_scratch_folders_of_processes_that_are_gone_are_swept(tmp_path, gone, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch() as own:
        left = tmp_path / Path(own).name.replace(f"-{os.getpid()}-", f"-{gone}-")
        (left / "below").mkdir(parents=True)
        theirs = [tmp_path / "compresskit-mine", tmp_path / left.name.replace("kit-", "kit-f")]
        for folder in theirs:
            folder.mkdir()
        assert sweep_scratch() == [left]
        assert Path(own).is_dir()
        assert all(folder.is_dir() for folder in theirs)
    assert not Path(own).exists()


def test_where_no_temporary_file_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    said = r"temporary files cannot be written \(No such file or directory\); .* set TMPDIR to a"
    with pytest.raises(StorageError, match=said), scratch():
        pass
    assert sweep_scratch() == []
