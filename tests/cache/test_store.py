"""The store: what was put is found, whole or not at all, and nothing of it stops a run."""

import errno
import hashlib
import os
import stat

import pytest

from compress.cache import CacheEntry, FileFacts, Store
from compress.cache.backend import MARKER
from compress.errors import StorageError

WEIGHTS = "candidate/weights.safetensors"
CANDIDATE = "candidate/candidate.json"
ENTRY_1 = f"entries/00/{1:032x}.json"


def files_of(place):
    return sorted(str(p.relative_to(place)) for p in place.rglob("*") if not p.is_dir())


def read(path_of):
    return {name: path_of(name).read_bytes() for name in (WEIGHTS, CANDIDATE)}


def object_of(place, entry, name=WEIGHTS):
    sha256 = entry.files[name].sha256
    return place / "objects" / sha256[:2] / sha256


def test_what_was_put_is_found_and_fetched(results, any_place, tmp_path):
    store = Store.open(any_place)
    entry, path_of = results.make()
    assert store.find(entry.key, "stage") is None
    store.put(entry, path_of)
    found = Store.open(any_place).find(entry.key, "stage")
    assert found == entry
    there = (tmp_path / "there").joinpath
    assert store.fetch(found, there)
    assert read(there) == read(path_of)
    assert files_of(tmp_path / "there") == [CANDIDATE, WEIGHTS]
    assert store.take_notes() == []


def test_a_result_is_of_one_kind(results, store):
    entry, path_of = results.make(kind="measurement")
    store.put(entry, path_of)
    assert store.find(entry.key, "stage") is None
    assert store.find(entry.key, "measurement") == entry
    assert store.take_notes() == []


def test_a_result_without_files_is_kept(store, tmp_path):
    entry = CacheEntry.of("0" * 32, "measurement", {"p50_s": 1e-3}, [], tmp_path.joinpath)
    store.put(entry, tmp_path.joinpath)
    assert store.fetch(store.find("0" * 32, "measurement"), tmp_path.joinpath)


def test_equal_files_lie_once(results, store, place):
    for number in (1, 2):
        store.put(*results.make(number))
    assert len([name for name in files_of(place) if name.startswith("objects/")]) == 3
    assert len([name for name in files_of(place) if name.startswith("entries/")]) == 2


def test_a_later_result_of_a_key_replaces_the_earlier_one(results, store):
    store.put(*results.make(shared=b"old"))
    entry, path_of = results.make(shared=b"new")
    store.put(entry, path_of)
    assert store.find(entry.key, "stage") == entry


def test_fetched_files_replace_what_was_there(results, store, tmp_path):
    entry, path_of = results.make()
    store.put(entry, path_of)
    there = (tmp_path / "there").joinpath
    (tmp_path / "there" / "candidate").mkdir(parents=True)
    there(WEIGHTS).write_bytes(b"damaged")
    assert store.fetch(entry, there)
    assert read(there) == read(path_of)


def test_files_may_lie_anywhere(results, store, tmp_path):
    entry, path_of = results.make()
    places = {WEIGHTS: tmp_path / "a" / "w", CANDIDATE: tmp_path / "b" / "c"}
    store.put(entry, path_of)
    assert store.fetch(entry, places.__getitem__)
    assert entry.damage(places.__getitem__) is None


def test_new_folders_are_private_and_files_not_executable(results, store, place):
    store.put(*results.make())
    for path in [place, *place.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_a_folder_of_a_group_stays_the_groups(results, place):
    place.mkdir()
    place.chmod(0o2770)
    Store.open(str(place)).put(*results.make())
    for path in place.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o2770 if path.is_dir() else 0o660), path


