"""Data of strangers: IDX, arrays, images, texts, results of devices, kept answers."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compress.device.result import load_result
from compress.distillation.cache_files import ArraySpec, EpochArrays
from compress.errors import DataError, RecordError
from compress.measure.arrays import read_arrays
from compress.tasks.idx import IdxFile, read_idx
from compress.tasks.image_folder import make_task as make_images
from compress.tasks.language import make_task as make_language
from compress.tasks.text import read_lines
from compress.tasks.wordnet import FILES, read_glosses

from .results import RESULT

pytestmark = pytest.mark.fast

# -- IDX --------------------------------------------------------------------------------------

IDX = IdxFile("i.gz", (6, 4), "0" * 64)


def idx(sizes, body=bytes(24), kind=8, axes=None):
    numbers = b"".join(struct.pack(">I", size) for size in sizes)
    return bytes([0, 0, kind, len(sizes) if axes is None else axes]) + numbers + body


IDX_FILES = {
    "other sizes": (gzip.compress(idx((6, 5))), "its header is"),
    "forged sizes": (gzip.compress(idx((2**32 - 1, 2**32 - 1))), "its header is"),
    "a negative size": (gzip.compress(idx((6, 2**31 + 4))), "its header is"),
    "no axes": (gzip.compress(idx((), b"")), "its header is"),
    "255 axes": (gzip.compress(idx((6, 4), axes=255)), "its header is"),
    "floats": (gzip.compress(idx((6, 4), kind=13)), "its header is"),
    "cut": (gzip.compress(idx((6, 4)))[:-9], "it ends too early"),
    "cut within": (gzip.compress(idx((6, 4), bytes(7))), "it holds 19, not 36 bytes"),
    "more": (gzip.compress(idx((6, 4), bytes(25))), "it holds more than that, not 36 bytes"),
    "a bomb": (gzip.compress(idx((6, 4), bytes(100 << 20))), "it holds more than that"),
    "no gzip": (idx((6, 4)), "it is not a gzip file"),
    "an empty gzip": (gzip.compress(b""), "its header is"),
    "a method that is none": (b"\x1f\x8b\x09" + bytes(30), "it is not a gzip file"),
    "damaged": (gzip.compress(idx((6, 4)))[:12] + b"\xff" * 20, "it is not a gzip file|too early"),
    "other items": (gzip.compress(idx((6, 4))), "its SHA-256 is not the published one"),
}


@pytest.mark.parametrize("name", IDX_FILES)
def test_a_bad_file_of_idx_is_one_sentence(name, tmp_path, refused):
    content, words = IDX_FILES[name]
    (tmp_path / "i.gz").write_bytes(content)
    refused(lambda: read_idx(tmp_path / "i.gz", IDX), DataError, words)


# -- arrays -----------------------------------------------------------------------------------


def npy(header, body=b"", version=(1, 0)):
    text = header if isinstance(header, bytes) else repr(header).encode()
    text += b" " * (-(10 + len(text) + 1) % 64) + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(text)) + text + body


def described(descr="<f4", shape=(2, 3), fortran=False):
    return {"descr": descr, "fortran_order": fortran, "shape": shape}


def npz(content, name="x.npy", packing=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packing) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


def with_bomb():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy(described(shape=(1,)), bytes(4)))
    content = bytearray(stream.getvalue())
    at = content.rfind(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 2**32 - 2)
    return bytes(content)


OTHER = "no .npz file that can be read"
ARRAYS = {
    "objects": (npz(npy(described("|O"), b"\x80\x04K\x01.")), "it holds Python objects, which are"),
    "a structure of objects": (npz(npy(described([("a", "|O")]), bytes(8))), "Python objects"),
    "a header of code": (npz(npy(b"__import__('os').system('x')")), OTHER),
    "a header without end": (npz(npy(b"(" * 5000)), OTHER),
    "a header that is large": (npz(npy(b"{'a':" + b" " * 60_000 + b"1}")), OTHER),
    "a header that is no Python": (npz(npy(b"\xff\xfe\x00")), OTHER),
    "a header of a list": (npz(npy(["<f4"])), OTHER),
    "more keys": (npz(npy(described() | {"more": 1}, bytes(24))), OTHER),
    "an unknown dtype": (npz(npy(described("<q9"), bytes(24))), OTHER),
    "a shape of words": (npz(npy(described(shape=("a",)), bytes(24))), OTHER),
    "a negative shape": (npz(npy(described(shape=(-2, -3)), bytes(24))), "should have|that can be"),
    "a huge shape": (npz(npy(described(shape=(2**40, 2**20)), bytes(24))), "4,611,686,018,427,387"),
    "a shape that overflows": (
        npz(npy(described(shape=(2**62, 4)), bytes(24))),
        "and 24 are there",
    ),
    "too few bytes": (npz(npy(described(), bytes(20))), "should have 24 bytes, and 20 are there"),
    "too many bytes": (npz(npy(described(), bytes(99))), "should have 24 bytes, and 99 are there"),
    "version 9": (npz(npy(described(), bytes(24), (9, 0))), OTHER),
    "another member": (npz(b"hello", "notes.txt"), OTHER),
    "an empty member": (npz(b""), OTHER),
    "too much": (with_bomb(), r"it unfolds to 4\.0 GiB, and at most 1\.0 GiB are taken"),
    "cut": (npz(npy(described(), bytes(24)))[:-30], "a damaged zip archive"),
    "an archive without end": (b"PK\x03\x04" + bytes(100), "a damaged zip archive"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_a_bad_file_of_arrays_is_one_sentence(name, tmp_path, refused, monkeypatch):
    monkeypatch.setattr("compress.measure.arrays.memory_bytes", lambda: 2 << 30)
    content, words = ARRAYS[name]
    (tmp_path / "i.npz").write_bytes(content)
    refused(lambda: read_arrays(tmp_path / "i.npz"), DataError, words)


def test_an_archive_is_not_unpacked_and_its_names_lead_nowhere(tmp_path):
    path = tmp_path / "in" / "i.npz"
    path.parent.mkdir()
    path.write_bytes(npz(npy(described(), bytes(24)), "../../x.npy"))
    assert list(read_arrays(path)) == ["../../x"]
    assert [one.name for one in tmp_path.rglob("*")] == ["in", "i.npz"]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">i8", "|b1", "<U3", "<c8"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_arrays_are_what_numpy_saved(order, dtype, shape, tmp_path):
    array = np.asarray(np.ones(shape).astype(dtype), order=order)
    np.savez_compressed(tmp_path / "i.npz", a=array)
    found = read_arrays(tmp_path / "i.npz")["a"]
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


def test_an_archive_of_very_many_members_is_refused(tmp_path, refused, monkeypatch):
    monkeypatch.setattr("compress.io.archives._MOST_DIRECTORY_BYTES", 1000)
    np.savez(tmp_path / "i.npz", **{f"x{number}": np.zeros(1) for number in range(30)})
    words = "it lists more members than are taken from an archive"
    refused(lambda: read_arrays(tmp_path / "i.npz"), DataError, words)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(tmp_path, refused):
    with zipfile.ZipFile(tmp_path / "i.npz", "w") as archive:
        for _ in range(2):
            archive.writestr("x.npy", npy(described(), bytes(24)))
    words = r"it has the member 'x\.npy' twice"
    refused(lambda: read_arrays(tmp_path / "i.npz"), DataError, words)


# -- images -----------------------------------------------------------------------------------


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, body=b"", depth=8, kind=0):
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body))
    return b"\x89PNG\r\n\x1a\n" + data + chunk(b"IEND", b"")


def of_format(kind, mode="RGB", size=(12, 12), **options):
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, kind, **options)
    return stream.getvalue()


IMAGES = {
    "nothing": b"",
    "text": b"hello\n",
    "a page": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "a program": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "cut": of_format("PNG", size=(90, 90))[:60],
    "cut JPEG": of_format("JPEG", size=(90, 90))[:400],
    "no size": png(0, 0),
    "a bomb": png(60_000, 60_000, bytes(64)),
    "a wide bomb": png(2**31 - 1, 1, bytes(64)),
    "a large one": png(9_000, 9_000, bytes(64)),
    "no pixels": png(12, 12),
    "a depth that is none": png(12, 12, bytes(156), depth=7),
    "a PPM without size": b"P6 0 0 255\n",
    "a negative PPM": b"P6 -3 -3 255\n" + bytes(27),
    "a PPM of words": b"P6 a b c\n",
    "floats": of_format("TIFF", "F"),
    "large numbers": of_format("TIFF", "I"),
    "a TIFF of nothing": b"II*\x00" + bytes(20),
    "a TIFF in a circle": b"II*\x00\x08\x00\x00\x00\x00\x00\x08\x00\x00\x00",
    "a GIF of nothing": b"GIF89a" + bytes(20),
    "a BMP that claims": b"BM" + struct.pack("<IHHIIiiHHI", 99, 0, 0, 54, 40, 2**30, -5, 1, 24, 0),
    "a WEBP of nothing": b"RIFF\x00\x00\x00\x00WEBPVP8 ",
}
WHOLE = {"large numbers"}


@pytest.fixture
def album(pictures, tmp_path):
    return Path(shutil.copytree(pictures, tmp_path / "album"))


@pytest.mark.parametrize("name", IMAGES)
def test_a_bad_image_is_one_sentence(name, album, refused):
    path = album / "cat" / "3.png"
    path.write_bytes(IMAGES[name])
    if name in WHOLE:
        make_images(folder=album)
        return
    words = r"cat/3\.png: (cannot be read as an image|unfolds to)"
    refused(lambda: make_images(folder=album), DataError, words)


KINDS = {
    "CMYK": of_format("JPEG", "CMYK"),
    "palette": of_format("PNG", "P"),
    "alpha": of_format("PNG", "RGBA"),
    "grey and alpha": of_format("PNG", "LA"),
    "bits": of_format("PNG", "1"),
    "frames": of_format("GIF", "P", save_all=True, append_images=[Image.new("P", (12, 12))]),
    "pages": of_format("TIFF", save_all=True, append_images=[Image.new("RGB", (12, 12))]),
    "one pixel": of_format("PNG", size=(1, 1)),
    "a line": of_format("PNG", size=(5000, 1)),
}


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_images_of_every_kind_are_read(name, grey, album):
    (album / "cat" / "3.png").write_bytes(KINDS[name])
    assert len(make_images(folder=album, grey=grey, size=8).train) == 16


def test_16_bits_are_scaled_and_not_cut_off(album):
    ramp = np.linspace(0, 65_535, 64, dtype=np.uint16).reshape(8, 8)
    for path in album.glob("*/*.png"):
        Image.fromarray(ramp).save(path)
    pixels, _ = make_images(folder=album, size=8, grey=True).train[0]
    wanted = (ramp // 257).astype(np.float32) / 127.5 - 1
    assert np.allclose(pixels[0].numpy(), wanted, atol=0.01)


def nested(album):
    for name in ("cat", "dog"):
        (album / "all" / name).parent.mkdir(exist_ok=True)
        (album / name).rename(album / "all" / name)


def one_class(album):
    shutil.rmtree(album / "dog")


def no_class(album):
    shutil.rmtree(album)
    album.mkdir()


def a_file(album):
    shutil.rmtree(album)
    album.write_text("x")


def of_folders(album):
    (album / "cat" / "3.png").unlink()
    (album / "cat" / "3.png").mkdir()


def a_link_out(album):
    (album / "cat" / "3.png").rename(album.parent / "private.png")
    (album / "cat" / "3.png").symlink_to("../../private.png")


def a_class_elsewhere(album):
    (album / "cat").rename(album.parent / "cat")
    (album / "cat").symlink_to(album.parent / "cat")


def a_part_elsewhere(album):
    for part in ("train", "test"):
        shutil.copytree(album, album.parent / part)
    no_class(album)
    for part in ("train", "test"):
        (album / part).symlink_to(album.parent / part)


FOLDERS = {
    nested: "holds no images itself, but 'all' holds folders of them; give one folder",
    one_class: "holds the one class 'cat', which leaves nothing to tell apart",
    no_class: "holds no images; give one folder of images for each class",
    a_file: "it is a file, and a folder is asked for",
    of_folders: r"cat/3\.png: it is a folder, and a file is asked for",
    a_link_out: r"cat/3\.png is a link to .*/private\.png, outside of .*; copy what it leads to",
    a_class_elsewhere: r"album/cat is a link to .*, outside of .*; copy what it leads to",
    a_part_elsewhere: r"album/train is a link to .*, outside of",
}


@pytest.mark.parametrize("change", FOLDERS, ids=lambda change: change.__name__)
def test_a_bad_folder_of_images_is_one_sentence(change, album, refused):
    change(album)
    refused(lambda: make_images(folder=album), DataError, FOLDERS[change])


def test_what_is_hidden_and_links_within_are_no_trouble(album):
    (album / ".cache").mkdir()
    (album / ".cache" / "0.png").write_text("no image")
    (album / "cat" / "._3.png").write_text("no image either")
    (album / "dog" / "again.png").symlink_to("0.png")
    (album / "dog").rename(album / "собака 犬")
    task = make_images(folder=album)
    assert task.classes == ("cat", "собака 犬")
    assert sum(len(part) for part in (task.train, task.validation, task.test)) == 21


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is kept from the superuser")
def test_a_folder_that_may_not_be_listed(album, refused):
    album.chmod(0)
    refused(lambda: make_images(folder=album), DataError, "it cannot be listed")
    album.chmod(0o700)


# -- texts ------------------------------------------------------------------------------------

TEXTS = {
    "UTF-16": ("text\n" * 9).encode("utf-16"),
    "Latin-1": "größer\n".encode("latin-1"),
    "NUL": b"a\0b\n",
    "bytes": bytes(range(256)),
    "blank": b"\n \t\n",
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_file_that_is_no_text_is_one_sentence(name, tmp_path, refused):
    (tmp_path / "t.txt").write_bytes(TEXTS[name])
    words = "not readable as UTF-8 text|the text file is empty"
    refused(lambda: read_lines(tmp_path / "t.txt"), DataError, words)


def test_a_line_of_100_mb_takes_no_memory(tmp_path):
    path = tmp_path / "t.txt"
    with path.open("w") as stream:
        for _ in range(100):
            stream.write("x" * 1_000_000)
        stream.write("\nshort\n")
    tracemalloc.start()
    assert [len(line) for line in read_lines(path)] == [10_000, 5]
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_only_so_many_characters_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("compress.tasks.text._MOST_CHARACTERS", 10)
    (tmp_path / "t.txt").write_text("".join(f"line {number}\n" for number in range(50)))
    assert read_lines(tmp_path / "t.txt") == ["line 0", "line 1"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff", "not readable as UTF-8 text .the byte 0xff at 0 is none of it"),
        (b"", "there is no text in"),
        (b"one\n\ntwo\n", "holds 2 entries, too few to hold some out"),
    ],
)
def test_a_bad_file_of_entries_is_one_sentence(content, words, tmp_path, refused):
    (tmp_path / "t.txt").write_bytes(content)
    refused(lambda: make_language(path=tmp_path / "t.txt"), DataError, words)


def test_a_folder_of_pipes_has_no_texts(tmp_path, refused):
    os.mkfifo(tmp_path / "pipe")
    refused(lambda: make_language(folder=tmp_path), DataError, "there are no text files in it")


@pytest.mark.parametrize(
    "line",
    ["no bar", "1 99 n | x", "1 ²² n | x", "1 -1 n | x", "1 x n | x", "1 5 | x", "\0 | x"],
)
def test_a_line_that_is_no_sense_is_named(line, tmp_path, refused):
    for name in FILES:
        (tmp_path / name).write_text(f"  1 license\n00001740 03 n 01 | a thing\n{line}\n")
    words = r"data\.noun: line 3 is not a sense of WordNet"
    refused(lambda: read_glosses(tmp_path), DataError, words)


# -- results of devices -----------------------------------------------------------------------

RESULTS = [
    ({"rows": []}, "rows: Tuple should have at least 1 item"),
    ({"rows": RESULT["rows"] * 1001}, "rows: Tuple should have at most 1000 items"),
    ({"rows": [{"index": "0", "stage": "x", "sha256": "0" * 64}]}, r"rows\.0\.index: Input should"),
    ({"rows": [{"index": True, "stage": "x", "sha256": "0" * 64}]}, r"rows\.0\.index"),
    ({"rows": [{"index": -1, "stage": "x", "sha256": "0" * 64}]}, r"rows\.0\.index"),
    ({"rows": [{"index": 0, "stage": "x" * 999, "sha256": "0" * 64}]}, r"rows\.0\.stage"),
    ({"rows": [{"index": 0, "stage": "x", "sha256": "g" * 64}]}, r"rows\.0\.sha256"),
    ({"samples": {"count": "1", "of": 1}}, r"samples\.count"),
    ({"samples": {"count": 0, "of": 1}}, r"samples\.count"),
    ({"schema": 2}, "schema: Input should be 1"),
    ({"kind": "bundle"}, "kind: Input should be 'compresskit-result'"),
    ({"lines": {}}, "lines: Input should be a valid list"),
    ({"lines": [3]}, r"lines\.0: Input should be a valid dict"),
    ({"lines": [{}]}, "these are not the lines of a whole session"),
    ({"lines": [{"kind": "session"}]}, "these are not the lines of a whole session"),
    ({"lines": [{"kind": "session", "schema": 1, "session": 3}]}, "these are not the lines"),
    ({"lines": [{"kind": "session", "schema": 1, "session": {"models": 3}}]}, "are not the lines"),
    ({"target": 3}, "target: Input should be a valid string"),
    ({"bundle_sha256": None}, "bundle_sha256: Input should be a valid string"),
]


@pytest.mark.parametrize(("change", "words"), RESULTS, ids=range(len(RESULTS)))
def test_a_forged_result_is_one_sentence(change, words, tmp_path, refused):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(RESULT | change))
    refused(lambda: load_result(path), RecordError, words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"lines": NaN}', "NaN is no finite number"),
        ('{"lines": -Infinity}', "-Infinity is no finite number"),
        ('{"lines": 1e400}', "1e400 is no finite number"),
        (f'{{"lines": {"1" * 5000}}}', "not readable as JSON"),
        ("[" * 200_000, "nested too deeply"),
        ("[],", "not readable as JSON"),
        ("[" + "[]," * 17_000_000 + "1]", "it has more than 16,000,000 values"),
        ("\ufeff{}", "not readable as JSON"),
    ],
    ids=range(8),
)
def test_a_result_that_is_no_json_is_one_sentence(text, words, tmp_path, refused):
    path = tmp_path / "r.json"
    path.write_text(text)
    refused(lambda: load_result(path), RecordError, words)


# -- kept answers -----------------------------------------------------------------------------


def kept(folder):
    return EpochArrays(folder, "me", {"outputs": ArraySpec((3,), "float32")}, [4])


@pytest.fixture
def answers(tmp_path):
    kept(tmp_path).write(0, [("m", {"outputs": np.ones((4, 3), np.float32)})])
    return tmp_path


def test_no_flipped_bit_of_kept_answers_is_read(answers):
    path = answers / "0000" / "outputs.npy"
    whole = path.read_bytes()
    for place in range(0, 8 * len(whole), 5):
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        with pytest.raises(DataError, match="its checksum is another"):
            kept(answers).read(0, 0, "m")


@pytest.mark.parametrize(
    "facts",
    [
        [],
        3,
        None,
        {},
        {"owner": "me"},
        {"owner": "me", "checksums": 3, "batch_checksums": []},
        {"owner": "me", "checksums": {"outputs": 3}, "batch_checksums": ["m"]},
        {"owner": "me", "checksums": {}, "batch_checksums": ["m"]},
        {"owner": ["me"], "checksums": {}, "batch_checksums": 3},
        {"owner": "me", "checksums": [[1, 2, 3]], "batch_checksums": ["m"]},
    ],
    ids=str,
)
def test_forged_facts_of_kept_answers_are_one_sentence(facts, answers, refused):
    (answers / "0000" / "epoch.json").write_text(json.dumps(facts))
    refused(lambda: kept(answers).read(0, 0, "m"), DataError)


def test_answers_of_another_form_are_not_read(answers, refused):
    other = EpochArrays(answers, "me", {"outputs": ArraySpec((3,), "int32")}, [4])
    refused(lambda: other.read(0, 0, "m"), DataError, "holds arrays of another shape or dtype")
    longer = EpochArrays(answers, "me", {"outputs": ArraySpec((5,), "float32")}, [4])
    refused(lambda: longer.read(0, 0, "m"), DataError, "holds 176 bytes where 208 were written")
