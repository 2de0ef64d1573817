"""The record as Python users get it: rows by name, files, modules, and how it shows itself."""

import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from compress import (
    Budget,
    DistillStage,
    LocalTarget,
    PruneStage,
    QuantizeStage,
    Recipe,
    Record,
    ReplayTarget,
    Task,
)
from compress import record as facts
from compress.errors import CheckpointError, CompressError, MissingExtra, RecipeError, RecordError


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
        )


def make_task():
    torch.manual_seed(0)
    inputs = torch.randn(160, 6)
    labels = inputs[:, :3].argmax(1)
    parts = ((0, 80), (80, 120), (120, 160))
    return Task("three", *(TensorDataset(inputs[a:b], labels[a:b]) for a, b in parts))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The net, its task, and the record of a run, in whose folder the tests work."""
    place = tmp_path_factory.mktemp("work")
    net, task = Net(), make_task()
    student = DistillStage(student={"arch": "mlp", "width": 8}, epochs=1)
    recipe = Recipe(name="three", stages=[PruneStage(ratio=0.25), QuantizeStage(), student])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        record = recipe.run(net, task, targets=[ReplayTarget()], cache="none")
    return net, task, record


@pytest.fixture
def record(made):
    return made[2]


@pytest.fixture
def loaded(record):
    return Record.load(str(record.folder))


def test_a_run_lies_in_its_own_folder_with_its_report(record):
    assert record.folder.parts[-2:] == ("runs", "three")
    assert (record.folder / "report.html").exists()
    assert record.folder.is_absolute()


def test_what_is_read_is_what_was_given_back(record, loaded):
    assert isinstance(loaded, Record)
    assert loaded == record
    assert loaded.folder == record.folder
    assert Record.load(record.folder / "record.json").folder == record.folder
    assert facts.Record.load(record.folder) == record
    assert repr(loaded) == repr(record)


def test_rows_have_numbers_and_labels_and_one_is_advised(record):
    files = [record.artifact(row) for row in range(4)]
    assert len(set(files)) == 4
    assert all(file.is_file() for file in files)
    assert record.artifact("quantize") == record.artifact(np.int64(2)) == files[2]
    assert record.artifact() == record.artifact("advised") == files[record.recommend().index]


@pytest.mark.parametrize("row", ["prun", 4, -1, True, None, "0"])
def test_a_row_that_is_not_there_is_refused_with_those_that_are(record, row):
    said = r"there is no row .*; rows are 0 \(input\), 1 \(prune\), .*, and 'advised'"
    for ask in (record.artifact, record.module):
        with pytest.raises(RecordError, match=said):
            ask(row)


def test_a_module_computes_what_its_file_does(made):
    import onnxruntime

    net, task, record = made
    inputs = torch.stack([task.test[place][0] for place in range(8)])
    for row in ("input", "prune", "distill"):
        module = record.module(row)
        assert not module.training
        file = onnxruntime.InferenceSession(record.artifact(row))
        name = file.get_inputs()[0].name
        for one in inputs:
            (expected,) = file.run(None, {name: one[None].numpy()})
            assert torch.allclose(module(one[None]), torch.tensor(expected), atol=0.2)
    assert record.module("prune")[0].out_features == 12
    assert net[0].out_features == 16


def test_a_record_from_disk_wants_the_class_that_no_file_holds(loaded):
    with pytest.raises(RecordError, match=r"row 1 \(prune\): .*record\.module\(1, like=Net\(\)\)"):
        loaded.module("prune")
    with pytest.raises(RecordError, match=r"like is a module, such as Net\(\); got <class"):
        loaded.module("prune", like=Net)
    with pytest.raises(CheckpointError, match="another architecture"):
        loaded.module("prune", like=nn.Linear(6, 3))
    before = torch.random.get_rng_state()
    assert loaded.module("prune", like=Net())[0].out_features == 12
    loaded.module("distill")  # of an architecture that has a name
    assert loaded.module("prune", like=Net()) is not loaded.module("prune", like=Net())
    torch.random.set_rng_state(before)


def test_reading_a_model_draws_no_random_numbers(loaded):
    before = torch.random.get_rng_state()
    loaded.module("distill")
    assert before.equal(torch.random.get_rng_state())


def test_a_module_that_is_not_the_one_of_the_record_is_refused(loaded):
    row = loaded.rows[3]
    loaded.rows[3] = row.model_copy(update={"fingerprint": "0" * 32})
    with pytest.raises(RecordError, match="not the candidate that the record describes"):
        loaded.module(3)


def test_another_budget_gives_another_answer(record):
    tight = record.recommend(Budget(artifact_kib=0.5))
    assert not tight.meets_budget
    assert record.recommend({"artifact_kib": 1e6}).meets_budget
    assert record.budget is None  # its own stays
    for wrong, said in (({"artifact_kb": 1}, "did you mean 'artifact_kib'"), (5, "a budget is")):
        with pytest.raises(RecipeError, match=said):
            record.recommend(wrong)


def test_a_target_that_is_not_there_is_refused(record):
    for ask in (lambda: record.plot("x"), lambda: record.recommend(target="x")):
        with pytest.raises(RecordError, match="nothing was measured on 'x'; targets are replay"):
            ask()


def test_a_file_outside_of_the_folder_is_none(loaded):
    loaded.rows[0].measurements[0].artifact.path = "../../secret.onnx"
    (loaded.folder.parent.parent / "secret.onnx").write_bytes(b"x")
    with pytest.raises(RecordError, match="the file of row 0 is not there"):
        loaded.artifact(0)


@pytest.mark.parametrize("path", [3, None, ["a"]])
def test_a_record_is_read_from_a_path(path):
    with pytest.raises(RecordError, match="a record is read from a path; got "):
        Record.load(path)


def test_keys_of_a_newer_record_hide_nothing(record):
    newer = Record.model_validate(record.model_dump(by_alias=True) | {"folder": "x", "ship": 3})
    again = Record.of_run(newer, record.folder, Net(), record._references)
    assert again.folder == record.folder
    assert again == newer


def test_what_has_no_folder_says_so(record):
    bare = Record.model_validate(record.model_dump(by_alias=True))
    for ask in (bare.artifact, bare.module, bare.report, lambda: bare.ship):
        with pytest.raises(RecordError, match="was not read from a run folder"):
            ask()
    assert "<table" in bare._repr_html_()


def test_a_folder_to_ship_is_named_where_it_is(record):
    assert (record.ship / "run.py").is_file()
    assert (record.ship / "model.onnx").is_file()
    assert str(record.ship) in record._repr_html_()
    record.ship.rename(record.folder / "elsewhere")
    try:
        with pytest.raises(RecordError, match="compresskit ship"):
            record.ship  # noqa: B018
    finally:
        (record.folder / "elsewhere").rename(record.folder / "ship")


def test_a_table_of_all_numbers_needs_pandas(record, monkeypatch):
    pandas = pytest.importorskip("pandas")
    table = record.to_dataframe()
    assert isinstance(table, pandas.DataFrame)
    assert list(table["stage"]) == ["input", "prune", "quantize", "distill"]
    assert list(table["ship"]).count(True) == 1
    assert table["p50_s"].dtype == float
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtra, match=r"to_dataframe needs pandas: pip install pandas\."):
        record.to_dataframe()


def test_a_plot_is_a_figure_that_shows_itself(record):
    from matplotlib.figure import Figure

    figure = record.plot()
    assert isinstance(figure, Figure)
    picture, size = figure._repr_png_()
    assert picture.startswith(b"\x89PNG")
    assert size["width"] < 1000


def test_it_says_in_a_line_what_it_is_and_prints_as_its_table(record):
    advised = record.recommend().index
    assert repr(record).startswith("<Record 'three': done, 4 rows, on replay, ship row ")
    assert f"ship row {advised} (" in repr(record)
    assert "three on replay" in str(record)
    assert record.recommend().reasons.split(":")[0] in str(record)


class Shown(HTMLParser):
    """The elements of a piece of HTML, each seen to be closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.text = [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        self.seen.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_a_notebook_is_shown_the_answer_the_table_and_the_plot(record):
    shown = Shown(record._repr_html_())
    assert shown.seen.count("tr") == 1 + len(record.rows)
    assert "svg" in shown.seen
    assert not {"script", "html", "body", "link"} & set(shown.seen)
    assert record.recommend().reasons in shown.text
    assert str(record.folder / "report.html") in shown.text
    assert "Artifact size" in shown.text  # a title of the legend
    assert "Markup" not in shown.text


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", '"><img src=x onerror=a>', "\x1b[2J"]
)
def test_what_a_strangers_record_says_is_text(record, name):
    hostile = Record.model_validate(record.model_dump(by_alias=True) | {"name": name})
    hostile.rows[1].stage = name
    hostile.rows[1].notes = [name]
    shown = Shown(hostile._repr_html_())
    assert not {"script", "img"} & set(shown.seen)
    assert "\x1b" not in shown.text


