"""Where the store lies: chosen, by default, refused, out of reach."""

import os
import re
from typing import ClassVar

import pytest

from compress.cache import Store
from compress.cache.backend import MARKER
from compress.cache.sizes import parse_size
from compress.errors import MissingExtra, RecipeError, StorageError

pytestmark = pytest.mark.fast


def everything(place):
    return {str(p.relative_to(place)): p.is_file() and p.read_bytes() for p in place.rglob("*")}


@pytest.fixture
def no_choice(monkeypatch, tmp_path):
    """Nothing in the environment but a home."""
    for name in ("COMPRESSKIT_CACHE", "COMPRESSKIT_CACHE_LIMIT", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return monkeypatch


def test_tests_have_a_store_of_their_own():
    assert Store.open(create=False).place == os.environ["COMPRESSKIT_CACHE"]
    assert list(Store.open().entries()) == []


def test_by_default_it_lies_below_the_home(no_choice, tmp_path):
    store = Store.open()
    assert store.place == str(tmp_path / "home" / ".cache" / "compresskit" / "store")
    assert (tmp_path / "home" / ".cache" / "compresskit" / "store" / MARKER).exists()
    assert (store.note, store.usage().limit_bytes <= 20 * 10**9) == (None, True)


def test_other_files_of_compresskit_may_lie_beside_it(no_choice, tmp_path):
    (tmp_path / "home" / ".cache" / "compresskit" / "fashion-mnist").mkdir(parents=True)
    assert Store.open().note is None


@pytest.mark.parametrize(("caches", "below"), [("caches", "caches"), ("", "home/.cache")])
def test_caches_may_lie_elsewhere(no_choice, tmp_path, caches, below):
    no_choice.setenv("XDG_CACHE_HOME", str(tmp_path / caches) if caches else "relative")
    assert Store.open().place == str(tmp_path / below / "compresskit" / "store")


def test_the_environment_may_choose(no_choice, tmp_path):
    no_choice.setenv("COMPRESSKIT_CACHE", str(tmp_path / "there"))
    assert Store.open().place == str(tmp_path / "there")
    assert Store.open(str(tmp_path / "here")).place == str(tmp_path / "here")
    no_choice.setenv("COMPRESSKIT_CACHE", "")
    assert Store.open().place.startswith(str(tmp_path / "home"))
    no_choice.setenv("COMPRESSKIT_CACHE", "none")
    assert Store.open().place == "none"
    no_choice.setenv("COMPRESSKIT_CACHE", "~/mine")
    assert Store.open().place == str(tmp_path / "home" / "mine")


@pytest.mark.parametrize("home", [None, "", "relative"])
def test_without_a_home_nothing_is_kept(no_choice, home):
    no_choice.delenv("HOME")
    if home is not None:
        no_choice.setenv("HOME", home)
    store = Store.open()
    assert store.place == "none"
    assert store.note == (
        "HOME is not set, so no results are kept for other runs; COMPRESSKIT_CACHE may say where."
    )
    with pytest.raises(StorageError, match="HOME is not set, so no results are kept"):
        store.usage()


@pytest.mark.parametrize("is_chosen", [False, True])
def test_where_nothing_can_be_written_nothing_is_kept(no_choice, tmp_path, is_chosen, results):
    (tmp_path / "file").write_text("")
    no_choice.setenv("COMPRESSKIT_CACHE" if is_chosen else "HOME", str(tmp_path / "file" / "below"))
    store = Store.open()
    assert store.note.startswith(f"{tmp_path}/file/below")
    assert store.note.endswith(
        " cannot be used (Not a directory), so no results are kept for other runs."
    )
    entry, path_of = results.make()
    store.put(entry, path_of)
    assert store.find(entry.key, "stage") is None
    assert store.take_notes() == []
    with pytest.raises(StorageError, match=r"cannot be used \(Not a directory\)"):
        store.prune()


def test_a_name_that_no_disk_takes_is_a_note():
    store = Store.open("a" * 300)
    assert "cannot be used (File name too long)" in store.note
    store = Store.open("/proc/nobody/store")
    assert "/proc/nobody/store cannot be used (No such file or directory)" in store.note


@pytest.mark.parametrize("place", ["", "  ", "a\0b"])
def test_what_is_no_place_is_refused(place):
    with pytest.raises(RecipeError, match="is no place for a store; give a folder, an address"):
        Store.open(place)


@pytest.mark.parametrize("name", ["photo.jpg", "objects/ab/photo.jpg", f"objects/ab/{'ab' * 32}"])
@pytest.mark.parametrize("create", [False, True])
def test_a_folder_of_other_files_is_refused_and_left_alone(tmp_path, name, create):
    place = tmp_path / "photos"
    (place / name).parent.mkdir(parents=True)
    (place / name).write_bytes(b"mine")
    before = everything(place)
    with pytest.raises(RecipeError) as refusal:
        Store.open(str(place), create=create)
    assert str(refusal.value) == (
        f"{place} has files that are not compresskit's, so no results are kept there; give another "
        "place or an empty folder (--cache or COMPRESSKIT_CACHE)."
    )
    assert everything(place) == before


def test_a_default_folder_of_other_files_stops_no_run(no_choice, tmp_path):
    place = tmp_path / "home" / ".cache" / "compresskit" / "store"
    place.mkdir(parents=True)
    (place / "photo.jpg").write_bytes(b"mine")
    store = Store.open()
    assert store.note == (
        f"{place} has files that are not compresskit's, so no results are kept for other runs."
    )
    assert everything(place) == {"photo.jpg": b"mine"}


def test_a_store_of_another_version_is_refused(tmp_path):
    (tmp_path / "compresskit-store-2").write_text("")
    with pytest.raises(RecipeError, match="was made by another version of compresskit, so"):
        Store.open(str(tmp_path))


def test_a_file_is_no_store(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"mine")
    with pytest.raises(RecipeError, match=r"model\.onnx is no folder, so no results are"):
        Store.open(str(tmp_path / "model.onnx"))
    assert (tmp_path / "model.onnx").read_bytes() == b"mine"


def test_a_store_that_two_make_at_once_is_theirs(tmp_path, monkeypatch):
    # Between the look at the marker and that at the folder, the other one made it.
    place = tmp_path / "store"
    looks = iter([False])
    lexists = os.path.lexists
    Store.open(str(place))
    monkeypatch.setattr(
        os.path, "lexists", lambda path: next(looks, None) is None and lexists(path)
    )
    assert Store.open(str(place)).note is None


def test_to_look_makes_nothing(tmp_path):
    store = Store.open(str(tmp_path / "store"), create=False)
    assert list(store.entries()) == []
    assert store.usage().bytes == store.prune(0).bytes == store.verify().results == 0
    assert not (tmp_path / "store").exists()


# What fsspec reaches.


def test_a_file_address_is_a_folder(tmp_path, results):
    entry, path_of = results.make()
    Store.open(f"file://{tmp_path}/store").put(entry, path_of)
    assert Store.open(str(tmp_path / "store")).find(entry.key, "stage") == entry


def test_a_missing_package_is_named():
    with pytest.raises(MissingExtra, match=r"^s3://bucket/x: a store of this kind needs .* s3fs"):
        Store.open("s3://key:secret@bucket/x".replace("key:secret@", ""))


def test_an_address_of_nothing_is_refused():
    with pytest.raises(
        RecipeError, match=r"^nonsense://x: this is no address of a store \(.*\); giv"
    ):
        Store.open("nonsense://x")


def test_a_password_is_not_shown():
    with pytest.raises(RecipeError) as refusal:
        Store.open("nonsense://me:secret@host/x")
    assert "secret" not in str(refusal.value)


def test_other_files_behind_an_address_are_left_alone():
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe_file("/mine/photo.jpg", b"mine")
    with pytest.raises(RecipeError, match=r"^memory://mine has files that are not compresskit's"):
        Store.open("memory://mine")
    assert memory.find("/mine") == ["/mine/photo.jpg"]
    memory.store.clear()


@pytest.fixture
def flaky():
    """A file system that raises whatever its maker likes, and shows files before they are whole."""
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    class Flaky(MemoryFileSystem):
        protocol = "flaky"
        store: ClassVar = {}
        pseudo_dirs: ClassVar = [""]
        broken = None
        written: ClassVar = []

        @classmethod
        def _strip_protocol(cls, path):
            return MemoryFileSystem._strip_protocol(path.removeprefix("flaky://"))

        def info(self, path, **_):
            if self.broken:
                raise self.broken
            return super().info(path)

        def put_file(self, source, path, **_):
            self.written.append(path)
            super().put_file(source, path)

    fsspec.register_implementation("flaky", Flaky, clobber=True)
    return Flaky


def test_elsewhere_files_are_written_beside_their_place(flaky, results, tmp_path):
    store, (entry, path_of) = Store.open("flaky://there"), results.make()
    store.put(entry, path_of)
    assert store.take_notes() == []
    assert all(re.search(r"/\.[^/]+\.part$", path) for path in flaky.written)
    assert not any(path.endswith(".part") for path in flaky.store)
    found = Store.open("flaky://there").find(entry.key, "stage")
    assert store.fetch(found, (tmp_path / "there").joinpath)
    assert store.verify().results == 1


class NoCredentials(Exception):
    pass


def test_whatever_a_file_system_raises_stops_no_run(flaky, results, tmp_path):
    store, (entry, path_of) = Store.open("flaky://there"), results.make()
    store.put(entry, path_of)
    flaky.broken = NoCredentials("no credentials\nin sight")
    store.put(*results.make(2))
    assert store.find(entry.key, "stage") is None
    assert not store.fetch(entry, (tmp_path / "there").joinpath)
    end = "(NoCredentials: no credentials in sight)"
    assert store.take_notes() == [
        f"flaky://there: results cannot be kept for other runs {end}; this run continues without.",
        f"flaky://there: kept results cannot be read {end}; what is needed is worked out again.",
    ]
    later = Store.open("flaky://there")
    assert later.note == (
        f"flaky://there cannot be used {end}, so no results are kept for other runs."
    )
    flaky.broken = None
    assert store.find(entry.key, "stage") == entry


def test_what_cannot_be_touched_is_written_again(results, monkeypatch):
    import fsspec

    store, (entry, path_of) = Store.open("memory://old/store"), results.make()
    store.put(entry, path_of)
    memory = fsspec.filesystem("memory")
    before = {path: file.created for path, file in memory.store.items()}
    monkeypatch.setattr("compress.cache.remote._FRESH_S", -1.0)
    assert store.find(entry.key, "stage") == entry
    changed = [path for path, file in memory.store.items() if file.created != before[path]]
    assert changed == [f"/old/store/entries/00/{entry.key}.json"]
    store.put(entry, path_of)
    changed = [path for path, file in memory.store.items() if file.created != before[path]]
    assert len(changed) == 3
    memory.store.clear()


# Sizes.


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20GB", 20 * 10**9),
        ("20 gb", 20 * 10**9),
        ("500 MiB", 500 << 20),
        ("1.5e9", 1_500_000_000),
        ("0", 0),
        ("12", 12),
        ("12 B", 12),
        ("1.5KiB", 1536),
        (" 1 TB ", 10**12),
        ("2PiB", 2 << 50),
        ("1E3", 1000),
    ],
)
def test_sizes_are_read(text, size):
    assert parse_size(text, "--to") == size


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "GB", "-1", "-1GB", "+1", "inf", "infinity", "nan", "1e999", "1e30", "9" * 40),
        *("٢٠GB", "２０GB", "1_000", "1,000", "0x10", "1GB2", "1 GB GB", "20G", "20XB", "1..5"),
        *(".5", "1e", "1\n", "1\u00a0GB", "true", "20:00", "1" * 100_000),
    ],
)
def test_other_sizes_are_refused(text, monkeypatch):
    with pytest.raises(RecipeError) as refusal:
        parse_size(text, "--to")
    message = str(refusal.value)
    assert re.fullmatch(
        r"--to: '.*' is no size; write one such as 20GB, 500 MiB or 1\.5e9, which is bytes\.",
        message,
    )
    assert len(message) < 200
    if text:
        monkeypatch.setenv("COMPRESSKIT_CACHE_LIMIT", text[:1000])
        with pytest.raises(RecipeError, match=r"^COMPRESSKIT_CACHE_LIMIT: '.*' is no size"):
            Store.open()
