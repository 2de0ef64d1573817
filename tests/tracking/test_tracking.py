"""What trackers are told of a run, and that none of them can end it."""

import pytest

from compress.errors import MissingExtra, RecipeError
from compress.events import RunStart
from compress.tracking import TRACKERS, Tracking, tracker_of
from compress.tracking.callback import facts_of, target_values

pytestmark = pytest.mark.fast

ROW_NUMBERS = {"seconds", "parameters", "nonzero_parameters", "macs"}


class Notes:
    """A tracker of one's own; fails in the call named ``fails``."""

    name = "notes"

    def __init__(self, fails=""):
        self.fails = fails
        self.begun, self.added, self.ended = [], [], []

    def _fail(self, call):
        if call == self.fails:
            raise OSError(28, "No space left\non device")

    def begin(self, name, facts):
        self._fail("begin")
        self.begun.append((name, dict(facts)))

    def add(self, group, axis, step, values):
        self._fail("add")
        self.added.append((group, axis, step, dict(values)))

    def end(self, status):
        self._fail("end")
        self.ended.append(status)

    def of(self, group):
        return {step: values for name, _, step, values in self.added if name == group}


def test_a_tracker_is_told_curves_and_what_every_row_measured(run, runs):
    notes = Notes()
    record = run(Tracking([notes]))
    ((name, facts),) = notes.begun
    assert name == "tracked"
    assert facts["stages.0.kind"] == "train"
    assert facts["stages.0.epochs"] == 2
    assert (facts["rows.0"], facts["rows.2"]) == ("input", "quantize")
    assert (facts["run.folder"], facts["run.mode"]) == (str(runs.folder), "default")
    curves = notes.of("stages/train")
    assert list(curves) == [1, 2]
    history = record.rows[1].history
    assert [curves[epoch]["loss"] for epoch in curves] == [entry["loss"] for entry in history]
    assert curves[1]["losses/label"] == history[0]["losses"]["label"]
    assert {"validation_loss", "samples_per_s"} <= curves[1].keys() - {"epoch", "epochs"}
    assert list(notes.of("rows")) == [0, 1, 2]
    assert notes.of("rows")[2].keys() == ROW_NUMBERS
    found, told = record.rows[2].on("replay"), notes.of("targets/replay")[2]
    assert told == {
        "accuracy": found.accuracy.value,
        "accuracy_ci95_low": found.accuracy.ci95[0],
        "accuracy_ci95_high": found.accuracy.ci95[1],
        "p50_s": found.latency.p50_s,
        "p50_ci95_low_s": found.latency.ci95_p50_s[0],
        "p50_ci95_high_s": found.latency.ci95_p50_s[1],
        "speedup": found.speedup.value,
        "speedup_ci95_low": found.speedup.ci95[0],
        "speedup_ci95_high": found.speedup.ci95[1],
        "peak_rss_bytes": found.memory.peak_rss_bytes,
        "model_peak_bytes": found.memory.model_peak_bytes,
        "artifact_bytes": found.artifact.bytes,
        "first_inference_s": found.quantities["first_inference_s"].value,
        "first_inference_s_ci95_low": found.quantities["first_inference_s"].ci95[0],
        "first_inference_s_ci95_high": found.quantities["first_inference_s"].ci95[1],
    }
    # Row 0 waited for its baseline, and has a speed-up like the others.
    assert "speedup" in notes.of("targets/replay")[0]
    assert notes.ended == ["done"]


def test_a_run_that_is_gone_on_with_is_told_whole(run):
    first, second = Notes(), Notes()
    run(Tracking([first]))
    run(Tracking([second]), 1)
    assert second.of("stages/train") == first.of("stages/train")
    assert second.of("targets/replay") == first.of("targets/replay")


def test_a_run_that_is_interrupted_is_told_so(new_run):
    notes = Notes()

    def broken(event):
        Tracking([notes])(event)
        if event["event"] == "measure":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        new_run(broken)
    assert notes.ended == ["interrupted"]


@pytest.mark.parametrize("call", ["begin", "add", "end"])
def test_a_tracker_that_fails_is_let_go_with_one_sentence(call, run):
    said, broken, whole = [], Notes(fails=call), Notes()
    run(Tracking([broken, whole], said.append))
    (sentence,) = said
    assert sentence == (
        "tracking with notes ends here (OSError: [Errno 28] No space left on device); "
        "the run continues."
    )
    assert whole.ended == ["done"]


def test_without_anyone_to_tell_the_sentence_goes_to_standard_error(capsys):
    Tracking([Notes(fails="end")])({"event": "end", "status": "done"})
    assert capsys.readouterr().err.startswith("compresskit: tracking with notes ends here")


def test_what_was_not_measured_is_left_out():
    failed = {
        "artifact": {"bytes": 5},
        "accuracy": {"value": 0.5, "ci95": [0.4, 0.6]},
        **dict.fromkeys(("latency", "speedup", "memory")),
    }
    assert target_values(failed).keys() == {
        *("accuracy", "accuracy_ci95_low", "accuracy_ci95_high", "artifact_bytes"),
    }


@pytest.mark.parametrize(
    "event",
    [
        {"stage": "mine", "event": "row"},
        {"stage": "mine", "epoch": 1},
        {"stage": "mine", "event": "epoch", "loss": 1.0},
        {"stage": "mine", "epoch": 1, "epochs": 2, "word": "x", "flag": True, "none": None},
        {"event": "measure", "index": 1},
        {},
    ],
)
def test_events_without_numbers_of_an_epoch_are_passed_over(event):
    notes = Notes()
    Tracking([notes], pytest.fail)(event)
    assert notes.added == []


def test_facts_are_the_paths_that_a_setting_takes():
    recipe = {"name": "n", "budget": None, "stages": [{"kind": "x", "select": ["a", "b"]}]}
    record = {"recipe": recipe, "environment": {"mode": "quick"}}
    assert facts_of(RunStart(["input"], "f", record)) == {
        "name": "n",
        "stages.0.kind": "x",
        "stages.0.select.0": "a",
        "stages.0.select.1": "b",
        "rows.0": "input",
        "run.folder": "f",
        "run.mode": "quick",
    }


@pytest.mark.parametrize("text", ["", "mlfow", "mlflow:", ":x", "comet:x"])
def test_a_tracker_of_no_known_kind_is_refused(text):
    with pytest.raises(RecipeError, match="one of mlflow, tensorboard, wandb, or one of them with"):
        tracker_of(text)


@pytest.mark.parametrize("kind", TRACKERS)
def test_a_library_that_is_not_installed_is_named_with_its_extra(kind, absent):
    absent(kind)
    with pytest.raises(MissingExtra, match=rf"pip install 'compresskit\[{kind}\]'"):
        tracker_of(kind)
