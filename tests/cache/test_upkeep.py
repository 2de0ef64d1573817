"""Verifying and pruning: bounded, oldest first, and never a file that is not the store's."""

import os
import time

import pytest

from compress.cache import Store, StoredResult
from compress.cache.backend import MARKER, claim
from compress.cache.upkeep import evict
from compress.errors import StorageError

WEIGHTS = "candidate/weights.safetensors"
HOUR_S = 3600
NUMBERS = (1, 2, 3, 4)


def entry_name(number):
    return f"entries/00/{number:032x}.json"


def files_of(place):
    return sorted(str(p.relative_to(place)) for p in place.rglob("*") if not p.is_dir())


def objects_of(place):
    return [name for name in files_of(place) if name.startswith("objects/")]


def size_of(place):
    return sum((place / name).stat().st_size for name in files_of(place) if name != MARKER)


def keys_of(store):
    return [int(kept.entry.key, 16) for kept in store.entries()]


@pytest.fixture
def full(results, store, place, age):
    """Four results, the first one the oldest."""
    for number in NUMBERS:
        store.put(*results.make(number))
        age(place, "objects/*/*", 20_000 - number * 1000)
        age(place, entry_name(number), 20_000 - number * 1000)
    return store


def test_entries_are_listed_by_their_last_use(full):
    kept = list(full.entries())
    assert all(isinstance(one, StoredResult) for one in kept)
    assert keys_of(full) == [4, 3, 2, 1]
    assert kept[0].used_s == pytest.approx(time.time() - 16_000, abs=60)
    full.find(f"{2:032x}", "stage")
    assert keys_of(full) == [2, 4, 3, 1]


def test_what_was_not_used_for_longest_goes_first(full, place):
    before = size_of(place)
    full.find(f"{1:032x}", "stage")
    removed = full.prune(before - 1)
    assert keys_of(full) == [1, 4, 3]
    assert (removed.results, removed.bytes) == (1, before - size_of(place))
    assert removed.damaged == ()
    assert len(objects_of(place)) == 4  # what others name stays


def test_a_prune_down_to_nothing_leaves_an_empty_store(full, results, place):
    removed = full.prune(0)
    assert removed.results == 4
    assert files_of(place) == [MARKER]
    entry, path_of = results.make(1)
    full.put(entry, path_of)
    assert full.find(entry.key, "stage") == entry


def test_results_of_just_now_can_go_as_well(results, store, place):
    for number in NUMBERS:
        store.put(*results.make(number))
    assert store.prune(0).results == 4
    assert files_of(place) == [MARKER]


def test_a_prune_to_a_size_that_is_not_reached_removes_nothing(full, place):
    before = files_of(place)
    assert full.prune(10**9).results == 0
    assert files_of(place) == before


def test_any_store_can_be_pruned(any_place, results):
    store = Store.open(any_place)
    for number in NUMBERS:
        store.put(*results.make(number))
    assert sorted(keys_of(store)) == [*NUMBERS]
    assert store.verify().results == 4
    assert store.prune(store.usage().bytes - 1).results == 1
    assert store.prune(0).results == 3
    assert store.usage().bytes == 0
    assert store.take_notes() == []


def test_an_object_that_somebody_may_be_about_to_name_stays(full, place, age):
    store = full
    for name in objects_of(place):
        os.utime(place / name)  # as a put does that finds it there
    store.prune(0)
    assert keys_of(store) == []
    assert len(objects_of(place)) == 5
    age(place, "objects/*/*", 0.9 * HOUR_S)
    assert store.prune().bytes == 0
    age(place, "objects/*/*", 1.1 * HOUR_S)
    assert store.prune().bytes > 0
    assert files_of(place) == [MARKER]


def test_a_put_refreshes_what_it_finds_there(results, store, place, age):
    store.put(*results.make(1))
    age(place, "*/*/*", 2 * HOUR_S)
    store.put(*results.make(2))
    ages = sorted(time.time() - (place / name).stat().st_mtime > HOUR_S for name in files_of(place))
    assert ages == [False, False, False, False, True, True]  # old: one entry, one object


def test_a_put_heals_what_a_prune_takes_at_the_same_moment(results, store, backend, monkeypatch):
    store.put(*results.make(1))
    entry, path_of = results.make(1, shared=b"another")
    written = type(backend).write

    def write(self, name, chunks):
        written(self, name, chunks)
        if name.startswith("entries/"):
            for file in list(self.files()):
                if file.name.startswith("objects/"):
                    self.remove(file.name)

    monkeypatch.setattr(type(backend), "write", write)
    store.put(entry, path_of)
    assert store.find(entry.key, "stage").damage(path_of) is None
    assert store.verify().damage == ()
    assert store.verify().results == 1


