"""Row timing: rows before the baseline are timed in its session, and in one of their own else."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from compress import QuantizeStage, Recipe, ReplayTarget, TrainStage
from compress.errors import MeasurementError
from compress.measure.open_sizes import MeasuredSize
from compress.measure.replay import latency_by_bytes_s
from compress.running.row_timing import RowModel, RowTiming

STAGES = (TrainStage(epochs=1, batch_size=64), TrainStage(epochs=1, batch_size=64))


@pytest.fixture
def sessions(monkeypatch):
    """The rows of each session, as they come."""
    seen, measure = [], ReplayTarget.measure

    def noted(self, models, config, raw=None):
        seen.append([Path(model).parent.name for model in models])
        return measure(self, models, config, raw)

    monkeypatch.setattr(ReplayTarget, "measure", noted)
    return seen


@dataclass(frozen=True)
class Sizes(ReplayTarget):
    """With files of an open batch."""

    open: tuple[str, ...] = ("batch",)
    measured_sizes: tuple[MeasuredSize, ...] = (MeasuredSize(1), MeasuredSize(8))

    def at(self, size):
        return self


def run(candidate, task, folder, *, target=None, stages=STAGES, **options):
    recipe = Recipe(name="timing", stages=stages)
    return recipe.run(
        candidate, task, targets=[target or ReplayTarget()], workdir=folder, report=False, **options
    )


def test_the_baseline_shares_its_session_with_the_row_before_it(
    candidate, task, sessions, tmp_path
):
    record = run(candidate, task, tmp_path)
    assert sessions == [["01-train", "00-input"], ["01-train", "02-train-2"]]
    for row in record.rows:
        measured = row.on("replay")
        assert measured.latency is not None
        assert measured.speedup is not None
    first, second, _ = sorted((tmp_path / "measurements").iterdir())
    assert first.read_bytes() == second.read_bytes(), "the samples of the session it was timed in"


def test_a_row_whose_measurement_is_lost_has_a_session_of_its_own(
    candidate, task, sessions, tmp_path
):
    first = run(candidate, task, tmp_path, cache="none")
    (tmp_path / "stages" / "00-input" / "measured-replay.json").unlink()
    sessions.clear()
    record = run(candidate, task, tmp_path, cache="none")
    assert sessions == [["01-train", "00-input"]]
    assert [row.on("replay").latency for row in record.rows] == [
        row.on("replay").latency for row in first.rows
    ]


def test_a_row_that_was_measured_is_not_measured_again_beside_the_baseline(
    candidate, task, sessions, tmp_path
):
    run(candidate, task, tmp_path, cache="none")
    (tmp_path / "stages" / "01-train" / "measured-replay.json").unlink()
    sessions.clear()
    run(candidate, task, tmp_path, cache="none")
    assert sessions == [["01-train"]]


def test_a_row_that_fails_beside_the_baseline_is_the_only_one_to_fail(candidate, task, tmp_path):
    def fail(path):
        if path.parent.name == "00-input":
            raise MeasurementError("the sprockets do not fit.")
        return latency_by_bytes_s(path)

    record = run(candidate, task, tmp_path, target=ReplayTarget(latency_s=fail))
    failed, baseline, after = (row.on("replay") for row in record.rows)
    assert failed.latency is None
    assert "sprockets" in " ".join(failed.warnings)
    assert baseline.speedup.verdict == "baseline"
    assert after.speedup.value > 0


def test_every_size_of_an_open_file_is_shared(candidate, task, sessions, tmp_path):
    record = run(candidate, task, tmp_path)
    models = [tmp_path / row.on("replay").artifact.path for row in record.rows]
    before, baseline, _ = (
        RowModel(index, path, tmp_path / "raw" / f"{index}.jsonl")
        for index, path in enumerate(models)
    )
    target, folder = Sizes(), tmp_path / "raw"
    sessions.clear()
    timing = RowTiming("quick", 0, lambda: {"": np.zeros((8, 1, 8, 8), np.float32)})
    measured = [record.rows[index].on("replay").model_copy(deep=True) for index in (1, 0)]
    timing.timings(baseline, baseline, target, measured[0], [before])
    assert len(sessions) == 2
    timing.timings(before, baseline, target, measured[1])
    assert len(sessions) == 2
    assert [len(each.sizes) for each in measured] == [2, 2]
    assert {path.name for path in folder.iterdir()} == {
        *("0.jsonl", "0-8.jsonl", "1.jsonl", "1-8.jsonl"),
    }


def test_rows_after_a_baseline_that_came_in_have_sessions_of_their_own(
    candidate, task, sessions, tmp_path
):
    run(candidate, task, tmp_path, stages=(QuantizeStage(),))
    assert sessions == [["00-input"], ["00-input", "01-quantize"]]
