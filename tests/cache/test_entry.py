"""Entries: what was written is read, and nothing else is."""

import hashlib
import json
import os
import random

import pytest

from compress.cache import CacheEntry, DamagedEntry, FileFacts
from compress.errors import StorageError

pytestmark = pytest.mark.fast

KEY = "0123456789abcdef" * 2
SHA = "ab" * 32
WEIGHTS = "candidate/weights.safetensors"


def entry(**changes):
    parts = {"key": KEY, "kind": "stage", "facts": {"a": [1, None, "ü"]}}
    return CacheEntry(**{**parts, "files": {"model.onnx": FileFacts(SHA, 3)}, **changes})


def forged(stored):
    """A text with a right checksum, whatever it says."""
    text = stored if isinstance(stored, bytes) else json.dumps(stored).encode()
    checksum = hashlib.sha256(text).hexdigest().encode()
    return b'{\n"checksum": "' + checksum + b'",\n"entry": ' + text + b"\n}\n"


def stored(**changes):
    files = {"model.onnx": {"sha256": SHA, "bytes": 3}}
    return {"schema": 1, "key": KEY, "kind": "stage", "facts": {}, "files": files, **changes}


def test_what_was_written_is_read():
    assert CacheEntry.loads(entry().dumps()) == entry()
    assert CacheEntry.loads(entry().dumps().encode()) == entry()
    assert CacheEntry.loads(forged(stored())) == entry(facts={})


def test_the_text_is_json_that_begins_with_its_checksum():
    text = entry().dumps()
    parsed = json.loads(text)
    assert list(parsed) == ["checksum", "entry"]
    assert parsed["entry"]["files"] == {"model.onnx": {"sha256": SHA, "bytes": 3}}
    assert text.isascii()


def test_numbers_that_are_none_are_kept_as_they_were():
    facts = {"loss": float("inf"), "lowest": -float("inf")}
    assert CacheEntry.loads(entry(facts=facts).dumps()).facts == facts


def test_every_flipped_bit_is_noticed():
    text = entry().dumps().encode()
    for place in range(len(text) * 8):
        flipped = bytearray(text)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(DamagedEntry):
            CacheEntry.loads(bytes(flipped))


def test_every_cut_is_noticed():
    text = entry().dumps()
    for length in range(len(text)):
        with pytest.raises(DamagedEntry, match=r"has not the form|its checksum is another"):
            CacheEntry.loads(text[:length])
    with pytest.raises(DamagedEntry, match="has not the form"):
        CacheEntry.loads(text + " ")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it has not the form of an entry"),
        ("\ud800", "it has not the form of an entry"),
        (b"\xff\x00", "it has not the form of an entry"),
        ("[]", "it has not the form of an entry"),
        (json.dumps(stored()), "it has not the form of an entry"),
        (forged(stored()).replace(b"stage", b"stagf"), "its checksum is another"),
        (forged(b"{}"), "it is of another version"),
        (forged(stored(schema=2)), "it is of another version"),
        (forged(stored(schema=[])), "it is of another version"),
        (forged(stored(more=1)), "it has other parts than an entry"),
        (forged(b'{"a": }'), "it cannot be parsed"),
        (forged(b'{"a": ' + b"[" * 99_999 + b"]" * 99_999 + b"}"), "it cannot be parsed"),
        (forged(b'{"a": ' + b"9" * 9999 + b"}"), "it cannot be parsed"),
        (forged(b'{"a": "\xff"}'), "it cannot be parsed"),
        (forged(stored(key="0" * 31)), "its key is none"),
        (forged(stored(key="A" * 32)), "its key is none"),
        (forged(stored(key="0" * 31 + "\n")), "its key is none"),
        (forged(stored(key="٣" * 32)), "its key is none"),
        (forged(stored(key=5)), "its key is none"),
        (forged(stored(kind="")), "its kind is none"),
        (forged(stored(kind=None)), "its kind is none"),
        (forged(stored(kind="a" * 99)), "its kind is none"),
        (forged(stored(facts=[])), "its facts or its files are no mapping"),
        (forged(stored(files=[])), "its facts or its files are no mapping"),
        (forged(stored(files={"a": 1})), "of its file 'a', the facts are none"),
        (forged(stored(files={"a": {"sha256": SHA}})), "of its file 'a', the facts are none"),
    ],
)
def test_other_texts_are_refused(text, problem):
    with pytest.raises(DamagedEntry, match=problem):
        CacheEntry.loads(text)