def test_parts_that_a_killed_process_left_are_swept(full, results, place, age):
    part = place / "objects" / "ab" / f".{'ab' * 32}.4711-0123456789abcdef.part"
    part.parent.mkdir(exist_ok=True)
    for sweep in (lambda: full.prune(), lambda: full.put(*results.make(9))):
        part.write_bytes(bytes(100))
        sweep()
        assert part.exists()
        age(place, str(part.relative_to(place)), 1.1 * HOUR_S)
        sweep()
        assert not part.exists()


FOREIGN = [
    "notes.txt",
    "objects/notes.txt",
    "objects/ab/notes.txt",
    f"objects/ab/{'cd' * 32}",  # not under its first two digits
    f"objects/ab/{'AB' * 32}",
    f"objects/ab/{'ab' * 32}.bak",
    f"objects/ab/{'ab' * 32}\n",
    f"objects/abc/{'ab' * 32}",
    f"objects/ab/deeper/objects/ab/{'ab' * 32}",
    f"others/ab/{'ab' * 32}",
    f"entries/00/{'0' * 32}",
    f"entries/00/{'0' * 31}.json",
    f"entries/00/.{'0' * 32}.json.1-abc.part",
    f".{'ab' * 32}.4711-0123456789abcdef.part",
    "entries/٠٠/" + "٠" * 32 + ".json",
]


def test_what_is_not_the_stores_is_never_removed(full, place, age):
    for name in FOREIGN:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"mine")
    age(place, "**/*", 10 * HOUR_S)
    used = full.usage().bytes
    assert used == size_of(place) - 4 * len(FOREIGN)
    assert full.verify().damage == ()
    full.prune(0)
    assert files_of(place) == sorted([MARKER, *FOREIGN])


def test_links_lead_no_prune_out_of_the_store(full, place, tmp_path, age):
    away = tmp_path / "away"
    (away / "ab").mkdir(parents=True)
    victim = away / "ab" / ("ab" * 32)
    victim.write_bytes(b"mine")
    (place / "objects" / "ab").symlink_to(away / "ab")
    (place / "objects" / "cd").mkdir(exist_ok=True)
    (place / "objects" / "cd" / ("cd" * 32)).symlink_to(victim)
    age(away, "*/*", 10 * HOUR_S)
    full.prune(0)
    assert victim.read_bytes() == b"mine"
    verified = full.verify()
    assert verified.damage == (f"objects/cd/{'cd' * 32}: it is no regular file; removed.",)
    assert victim.read_bytes() == b"mine"
    os.rename(place / "objects", tmp_path / "objects")
    (place / "objects").symlink_to(tmp_path / "objects")
    before = files_of(tmp_path / "objects")
    full.prune(0)
    assert full.verify().damage == ()
    assert files_of(tmp_path / "objects") == before


def test_a_damaged_entry_goes_with_a_prune_and_is_named(full, place):
    (place / entry_name(2)).write_text("{}")
    removed = full.prune()
    assert removed.damaged == (f"{entry_name(2)}: it has not the form of an entry",)
    assert keys_of(full) == [4, 3, 1]


def test_a_damaged_entry_is_listed_as_such(full, place):
    (place / entry_name(2)).write_text("{}")
    assert keys_of(full) == [4, 3, 1]
    assert full.take_notes() == [f"{entry_name(2)} is damaged (it has not the form of an entry)."]
    assert (place / entry_name(2)).exists()


@pytest.mark.parametrize("keep", [False, True])
def test_verify_reads_everything_and_names_what_is_damaged(full, place, keep):
    flipped, gone = (
        f"objects/{sha[:2]}/{sha}"
        for sha in (kept.entry.files[WEIGHTS].sha256 for kept in list(full.entries())[:2])
    )
    content = bytearray((place / flipped).read_bytes())
    content[0] ^= 1
    (place / flipped).write_bytes(content)
    (place / gone).unlink()
    (place / entry_name(1)).write_text("{}")
    before = files_of(place)
    verified = full.verify(keep=keep)
    end = "." if keep else "; removed."
    assert sorted(verified.damage) == sorted(
        [
            f"{flipped}: its checksum is another{end}",
            f"{entry_name(4)}: its {WEIGHTS} is missing or damaged{end}",
            f"{entry_name(3)}: its {WEIGHTS} is missing or damaged{end}",
            f"{entry_name(1)}: it has not the form of an entry{end}",
        ]
    )
    assert verified.results == 1
    if keep:
        assert files_of(place) == before
    else:
        assert full.verify().damage == ()
        assert keys_of(full) == [2]


