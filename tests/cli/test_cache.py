"""``compresskit cache``: what is kept, whether it is whole, and less of it."""

import os
import time

import pytest

from compress.cache import CacheEntry, Store
from compress.cli import main

NUMBERS = (1, 2, 3)


def entry_name(number):
    return f"entries/{number:02x}/{number:02x}{'0' * 30}.json"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A store of three results, the last one just used."""
    path = tmp_path / "store"
    store = Store.open(str(path))
    for number in NUMBERS:
        (tmp_path / "model.onnx").write_bytes(number.to_bytes(4, "big") * 500)
        facts = {"recipe": "mine", "stage": f"{number}-train"}
        kind = "measurement" if number == 3 else "stage"
        facts |= {"target": "local"} if number == 3 else {"stage": "0\x1b[2Jtrain\n", "more": 1}
        key = f"{number:02x}{'0' * 30}"
        entry = CacheEntry.of(key, kind, facts, ["model.onnx"], tmp_path.joinpath)
        store.put(entry, tmp_path.joinpath)
        then = time.time() - 90_000 * (3 - number)
        for name in entry.files.values():
            os.utime(path / "objects" / name.sha256[:2] / name.sha256, (then, then))
        os.utime(path / entry_name(number), (then, then))
    monkeypatch.setenv("COMPRESSKIT_CACHE", str(path))
    monkeypatch.setattr("compress.cache.folder.Folder.free_bytes", lambda _: 1 << 40)
    return path


@pytest.fixture
def call(capsys):
    def call(*arguments):
        code = main(["cache", *arguments])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.removeprefix("compresskit: ").strip()

    return call


def test_ls_shows_what_is_kept(place, call):
    code, lines, _ = call("ls")
    assert code == 0
    assert lines[:-1] == [
        "key           kind         of                    size     last use",
        "030000000000  measurement  mine 3-train local    2.0 KiB  just now",
        "020000000000  stage        mine 0\\x1b[2Jtrain\\n  2.0 KiB  1 day ago",
        "010000000000  stage        mine 0\\x1b[2Jtrain\\n  2.0 KiB  2 days ago",
    ]
    assert lines[-1].startswith("3 results, 7.")
    assert lines[-1].endswith(f"KiB of at most 18.6 GiB, in {place}")


def test_ls_of_another_place_and_of_none(tmp_path, call):
    code, lines, _ = call("ls", "--cache", str(tmp_path / "nothing"))
    assert (code, len(lines)) == (0, 1)
    assert lines[0].startswith("0 results, 0 bytes of at most ")
    assert not (tmp_path / "nothing").exists()
    assert call("ls", "--cache", "none") == (
        0,
        ["0 results, 0 bytes of at most 18.6 GiB, in none"],
        "",
    )


def test_ls_names_what_is_damaged(place, call):
    (place / entry_name(2)).write_text("{}")
    code, lines, _ = call("ls")
    assert lines[0] == f"note: {entry_name(2)} is damaged (it has not the form of an entry)."
    assert (code, len(lines)) == (0, 5)


def test_verify_of_a_whole_store(place, call):
    code, lines, _ = call("verify")
    assert (code, lines) == (0, [f"3 results whole, 5.9 KiB read, 0 damaged, in {place}"])


def test_verify_says_and_removes_what_is_damaged(place, call):
    (place / entry_name(2)).write_text("{}")
    sentence = f"damaged: {entry_name(2)}: it has not the form of an entry"
    code, lines, _ = call("verify", "--keep")
    assert (code, lines[0]) == (1, f"{sentence}.")
    assert lines[1] == f"2 results whole, 5.9 KiB read, 1 damaged, in {place}"
    assert call("verify")[:2] == (1, [f"{sentence}; removed.", lines[1]])
    assert call("verify")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "left"), [(["--to", "3 KiB"], 1), (["--all"], 0), ([], 3), (["--to", "1e9"], 3)]
)
def test_prune_removes_what_was_not_used_for_longest(place, call, arguments, left):
    code, lines, _ = call("prune", *arguments)
    assert code == 0
    (line,) = lines
    words = "1 result" if left == 2 else f"{3 - left} results"
    assert line.startswith(f"removed {words} and ")
    assert line.endswith(f" are left in {place}")
    kept = [int(one.entry.key[:2]) for one in Store.open(str(place)).entries()]
    assert kept == [3, 2, 1][:left]


def test_prune_names_what_was_damaged(place, call):
    (place / entry_name(2)).write_text("{}")
    _, lines, _ = call("prune")
    assert lines[0] == f"damaged: {entry_name(2)}: it has not the form of an entry; removed."


@pytest.mark.parametrize("action", ["ls", "verify", "prune"])
def test_a_folder_of_other_files_is_refused(tmp_path, call, action):
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    code, _, message = call(action, "--cache", str(tmp_path))
    assert code == 2
    assert message.startswith(f"{tmp_path} has files that are not compresskit's, so no results")
    assert (tmp_path / "photo.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize("action", ["ls", "verify", "prune"])
def test_a_store_out_of_reach_is_an_error(tmp_path, call, action):
    (tmp_path / "file").write_text("")
    code, _, message = call(action, "--cache", str(tmp_path / "file" / "store"))
    assert code == 1
    assert message.startswith(f"{tmp_path}/file/store cannot be used (Not a directory), so no")


def test_sizes_are_checked_before_anything_is_removed(place, call):
    code, _, message = call("prune", "--to=-5GB")
    assert code == 2
    assert message.startswith("--to: '-5GB' is no size; write one such as 20GB")


@pytest.mark.parametrize("arguments", [[], ["rm"], ["prune", "--all", "--to", "5GB"], ["ls", "x"]])
def test_other_command_lines_are_refused(call, arguments):
    with pytest.raises(SystemExit) as refusal:
        call(*arguments)
    assert refusal.value.code == 2
