"""One process at a time in a run folder."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from compress.errors import RecordError, StorageError
from compress.running.lock import LOCK_NAME, held, lock_file

pytestmark = pytest.mark.fast

HOLDS = """
import sys
from pathlib import Path
from compress.running.lock import held
with held(Path(sys.argv[1])):
    print("holds", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds ``run``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "holds\n"
    yield process
    process.kill()
    process.communicate()


def test_a_folder_is_made_held_and_nothing_is_left(tmp_path):
    folder = tmp_path / "new" / "run"
    with held(folder):
        facts = json.loads((folder / LOCK_NAME).read_text())
        assert facts["process"] == os.getpid()
        with (
            pytest.raises(RecordError, match="this process holds it already"),
            held(folder),
        ):
            pass
    assert os.listdir(folder) == []
    with held(folder):
        pass


def test_the_second_process_says_who_holds_it(tmp_path, holder):
    with pytest.raises(RecordError) as raised, held(tmp_path / "run"):
        pass
    said = str(raised.value)
    assert re.search(
        rf"run: process {holder.pid} on \S+ has worked in this folder since \d{{4}}-[\dT:+-]+; "
        r"wait until it has ended, end it, or give another --out\.$",
        said,
    ), said
    (tmp_path / "run" / LOCK_NAME).write_text("{")
    unknown = "another process works in this folder; wait until"
    with pytest.raises(RecordError, match=unknown), held(tmp_path / "run"):
        pass
    holder.kill()
    holder.wait()
    assert (tmp_path / "run" / LOCK_NAME).exists()
    with held(tmp_path / "run"):
        pass
    assert not (tmp_path / "run" / LOCK_NAME).exists()


def test_a_lock_that_its_holder_removed_meanwhile_is_made_anew(tmp_path):
    calls = []

    def late(handle):
        if not calls:
            (tmp_path / LOCK_NAME).unlink()
        calls.append(handle)
        lock_file(handle)

    with held(tmp_path, lock=late):
        assert (tmp_path / LOCK_NAME).exists()
    assert len(calls) == 2


def test_a_file_system_without_locks_is_told_of(tmp_path):
    def without(_):
        raise OSError(errno.ENOLCK, "No locks available")

    said = []
    with held(tmp_path, said.append, without):
        pass
    (sentence,) = said
    assert "on a file system without locks (No locks available): see that no other" in sentence


def test_only_the_first_process_of_a_launch_holds(tmp_path, monkeypatch):
    with held(tmp_path):
        monkeypatch.setenv("RANK", "1")
        with held(tmp_path):
            pass
        assert (tmp_path / LOCK_NAME).exists()


@pytest.mark.parametrize(
    ("place", "kind", "said"),
    [
        ("file", RecordError, "file: this is a file; give a folder"),
        ("file/below", RecordError, "a part of this path is a file; give a folder"),
        ("n" * 300, StorageError, r"nothing can be written there \(File name too long\); give"),
    ],
)
def test_where_nothing_can_be_held(place, kind, said, tmp_path):
    (tmp_path / "file").write_text("theirs")
    with pytest.raises(kind, match=said), held(tmp_path / place):
        pass
    assert (tmp_path / "file").read_text() == "theirs"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
def test_a_folder_that_cannot_be_written(tmp_path):
    said = "nothing can be written there"
    with pytest.raises(StorageError, match=said), held(Path("/proc/self")):
        pass
