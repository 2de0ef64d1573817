"""What remains of the whole run: by the forecast, put right by what has been measured."""

import io
import re

import pytest

from compress.progress import TerminalProgress, progress_for
from compress.progress.remaining import Remaining, about

pytestmark = pytest.mark.fast

START = {"event": "start", "labels": ["input", "train", "prune"], "folder": "", "record": {}}


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def stage(index):
    return {"event": "stage", "index": index, "label": "x", "of": 2}


def measure(index):
    return {"event": "measure", "index": index, "label": "x"}


def step(left_s):
    numbers = {"epoch": 1, "epochs": 2, "step": 1, "steps": 5, "loss": 1.0, "samples_per_s": 1.0}
    return {"event": "step", **numbers, "left_s": left_s}


EXPECTED = {"event": "expected", "training_s": {1: 60.0, 2: 120.0}, "measuring_s": 30.0}


def followed(*timed):
    """What remains after events, each with the seconds that passed before it."""
    clock = Clock()
    remaining = Remaining(clock)
    for passed, event in timed:
        clock.now += passed
        if event is not None:
            remaining(event)
    return remaining


BEGUN = [(0, START), (0, stage(0)), (5, EXPECTED)]


def test_nothing_is_said_before_anything_is_known():
    remaining = followed(*BEGUN[:2])
    assert remaining.left_s is None
    assert remaining.words == ""


def test_the_forecast_is_of_all_trainings_and_of_all_rows():
    remaining = followed(*BEGUN)
    assert remaining.left_s == 60 + 120 + 3 * 30
    assert remaining.words == "about 4 min left of about 5 min"


def test_time_that_passes_is_taken_off():
    assert followed(*BEGUN, (0, measure(0)), (10, None)).left_s == 60 + 120 + 3 * 30 - 10
    assert followed(*BEGUN, (0, stage(1)), (20, None)).left_s == 40 + 120 + 3 * 30


def test_what_takes_longer_than_was_thought_leaves_no_less_than_the_rest():
    assert followed(*BEGUN, (0, measure(0)), (500, None)).left_s == 60 + 120 + 2 * 30
    assert followed(*BEGUN, (0, stage(1)), (500, None)).left_s == 120 + 3 * 30


def test_a_stage_that_knows_its_end_is_believed():
    assert followed(*BEGUN, (0, stage(1)), (1, step(7.0))).left_s == 7 + 120 + 3 * 30
    assert followed(*BEGUN, (0, stage(1)), (1, step(7.0)), (3, None)).left_s == 4 + 120 + 3 * 30


def test_rows_that_were_measured_say_how_long_the_others_take():
    # Row 0 took 10 s and not 30.
    remaining = followed(*BEGUN, (0, measure(0)), (10, stage(1)))
    assert remaining.left_s == 60 + 120 + 2 * 10


def test_trainings_that_are_over_say_by_what_factor_the_others_are_wrong():
    remaining = followed(
        *BEGUN, (0, measure(0)), (30, stage(1)), (1, step(89.0)), (89, measure(1)), (30, stage(2))
    )
    assert remaining.left_s == 120 * 1.5 + 30


def test_a_row_that_is_re_used_takes_nothing_and_says_nothing_of_the_others():
    again = {"event": "reuse", "index": 0, "label": "x"}
    assert followed(*BEGUN, (0, again), (0, stage(1))).left_s == 60 + 120 + 2 * 30


def test_a_new_run_begins_anew():
    assert followed(*BEGUN, (400, START)).left_s is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "a few seconds"),
        (8, "about 10 s"),
        (43, "about 40 s"),
        (95, "about 2 min"),
        (3600, "about 60 min"),
        (9000, "about 2.5 h"),
    ],
)
def test_what_is_not_known_well_is_round(seconds, words):
    assert about(seconds) == words


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "is_said"), [(Terminal, True), (io.StringIO, False)])
def test_a_terminal_says_what_remains_of_the_run_beside_what_does_of_the_stage(
    stream, is_said, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "200")
    shown = stream()
    with TerminalProgress(shown) as progress:
        for event in (START, stage(0), EXPECTED, measure(0), stage(1), step(70.0)):
            progress(event)
    text = shown.getvalue()
    assert (
        bool(re.search(r"\[0/2\] x: measuring \(about . min left of about . min\)", text))
        == is_said
    )
    # Measuring took no time here.
    run = "1:10 left (run: 3 of 3 min left), epoch 1/2, step 1/5"
    assert (run in text) == is_said


@pytest.mark.parametrize(
    ("wanted", "is_terminal", "is_shown"),
    [
        (None, False, False),
        (None, True, True),
        (True, False, True),
        (True, True, True),
        (False, True, False),
    ],
)
def test_who_looks_is_shown_how_far_it_is(wanted, is_terminal, is_shown, monkeypatch):
    stream, seen = (Terminal if is_terminal else io.StringIO)(), []
    monkeypatch.setattr("sys.stderr", stream)
    with progress_for(wanted, seen.append) as callback:
        callback(stage(1))
    assert seen == [stage(1)]
    assert ("[1/2] x" in stream.getvalue()) == is_shown