def test_what_cannot_be_removed_is_said_so(full, place, monkeypatch):
    (place / entry_name(1)).write_text("{}")

    def refused(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("compress.cache.folder.Folder.remove", refused)
    (sentence,) = full.verify().damage
    assert sentence == (
        f"{entry_name(1)}: it has not the form of an entry; it could not be removed (Read-only "
        "file system)."
    )
    with pytest.raises(StorageError, match="the kept results cannot be read or changed"):
        full.prune(0)


def test_what_cannot_be_read_now_is_not_removed(full, place, monkeypatch):
    def refused(self, name):
        raise OSError(5, "Input/output error")
        yield

    before = files_of(place)
    with monkeypatch.context() as patch:
        patch.setattr("compress.cache.upkeep.facts_of", lambda _: next(refused(None, "")))
        verified = full.verify()
    assert len(verified.damage) == 5
    assert all(s.endswith(": it cannot be read (Input/output error).") for s in verified.damage)
    assert files_of(place) == before
    monkeypatch.setattr("compress.cache.folder.Folder.chunks", refused)
    with pytest.raises(StorageError, match=r"cannot be read or changed \(Input/output error\)"):
        full.prune(0)
    with pytest.raises(StorageError, match=r"cannot be read or changed \(Input/output error\)"):
        list(full.entries())
    assert files_of(place) == before


# Bounds.


def test_a_store_never_grows_beyond_its_limit(results, place, monkeypatch):
    monkeypatch.setenv("COMPRESSKIT_CACHE_LIMIT", "10 kB")
    store = Store.open(str(place))
    for number in range(1, 21):
        entry, path_of = results.make(number)
        store.put(entry, path_of)
        assert size_of(place) <= 10_000
        assert store.find(entry.key, "stage") == entry
    assert keys_of(store) == [20, 19, 18, 17, 16][: len(keys_of(store))]
    assert len(keys_of(store)) >= 3
    assert store.verify().damage == ()
    assert store.take_notes() == []
    assert store.usage().limit_bytes == 10_000


def test_a_result_that_is_larger_than_all_may_be_is_not_kept(results, place, monkeypatch):
    monkeypatch.setenv("COMPRESSKIT_CACHE_LIMIT", "10 kB")
    store = Store.open(str(place))
    store.put(*results.make(1))
    store.put(*results.make(2, bytes_=80_000))
    (note,) = store.take_notes()
    assert note.startswith(f"{place}: a result of 7")
    assert note.endswith(
        "KiB is not kept, since all may take 9.8 KiB; free some space, or raise "
        "COMPRESSKIT_CACHE_LIMIT."
    )
    assert keys_of(store) == [1]


def test_a_store_takes_no_more_than_half_of_what_the_disk_has_for_it(full, place, monkeypatch):
    monkeypatch.setattr("compress.cache.folder.Folder.free_bytes", lambda _: 1000)
    used = size_of(place)
    assert full.usage().limit_bytes == (used + 1000) // 2
    full.prune()
    assert size_of(place) <= (used + 1000) // 2


def test_room_is_made_of_what_is_damaged_too(results, place, monkeypatch):
    monkeypatch.setenv("COMPRESSKIT_CACHE_LIMIT", "6 kB")
    store = Store.open(str(place))
    store.put(*results.make(1))
    (place / entry_name(1)).write_bytes(bytes(3000))
    store.put(*results.make(2, bytes_=2400))
    (note,) = store.take_notes()
    assert note == f"{place}: {entry_name(1)}: it has not the form of an entry; removed."
    assert keys_of(store) == [2]


def test_two_may_prune_at_once(full, backend, monkeypatch):
    # The other one removes everything while this one is about to.
    files = backend.files
    monkeypatch.setattr(backend, "files", lambda: iter([*files(), *([], full.prune(0))[0]]))
    removed = evict(backend, 0)
    assert (removed.results, removed.bytes) == (0, 0)
    claim(backend, create=False)


def test_what_is_to_stay_for_now_costs_no_other_result(full, place):
    part = place / "objects" / "ab" / ("ab" * 32)
    part.parent.mkdir(exist_ok=True)
    part.write_bytes(bytes(100_000))
    full.prune(size_of(place) - 100_000)
    assert keys_of(full) == [4, 3, 2, 1]
    assert part.exists()
