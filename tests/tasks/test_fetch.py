from __future__ import annotations

import gzip
import os

import pytest

from compress.errors import DataError, StorageError
from compress.tasks.fetch import download
from compress.tasks.idx import read_idx

pytestmark = pytest.mark.fast


def test_files_are_fetched_and_checked(tmp_path, served, write_idx):
    source, address = served
    files = [write_idx(source, (6, 4, 4), "a.gz"), write_idx(source, (6,), "b.gz")]
    download(files, address, tmp_path / "new" / "folder")
    for file in files:
        path = tmp_path / "new" / "folder" / file.name
        assert read_idx(path, file).shape == file.shape
    assert sorted(os.listdir(tmp_path / "new" / "folder")) == ["a.gz", "b.gz"]


def test_a_right_file_is_kept_and_a_wrong_one_replaced(tmp_path, served, write_idx):
    source, address = served
    kept, wrong = write_idx(tmp_path, name="a.gz"), write_idx(source, name="b.gz")
    (tmp_path / "b.gz").write_bytes(b"cut sho")
    download([kept, wrong], address, tmp_path)  # a.gz is not served: fetching it would fail
    assert read_idx(tmp_path / "b.gz", wrong).shape == wrong.shape


def test_an_altered_file_never_gets_its_name(tmp_path, served, write_idx):
    source, address = served
    file = write_idx(source)
    payload = gzip.decompress((source / file.name).read_bytes())
    (source / file.name).write_bytes(gzip.compress(payload[:-1] + b"\xff"))
    with pytest.raises(DataError, match=r"not the published file .*SHA-256"):
        download([file], address, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []


def test_a_file_that_is_far_too_long_is_not_read_to_its_end(tmp_path, served, write_idx):
    source, address = served
    file = write_idx(source)
    (source / file.name).write_bytes(bytes(file.size_bytes + 1))
    with pytest.raises(DataError, match="serves more than 112 bytes"):
        download([file], address, tmp_path / "out", overhead_bytes=0)
    assert not (tmp_path / "out").exists()


def test_a_missing_page_says_what_would_do(tmp_path, served, write_idx):
    _, address = served
    with pytest.raises(DataError, match=r"items.gz: could not be downloaded .*404.* as `folder`"):
        download([write_idx(tmp_path / "elsewhere")], address, tmp_path)


def test_an_address_without_a_server_says_what_would_do(tmp_path, served, write_idx):
    file = write_idx(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"could not be downloaded .*check the connection"):
        download([file], "http://127.0.0.1:1/", tmp_path)


def test_a_disk_that_refuses_is_a_storage_error(tmp_path, served, write_idx):
    source, address = served
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"could not be written .*free space or give another"):
        download([write_idx(source)], address, tmp_path / "file" / "folder")
