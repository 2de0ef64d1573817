"""A finished run whose files are damaged: repeated, it is whole again, or says what is wrong."""

import random
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from compress import QuantizeStage, Recipe, Record
from compress.cache import CacheEntry
from compress.io.atomic import process_tag
from compress.stages import TrainStage
from tests.covering import covering, kept_of

STAGES = (TrainStage(epochs=1, batch_size=64), QuantizeStage())


def run(candidate, task, target, folder, cache):
    events = []
    record = Recipe(name="faults", stages=STAGES).run(
        candidate,
        task,
        targets=[target],
        workdir=folder,
        observer=events.append,
        cache=cache,
        report=False,
    )
    return record, " ".join(e.get("text", e.get("why", "")) for e in events)


def content(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def facts_of(record):
    return [
        (row.fingerprint, row.macs, m.accuracy, m.artifact)
        for row in record.rows
        for m in row.measurements
    ]


@pytest.fixture
def finished(candidate, task, target, tmp_path):
    record, _ = run(candidate, task, target, tmp_path / "good", tmp_path / "store")
    return record, content(tmp_path / "good")


def again(candidate, task, target, tmp_path, cache, edit):
    """Copy the run, edit the copy and repeat it: record, what was said, and what is there."""
    folder = tmp_path / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tmp_path / "good", folder)
    edit(folder)
    record, said = run(candidate, task, target, folder, cache)
    assert Record.load(folder).dumps() == record.dumps()
    return record, said, content(folder)


def flip(draw, path):
    damaged = bytearray(path.read_bytes())
    damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    path.write_bytes(damaged)


# What every run writes anew, or adds to.
ANEW = ("record.json", "log.jsonl")


@pytest.mark.parametrize(("kind", "cache"), covering(("flip", "delete"), ("whole", "none"), each=1))
def test_any_file_may_be_damaged(kind, cache, finished, candidate, task, target, tmp_path):
    first, good = finished
    draw = random.Random(kind)
    # Without the store much is measured again.
    for name in good if cache == "whole" else draw.sample(sorted(good), 6):

        def edit(folder, name=name):
            flip(draw, folder / name) if kind == "flip" else (folder / name).unlink()

        place = tmp_path / "store" if cache == "whole" else "none"
        record, said, found = again(candidate, task, target, tmp_path, place, edit)
        assert record.status == "done"
        assert facts_of(record) == facts_of(first), name
        models = [n for n in good if n.name.startswith("model") or n.parent.name == "candidate"]
        assert all(found[model] == good[model] for model in models), name
        if "00-input" in name.parts and name.parent.name == "candidate":
            continue  # written by every run
        if kind == "flip" and name.name not in ANEW:
            assert name.name in said, (name, said)
        if cache == "whole" and name.name not in ANEW:
            assert found[name] == good[name], name


def test_two_files_may_be_exchanged(finished, candidate, task, target, tmp_path):
    first, good = finished
    draw = random.Random(0)
    for _ in range(6):
        one, other = draw.sample(sorted(good), 2)

        def edit(folder, one=one, other=other):
            (folder / one).write_bytes(good[other])
            (folder / other).write_bytes(good[one])

        record, said, _ = again(candidate, task, target, tmp_path, tmp_path / "store", edit)
        assert facts_of(record) == facts_of(first)
        # Of two files of one result the first that is damaged is named.
        anew = [n.name in ANEW or n.parts[1:3] == ("00-input", "candidate") for n in (one, other)]
        assert one.name in said or other.name in said or all(anew), (one, other, said)


def test_a_record_that_was_edited_is_set_aside(finished, candidate, task, target, tmp_path):
    first, _ = finished
    value = first.rows[1].measurements[0].accuracy.value

    def edit(folder):
        text = (folder / "record.json").read_text()
        assert text.count(f'"value": {value!r}')
        (folder / "record.json").write_text(text.replace(f'"value": {value!r}', '"value": 0.999'))

    record, said, found = again(candidate, task, target, tmp_path, "none", edit)
    assert facts_of(record) == facts_of(first)
    assert "its checksum is another" in said
    assert "set aside as record.json.damaged, and is made again" in said
    assert any(path.name == "record.json.damaged" for path in found)


def test_a_manifest_of_an_earlier_version_is_not_used(finished, candidate, task, target, tmp_path):
    def edit(folder):
        (folder / "stages/01-train/stage.json").write_text('{"key": "0", "seconds": 1}')

    record, said, _ = again(candidate, task, target, tmp_path, "none", edit)
    assert "stage.json is of an earlier version of compresskit" in said
    assert not record.rows[1].cached
    assert "earlier version" in record.rows[1].reason


MANIFESTS = ("stages/01-train/stage.json", "stages/00-input/measured-replay")
FORGED = [
    {},
    {"result": 3, "depends": 3},
    {"result": {}, "depends": {}},
    {"result": {"measurement": {"target": 3}, "macs": "many"}, "depends": None},
    {"result": {"fingerprint": 3, "seconds": "x", "notes": 3, "history": 3, "widths": 3}},
]


@pytest.mark.parametrize("facts", FORGED, ids=range(len(FORGED)))
@pytest.mark.parametrize("name", kept_of(MANIFESTS, MANIFESTS[:1]))
def test_a_manifest_that_somebody_else_wrote_is_not_used(
    name, facts, finished, candidate, task, target, tmp_path
):
    def edit(folder):
        path = (folder / name).with_suffix(".json")
        entry = CacheEntry.loads(path.read_text())
        path.write_text(replace(entry, facts=facts).dumps())

    record, _, _ = again(candidate, task, target, tmp_path, "none", edit)
    assert record.status == "done"
    assert facts_of(record) == facts_of(finished[0])


def test_what_a_killed_lowering_left_is_removed(finished, candidate, task, target, tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    machine = process_tag().rpartition("-")[0]
    name = f"compresskit-{machine}-{gone.pid}-draft"

    def edit(folder):
        (folder / "stages/01-train" / name).mkdir()
        (folder / "stages/01-train" / name / "model.onnx").write_text("half of it")

    _, _, found = again(candidate, task, target, tmp_path, tmp_path / "store", edit)
    assert not [path for path in found if name in path.parts]


def test_a_log_keeps_its_whole_lines_after_a_kill(finished, candidate, task, target, tmp_path):
    def edit(folder):
        with (folder / "log.jsonl").open("a") as stream:
            stream.write('{"time_s": 1, "ev')

    _, said, found = again(candidate, task, target, tmp_path, tmp_path / "store", edit)
    assert "log.jsonl: its last line was cut short, and is left out" in said
    (log,) = [text for path, text in found.items() if path.name == "log.jsonl"]
    assert b'"ev{' not in log
