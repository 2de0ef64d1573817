import io

import pytest

from compress.cli.progress import TerminalProgress

pytestmark = pytest.mark.fast

EPOCH = {
    "event": "epoch",
    "epoch": 2,
    "epochs": 9,
    "loss": 0.25,
    "losses": {"label": 0.25},
    "validation_loss": 0.5,
    "samples_per_s": 1234.4,
    "left_s": 75.2,
}
STEP = {**EPOCH, "event": "step", "step": 3, "steps": 40}


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(stream, *events):
    progress = TerminalProgress(stream)
    progress({"event": "stage", "index": 1, "label": "train", "of": 3})
    for event in events:
        progress(event)
    return stream.getvalue()


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_an_epoch_shows_its_pace_and_the_time_left(stream):
    text = shown(stream(), EPOCH)
    assert (
        "[1/3] train: epoch 2/9, loss 0.2500, validation 0.5000, 1234 samples/s, 1:15 lef" in text
    )


@pytest.mark.parametrize(
    ("left_s", "words"), [(0.4, "samples/s"), (59.6, "1:00 left"), (36000.0, "10:00:00 left")]
)
def test_times_are_minutes_until_they_are_hours(left_s, words):
    assert shown(io.StringIO(), {**EPOCH, "left_s": left_s}).rstrip().endswith(words)


def test_steps_move_a_terminal_and_fill_no_file():
    assert "step" not in shown(io.StringIO(), STEP)
    assert "epoch 2/9, step 3/40, loss 0.2500" in shown(Terminal(), STEP)


def test_what_is_gone_on_with_and_what_is_wrong_has_a_line():
    text = shown(
        io.StringIO(),
        {"event": "resumed", "epoch": 4, "seconds": 3.0, "history": []},
        {"event": "warning", "text": "the checkpoint is damaged."},
    )
    assert "[1/3] train: resumed after epoch 4\n" in text
    assert "[1/3] train: the checkpoint is damaged.\n" in text
