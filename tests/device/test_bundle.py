"""A bundle holds what a device needs, and a device takes nothing else from one."""

import hashlib
import json
import os
import stat
import warnings
import zipfile

import numpy as np
import pytest

from compress.device.bundle import Samples, write_bundle
from compress.errors import DataError, MeasurementError, RecordError, StorageError
from compress.measure.ondevice.bundle import BundleError, unpack
from compress.measure.ondevice.session import checked_session

from .rebuilding import classes_of, rebuilt


def manifest_of(path):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("MANIFEST.json"))


# -- writing ----------------------------------------------------------------------------------


def test_a_bundle_declares_all_that_is_in_it(bundle, run, tmp_path):
    manifest, sha256 = unpack(bundle, tmp_path / "there")
    with zipfile.ZipFile(bundle) as archive:
        names = set(archive.namelist())
        assert sha256 == hashlib.sha256(archive.read("MANIFEST.json")).hexdigest()
    assert names == {"MANIFEST.json", *manifest["members"]}
    assert {name for name in names if name.endswith(".py")} == {"__main__.py"}
    for name, entry in manifest["members"].items():
        if name == "__main__.py":
            continue
        content = (tmp_path / "there" / name).read_bytes()
        assert len(content) == entry["bytes"]
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    rows = run.record.rows
    assert [row["fingerprint"] for row in manifest["rows"]] == ["f0", "f1"]
    assert [m["sha256"] for m in manifest["session"]["models"]] == [
        row.measurements[0].artifact.sha256 for row in rows
    ]
    assert (manifest["record"], manifest["target"]) == ("tiny", "laptop")
    expected = np.load(tmp_path / "there/expected/1.npy")
    np.testing.assert_allclose(expected, run.test.inputs[""] @ run.weights[1], rtol=1e-4, atol=1e-5)


def test_of_several_outputs_all_are_in_it(run, tmp_path):
    def predict(model, inputs):
        samples = len(inputs[""])
        return [np.zeros((samples, 3), np.float32), np.ones((samples, 2), np.int64)]

    write_bundle(run.record, run.root, tmp_path / "b.zip", run.test, predict=predict)
    manifest, _ = unpack(tmp_path / "b.zip", tmp_path / "there")
    session = manifest["session"]
    assert session["expected"] == ["expected/0.npy", "expected/1.npy"]
    assert session["further"] == [["expected/0-1.npy"], ["expected/1-1.npy"]]
    assert np.load(tmp_path / "there/expected/1-1.npy").dtype == np.int64
    checked_session(session | {"plan": None})


def test_the_same_run_and_the_same_answers_give_the_same_bytes(run, tmp_path):
    def predict(model, inputs):  # the last bit of a runtime's answers may differ from call to call
        return [np.zeros((len(inputs[""]), 3), np.float32)]

    for name in ("one.zip", "again.zip"):
        write_bundle(run.record, run.root, tmp_path / name, run.test, predict=predict)
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "one.zip").read_bytes()


def test_the_baseline_comes_first_whichever_row_it_is(run, tmp_path):
    run.record.baseline = 1
    write_bundle(run.record, run.root, tmp_path / "b.zip", run.test)
    assert [row["index"] for row in manifest_of(tmp_path / "b.zip")["rows"]] == [1, 0]


def test_samples_are_drawn_over_the_whole_split_with_their_labels(run, tmp_path):
    x = np.repeat(np.arange(5000, dtype=np.float32)[:, None], 4, axis=1)
    test = Samples({"": x}, np.arange(5000), "accuracy", classes_of)
    for samples, count in ((None, 2000), (7, 7)):
        path, there = tmp_path / f"{count}.zip", tmp_path / f"there-{count}"
        contents = write_bundle(
            run.record, run.root, path, test, samples=samples, predict=lambda *_: [x[:3]]
        )
        assert (contents.samples, contents.of_samples, contents.rows) == (count, 5000, 2)
        assert contents.bytes == path.stat().st_size
        unpack(path, there)
        labels = np.load(there / "labels.npy")
        assert len(labels) == len(set(labels.tolist())) == count
        np.testing.assert_array_equal(np.load(there / "inputs/0.npy")[:, 0], labels)
        if count == 2000:
            assert np.histogram(labels, 5, (0, 5000))[0].min() > 300


