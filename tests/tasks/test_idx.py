from __future__ import annotations

import gzip
import tracemalloc
from dataclasses import replace

import pytest

from compress.errors import DataError
from compress.tasks.idx import IdxFile, read_idx

pytestmark = pytest.mark.fast


def test_items_are_read_in_their_shape(tmp_path, write_idx):
    expected = write_idx(tmp_path)
    items = read_idx(tmp_path / "items.gz", expected)
    assert items.shape == (6, 4, 4)
    assert items.tobytes() == gzip.decompress((tmp_path / "items.gz").read_bytes())[16:]


def test_a_file_compressed_anew_is_accepted(tmp_path, write_idx):
    expected = write_idx(tmp_path)
    path = tmp_path / "items.gz"
    before = path.read_bytes()
    path.write_bytes(gzip.compress(gzip.decompress(before), compresslevel=1, mtime=5))
    assert path.read_bytes() != before
    assert read_idx(path, expected).shape == expected.shape


def refused(path, expected, match: str) -> None:
    with pytest.raises(DataError, match=match) as caught:
        read_idx(path, expected)
    assert str(path) in str(caught.value)


def test_a_file_cut_short_is_refused(tmp_path, write_idx):
    expected, path = write_idx(tmp_path), tmp_path / "items.gz"
    path.write_bytes(path.read_bytes()[:-10])
    refused(path, expected, "ends too early; delete it and get the data set again")


def test_one_altered_byte_is_refused(tmp_path, write_idx):
    expected, path = write_idx(tmp_path), tmp_path / "items.gz"
    payload = bytearray(gzip.decompress(path.read_bytes()))
    payload[-1] ^= 1
    path.write_bytes(gzip.compress(bytes(payload)))
    refused(path, expected, "SHA-256 is not the published one")


def test_a_damaged_stream_is_refused(tmp_path, write_idx):
    expected, path = write_idx(tmp_path), tmp_path / "items.gz"
    contents = bytearray(path.read_bytes())
    contents[-6] ^= 1  # in the checksum that closes a gzip file
    path.write_bytes(bytes(contents))
    refused(path, expected, "not a gzip file")


def test_a_file_that_is_not_gzip_is_refused(tmp_path, write_idx):
    expected, path = write_idx(tmp_path), tmp_path / "items.gz"
    path.write_bytes(b"<html>not found</html>")
    refused(path, expected, "not a gzip file")


@pytest.mark.parametrize("shape", [(96,), (4, 6, 4), (6, 4, 5)])
def test_another_header_is_refused(tmp_path, write_idx, shape):
    expected = replace(write_idx(tmp_path), shape=shape)
    refused(tmp_path / "items.gz", expected, "its header is 00000803.* where items.gz has 000008")


@pytest.mark.parametrize(("change", "match"), [(b"x", "more than that"), (b"", "it holds 111,")])
def test_another_length_is_refused(tmp_path, write_idx, change, match):
    expected, path = write_idx(tmp_path), tmp_path / "items.gz"
    payload = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(payload + change if change else payload[:-1]))
    refused(path, expected, match)


def test_a_bomb_does_not_fill_memory(tmp_path):
    path = tmp_path / "bomb.gz"
    expected = IdxFile("bomb.gz", (1000,), "0" * 64)
    path.write_bytes(gzip.compress(expected.header + bytes(50_000_000)))
    tracemalloc.start()
    refused(path, expected, "more than that, not 1,008 bytes")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 5_000_000


def test_a_missing_file_is_refused(tmp_path, write_idx):
    refused(tmp_path / "other.gz", write_idx(tmp_path), "there is no such file")
