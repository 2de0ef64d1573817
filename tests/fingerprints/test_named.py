"""Files that settings name: all that is in them counts, and nothing runs away."""

import hashlib
import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.errors import DataError, RecipeError
from compress.fingerprints import FileDigestCache, named, named_files

pytestmark = pytest.mark.fast


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_files_are_found_anywhere_in_settings(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    settings = {"a": [{"b": (one, 3, "two")}], "c": two, "d": None, "e": 1.5}
    assert named_files(settings) == [sha256(b"1"), sha256(b"2")]
    assert named_files(settings, FileDigestCache()) == named_files(settings)
    for name in ("gone", "x" * 5000, "a\0b", "one/more"):
        assert named_files({"a": tmp_path / name}) == []
    assert named_files(None) == []


def test_a_file_counts_by_content_and_not_by_place(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"1")
    assert named_files([one]) == named_files([two])


def test_a_folder_counts_by_all_below_it(tmp_path):
    folder = tmp_path / "model"
    inner = folder / "deep" / "er"
    inner.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    weights = inner / "weights"
    weights.write_text("w")
    seen = [named_files([folder])]
    assert seen[0] == [f"config.json {sha256(b'{}')}", f"deep/er/weights {sha256(b'w')}"]
    for edit in (
        lambda: weights.write_text("v"),
        lambda: weights.rename(inner / "other"),
        lambda: (inner / "more").write_text(""),
        lambda: (folder / "config.json").unlink(),
        lambda: (folder / "broken").symlink_to("nowhere"),
    ):
        edit()
        seen.append(named_files([folder]))
        assert seen[-1] not in seen[:-1]
    (folder / ".git").mkdir()
    (folder / ".git" / "index").write_text("changes with every look")
    assert named_files([folder]) == seen[-1]


def test_links_count_by_what_they_lead_to(tmp_path):
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    folder.mkdir()
    (blobs / "abc").write_text("w")
    (folder / "weights").symlink_to("../blobs/abc")
    (folder / "all").symlink_to("../blobs")
    (folder / "again").symlink_to(".")
    (folder / "itself").symlink_to("itself")
    before = named_files([folder])
    assert before == [
        f"all/abc {sha256(b'w')}",
        "itself leads to nothing",
        f"weights {sha256(b'w')}",
    ]
    (blobs / "abc").write_text("v")
    assert named_files([folder]) != before


def test_pipes_in_a_folder_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("x")
    assert named_files([tmp_path]) == [f"file {sha256(b'x')}"]


def test_a_huge_folder_is_refused_in_a_sentence(tmp_path):
    for number in range(60):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "file").touch()
    with pytest.raises(RecipeError) as raised:
        named_files({"folder": tmp_path}, most_files=50)
    assert str(raised.value) == (
        f"{tmp_path}: there are over 50 files and folders in it, more than a model has; give the "
        "folder of the model itself."
    )


def test_the_whole_machine_is_refused_at_once():
    with pytest.raises(RecipeError, match=r"^/: there are over 500 files and folders in it"):
        named_files([named.Path("/")], most_files=500)


def test_a_folder_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(named.os, "scandir", refuse)
    with pytest.raises(DataError, match=r"this folder cannot be read \(Permission denied\)"):
        named_files([tmp_path])


def onnx_file(path, *locations, inside=False):
    """A model whose weights lie beside it; with ``inside``, in the body of a branch."""
    weights = []
    for number, location in enumerate(locations):
        tensor = numpy_helper.from_array(np.zeros(4, np.float32), f"w{number}")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        weights.append(tensor)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    nodes = [helper.make_node("Identity", ["w0"], ["y"])]
    body = helper.make_graph(nodes, "body", [], [output], initializer=weights)
    if inside:
        condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
        branch = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
        body = helper.make_graph([branch], "outer", [], [output], initializer=[condition])
    path.write_bytes(helper.make_model(body).SerializeToString())
    return path


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("name", ["teacher.onnx", "teacher.model"])
def test_external_data_of_an_onnx_file_count(tmp_path, inside, name):
    path = onnx_file(tmp_path / name, "a.bin", "sub/b.bin", inside=inside)
    (tmp_path / "sub").mkdir()
    for data in ("a.bin", "sub/b.bin"):
        (tmp_path / data).write_bytes(b"0" * 16)
    before = named_files([path])
    assert len(before) == 3
    (tmp_path / "sub" / "b.bin").write_bytes(b"1" * 16)
    assert named_files([path])[:2] == before[:2]
    assert named_files([path])[2] != before[2]
    (tmp_path / "a.bin").unlink()
    assert named_files([path])[1] == "a.bin is not there"


@pytest.mark.parametrize("location", ["../a.bin", "/etc/hostname", "sub/../../a.bin"])
def test_external_data_outside_of_the_folder_are_refused(tmp_path, location):
    path = onnx_file(tmp_path / "teacher.onnx", location)
    with pytest.raises(DataError) as raised:
        named_files([path])
    assert str(raised.value) == (
        f"{path}: names {location!r} for its external data, which lies outside of its own folder "
        "and is not read; save the model again with its data beside it."
    )


def test_a_link_out_of_the_folder_is_no_external_data(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_text("s")
    (folder / "a.bin").symlink_to("../secret")
    path = onnx_file(folder / "teacher.onnx", "a.bin")
    assert len(named_files([path])) == 2  # by content, as any link


@pytest.mark.parametrize("content", [b"", b"\x08", b"\x08\xff\xff\xff", b"\x08\x07" + b"x" * 99])
def test_what_is_no_onnx_file_counts_by_its_bytes(tmp_path, content):
    path = tmp_path / "teacher.onnx"
    path.write_bytes(content)
    assert named_files([path]) == [sha256(content)]


def test_a_whole_model_has_no_external_data(tmp_path):
    path = onnx_file(tmp_path / "teacher.onnx")
    assert named_files([path]) == [sha256(path.read_bytes())]
    assert onnx.load(path).graph.name == "body"
