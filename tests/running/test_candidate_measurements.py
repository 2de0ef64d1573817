"""A stage that measures on the target while it works, and what its results then depend on."""

import json
from dataclasses import replace
from typing import ClassVar, Literal

import pytest
import torch

from compress import PruneStage, Recipe, ReplayTarget
from compress.errors import CompressError, StageError
from compress.measure.score import accuracy_facts
from compress.record import Record
from compress.running.split_arrays import SplitArrays
from compress.stage import Context, Evaluation, Stage


class Fastest(Stage):
    """Tries two prunings, and keeps the one that the target runs faster."""

    effects: ClassVar = PruneStage.effects
    measures: ClassVar = True
    kind: Literal["fastest"] = "fastest"
    ratios: tuple[float, float] = (0.25, 0.5)

    def run(self, candidate, context):
        """The faster of two pruned candidates, with both times in its notes."""
        tried = []
        for ratio in self.ratios:
            made = PruneStage(ratio=ratio, round_to=4).run(candidate, context)
            found = context.evaluator.measure(made)
            assert context.evaluator.measure(made) is found  # once
            tried.append((found.latency_s, ratio, made, found))
        _, ratio, best, found = min(tried, key=lambda one: one[0])
        return replace(best, notes=(*best.notes, f"kept {ratio}, {found.speedup:.3f}"))


class Undeclared(Fastest):
    measures: ClassVar = False
    kind: Literal["undeclared"] = "undeclared"


def by_size_s(model):
    return 1e-3 + 1e-9 * model.stat().st_size


def upside_down_s(model):
    return 1e-2 - 1e-9 * model.stat().st_size


@pytest.fixture
def run(candidate, task, tmp_path):
    def call(stage, target, events=None):
        return Recipe(name="tried", stages=(stage,)).run(
            candidate,
            task,
            targets=[target, ReplayTarget(name="second")],
            workdir=tmp_path / "run",
            observer=(events if events is not None else []).append,
            report=False,
        )

    return call


def test_a_stage_keeps_what_the_first_target_runs_faster(run, tmp_path):
    events = []
    record = run(Fastest(), ReplayTarget(latency_s=by_size_s), events)
    assert [note for note in record.rows[1].notes if note.startswith("kept 0.5, 1.")]
    told = [event for event in events if event["event"] == "candidate"]
    assert [event["stage"] for event in told] == ["fastest"] * 2
    assert told[1]["bytes"] < told[0]["bytes"]
    assert told[1]["speedup"] > told[0]["speedup"] > 1
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["event"] == "candidate" for line in lines) == 2
    # Nothing of what was tried is left behind.
    left = {path.name for path in (tmp_path / "run" / "stages" / "01-fastest").iterdir()}
    assert left - {"candidate", "stage.json"} == {
        f"{name}{target}{ending}"
        for target in ("replay", "second")
        for name, ending in (
            ("measured-", ".json"),
            ("model-", ".onnx"),
            ("model-", ".onnx.modules.json"),
        )
    }


def test_its_result_is_of_one_target(run):
    target = ReplayTarget(latency_s=by_size_s)
    kept = run(Fastest(), target).rows[1].fingerprint
    again = run(Fastest(), target).rows[1]
    assert (again.cached, again.fingerprint) == (True, kept)
    other = run(Fastest(), ReplayTarget(latency_s=upside_down_s)).rows[1]
    assert not other.cached
    assert other.reason == "the code of the target changed"
    assert any(note.startswith("kept 0.25") for note in other.notes)


def test_a_stage_that_does_not_measure_is_the_same_for_all_targets(run):
    stage = PruneStage(ratio=0.5, round_to=4)
    run(stage, ReplayTarget(latency_s=by_size_s))
    assert run(stage, ReplayTarget(latency_s=upside_down_s)).rows[1].cached


def test_who_does_not_say_that_it_measures_may_not(run, tmp_path):
    wanted = (
        r"cannot be measured here: the class of 'undeclared' does not declare `measures = True`"
    )
    with pytest.raises(StageError, match=wanted):
        run(Undeclared(), ReplayTarget())
    assert Record.load(tmp_path / "run").status == "failed"


class Asking(Fastest):
    """Measures in its dry run, which no stage may."""

    kind: Literal["asking"] = "asking"

    def rehearse(self, candidate, context):
        """Fails."""
        context.evaluator.measure(candidate)
        return candidate


def test_nothing_is_measured_in_a_dry_run(run):
    with pytest.raises(CompressError, match=r"cannot be measured here: this is a dry run, or a"):
        run(Asking(), ReplayTarget())


class Looking(Stage):
    """Has what came in measured, and something that the target cannot time."""

    effects: ClassVar = PruneStage.effects
    measures: ClassVar = True
    kind: Literal["looking"] = "looking"
    heard: ClassVar[list[Evaluation]] = []

    def run(self, candidate, context: Context):
        """A pruned candidate."""
        made = PruneStage(ratio=0.5, round_to=4).run(candidate, context)
        self.heard[:] = [context.evaluator.measure(one) for one in (candidate, made)]
        return made


def test_what_came_in_is_its_own_measure_and_the_score_is_of_the_validation_split(
    run, candidate, task
):
    run(Looking(), ReplayTarget())
    incoming, pruned = Looking.heard
    assert (incoming.speedup, incoming.speedup_ci95) == (1.0, (1.0, 1.0))
    split = SplitArrays.of(task.validation)
    with torch.no_grad():
        outputs = candidate.module(torch.from_numpy(split.inputs[""])).numpy()
    wanted = accuracy_facts((outputs.argmax(1) == split.labels).astype(float))
    assert (incoming.score, incoming.score_ci95) == (wanted.value, wanted.ci95)
    assert incoming.higher_is_better
    assert pruned.artifact_bytes < incoming.artifact_bytes


def test_what_cannot_be_timed_has_its_reason_and_no_time(run):
    run(Looking(), ReplayTarget(latency_s={"incoming.onnx": 1.0, "model-replay.onnx": 1.0}))
    incoming, pruned = Looking.heard
    assert incoming.latency_s == 1.0
    assert (pruned.latency_s, pruned.speedup, pruned.speedup_ci95) == (None, None, None)
    assert any("declares no latency" in warning for warning in pruned.warnings)