@pytest.mark.parametrize("name", ["with space", "日本語 ünï", "new\nline", "-rf", "a::b"])
def test_a_store_may_have_any_name(results, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    entry, path_of = results.make()
    Store.open(name).put(entry, path_of)
    assert Store.open(str(tmp_path / name)).find(entry.key, "stage") == entry
    assert "\n" not in Store.open(name).place


def test_a_store_may_be_a_link(results, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    entry, path_of = results.make()
    Store.open(str(tmp_path / "link")).put(entry, path_of)
    assert Store.open(str(tmp_path / "disk")).find(entry.key, "stage") == entry


def test_a_store_stays_where_it_is_when_the_run_goes_elsewhere(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store, (entry, path_of) = Store.open("mine"), results.make()
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    store.put(entry, path_of)
    assert (tmp_path / "mine" / ENTRY_1).exists()


def test_a_store_that_keeps_nothing(results, tmp_path):
    store, (entry, path_of) = Store.open("none"), results.make()
    store.put(entry, path_of)
    assert store.find(entry.key, "stage") is None
    assert not store.fetch(entry, (tmp_path / "there").joinpath)
    assert (store.note, store.place, store.take_notes()) == (None, "none", [])
    assert list(store.entries()) == []
    assert store.verify().damage == ()
    assert store.prune(0).bytes == 0
    assert store.usage().bytes == 0


# What is damaged, or a stranger's.


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def to_pipe(path):
    path.unlink()
    os.mkfifo(path)


def to_link(path):
    path.rename(path.with_name("away"))
    path.symlink_to(path.with_name("away"))


def grow(path):
    with path.open("r+b") as stream:
        stream.truncate(1 << 40)


ENTRY_DAMAGE = {
    "flipped": (flip, "its checksum is another|it has not the form"),
    "empty": (lambda path: path.write_bytes(b""), "it has not the form of an entry"),
    "cut": (lambda path: os.truncate(path, 90), "it has not the form of an entry"),
    "huge": (grow, "it is too large"),
    "pipe": (to_pipe, "it is no regular file"),
    "link": (to_link, "it is no regular file"),
    "zeros": (lambda path: (path.unlink(), path.symlink_to("/dev/zero")), "no regular file"),
    "moved": (
        lambda path: path.write_text(CacheEntry("f" * 32, "stage", {}, {}).dumps()),
        "it is of another key",
    ),
}


@pytest.mark.parametrize("case", ENTRY_DAMAGE)
def test_a_damaged_entry_is_dropped_and_noted(results, store, place, case):
    hurt, problem = ENTRY_DAMAGE[case]
    entry, path_of = results.make()
    store.put(entry, path_of)
    hurt(place / ENTRY_1)
    assert store.find(entry.key, "stage") is None
    (note,) = store.take_notes()
    assert note.startswith(f"{place}: the kept result {ENTRY_1} is damaged (")
    assert note.endswith(") and was removed; it is worked out again.")
    assert any(words in note for words in problem.split("|"))
    assert not os.path.lexists(place / ENTRY_1)
    assert store.find(entry.key, "stage") is None
    assert store.take_notes() == []
    store.put(entry, path_of)
    assert store.find(entry.key, "stage") == entry


def test_a_folder_of_an_entrys_name_stays_and_is_noted(results, store, place):
    entry, path_of = results.make()
    (place / ENTRY_1).mkdir(parents=True)
    assert store.find(entry.key, "stage") is None
    (note,) = store.take_notes()
    assert "is damaged (it is no regular file) and could not be removed (" in note
    store.put(entry, path_of)
    (note,) = store.take_notes()
    assert note.startswith(f"{place}: results cannot be kept for other runs (")
    assert (place / ENTRY_1).is_dir()


OBJECT_DAMAGE = {
    "missing": (lambda path: path.unlink(), "is missing"),
    "flipped": (flip, "has another checksum"),
    "cut": (lambda path: os.truncate(path, 5), "has 5 of its 1000 bytes"),
    "longer": (grow, "has more than its 1000 bytes"),
    "pipe": (to_pipe, "is no regular file"),
    "link": (to_link, "is no regular file"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "is no regular file"),
}


@pytest.mark.parametrize("case", OBJECT_DAMAGE)
def test_a_damaged_object_is_not_fetched(results, store, place, tmp_path, case):
    hurt, problem = OBJECT_DAMAGE[case]
    entry, path_of = results.make()
    store.put(entry, path_of)
    hurt(object_of(place, entry))
    there = tmp_path / "there"
    assert not store.fetch(store.find(entry.key, "stage"), there.joinpath)
    (note,) = store.take_notes()
    assert note == (
        f"{place}: the kept result {ENTRY_1} is damaged (its {WEIGHTS} {problem}) and was removed; "
        "it is worked out again."
    )
    assert files_of(there) == []
    assert store.find(entry.key, "stage") is None
    if case != "folder":  # which is nothing that the store made
        store.put(entry, path_of)
        assert store.fetch(store.find(entry.key, "stage"), there.joinpath)


def test_a_put_heals_an_object_that_it_finds_damaged(results, store, place, tmp_path):
    entry, path_of = results.make()
    store.put(entry, path_of)
    flip(object_of(place, entry))
    store.put(entry, path_of)
    assert store.fetch(entry, (tmp_path / "there").joinpath)
    assert store.take_notes() == []


def test_what_was_there_stays_where_a_fetch_fails(results, store, place, tmp_path):
    entry, path_of = results.make()
    store.put(entry, path_of)
    flip(object_of(place, entry, WEIGHTS))
    there = (tmp_path / "there").joinpath
    (tmp_path / "there" / "candidate").mkdir(parents=True)
    there(CANDIDATE).write_bytes(b"old")
    assert not store.fetch(entry, there)
    assert there(CANDIDATE).read_bytes() == b"old"
    assert files_of(tmp_path / "there") == [CANDIDATE]


def test_an_object_cannot_be_longer_than_the_entry_says(store, place, tmp_path):
    # Nobody waits for a terabyte to be read, or for the disk to be full of it.
    sha256 = hashlib.sha256(b"x").hexdigest()
    path = place / "objects" / sha256[:2] / sha256
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    grow(path)
    entry = CacheEntry("0" * 32, "stage", {}, {"a": FileFacts(sha256, 1)})
    assert not store.fetch(entry, tmp_path.joinpath)


def test_links_inside_a_store_are_not_followed(results, store, place, tmp_path):
    entry, path_of = results.make()
    store.put(entry, path_of)
    os.rename(place / "objects", tmp_path / "away")
    (place / "objects").symlink_to(tmp_path / "away")
    assert not store.fetch(entry, (tmp_path / "there").joinpath)
    store.take_notes()
    store.put(entry, path_of)
    (note,) = store.take_notes()
    assert note == (
        f"{place}: results cannot be kept for other runs (a folder in it is a link); this run "
        "continues without."
    )
    assert store.verify().results == 0


# What the disk refuses.


def refuse(monkeypatch, code):
    def fsync(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)


def test_a_full_disk_is_a_note_once(results, store, place, monkeypatch):
    refuse(monkeypatch, errno.ENOSPC)
    for number in (1, 2):
        entry, path_of = results.make(number)
        store.put(entry, path_of)
        assert store.find(entry.key, "stage") is None
    (note,) = store.take_notes()
    assert note == (
        f"{place}: results cannot be kept for other runs (No space left on device); this run "
        "continues without."
    )
    assert files_of(place) == [MARKER]


def test_a_store_that_may_only_be_read_is_of_use(results, store, place, monkeypatch, tmp_path):
    entry, path_of = results.make()
    store.put(entry, path_of)

    def refused(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", refused)
    monkeypatch.setattr("compress.cache.folder.write_new", refused)
    found = store.find(entry.key, "stage")
    assert found == entry
    assert store.fetch(found, (tmp_path / "there").joinpath)
    assert store.take_notes() == []
    store.put(*results.make(2))
    (note,) = store.take_notes()
    assert "results cannot be kept for other runs (Read-only file system)" in note


def test_a_store_that_cannot_be_read_is_a_note_once(results, store, place, monkeypatch, tmp_path):
    entry, path_of = results.make()
    store.put(entry, path_of)

    def refused(*_, **__):
        raise OSError(errno.EIO, "Input/output error")
        yield

    monkeypatch.setattr("compress.cache.folder.chunks_of", refused)
    for _ in range(2):
        assert store.find(entry.key, "stage") is None
        assert not store.fetch(entry, (tmp_path / "there").joinpath)
    (note,) = store.take_notes()
    assert note == (
        f"{place}: kept results cannot be read (Input/output error); what is needed is worked out "
        "again."
    )
    monkeypatch.undo()
    assert store.find(entry.key, "stage") == entry  # what cannot be read now is not damaged


def test_a_store_that_was_removed_is_empty(results, store, place, tmp_path):
    entry, path_of = results.make()
    store.put(entry, path_of)
    place.rename(tmp_path / "gone")
    assert store.find(entry.key, "stage") is None
    store.put(entry, path_of)
    (note,) = store.take_notes()
    assert "results cannot be kept for other runs (No such file or directory)" in note


def test_a_run_folder_that_cannot_be_written_is_an_error(results, store, tmp_path, monkeypatch):
    entry, path_of = results.make()
    store.put(entry, path_of)
    refuse(monkeypatch, errno.ENOSPC)
    with pytest.raises(StorageError, match=r"could not be written \(No space left on device\)"):
        store.fetch(entry, (tmp_path / "there").joinpath)
    assert files_of(tmp_path / "there") == []
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"could not be written \(Not a directory\)"):
        store.fetch(entry, (tmp_path / "file").joinpath)


@pytest.mark.parametrize(
    ("hurt", "problem"),
    [
        (flip, "has another checksum"),
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(bytes(2000)), "has more than its 1000 bytes"),
    ],
)
def test_files_that_change_while_they_are_kept_are_not(results, store, place, hurt, problem):
    entry, path_of = results.make()
    hurt(path_of(WEIGHTS))
    store.put(entry, path_of)
    assert store.take_notes() == [f"a stage is not kept in the cache: its {WEIGHTS} {problem}."]
    assert store.find(entry.key, "stage") is None
    assert not [name for name in files_of(place) if name.endswith(".part")]


def test_facts_without_end_are_not_kept(store, tmp_path, monkeypatch):
    monkeypatch.setattr("compress.cache.store.MOST_ENTRY_BYTES", 1000)
    entry = CacheEntry.of("0" * 32, "stage", {"a": "b" * 1000}, [], tmp_path.joinpath)
    store.put(entry, tmp_path.joinpath)
    assert store.take_notes() == ["the facts of a stage are too many to be kept in the cache."]