def test_a_text_of_any_size_is_refused_at_once():
    with pytest.raises(DamagedEntry, match="it is too large"):
        CacheEntry.loads(bytes(65 << 20))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "empty or too long"),
        ("a" * 501, "empty or too long"),
        ("/etc/passwd", "no plain relative"),
        ("../model.onnx", "no plain relative"),
        ("a/../../b", "no plain relative"),
        ("a/..", "no plain relative"),
        ("./a", "no plain relative"),
        ("a//b", "no plain relative"),
        ("a/", "no plain relative"),
        (".", "no plain relative"),
        ("a\\..\\b", "characters that a plain one has not"),
        ("C:a", "characters that a plain one has not"),
        ("a\0b", "characters that a plain one has not"),
        ("a\nb", "characters that a plain one has not"),
        ("\x1b[2J", "characters that a plain one has not"),
        ("\udc80", "characters that a plain one has not"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(name, problem):
    with pytest.raises(DamagedEntry, match=problem):
        CacheEntry.loads(forged(stored(files={name: {"sha256": SHA, "bytes": 3}})))
    with pytest.raises(DamagedEntry, match=problem):
        entry(files={name: FileFacts(SHA, 3)})


@pytest.mark.parametrize("name", ["model.onnx", WEIGHTS, "ünï cöde/日本 語", "..a/b..", "a" * 500])
def test_plain_names_are_taken(name):
    assert CacheEntry.loads(entry(files={name: FileFacts(SHA, 3)}).dumps()).files.keys() == {name}


def test_a_name_is_not_a_file_and_a_folder():
    files = {"a": FileFacts(SHA, 3), "a/b/c": FileFacts(SHA, 3)}
    with pytest.raises(DamagedEntry, match="'a' is both a file and a folder of it"):
        entry(files=files)


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ((SHA[:-1], 3), "the checksum is none"),
        ((SHA.upper(), 3), "the checksum is none"),
        ((None, 3), "the checksum is none"),
        ((SHA, -1), "the size is none"),
        ((SHA, 1 << 63), "the size is none"),
        ((SHA, True), "the size is none"),
        ((SHA, 3.0), "the size is none"),
        ((SHA, "3"), "the size is none"),
    ],
)
def test_facts_of_files_are_checked(facts, problem):
    files = {"model.onnx": {"sha256": facts[0], "bytes": facts[1]}}
    with pytest.raises(DamagedEntry, match=f"of its file 'model.onnx', {problem}"):
        CacheEntry.loads(forged(stored(files=files)))


def test_an_entry_of_files_says_what_they_are(results):
    made, path_of = results.make(7)
    content = path_of(WEIGHTS).read_bytes()
    assert made.files[WEIGHTS] == FileFacts(hashlib.sha256(content).hexdigest(), len(content))
    assert made.damage(path_of) is None
    assert CacheEntry.loads(made.dumps()) == made
    assert made.size_bytes == 1600


def test_facts_are_as_they_will_be_read(tmp_path):
    made = CacheEntry.of(KEY, "stage", {"shape": (1, 2), 3: "three"}, [], tmp_path.joinpath)
    assert made.facts == {"shape": [1, 2], "3": "three"}


def test_a_file_that_is_not_there_makes_no_entry(tmp_path):
    with pytest.raises(StorageError, match=r"model\.onnx: this file was just written and cannot"):
        CacheEntry.of(KEY, "stage", {}, ["model.onnx"], tmp_path.joinpath)


def test_equal_files_count_once(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"12345")
    assert CacheEntry.of(KEY, "stage", {}, ["a", "b"], tmp_path.joinpath).size_bytes == 5


def flip(path):
    content = bytearray(path.read_bytes())
    content[random.Random(0).randrange(len(content))] ^= 4
    path.write_bytes(content)


def swap(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("hurt", "problem"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "has 999 of its 1000 bytes"),
        (lambda path: path.write_bytes(b""), "has 0 of its 1000 bytes"),
        (lambda path: path.write_bytes(bytes(1001)), "has more than its 1000 bytes"),
        (flip, "has another checksum"),
        (swap, "is no regular file"),
        (lambda path: (path.unlink(), path.mkdir()), "is no regular file"),
        (lambda path: (path.unlink(), path.symlink_to("/dev/zero")), "is no regular file"),
        (lambda path: (path.unlink(), path.symlink_to(path)), "cannot be read"),
    ],
)
def test_damage_is_named(results, hurt, problem):
    made, path_of = results.make()
    hurt(path_of(WEIGHTS))
    assert made.damage(path_of).startswith(f"{WEIGHTS} {problem}")


def test_a_file_that_was_moved_and_linked_is_whole(results, tmp_path):
    made, path_of = results.make()
    path_of(WEIGHTS).rename(tmp_path / "elsewhere")
    path_of(WEIGHTS).symlink_to(tmp_path / "elsewhere")
    assert made.damage(path_of) is None
