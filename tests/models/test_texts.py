"""Texts as tokens, and the tasks that are made of them."""

import importlib.util
from pathlib import Path

import pytest
import torch

from compress.errors import DataError, MissingExtra, RecipeError
from compress.tasks import TaskConfig, make_task
from compress.tasks.text import read_lines
from compress.tasks.tokens import TokenDataset, tokenize
from compress.tasks.wordnet import CLASSES, FILES, read_glosses
from compress.training.data import head, is_labeled, read

pytestmark = pytest.mark.fast


def config(texts, bert, **options):
    return TaskConfig(name="text", path=texts, tokenizer=bert, **options)


def test_texts_become_ids_between_marks_and_padding(bert):
    data = tokenize(["a small animal", "water"], bert, 6)
    first, second = data[0], data[1]
    assert first["input_ids"].tolist() == [2, 4, 12, 14, 3, 0]
    assert first["attention_mask"].tolist() == [1, 1, 1, 1, 1, 0]
    assert second["attention_mask"].tolist() == [1, 1, 1, 0, 0, 0]
    assert first["input_ids"].dtype == torch.int64


def test_long_texts_are_cut_and_keep_their_last_mark(bert):
    ids = tokenize(["the " * 50], bert, 8)[0]["input_ids"].tolist()
    assert ids == [2, *[5] * 6, 3]


def test_batches_are_those_of_single_samples(bert):
    data = tokenize(["a plant", "a stone that is old", "fire"], bert, 9)
    (batch,) = read(data, 3)
    for name in ("input_ids", "attention_mask"):
        assert torch.equal(batch.inputs[name], torch.stack([data[i][name] for i in range(3)]))


def test_what_stands_for_padding_is_the_tokenizers_own(bert):
    (bert / "tokenizer_config.json").write_text('{"pad_token": {"content": "[UNK]"}}')
    assert tokenize(["fire"], bert, 5)[0]["input_ids"].tolist()[-1] == 1


def test_the_task_holds_out_a_tenth_and_has_no_labels(texts, bert):
    task = make_task(config(texts, bert, max_length=12))
    assert [len(part) for part in (task.train, task.validation, task.test)] == [96, 12, 12]
    assert not is_labeled(task.train)
    assert task.metric_name == "similarity_spearman"
    assert task.direction
    assert head(task.test, 2).inputs["input_ids"].shape == (2, 12)
    rows = torch.cat([part.inputs for part in (task.train, task.validation, task.test)])
    assert len(rows.unique(dim=0)) == 120


def test_the_split_is_the_same_each_time_and_a_limit_is_a_sample(texts, bert):
    whole, again = (make_task(config(texts, bert)) for _ in range(2))
    assert torch.equal(whole.train.inputs, again.train.inputs)
    part = make_task(config(texts, bert, limit=10))
    assert isinstance(part.train, TokenDataset)
    assert torch.equal(part.train.inputs, whole.train.inputs[:10])
    ordered = tokenize(read_lines(texts), bert, 64).inputs
    assert not torch.equal(part.train.inputs, ordered[:10])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the text file is empty; it needs one text on each line"),
        (b" \n\n\t\n", "the text file is empty"),
        (b"\xff\xfe\x00", "not readable as UTF-8 text"),
        (b"one\ntwo\none\n", "2 different texts are too few to hold some out"),
        (None, "there is no such file"),
    ],
)
def test_files_that_are_refused(content, said, texts, bert):
    texts.unlink()
    if content is not None:
        texts.write_bytes(content)
    with pytest.raises(DataError, match=said):
        make_task(config(texts, bert))


