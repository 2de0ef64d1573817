"""``compresskit run --repeat N``: run folders, going on, what is refused, what fails."""

import json
import shutil
from pathlib import Path

import pytest

from compress import Recipe, ReplayTarget
from compress.cli import main
from compress.errors import DataError, StorageError, TrainingDiverged
from compress.progress import TerminalProgress
from compress.recipe import LocalSettings
from compress.record import Record
from compress.report.repeat.facts import Repeat

RECIPE = """\
schema: 1
name: seeds
task: {name: digits, limit: 300}
model: {arch: mlp, in_features: 64, width: 8}
stages:
  - {kind: train, epochs: 2, batch_size: 64, learning_rate: 0.01}
"""


@pytest.fixture(scope="module", autouse=True)
def _no_clock():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalSettings, "target", lambda self: ReplayTarget(name=self.name))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with the runs of seeds 0 and 1, by the command line; not to be written to."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "r.yaml").write_text(RECIPE)
    out = folder / "out"
    assert main(["run", str(folder / "r.yaml"), "--repeat", "2", "--out", str(out)]) == 0
    return out


@pytest.fixture
def repeated(finished, tmp_path, monkeypatch, capsys):
    """Runs the recipe; the exit code, and what went to standard output and error.

    ``out`` holds seeds 0 and 1 already. Figures are not drawn again.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("compress.notebook.record.write_report", lambda *_: [])
    Path("r.yaml").write_text(RECIPE)
    shutil.copytree(finished, "out")

    def call(*arguments, command=("run", "r.yaml")):
        code = main([*command, *map(str, arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call


@pytest.fixture
def failing(monkeypatch):
    """Lets the runs of some seeds fail before they begin."""
    execute = Recipe.execute

    def arrange(error, *seeds):
        def execute_or_fail(self, **settings):
            if self.seed in seeds:
                raise error
            return execute(self, **settings)

        monkeypatch.setattr(Recipe, "execute", execute_or_fail)

    return arrange


def diverged(index=0):
    error = TrainingDiverged("the training loss became nan in epoch 1, step 2.")
    error.index, error.label = index, "train" if index == 0 else "input"
    return error


def last_line(said):
    return said.strip().splitlines()[-1].removeprefix("compresskit: ")


def test_each_seed_has_a_run_folder_and_all_have_one_result(finished):
    records = [Record.load(finished / f"seed-{seed}") for seed in (0, 1)]
    assert [record.seed for record in records] == [0, 1]
    assert [record.recipe["seed"] for record in records] == [0, 1]
    assert records[0].rows[1].fingerprint != records[1].rows[1].fingerprint
    assert (finished / "seed-1" / "report.html").exists()
    stored = json.loads((finished / "repeat.json").read_text())
    assert (stored["schema"], stored["name"], stored["seeds"]) == (1, "seeds", [0, 1])
    score = stored["rows"][1]["measurements"][0]["score"]
    assert score["values"] == [r.rows[1].on("local").accuracy.value for r in records]
    assert {"mean", "ci95", "ci95_seeds", "ci95_sample"} <= score.keys()


def test_more_seeds_begin_with_those_that_are_there(repeated):
    before = Path("out/repeat.json").read_text()
    code, table, progress = repeated("--repeat", 3, "--out", "out")
    assert code == 0
    assert progress.count("epoch 2/2") == 1
    assert progress.count("measurements re-used") >= 4
    for seed in range(3):
        assert f"seed {seed} ({seed + 1} of 3), in out/seed-{seed}" in progress
    assert "seeds on local, seeds 0, 1 and 2" in table
    assert "report: out/repeat.html\nship: out/seed-N/ship" in table
    assert Repeat.load(Path("out")).seeds == [0, 1, 2]

    repeated("--repeat", 2, "--out", "out")
    assert Path("out/repeat.json").read_text() == before


def test_a_seed_gives_what_a_run_with_that_seed_gives(repeated):
    repeated("--set", "seed=1", "--out", "alone")
    mine, alone = Record.load(Path("out/seed-1")), Record.load(Path("alone"))
    assert mine.recipe == alone.recipe
    for row, expected in zip(mine.rows, alone.rows, strict=True):
        assert row.fingerprint == expected.fingerprint
        assert row.measurements[0].accuracy == expected.measurements[0].accuracy


def test_seeds_begin_with_the_recipes_own_and_all_get_the_settings(repeated, monkeypatch):
    told = []

    def execute(self, *, workdir, mode, fresh, observer, cache, ship, progress):
        told.append((self.seed, str(workdir), mode, fresh))
        return Record.load(Path(f"out/seed-{len(told) - 1}"))

    monkeypatch.setattr(Recipe, "execute", execute)
    repeated("--repeat", 2, "--set", "seed=4", "--quick", "--fresh")
    place = "runs/seeds-repeat/seed-"
    assert told == [(4, f"{place}4", "quick", True), (5, f"{place}5", "quick", True)]


def test_one_that_is_interrupted_in_an_epoch_goes_on_there(repeated, monkeypatch):
    shown = TerminalProgress.__call__

    def interrupt(self, event):
        if event["event"] == "epoch":
            raise KeyboardInterrupt
        shown(self, event)

    with monkeypatch.context() as patch:
        patch.setattr(TerminalProgress, "__call__", interrupt)
        code, _, said = repeated("--repeat", 3, "--out", "out")
    assert code == 1
    assert "interrupted; what was finished is kept, and the same command resumes" in said
    assert Repeat.load(Path("out")).seeds == [0, 1]
    code, _, progress = repeated("--repeat", 3, "--out", "out")
    assert code == 0
    assert "epoch" not in progress.partition("seed 2 (3 of 3)")[0]
    assert "epoch 2/2" in progress


def test_a_report_of_too_few_seeds_says_how_to_go_on(repeated):
    shutil.rmtree("out/seed-1")
    Path("out/repeat.json").unlink()
    code, _, said = repeated("out", command=("report",))
    assert code == 2
    assert last_line(said) == (
        "out: a repeated run needs 2 finished seeds, and here is 1; repeat the command that "
        "started it, and it resumes."
    )


def test_fresh_forgets_the_result_before(repeated, failing):
    failing(DataError("no data."), 0)
    assert repeated("--repeat", 2, "--out", "out", "--fresh")[0] == 1
    assert not Path("out/repeat.json").exists()


def test_a_seed_that_fails_leaves_the_others(repeated, failing):
    shutil.copytree("out/seed-0", "out/seed-2")
    record = Record.load(Path("out/seed-2"))
    record.seed = 2
    record.save(Path("out/seed-2"))
    failing(diverged(), 1)
    code, table, said = repeated("--repeat", 3, "--out", "out")
    assert code == 1
    assert last_line(said) == (
        "seed 1 failed in stages[0] (train): the training loss became nan in epoch 1, step 2; what "
        "finished is kept in out, and the same command resumes from there."
    )
    assert "Seed 1 failed and is in no number here" in table
    kept = Repeat.load(Path("out"))
    assert kept.seeds == [0, 2]
    assert [each.seed for each in kept.failed] == [1]


def test_where_only_one_seed_finishes_there_is_no_result(repeated, failing):
    Path("out/repeat.json").unlink()
    failing(diverged(index=-1), 1)
    code, table, said = repeated("--repeat", 2, "--out", "out")
    assert (code, table) == (1, "")
    assert last_line(said).startswith("seed 1 failed in input: the training loss became nan")
    assert not Path("out/repeat.json").exists()


def test_where_every_seed_fails_all_are_named(repeated, failing):
    failing(diverged(), 0, 1, 2)
    code, _, said = repeated("--repeat", 3, "--out", "new")
    assert code == 1
    assert last_line(said) == (
        "seed 0 failed in stages[0] (train) (so did seeds 1, 2): the training loss became nan in "
        "epoch 1, step 2, and the same command resumes from there."
    )


@pytest.mark.parametrize("error", [DataError("no data."), StorageError("disk full.")], ids=str)
def test_what_no_seed_can_help_ends_it(error, repeated, failing):
    if isinstance(error, StorageError):
        error.index, error.label = 0, "train"
    failing(error, 0)
    code, _, said = repeated("--repeat", 3, "--out", "new")
    assert code == 1
    assert last_line(said).endswith(str(error))
    assert "(2 of 3)" not in said


@pytest.mark.parametrize("count", [1, 0, -3])
def test_fewer_than_two_seeds_are_refused(count, repeated):
    code, _, said = repeated("--repeat", count)
    assert code == 2
    assert last_line(said) == (
        f"--repeat is the number of seeds to run with, 2 or more; got {count}."
    )
    assert not Path("runs").exists()


@pytest.mark.parametrize("more", [(), ("--fresh",)])
def test_no_kind_of_run_overwrites_the_other(more, repeated):
    Path("out/seed-0").rename("single")
    before = Path("single/record.json").read_text()
    code, _, said = repeated("--repeat", 2, "--out", "single", *more)
    assert code == 2
    assert last_line(said) == (
        "single: this folder holds a single run, and --repeat makes a run folder for each seed; "
        "give another --out."
    )
    assert Path("single/record.json").read_text() == before
    assert not list(Path("single").glob("seed-*"))

    code, _, said = repeated("--out", "out", *more)
    assert code == 2
    assert last_line(said) == (
        "out: this folder holds a repeated run; add --repeat N to continue it, or give another "
        "--out."
    )
    assert not Path("out/record.json").exists()

    Path("file").write_text("mine")
    code, _, said = repeated("--repeat", 2, "--out", "file", *more)
    assert (code, Path("file").read_text()) == (2, "mine")
    assert last_line(said) == "file: this is a file; give a folder."


def test_seeds_of_another_recipe_are_not_overwritten(repeated):
    code, _, said = repeated("--repeat", 2, "--out", "out", "--set", "name=other")
    assert code == 2
    assert "out/seed-0: this folder holds a run of the recipe 'seeds', and this is 'other'" in said


def test_a_budget_that_is_missed_is_exit_code_3(repeated):
    Path("r.yaml").write_text(f"{RECIPE}budget: {{artifact_kib: 0.5}}\n")
    code, table, _ = repeated("--repeat", 2, "--out", "out")
    assert code == 3
    assert "the budget is missed with seeds 0 and 1." in table


def test_report_rebuilds_one_and_compares_several(repeated):
    Path("out/repeat.html").unlink()
    code, table, _ = repeated("out", command=("report",))
    assert code == 0
    assert "seeds on local, seeds 0 and 1" in table
    assert Path("out/repeat.html").exists()

    shutil.copytree("out", "other")
    for seed in (0, 1):
        record = Record.load(Path(f"other/seed-{seed}"))
        record.name = "other"
        record.save(Path(f"other/seed-{seed}"))
    code, table, _ = repeated("out", "other/repeat.json", "--out", "side", command=("report",))
    assert code == 0
    assert "other is not shown to differ from seeds: 0.00 pt [" in table.replace("+0.00", "0.00")
    assert "The first interval is over trainings" in Path("side/comparison.md").read_text()

    code, _, said = repeated("out", "other/seed-0", command=("report",))
    assert code == 2
    assert last_line(said) == (
        "other/seed-0: this is no repeated run, and out is one; give runs of one kind."
    )


def test_code_that_was_named_may_be_run_with_every_seed(parts):
    Path("own.yaml").write_text(
        "schema: 1\nname: own\ntask: my_parts:make_task\nmodel: {arch: my_parts:Net, width: 12}\n"
        "stages:\n  - {kind: my_parts:ScaleStage, factor: 0.7}\n"
    )
    assert main(["run", "own.yaml", "--repeat", "2", "--import", "my_parts", "--out", "out"]) == 0
    assert Repeat.load(Path("out")).seeds == [0, 1]