def test_large_samples_are_fewer(run, tmp_path, monkeypatch):
    monkeypatch.setattr("compress.device.bundle._MOST_INPUT_BYTES", 16 * 10)
    assert write_bundle(run.record, run.root, tmp_path / "b.zip", run.test).samples == 10


def test_unlabeled_samples_are_labeled_by_the_baseline(run, tmp_path):
    test = Samples(run.test.inputs, None, "accuracy", classes_of)
    write_bundle(run.record, run.root, tmp_path / "b.zip", test)
    unpack(tmp_path / "b.zip", tmp_path / "there")
    np.testing.assert_array_equal(np.load(tmp_path / "there/labels.npy"), run.test.labels)


def test_a_metric_of_the_users_own_leaves_scores_out(run, tmp_path):
    test = Samples(run.test.inputs, run.test.labels, None, classes_of)
    write_bundle(run.record, run.root, tmp_path / "b.zip", test)
    session = manifest_of(tmp_path / "b.zip")["session"]
    assert (session["labels"], session["metric"]) == (None, None)


def test_a_model_that_does_not_run_here_is_left_for_the_device(run, tmp_path):
    def predict(model, inputs):
        if "prune" in str(model):
            raise MeasurementError("no.")
        return [inputs[""]]

    write_bundle(run.record, run.root, tmp_path / "b.zip", run.test, predict=predict)
    assert manifest_of(tmp_path / "b.zip")["session"]["expected"] == ["expected/0.npy", None]


def test_what_cannot_be_bundled_is_refused(run, tmp_path):
    def refused(error, match, **settings):
        with pytest.raises(error, match=match):
            write_bundle(run.record, run.root, tmp_path / "b.zip", **{"test": run.test, **settings})

    refused(RecordError, "no row was measured on 'pi'; known are laptop", target="pi")
    refused(DataError, "samples must be at least 1; got 0", samples=0)
    refused(DataError, "there are no test samples", test=Samples({}, None, None, classes_of))
    model = run.root / "stages/01-prune/model.onnx"
    model.write_bytes(model.read_bytes() + b"\0")
    refused(RecordError, r"row 1 \(prune\) is not the one that was measured")
    model.unlink()
    refused(RecordError, r"the model of row 1 \(prune\) is gone")
    run.record.rows[0].measurements.clear()
    refused(RecordError, "its baseline, row 0, was not measured on 'laptop'")
    run.record.rows[1].measurements.clear()
    refused(RecordError, "known are none yet")


def test_a_disk_that_refuses_leaves_no_part(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="the bundle could not be written"):
        write_bundle(run.record, run.root, tmp_path / "file" / "b.zip", run.test)


# -- unpacking --------------------------------------------------------------------------------


