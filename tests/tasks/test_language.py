"""Texts become entries, tokens and windows; what cannot become them is refused in a sentence."""

from __future__ import annotations

import string

import numpy as np
import pytest
import torch

from compress.errors import DataError, RecipeError
from compress.measure.perplexity import bits_per_token
from compress.tasks import TaskConfig, make_task
from compress.tasks.language import VOCABULARY, decode, encode, read_entries
from compress.training.data import head

pytestmark = pytest.mark.fast


def words(count, seed=0):
    """Different sentences of letters."""
    random = np.random.default_rng(seed)
    letters = list(string.ascii_lowercase + "  ")
    return [f"{n} " + "".join(random.choice(letters, 30)) for n in range(count)]


@pytest.fixture
def fortunes(tmp_path):
    """A folder as Debian has it: entries between lines of %, an index and a link beside a file."""
    folder = tmp_path / "fortunes"
    folder.mkdir()
    entries = words(120)
    (folder / "one").write_text("\n%\n".join(entries[:70]) + "\n%\n")
    (folder / "two").write_text("\n%\n".join(entries[60:]) + "\n%\n")
    (folder / "one.dat").write_bytes(b"\x00\xff")
    (folder / "one.u8").symlink_to("one")
    (folder / ".hidden").write_bytes(b"\xff")
    return folder


def texts_of(dataset):
    tokens = head(dataset, len(dataset)).inputs
    return "".join(decode(row) for row in tokens.tolist())


def test_a_folder_of_fortunes_becomes_windows_with_the_next_tokens_as_labels(fortunes):
    task = make_task(TaskConfig(name="language", folder=fortunes, length=20))
    assert task.classes == VOCABULARY
    assert (task.metric_name, task.direction) == ("bits_per_token", False)
    for part in (task.train, task.validation, task.test):
        batch = head(part, len(part))
        assert batch.inputs.shape == batch.labels.shape == (len(part), 20)
        assert batch.inputs.dtype == batch.labels.dtype == torch.int64
        assert torch.equal(batch.inputs[:, 1:], batch.labels[:, :-1])
        # One window goes on where the one before it ended.
        assert torch.equal(batch.labels[:-1, -1], batch.inputs[1:, 0])
    one, label = task.train[0]
    assert torch.equal(one, head(task.train, 1).inputs[0])
    assert torch.equal(label, head(task.train, 1).labels[0])


def test_entries_are_kept_apart_and_none_is_there_twice(fortunes):
    task = make_task(TaskConfig(name="language", folder=fortunes, length=20))
    parts = [texts_of(part) for part in (task.train, task.validation, task.test)]
    for entry in words(120):
        assert sum(part.count(f"<end>{entry}<end>") for part in parts) <= 1
    whole = sum(len(part) for part in (task.train, task.validation, task.test))
    tokens = sum(len(entry) + 1 for entry in words(120))
    assert abs(20 * whole - tokens) < 3 * 20
    assert 0.08 < len(task.test) / whole < 0.14


@pytest.mark.parametrize("kind", ["folder", "path"])
def test_any_text_is_divided_at_blank_lines(kind, tmp_path):
    path = tmp_path / "book" / "text.txt"
    path.parent.mkdir()
    path.write_text("\n\n".join(f"{w}\nand more %" for w in words(50)))
    place = {"path": path} if kind == "path" else {"folder": path.parent}
    assert read_entries([path]) == [f"{w}\nand more %" for w in words(50)]
    assert len(make_task(TaskConfig(name="language", length=16, **place)).train) > 50


def test_a_limit_and_a_longer_window_make_fewer_samples(fortunes):
    short, long = (TaskConfig(name="language", folder=fortunes, length=n) for n in (10, 40))
    assert len(make_task(short).train) > 3 * len(make_task(long).train)
    few = make_task(long.model_copy(update={"limit": 5})).train
    assert len(few) == 5
    assert torch.equal(few[4][0], make_task(long).train[4][0])
    assert few.without_labels()[4].equal(few[4][0])


def test_tokens_are_characters_and_what_has_none_is_other():
    assert len(VOCABULARY) == len(set(VOCABULARY)) == 99
    assert decode(encode("A tab:\t, a line:\n, ~!")) == "A tab:\t, a line:\n, ~!"
    assert decode(encode("caf\u00e9 \ufb01ne \u20ac\b")) == "cafe fine <other><other>"
    assert min(encode(string.printable)) > 0


def test_a_sample_is_scored_in_bits(fortunes):
    task = make_task(TaskConfig(name="language", folder=fortunes, length=20))
    labels = head(task.test, 4).labels.numpy()
    sure = 50.0 * np.eye(99)[labels].transpose(0, 2, 1)
    assert task.metric(sure, labels) == pytest.approx(0, abs=1e-6)
    assert task.metric is bits_per_token


def refused(**options):
    return lambda: make_task(TaskConfig(name="language", **options))


def test_a_missing_folder_names_the_package(tmp_path):
    with pytest.raises(DataError, match=r"none: there is no such folder.*apt-get install fortunes"):
        refused(folder=tmp_path / "none")()


def test_what_is_no_text_or_too_little_is_refused(tmp_path):
    empty, few, binary = (tmp_path / name for name in ("empty", "few", "binary"))
    empty.write_text("\n\n")
    few.write_text("\n\n".join(words(9)))
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"none: there is no such file"):
        refused(path=tmp_path / "none")()
    with pytest.raises(DataError, match=r"there is no text in .*empty"):
        refused(path=empty)()
    with pytest.raises(DataError, match=r"few holds 9 entries, too few to hold some out; 10 are"):
        refused(path=few)()
    with pytest.raises(DataError, match=r"binary: not readable as UTF-8 text"):
        refused(path=binary)()
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match=r"bare: there are no text files in it"):
        refused(folder=tmp_path / "bare")()
    with pytest.raises(RecipeError, match=r"a folder of text files or the path of one, not both"):
        refused(path=few, folder=tmp_path)()


def test_a_length_that_the_text_cannot_fill_is_refused(fortunes):
    message = r"has \d+ tokens, too few for windows of 1000 in training, validation and test; give"
    with pytest.raises(DataError, match=message):
        refused(folder=fortunes, length=1000)()


def test_more_text_than_memory_should_hold_is_refused(fortunes, monkeypatch):
    monkeypatch.setattr("compress.tasks.language._MOST_BYTES", 3000)
    with pytest.raises(DataError, match=r"two: over 0 MiB of text with the files before it"):
        refused(folder=fortunes)()
