"""The loop: rows, re-use, failures, and what is on disk after each."""

import json
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch

from compress import (
    Candidate,
    Context,
    DistillStage,
    Effect,
    PruneStage,
    QuantizeStage,
    Recipe,
    Record,
    ReplayTarget,
    Stage,
    Task,
    TrainStage,
)
from compress.environment import package_versions
from compress.errors import (
    AlreadySo,
    CheckpointError,
    CompressError,
    ContractViolation,
    InvariantBroken,
    MeasurementError,
    NoEffect,
    RecordError,
    SelectorError,
    StageError,
    StorageError,
)
from compress.measure.target import Failure
from compress.testing.nets import NETS

STAGES = (
    TrainStage(epochs=2, batch_size=64, learning_rate=1e-2),
    QuantizeStage(),
    PruneStage(ratio=0.3, finetune={"epochs": 1, "batch_size": 64}),
)


class Sabotage(Stage):
    """Does what a stage must not do, as ``how`` says."""

    effects: ClassVar[frozenset[Effect]] = frozenset({Effect.WEIGHTS})

    kind: Literal["sabotage"] = "sabotage"
    how: str = "fail"

    def run(self, candidate: Candidate, context: Context) -> Candidate:
        after = candidate.fork()
        with torch.no_grad():
            if self.how == "fail":
                raise StageError("the sprockets do not fit.")
            if self.how == "be done":
                raise AlreadySo("sabotage: the sprockets fit.")
            if self.how == "do nothing":
                raise NoEffect("sabotage: there are no sprockets.")
            if self.how == "interrupt":
                raise KeyboardInterrupt
            if self.how == "edit the input":
                next(candidate.module.parameters()).add_(1)
            if self.how == "change numerics":
                return QuantizeStage().run(after, context)
            if self.how == "give nan":
                next(after.module.parameters()).fill_(float("nan"))
            if self.how == "return none":
                return None
            if self.how == "leave a hook":
                after.module.register_forward_hook(lambda *_: None)
            if self.how == "revive zeros":
                for parameter in after.module.parameters():
                    parameter.add_(0.1)
        return after


def recipe(*stages, **fields):
    return Recipe(name="loop", stages=stages or STAGES, **fields)


def events_of(run):
    seen = []
    record = run(seen.append)
    return record, [(e["event"], e.get("index")) for e in seen]


def test_the_record_has_a_row_for_the_input_and_for_every_stage(candidate, task, target, tmp_path):
    record = recipe().run(candidate, task, targets=[target], workdir=tmp_path, report=False)
    assert [row.stage for row in record.rows] == ["input", "train", "quantize", "prune"]
    assert [row.index for row in record.rows] == [0, 1, 2, 3]
    assert record.status == "done"
    assert record.baseline == 1
    for row in record.rows:
        (measured,) = row.measurements
        for part in (measured.latency, measured.speedup, measured.memory, measured.accuracy):
            assert part is not None
        assert (tmp_path / measured.artifact.path).stat().st_size == measured.artifact.bytes
        assert row.macs > 0
        assert row.parameters >= row.nonzero_parameters > 0
    for before, after in zip(record.rows, record.rows[1:], strict=False):
        assert after.parent == before.fingerprint
    assert record.rows[2].on(target.name).artifact.int8_mac_fraction > 0.9
    assert record.rows[3].parameters < record.rows[2].parameters
    assert record.rows[1].on(target.name).accuracy.value > 0.8
    assert [entry["epoch"] for entry in record.rows[1].history] == [1, 2]
    assert record.pareto[target.name].front


def test_the_record_on_disk_has_the_fixed_names(candidate, task, target, tmp_path):
    recipe().run(candidate, task, targets=[target], workdir=tmp_path, report=False)
    stored = json.loads((tmp_path / "record.json").read_text())
    for name in ("schema", "name", "recipe", "environment", "seed", "status", "task", "baseline"):
        assert name in stored, name
    assert {"python", "packages", "cpu"} <= stored["environment"].keys()
    assert stored["task"].keys() >= {"name", "metric", "higher_is_better", "test_samples"}
    row = stored["rows"][2]
    assert row.keys() >= {
        *("index", "stage", "kind", "seconds", "cached", "fingerprint", "parent"),
        *("parameters", "nonzero_parameters", "macs", "measurements"),
    }
    measured = row["measurements"][0]
    assert measured.keys() >= {"target", "runtime", "artifact", "accuracy", "latency", "speedup"}
    assert measured.keys() >= {"memory", "parity", "warnings"}
    assert measured["artifact"].keys() >= {"path", "sha256", "bytes", "int8_mac_fraction"}
    assert measured["latency"].keys() >= {
        *("p50_s", "p90_s", "p99_s", "ci95_p50_s", "processes", "samples"),
    }
    assert measured["memory"].keys() == {"peak_rss_bytes", "model_peak_bytes", "runtime_bytes"}
    assert measured["parity"].keys() >= {"agreement", "max_error"}
    front = stored["pareto"][target.name]
    assert front.keys() >= {"objectives", "front", "hypervolume", "reference_point"}
    assert Record.load(tmp_path).dumps() == (tmp_path / "record.json").read_text()