def refused(bundle, folder, match):
    with pytest.raises(BundleError, match=match):
        unpack(bundle, folder)
    inside = [path for path in folder.parent.rglob("*") if path.name in ("evil", "evil.txt")]
    assert not inside


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("name", ["models/01-prune/model.onnx", "labels.npy", "__main__.py"])
def test_one_flipped_byte_is_found(bundle, tmp_path, name):
    with zipfile.ZipFile(bundle) as archive:
        info = archive.getinfo(name)
    start = info.header_offset + 30 + len(name) + 20  # its header, name and zip64 field
    flip(bundle, start + info.compress_size // 2)
    refused(bundle, tmp_path / "there", f"the member '{name}' is damaged .*copy the bundle")


def test_every_flipped_byte_is_found_or_changes_nothing(bundle, tmp_path):
    whole = bundle.read_bytes()
    for number, place in enumerate(range(0, len(whole), max(1, len(whole) // 150))):
        bundle.write_bytes(whole)
        flip(bundle, place)
        there = tmp_path / f"there-{number}"
        try:
            manifest, _ = unpack(bundle, there)
        except BundleError:
            continue
        # Dates and attributes of members are not looked at.
        for name, entry in manifest["members"].items():
            if not name.endswith(".py"):
                content = (there / name).read_bytes()
                assert hashlib.sha256(content).hexdigest() == entry["sha256"]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_bundle_is_refused(bundle, tmp_path, share):
    content = bundle.read_bytes()
    bundle.write_bytes(content[: int(share * len(content))])
    refused(bundle, tmp_path / "there", "not a whole bundle .*; copy it again")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../evil",
            "models/../../evil",
            "/evil",
            "C:evil",
            "C:\\evil",
            "..\\evil",
            "models//evil",
        ),
        *("./evil", "evil/", "\\\\host\\evil"),
    ],
)
def test_names_that_lead_out_are_refused(bundle, tmp_path, name):
    def add(members, manifest):
        members[name] = b"evil"

    rebuilt(bundle, add)
    refused(bundle, tmp_path / "there", "leads out of the bundle")


def test_links_are_refused(bundle, tmp_path):
    link = zipfile.ZipInfo("evil")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(bundle, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    refused(bundle, tmp_path / "there", "the member 'evil' is a link, and must be a file")


def test_members_that_are_not_declared_are_refused(bundle, tmp_path):
    with zipfile.ZipFile(bundle, "a") as archive:
        archive.writestr("evil.txt", "x")
    refused(bundle, tmp_path / "there", r"'evil\.txt' is not declared in MANIFEST\.json")


def test_members_that_are_declared_must_be_there(bundle, tmp_path):
    rebuilt(bundle, lambda members, _: members.pop("labels.npy"))
    refused(bundle, tmp_path / "there", r"the member 'labels\.npy' is missing")


@pytest.mark.parametrize("name", ["labels.npy", "LABELS.npy"])
def test_members_that_are_there_twice_are_refused(bundle, tmp_path, name):
    with zipfile.ZipFile(bundle, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it minds, and does it
        archive.writestr(name, "x")
    refused(bundle, tmp_path / "there", f"the member '{name}' is there twice")


def test_a_bomb_is_not_unpacked_beyond_what_it_declares(bundle, tmp_path):
    with zipfile.ZipFile(bundle) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    members["labels.npy"] = bytes(50 << 20)
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert bundle.stat().st_size < 1 << 20
    there = tmp_path / "there"
    refused(bundle, there, r"'labels\.npy' is larger than the \d+ bytes that it declares")
    assert sum(path.stat().st_size for path in there.rglob("*") if path.is_file()) < 1 << 20


def test_more_than_a_device_takes_is_refused_before_anything_is_written(bundle, tmp_path):
    def inflate(_, manifest):
        manifest["members"]["labels.npy"] = {"bytes": 1 << 50, "sha256": ""}

    with zipfile.ZipFile(bundle) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    manifest = json.loads(members["MANIFEST.json"])
    inflate(members, manifest)
    members["MANIFEST.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(bundle, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    there = tmp_path / "there"
    refused(bundle, there, "its members take 1073741824 MiB; at most 4096 MiB")
    assert not list(there.iterdir())


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_packing_is_refused(bundle, tmp_path, method):
    with zipfile.ZipFile(bundle, "a", method) as archive:
        archive.writestr("evil", "x")
    refused(bundle, tmp_path / "there", "'evil' is encrypted or packed unusually")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.update(kind="other"), "is not that of a bundle"),
        (lambda m: m.update(schema=9), "a bundle of schema 9, and this program knows 1"),
        (lambda m: m.update(members=[]), "lacks members, rows, plans or session"),
        (lambda m: m["members"].update(x={"bytes": -1}), "lacks members, rows, plans or session"),
        (lambda m: m.pop("session"), "lacks members, rows, plans or session"),
    ],
)
def test_a_manifest_that_is_none_is_refused(bundle, tmp_path, change, said):
    with zipfile.ZipFile(bundle) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    manifest = json.loads(members["MANIFEST.json"])
    change(manifest)
    members["MANIFEST.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(bundle, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    refused(bundle, tmp_path / "there", said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", r"MANIFEST\.json is damaged"),
        (b"[" * 100_000, r"MANIFEST\.json is damaged"),
        (b" " * (5 << 20), r"MANIFEST\.json has more than 4194304 bytes"),
        (None, r"there is no MANIFEST\.json in it; this is no bundle"),
    ],
)
def test_a_zip_without_a_readable_manifest_is_refused(tmp_path, content, said):
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("MANIFEST.json" if content is not None else "other", content or b"")
    refused(path, tmp_path / "there", said)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    refused(tmp_path / "gone.zip", tmp_path / "there", r"gone\.zip: there is no such bundle\.")
    os.mkfifo(tmp_path / "pipe.zip")
    refused(tmp_path / "pipe.zip", tmp_path / "there", "it is no file; give the bundle")
    refused(tmp_path, tmp_path / "there", "it is no file; give the bundle itself")


def test_programs_are_checked_but_left_in_the_bundle(bundle, tmp_path):
    unpack(bundle, tmp_path / "there")
    assert not list((tmp_path / "there").rglob("*.py"))
