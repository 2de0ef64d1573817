"""Files of columns: what their names say, and one sentence for each damage."""

import json

import numpy as np
import pytest
import torch

from compress.errors import DataError
from compress.tasks import TaskConfig, make_task
from compress.tasks.arrays import ArrayDataset
from compress.tasks.columns import Columns, as_column, tables_of, task_of_tables
from compress.tasks.npz import make_task as npz_task

X, Y = np.arange(120, dtype="f4").reshape(40, 3), np.arange(40) % 2


@pytest.fixture
def npz(tmp_path):
    """The task of some arrays."""

    def of(**arrays):
        np.savez(tmp_path / "d.npz", **arrays)
        return npz_task(path=tmp_path / "d.npz")

    return of


@pytest.fixture
def parquet(tmp_path):
    """The task of a table with some options."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    def of(columns, **options):
        pq.write_table(pa.table(columns), tmp_path / "d.parquet")
        return make_task(TaskConfig(name="parquet", path=str(tmp_path / "d.parquet"), **options))

    return of


@pytest.mark.parametrize("names", [("x", "y"), ("inputs", "labels"), ("x", "target")])
def test_plain_names_are_input_and_label(npz, names):
    task = npz(**dict(zip(names, (X, Y), strict=True)))
    assert isinstance(task.train, ArrayDataset)
    assert [len(part) for part in (task.train, task.validation, task.test)] == [32, 4, 4]
    assert all(float(x[0]) // 3 % 2 == int(y) for x, y in task.train)


@pytest.mark.parametrize("form", ["{split}_{name}", "{name}_{split}", "{split}.{name}"])
def test_names_say_the_split(npz, form):
    arrays = {
        form.format(split=split, name=name): array[:size]
        for split, size in (("train", 20), ("val", 5), ("test", 10))
        for name, array in (("x", X), ("y", Y))
    }
    task = npz(**arrays)
    assert [len(part) for part in (task.train, task.validation, task.test)] == [20, 5, 10]
    less = npz(**{name: array for name, array in arrays.items() if "val" not in name})
    assert [len(part) for part in (less.train, less.validation, less.test)] == [18, 2, 10]


def test_other_names_are_inputs_by_name(npz):
    task = npz(image=X, depth=X[:, :1], label=Y)
    assert isinstance(task.train, Columns)
    assert {name: tuple(one.shape) for name, one in task.train[0].items()} == {
        "image": (3,),
        "depth": (1,),
        "label": (),
    }
    batch = task.train.__getitems__([0, 1])
    assert batch["image"].shape == (2, 3)


def test_the_same_file_is_split_the_same_way(npz):
    one, other = (npz(x=X, y=Y) for _ in range(2))
    assert torch.equal(one.test.inputs, other.test.inputs)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"x": X, "y": Y[:9]}, r"differ in their number of samples \(x 40, y 9\); save as many"),
        ({"train_x": X, "train_y": Y}, r"has the split train, and none called test; save train"),
        ({"train_x": X, "x": X, "test_x": X}, r"the names x say no split, and others do; call"),
        ({"x": np.float32(3)}, r"the array x is one number; save arrays with samples on the"),
        ({"x": X.astype(complex)}, r"the array x is of the type complex128, and data are numbers"),
        ({"x": X[:0]}, r"there is no sample in it\."),
        ({"x": X[:1]}, r"a split must leave samples on both sides"),
        ({"x": np.array([None])}, r"holds Python objects, which are not read"),
    ],
)
def test_arrays_that_are_no_data_are_one_sentence(npz, arrays, text):
    with pytest.raises(DataError, match=text) as caught:
        npz(**arrays)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_one_sentence(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, x=X, y=Y)
    whole = path.read_bytes()
    for content in (b"", b"PK", whole[: len(whole) // 2], whole[:300] + b"\0" * 40 + whole[340:]):
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            npz_task(path=path)
        assert "\n" not in str(caught.value)


def test_texts_stay_texts_and_numbers_lie_in_memory():
    assert as_column(np.array(["a", "b"]), "it") == ["a", "b"]
    read_only = np.frombuffer(np.arange(3, dtype=">i4").tobytes(), ">i4")
    assert as_column(read_only, "it").tolist() == [0, 1, 2]
    columns = Columns({"x": torch.arange(3), "t": ["a", "b", "c"]})
    assert columns.__getitems__([2, 0]) == [columns[2], columns[0]]
    assert columns.subset([2]).columns["t"] == ["c"]


def test_one_of_several_tables_is_split_for_validation():
    tables = tables_of({"train_a": torch.arange(20), "test_a": torch.arange(5)}, "it")
    assert set(tables) == {"train", "test"}
    task = task_of_tables("t", tables, "it")
    assert len(task.validation) == 2


def test_parquet_columns_are_numbers_and_lists(parquet):
    columns = {"v": X.tolist(), "n": list(range(40)), "label": Y.tolist(), "t": ["a"] * 40}
    task = parquet(columns)
    sample = task.train[0]
    assert sample["v"].shape == (3,)
    assert sample["v"].dtype == torch.float32
    assert sample["t"] == "a"
    assert len(task.train) + len(task.validation) + len(task.test) == 40


def test_parquet_keeps_what_misses_and_what_differs_in_length(parquet):
    columns = {"ids": [[1] * (1 + i % 3) for i in range(40)], "label": [None, *[1] * 39]}
    rows = [parquet(columns).train[i] for i in range(32)]
    assert {len(row["ids"]) for row in rows} == {1, 2, 3}
    labels = [parquet(columns).train.columns["label"], parquet(columns).test.columns["label"]]
    assert sum(part.count(None) for part in labels) <= 1


def test_parquet_features_are_one_vector(parquet):
    columns = {"a": list(range(40)), "b": [0.5] * 40, "kind": Y.tolist(), "t": ["a"] * 40}
    task = parquet(columns, features=["b", "a"], label="kind")
    x, y = task.train[3]
    assert x.shape == (2,)
    assert float(x[0]) == 0.5
    assert int(x[1]) % 2 == int(y)


@pytest.mark.parametrize(
    ("columns", "options", "text"),
    [
        ({"a": [1.0] * 20}, {"features": ["b"]}, r"there is no column b; it has a\."),
        ({"a": ["x"] * 20}, {"features": ["a"]}, r"the column a is not one number for each row"),
        (
            {"a": [1.0] * 20},
            {"label": "a"},
            r"label 'a' is for features; write `features: \[\.\.\.",
        ),
        ({"a": [["x"]] * 20}, {}, r"the column a has lists of what is no number, or misses values"),
        ({"a": [[[1], [2, 3]]] * 20}, {}, r"the column a has lists of lists of different lengths"),
    ],
)
def test_columns_that_are_no_data_are_one_sentence(parquet, columns, options, text):
    with pytest.raises(DataError, match=text):
        parquet(columns, **options)


def test_damaged_parquet_is_one_sentence(parquet, tmp_path):
    parquet({"x": X.tolist()})
    path = tmp_path / "d.parquet"
    whole = path.read_bytes()
    for content in (b"", b"PAR1", whole[: len(whole) // 2], b"\0" * len(whole)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"no Parquet file that can be read") as caught:
            make_task(TaskConfig(name="parquet", path=str(path)))
        assert "\n" not in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"there is no train\.parquet and no test\.parquet"):
        make_task(TaskConfig(name="parquet", path=str(tmp_path / "empty")))


def test_a_folder_of_parquet_files_is_split_already(parquet, tmp_path):
    parquet({"x": X.tolist(), "y": Y.tolist()})
    folder = tmp_path / "f"
    folder.mkdir()
    for name in ("train", "test"):
        (folder / f"{name}.parquet").write_bytes((tmp_path / "d.parquet").read_bytes())
    task = make_task(TaskConfig(name="parquet", path=str(folder)))
    assert [len(part) for part in (task.train, task.validation, task.test)] == [36, 4, 40]


@pytest.fixture
def saved(tmp_path):
    """A folder of a data set; of splits where a dictionary is given."""
    datasets = pytest.importorskip("datasets")

    def of(columns, splits=None):
        data = datasets.Dataset.from_dict(columns)
        whole = data if splits is None else datasets.DatasetDict(dict.fromkeys(splits, data))
        whole.save_to_disk(tmp_path / "d")
        return tmp_path / "d"

    return of


def load(folder):
    return make_task(TaskConfig(name="datasets-folder", folder=str(folder)))


def test_a_datasets_folder_is_split_here_or_already(saved):
    columns = {"x": X.tolist(), "label": Y.tolist()}
    task = load(saved(columns))
    assert [len(part) for part in (task.train, task.validation, task.test)] == [32, 4, 4]
    task = load(saved(columns, ("train", "val", "test")))
    assert [len(part) for part in (task.train, task.validation, task.test)] == [40, 40, 40]
    assert task.train[0]["x"].shape == (3,)


def test_damaged_datasets_folders_are_one_sentence(saved, tmp_path):
    with pytest.raises(DataError, match=r"this is no folder of a Hugging Face data set"):
        load(tmp_path)
    folder = saved({"x": X.tolist()})
    state = json.loads((folder / "state.json").read_text())
    outside = {**state, "_data_files": [{"filename": "../../secret.arrow"}]}
    (folder / "state.json").write_text(json.dumps(outside))
    with pytest.raises(DataError, match=r"it names files outside of its folder, or none"):
        load(folder)
    (folder / "state.json").write_text(json.dumps(state))
    file = folder / state["_data_files"][0]["filename"]
    file.write_bytes(b"\0" * 100)
    with pytest.raises(
        DataError, match=r"no folder of a Hugging Face data set that can be"
    ) as said:
        load(folder)
    assert "\n" not in str(said.value)
    (folder / "dataset_dict.json").write_text('{"splits": ["../x"]}')
    with pytest.raises(DataError, match=r"it lists no splits; save the data again"):
        load(folder)


def test_a_split_that_is_not_there_is_named(saved):
    with pytest.raises(DataError, match=r"there is no split called train in it; it has test, "):
        load(saved({"x": X.tolist()}, ("test", "validation")))


def test_a_missing_library_is_named(monkeypatch, tmp_path):
    import importlib.util

    from compress.errors import MissingExtra

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name, where in (("parquet", "path"), ("datasets-folder", "folder")):
        config = TaskConfig(name=name, **{where: str(tmp_path)})
        with pytest.raises(MissingExtra, match=r"pip install 'compresskit\[datasets\]'"):
            make_task(config)


@pytest.mark.parametrize("kind", ["parquet", "npz"])
def test_labels_that_are_texts_are_names_of_classes(kind, request):
    """In the order of the alphabet, over all splits; a missing one is none."""
    names = np.array(["wren", "finch", "owl"])[np.arange(40) % 3]
    if kind == "npz":
        task = request.getfixturevalue("npz")(x=X, y=names)
    else:
        texts = [None, *names[1:].tolist()]
        columns = {"a": X[:, 0].tolist(), "species": texts}
        task = request.getfixturevalue("parquet")(columns, features=["a"], label="species")
    assert task.classes == ("finch", "owl", "wren")
    order = {"wren": 2, "finch": 0, "owl": 1}
    for x, y in task.train:
        row = int(x[0]) // 3
        assert int(y) == (-1 if kind == "parquet" and row == 0 else order[names[row]])


def test_as_many_texts_as_there_are_samples_are_no_classes(monkeypatch):
    monkeypatch.setattr("compress.tasks.columns._MOST_CLASSES", 30)
    table = {"x": torch.arange(40), "label": [f"t{i}" for i in range(40)]}
    with pytest.raises(DataError, match="the column label has 40 different texts for labels, and"):
        task_of_tables("t", {"": table}, "it")