def test_a_second_run_does_nothing_again(candidate, task, target, tmp_path):
    def run(observer):
        return recipe().run(
            candidate, task, targets=[target], workdir=tmp_path, observer=observer, report=False
        )

    first, _ = events_of(run)
    second, events = events_of(run)
    assert not [e for e in events if e[0] in ("epoch", "measure")]
    assert [row.cached for row in second.rows] == [False, True, True, True]
    assert [row.fingerprint for row in second.rows] == [row.fingerprint for row in first.rows]
    assert [row.measurements for row in second.rows] == [row.measurements for row in first.rows]
    assert second.rows[1].history == first.rows[1].history


@pytest.mark.parametrize("moment", [("stage", 1), ("reuse", 0), ("reuse", 2), ("stage", 3)])
def test_a_repetition_that_is_cut_short_loses_no_row(moment, candidate, task, target, tmp_path):
    def run(observer):
        return recipe().run(
            candidate, task, targets=[target], workdir=tmp_path, observer=observer, report=False
        )

    def interrupt(event):
        if (event["event"], event.get("index")) == moment:
            raise KeyboardInterrupt

    first, _ = events_of(run)
    with pytest.raises(KeyboardInterrupt):
        run(interrupt)
    cut = Record.load(tmp_path)
    assert cut.status == "interrupted"
    assert [row.measurements for row in cut.rows] == [row.measurements for row in first.rows]
    assert cut.pareto == first.pareto
    again, events = events_of(run)
    assert again.status == "done"
    assert not [e for e in events if e[0] == "measure"]


def test_rows_of_a_changed_recipe_are_not_carried_over(candidate, task, target, tmp_path):
    recipe().run(candidate, task, targets=[target], workdir=tmp_path, report=False)
    with pytest.raises(StageError):
        recipe(STAGES[0], Sabotage()).run(
            candidate, task, targets=[target], workdir=tmp_path, report=False
        )
    assert [row.stage for row in Record.load(tmp_path).rows] == ["input", "train"]


def test_fresh_starts_over_and_gives_the_same_candidates(candidate, task, target, tmp_path):
    first = recipe().run(candidate, task, targets=[target], workdir=tmp_path, report=False)
    second = recipe().run(
        candidate, task, targets=[target], workdir=tmp_path, fresh=True, report=False
    )
    assert not any(row.cached for row in second.rows)
    assert [row.fingerprint for row in second.rows] == [row.fingerprint for row in first.rows]


def test_a_changed_stage_keeps_what_comes_before_it(candidate, task, target, tmp_path):
    recipe().run(candidate, task, targets=[target], workdir=tmp_path, report=False)
    changed = recipe(STAGES[0], QuantizeStage(exclude=("head",)), STAGES[2])
    record = changed.run(candidate, task, targets=[target], workdir=tmp_path, report=False)
    assert [row.cached for row in record.rows] == [False, True, False, False]


def test_another_data_set_is_not_mistaken_for_the_same(candidate, case, task, target, tmp_path):
    recipe().run(candidate, task, targets=[target], workdir=tmp_path, report=False)
    other = case.make_task(seed=5)
    record = recipe().run(candidate, other, targets=[target], workdir=tmp_path, report=False)
    assert not any(row.cached for row in record.rows)


@pytest.mark.parametrize(
    ("package", "again"),
    [("torch", True), pytest.param("openvino", False, marks=pytest.mark.exhaustive)],
)
def test_another_version_of_what_stages_compute_with_makes_them_again(
    package, again, candidate, task, target, tmp_path, monkeypatch
):
    recipe().run(candidate, task, targets=[target], workdir=tmp_path, report=False)
    versions = {**package_versions(), package: "0.0"}
    monkeypatch.setattr("compress.running.digests.package_versions", lambda *_: versions)
    record = recipe().run(candidate, task, targets=[target], workdir=tmp_path, report=False)
    assert [row.cached for row in record.rows[1:]] == [not again] * 3