def test_a_style_touches_nothing_but_the_record(record):
    style = record._repr_html_().partition("<style>")[2].partition("</style>")[0]
    rules = [rule.partition("{")[0] for rule in style.partition("*/")[2].split("}") if rule.strip()]
    for rule in rules:
        assert all(part.strip().startswith(".compresskit") for part in rule.split(",")), rule


def test_a_run_that_measured_nothing_says_so(record):
    begun = record.model_dump(by_alias=True) | {"rows": [], "status": "failed", "error": "<b>no."}
    empty = Record.model_validate(begun)
    assert "&lt;b&gt;no" in empty._repr_html_()
    assert repr(empty) == "<Record 'three': failed, 0 rows>"
    with pytest.raises(RecordError, match="nothing that was measured yet"):
        empty.plot()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"targets": []}, "run takes a list of targets"),
        ({"targets": ["local"]}, r"such as targets=\[LocalTarget\(\)\]; got \['local'\]"),
        ({"targets": LocalTarget()}, "run takes a list of targets"),
        ({"mode": "fast"}, "mode is one of quick, default, strict; got 'fast'"),
        ({"workdir": 5}, "workdir is the path of a folder; got 5"),
        ({"imports": "mine"}, r"imports is a list of modules: \['mine'\]"),
        ({"task": None}, r"run takes a compress\.Task after the model; got None"),
        ({"model": Net}, r"run takes an nn\.Module, or a Candidate; got <class"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_is_done(made, given, message, tmp_path):
    net, task, _ = made
    arguments = {"workdir": tmp_path / "run", **given}
    model, task = arguments.pop("model", net), arguments.pop("task", task)
    with pytest.raises(RecipeError, match=message):
        Recipe(stages=[QuantizeStage()]).run(model, task, **arguments)
    assert not (tmp_path / "run").exists()


def test_what_is_in_the_way_of_the_report_is_found_before_the_work(made, tmp_path):
    net, task, _ = made
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(CompressError, match="stays as it is"):
        Recipe(stages=[QuantizeStage()]).run(net, task, workdir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