def test_lines_without_end_are_read_in_bounded_memory(tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("x" * 1_000_000 + "\nshort\n")
    lines = read_lines(path)
    assert [len(line) for line in lines] == [10_000, 5]


def test_tokenizers_that_are_refused(texts, bert):
    with pytest.raises(DataError, match="max_length 2 leaves no room for a text"):
        make_task(config(texts, bert, max_length=2))
    (bert / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"tokenizer\.json: not a readable tokenizer"):
        make_task(config(texts, bert))
    (bert / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"there is no tokenizer\.json in it; AutoTokenizer"):
        make_task(config(texts, bert))


def test_without_tokenizers_the_extra_is_named(texts, bert, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tokenizers" else found(name)
    )
    with pytest.raises(MissingExtra, match=r"pip install 'compresskit\[transformers\]'"):
        make_task(config(texts, bert))


def test_an_option_that_a_task_needs_is_asked_for(texts):
    with pytest.raises(RecipeError, match=r"task\.tokenizer: the task 'text' needs it; write"):
        make_task(TaskConfig(name="text", path=texts))


LICENSE = "  1 This software and database is being provided to you\n"
SENSES = {
    "data.noun": [
        '00001740 05 n 01 animal 0 000 | a small animal; "the animal moves"  ',
        "00001741 20 n 01 plant 0 000 | a large green plant",
        "00001742 18 n 01 maker 0 000 | a person who makes water; or fire",
    ],
    "data.verb": ["00002000 38 v 01 move 0 000 01 + 02 00 | is moved from a house"],
    "data.adj": ["00003000 00 a 01 old 0 000 | very old", "00003001 00 a 01 aged 0 000 | very old"],
    "data.adv": ["00004000 02 r 01 newly 0 000 | in a new state"],
}


@pytest.fixture
def wordnet(tmp_path):
    folder = tmp_path / "wordnet"
    folder.mkdir()
    for name, lines in SENSES.items():
        more = [f"0001{n:04} {n % 3:02} n 01 word 0 000 | kind {n} of act" for n in range(1000)]
        (folder / name).write_text(LICENSE + "\n".join([*lines, *more]) + "\n")
    return folder


def test_the_lexicographers_files_are_45():
    assert len(CLASSES) == 45
    assert CLASSES[5] == "noun.animal"
    assert CLASSES[38] == "verb.motion"
    assert CLASSES[44] == "adj.ppl"


def test_definitions_come_once_and_without_examples(wordnet):
    glosses = read_glosses(wordnet)
    assert glosses["a small animal"] == 5
    assert glosses["a person who makes water; or fire"] == 18
    assert glosses["is moved from a house"] == 38
    assert len(glosses) == 6 + 1000


def test_the_wordnet_task_may_have_labels(wordnet, bert, monkeypatch):
    monkeypatch.setattr("compress.tasks.wordnet._TEST_GLOSSES", 20)
    monkeypatch.setattr("compress.tasks.wordnet._VALIDATION_GLOSSES", 10)
    plain = make_task(TaskConfig(name="wordnet", folder=wordnet, tokenizer=bert))
    labeled = make_task(TaskConfig(name="wordnet", folder=wordnet, tokenizer=bert, labels=True))
    assert torch.equal(plain.train.inputs, labeled.train.inputs)
    assert not is_labeled(plain.train)
    assert is_labeled(labeled.train)
    assert labeled.metric == "accuracy"
    assert labeled.classes == CLASSES
    assert plain.train.inputs.shape == (976, 32)
    assert set(labeled.test.labels.tolist()) <= set(range(45))


def test_too_few_glosses_are_refused(wordnet, bert):
    with pytest.raises(DataError, match=r"task 'wordnet': 1006 texts are too few to hold 2000 out"):
        make_task(TaskConfig(name="wordnet", folder=wordnet, tokenizer=bert))


@pytest.mark.parametrize("line", ["no bar here", "00001740 77 n 01 x 0 000 | a class too many"])
def test_damaged_wordnet_files_are_one_sentence(wordnet, line):
    (wordnet / "data.verb").write_text(f"{LICENSE}{line}\n")
    with pytest.raises(DataError, match=r"data\.verb: line 2 is not a sense of WordNet"):
        read_glosses(wordnet)


def test_missing_wordnet_says_how_to_get_it(wordnet, bert, monkeypatch):
    monkeypatch.setattr("compress.tasks.wordnet.DEBIAN_FOLDER", Path("/nowhere"))
    (wordnet / FILES[2]).unlink()
    with pytest.raises(DataError, match=r"looked in .*, /nowhere. .*apt-get install wordnet-base"):
        make_task(TaskConfig(name="wordnet", folder=wordnet, tokenizer=bert))