@pytest.mark.parametrize("cache", ["whole", "none"])
@pytest.mark.parametrize("damage", ["truncate", "remove", "other weights"])
def test_a_damaged_candidate_is_made_again(damage, cache, candidate, task, target, tmp_path):
    place = "none" if cache == "none" else tmp_path.with_name("cache")
    recipe().run(candidate, task, targets=[target], workdir=tmp_path, cache=place, report=False)
    weights = tmp_path / "stages" / "01-train" / "candidate" / "weights.safetensors"
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:100])
    elif damage == "remove":
        weights.unlink()
    else:
        weights.write_bytes(
            (tmp_path / "stages/00-input/candidate/weights.safetensors").read_bytes()
        )
    record = recipe().run(
        candidate, task, targets=[target], workdir=tmp_path, cache=place, report=False
    )
    assert [row.cached for row in record.rows] == [False, cache == "whole", True, True]


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("fail", StageError, "the sprockets do not fit"),
        ("do nothing", NoEffect, "there are no sprockets"),
        ("edit the input", ContractViolation, "'sabotage' changed its input; it must fork it"),
        ("change numerics", ContractViolation, r"changed numerics, which is not among .*\(weights"),
        ("give nan", ContractViolation, "outputs on the example are not finite"),
        (
            "return none",
            ContractViolation,
            "'sabotage' must return a compress.Candidate; got NoneType",
        ),
        ("leave a hook", ContractViolation, "has hooks"),
        ("revive zeros", InvariantBroken, "has to keep its zeros"),
    ],
)
def test_a_stage_that_fails_leaves_the_rows_before_it(
    how, error, message, candidate, task, target, tmp_path
):
    zero = PruneStage(ratio=0.3, granularity="weights")
    with pytest.raises(error, match=message) as caught:
        recipe(zero, Sabotage(how=how)).run(
            candidate, task, targets=[target], workdir=tmp_path, report=False
        )
    assert (caught.value.index, caught.value.label) == (1, "sabotage")
    record = Record.load(tmp_path)
    assert record.status == "failed"
    assert record.error in str(caught.value)
    assert [row.stage for row in record.rows] == ["input", "prune"]
    assert all(row.measurements for row in record.rows)


REPEATS = (QuantizeStage(), PruneStage(ratio=0.25, round_to=4)) * 2
SO_ALREADY = "every selected layer already has weights int8 and activations int8; nothing changed"


def test_a_stage_whose_request_is_met_already_is_a_row_that_says_so(
    candidate, task, target, tmp_path
):
    def run():
        return recipe(*REPEATS).run(
            candidate, task, targets=[target], workdir=tmp_path, report=False
        )

    first, second = run(), run()
    for record in (first, second):
        assert record.status == "done"
        assert [row.stage for row in record.rows] == [
            *("input", "quantize", "prune", "quantize-2", "prune-2"),
        ]
        assert record.rows[3].notes == [SO_ALREADY]
        assert record.rows[3].fingerprint == record.rows[2].fingerprint
        assert record.rows[4].parameters < record.rows[3].parameters
    assert [row.cached for row in second.rows] == [False, True, True, True, True]
    told = {"cached", "seconds"}
    assert [r.model_dump(exclude=told) for r in second.rows] == [
        r.model_dump(exclude=told) for r in first.rows
    ]
    assert Record.load(tmp_path).rows[3].notes == [SO_ALREADY]


def test_a_run_that_stopped_after_such_a_stage_goes_on_there(candidate, task, target, tmp_path):
    with pytest.raises(StageError, match="the sprockets do not fit"):
        recipe(*REPEATS[:3], Sabotage()).run(
            candidate, task, targets=[target], workdir=tmp_path, report=False
        )
    resumed = recipe(*REPEATS).run(
        candidate, task, targets=[target], workdir=tmp_path, report=False
    )
    assert [row.cached for row in resumed.rows] == [False, True, True, True, False]
    whole = recipe(*REPEATS).run(
        candidate, task, targets=[target], workdir=tmp_path / "whole", report=False
    )
    assert [r.fingerprint for r in resumed.rows] == [r.fingerprint for r in whole.rows]
    assert [r.notes for r in resumed.rows] == [r.notes for r in whole.rows]


def test_stages_of_ones_own_may_find_all_as_it_should_be(candidate, task, target, tmp_path):
    record = recipe(QuantizeStage(), Sabotage(how="be done")).run(
        candidate, task, targets=[target], workdir=tmp_path, report=False
    )
    assert record.rows[2].notes == ["the sprockets fit; nothing changed"]
    assert record.rows[2].fingerprint == record.rows[1].fingerprint


