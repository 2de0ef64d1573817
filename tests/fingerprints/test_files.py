"""Checksums of files: right whatever happens to the files and to what is remembered of them."""

import hashlib
import json
import os
import threading
import time

import pytest

from compress.errors import DataError
from compress.fingerprints import FileDigestCache, file_fingerprint, files

pytestmark = pytest.mark.fast


@pytest.fixture
def old(tmp_path):
    """A file that was written a while ago."""

    def make(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return make


def cache(place=None, **settings):
    # Files of a test are young, and would not be remembered at all.
    return FileDigestCache(place, **{"settled_ns": -(10**12), **settings})


@pytest.fixture
def read(monkeypatch):
    """The paths that were read to their end."""
    seen = []
    real = files.opened
    monkeypatch.setattr(files, "opened", lambda path, e: seen.append(path.name) or real(path, e))
    return seen


def checksum_of(rows):
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_a_file_is_read_once(old, read, tmp_path):
    path, place = old("a", b"content"), tmp_path / "memory" / "files.json"
    for _ in range(2):
        memory = cache(place)
        assert [file_fingerprint(path, memory) for _ in range(2)] == [sha256(b"content")] * 2
    assert read == ["a"]


def test_without_a_place_it_is_in_memory(old, read, tmp_path):
    path, memory = old("a", b"content"), cache()
    assert [file_fingerprint(path, memory) for _ in range(2)] == [sha256(b"content")] * 2
    assert read == ["a"]
    assert os.listdir(tmp_path) == ["a"]


def _append(path):
    path.write_bytes(path.read_bytes() + b"x")


def _same_size(path):
    path.write_bytes(b"CONTENT")


def _same_size_and_time(path):
    facts = path.stat()
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _replaced(path):
    facts = path.stat()
    beside = path.with_name("beside")
    beside.write_bytes(b"CONTENT")
    os.utime(beside, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    beside.replace(path)


@pytest.mark.parametrize("edit", [_append, _same_size, _same_size_and_time, _replaced])
def test_every_edit_of_a_file_is_noticed(edit, old, tmp_path):
    path, place = old("a", b"content"), tmp_path / "files.json"
    before = file_fingerprint(path, cache(place))
    time.sleep(0.02)  # a tick of the file system's clock
    edit(path)
    assert file_fingerprint(path, cache(place)) == sha256(path.read_bytes()) != before


def test_a_file_that_was_written_just_now_is_not_remembered(old, read):
    path, memory = old("a", b"content"), FileDigestCache()
    assert [file_fingerprint(path, memory) for _ in range(2)] == [sha256(b"content")] * 2
    assert read == ["a", "a"]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"schema": 1}',
        b'{"schema": 2, "files": {}, "sum": ""}',
        b'{"schema": 1, "files": [], "sum": ""}',
        b'{"schema": 1, "files": {"a": 3}, "sum": "x"}',
        b"[" * 100_000,
        b"\xff\xfe\x00",
    ],
)
def test_a_damaged_memory_is_begun_again(damage, old, read, tmp_path):
    path, place = old("a", b"content"), tmp_path / "files.json"
    place.write_bytes(damage)
    assert file_fingerprint(path, cache(place)) == sha256(b"content")
    assert file_fingerprint(path, cache(place)) == sha256(b"content")
    assert read == ["a"]


def test_a_flipped_bit_in_the_memory_never_gives_another_checksum(old, tmp_path):
    path, place = old("a", b"content"), tmp_path / "files.json"
    file_fingerprint(path, cache(place))
    whole = place.read_bytes()
    for position in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        place.write_bytes(bytes(damaged))
        assert file_fingerprint(path, cache(place)) == sha256(b"content")


def test_rows_that_are_none_are_not_taken(old, tmp_path):
    path, place = old("a", b"content"), tmp_path / "files.json"
    for row in ([1, 2, 3, "x"], [1, 2, 3, 4, "short"], [1, 2, 3, 4.0, "0" * 64], 7):
        rows = {str(path): row}
        place.write_text(json.dumps({"schema": 1, "files": rows, "sum": checksum_of(rows)}))
        assert file_fingerprint(path, cache(place)) == sha256(b"content")


def test_it_keeps_the_newest_files_alone(old, tmp_path):
    place = tmp_path / "files.json"
    for number in range(5):
        file_fingerprint(old(f"f{number}", b"x"), cache(place, most_files=3))
    kept = json.loads(place.read_text())["files"]
    assert [os.path.basename(name) for name in kept] == ["f2", "f3", "f4"]


def test_several_writers_leave_a_whole_file(old, tmp_path):
    place = tmp_path / "files.json"
    paths = [old(f"f{number}", b"x" * number) for number in range(24)]

    def write(part):
        memory = cache(place)
        for path in part:
            file_fingerprint(path, memory)

    threads = [threading.Thread(target=write, args=(paths[n::3],)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = json.loads(place.read_text())
    assert content["sum"] == checksum_of(content["files"])
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".part")] == []


def test_where_it_cannot_be_kept_the_checksum_is_right(old, tmp_path):
    place = old("file", b"") / "files.json"  # below a file there is no place
    assert file_fingerprint(old("a", b"content"), cache(place)) == sha256(b"content")


def test_what_is_no_file_is_refused(tmp_path):
    memory = cache()
    os.mkfifo(tmp_path / "pipe")
    for name, words in (
        ("gone", "there is no such file"),
        (".", "it is a folder"),
        ("pipe", "it is a pipe"),
    ):
        with pytest.raises(DataError, match=words):
            file_fingerprint(tmp_path / name, memory)


def test_content_of_a_path_never_fails(old, tmp_path):
    memory = cache()
    assert memory.content_of(old("a", b"content")) == sha256(b"content")
    assert memory.content_of(tmp_path) == "not a file"
    assert memory.content_of(tmp_path / "gone") == "not there"
    assert memory.content_of(tmp_path / ("x" * 5000)) == "not there"
    assert memory.content_of(tmp_path / "a\0b") == "not there"