def whole_recipe(*stages):
    return recipe(*stages, task="digits", model={"arch": "resnet", "width": 8, "blocks": 1})


def test_a_plan_says_what_is_so_already(tmp_path):
    plan = whole_recipe(*REPEATS).plan(workdir=tmp_path)
    assert [SO_ALREADY in stage.sentence for stage in plan.stages] == [False] * 3 + [True, False]
    assert plan.stages[3].parameters == plan.stages[2].parameters > plan.stages[4].parameters


def test_a_plan_counts_from_the_original_width_as_a_run_does(target, tmp_path):
    made = whole_recipe(PruneStage(ratio=0.25), PruneStage(ratio=0.5, of="original"))
    plan = made.plan(workdir=tmp_path)
    task = made.make_task()
    record = made.run(
        made.make_candidate(task), task, targets=[target], workdir=tmp_path, report=False
    )
    assert [s.parameters for s in plan.stages] == [r.parameters for r in record.rows]


def test_notes_of_the_model_that_comes_in_are_those_of_its_row(candidate, task, target, tmp_path):
    noted = replace(candidate, notes=("it was folded",))
    record = recipe(QuantizeStage()).run(
        noted, task, targets=[target], workdir=tmp_path, report=False
    )
    assert [row.notes for row in record.rows] == [["it was folded"], []]


def test_an_interrupt_is_recorded_and_gone_on_from(candidate, task, target, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        recipe(STAGES[0], Sabotage(how="interrupt")).run(
            candidate, task, targets=[target], workdir=tmp_path, report=False
        )
    assert Record.load(tmp_path).status == "interrupted"
    record = recipe(*STAGES[:2]).run(
        candidate, task, targets=[target], workdir=tmp_path, report=False
    )
    assert [row.cached for row in record.rows] == [False, True, False]


def test_a_selector_that_matches_nothing_stops_the_stage(candidate, task, target, tmp_path):
    with pytest.raises(SelectorError, match="'tail' matches no layer; nearest are"):
        recipe(QuantizeStage(select=("tail",))).run(
            candidate, task, targets=[target], workdir=tmp_path, report=False
        )
    assert Record.load(tmp_path).status == "failed"


def test_the_folder_of_another_recipe_is_refused(candidate, task, target, tmp_path):
    recipe(QuantizeStage()).run(candidate, task, targets=[target], workdir=tmp_path, report=False)
    other = Recipe(name="other", stages=(QuantizeStage(),))
    with pytest.raises(RecordError, match=r"holds a run of the recipe 'loop', and this is 'other'"):
        other.run(candidate, task, targets=[target], workdir=tmp_path, report=False)
    assert (
        other.run(
            candidate, task, targets=[target], workdir=tmp_path, fresh=True, report=False
        ).name
        == "other"
    )


def test_fresh_removes_nothing_that_is_not_the_runs_own(candidate, task, target, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    recipe(QuantizeStage()).run(
        candidate, task, targets=[target], workdir=tmp_path, fresh=True, report=False
    )
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_target_that_cannot_run_the_model_says_so(candidate, task, tmp_path):
    def refuse(model, inputs):
        raise MeasurementError("no such operator: Frobnicate")

    with pytest.raises(MeasurementError, match="Frobnicate"):
        recipe(QuantizeStage()).run(
            candidate, task, targets=[ReplayTarget(run=refuse)], workdir=tmp_path, report=False
        )
    assert "Frobnicate" in Record.load(tmp_path).error


def test_a_model_that_cannot_be_timed_is_a_row_that_says_why(candidate, task, tmp_path):
    class Untimed(ReplayTarget):
        def measure(self, models, config, raw=None):
            timed = super().measure(models, config, raw)
            return [
                Failure("killed by signal 9") if "quantize" in str(m) else t
                for m, t in zip(models, timed, strict=True)
            ]

    target = Untimed()
    record = recipe(QuantizeStage()).run(
        candidate, task, targets=[target], workdir=tmp_path, report=False
    )
    measured = record.rows[1].on(target.name)
    assert measured.latency is None
    assert any("killed by signal 9" in warning for warning in measured.warnings)
    assert measured.accuracy is not None

    again = recipe(QuantizeStage()).run(
        candidate, task, targets=[ReplayTarget()], workdir=tmp_path, report=False
    )
    assert again.rows[1].cached
    assert again.rows[1].on(target.name).latency is not None


def test_a_full_disk_stops_with_the_record_intact(candidate, task, target, tmp_path, monkeypatch):
    recipe(STAGES[0]).run(candidate, task, targets=[target], workdir=tmp_path, report=False)
    before = (tmp_path / "record.json").read_text()

    def full(self, other):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(StorageError, match="No space left on device"):
        recipe().run(candidate, task, targets=[target], workdir=tmp_path, report=False)
    assert (tmp_path / "record.json").read_text() == before
    assert not list(tmp_path.glob(".record.json.*"))


def test_two_targets_have_files_fronts_and_comparisons_of_their_own(candidate, task, tmp_path):
    targets = [ReplayTarget(name="slow", latency_s=lambda _: 1e-2), ReplayTarget(name="fast")]
    record = recipe(QuantizeStage()).run(
        candidate, task, targets=targets, workdir=tmp_path, report=False
    )
    assert record.targets == ["slow", "fast"]
    assert set(record.pareto) == {"slow", "fast"}
    paths = {m.artifact.path for m in record.rows[1].measurements}
    assert paths == {"stages/01-quantize/model-slow.onnx", "stages/01-quantize/model-fast.onnx"}


class Bare:
    """The inputs of a data set, without labels."""

    def __init__(self, dataset):
        self._dataset = dataset

    def __len__(self):
        return len(self._dataset)

    def __getitem__(self, index):
        return self._dataset[index][0]


@pytest.fixture
def unlabeled(task):
    return Task(
        name="bare",
        train=Bare(task.train),
        validation=Bare(task.validation),
        test=Bare(task.test),
        outputs="class-scores",
    )


def test_without_labels_the_score_is_agreement_with_the_baseline(
    candidate, unlabeled, target, tmp_path
):
    stages = (
        DistillStage(epochs=2, batch_size=64),
        QuantizeStage(),
        PruneStage(ratio=0.3, importance="taylor", finetune={"epochs": 1}),
    )
    record = recipe(*stages).run(
        candidate, unlabeled, targets=[target], workdir=tmp_path, report=False
    )
    assert record.task.metric == "agreement"
    scores = [row.on(target.name).accuracy.value for row in record.rows]
    assert scores[0] == 1.0
    assert all(0.2 < score <= 1 for score in scores[1:])
    assert record.rows[1].history[0]["validation_loss"] is None


def test_training_on_labels_that_are_not_there_is_explained(candidate, unlabeled, target, tmp_path):
    with pytest.raises(CompressError, match=r"`label` needs labels .* 'bare' has none"):
        recipe(TrainStage()).run(
            candidate, unlabeled, targets=[target], workdir=tmp_path, report=False
        )


def test_a_metric_where_less_is_better_goes_through(case, target, tmp_path):
    case = NETS["unet"]
    task = replace(case.make_task(), metric=squared, higher_is_better=False)
    start = Candidate.of(case.build(), case.example())
    record = recipe(QuantizeStage()).run(
        start, task, targets=[target], workdir=tmp_path, report=False
    )
    assert record.task.metric == "squared"
    assert not record.task.higher_is_better


def squared(outputs, labels):
    share = outputs.argmax(axis=1) != labels
    return share.reshape(len(share), -1).mean(axis=1).astype(np.float64)


def test_ratio_of_the_original_width_counts_from_the_first_candidate(
    candidate, task, target, tmp_path
):
    first = PruneStage(ratio=0.25)
    again = PruneStage(ratio=0.5, of="original")
    record = recipe(first, again).run(
        candidate, task, targets=[target], workdir=tmp_path / "two", report=False
    )
    once = recipe(PruneStage(ratio=0.5)).run(
        candidate, task, targets=[target], workdir=tmp_path / "one", report=False
    )
    assert record.rows[2].parameters == once.rows[1].parameters


def test_stages_may_be_named_and_repeated(candidate, task, target, tmp_path):
    stages = (PruneStage(ratio=0.2), QuantizeStage(label="int8"), PruneStage(ratio=0.2))
    record = recipe(*stages).run(candidate, task, targets=[target], workdir=tmp_path, report=False)
    assert [row.stage for row in record.rows] == ["input", "prune", "int8", "prune-2"]


def test_a_saved_candidate_needs_its_architecture_back(candidate, tmp_path):
    candidate.save(tmp_path)
    other = NETS["resnet"].build()
    with pytest.raises(CheckpointError, match="is of another architecture"):
        Candidate.load(tmp_path, candidate.example, lambda _: other)
