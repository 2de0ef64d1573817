"""Progress in a notebook, by a stand-in for what shows it."""

import sys
import types

import pytest

from compress.progress import progress_for
from compress.progress.notebook import in_notebook

pytestmark = pytest.mark.fast

STAGE = {"event": "stage", "index": 1, "label": "<b>train", "of": 3}
STEP = {
    "event": "step",
    "epoch": 1,
    "epochs": 2,
    "step": 5,
    "steps": 5,
    "loss": 0.25,
    "samples_per_s": 1234.4,
    "left_s": 75.2,
}
EPOCH = {**STEP, "event": "epoch", "losses": {}, "validation_loss": None}


@pytest.fixture
def outputs(monkeypatch):
    """What the cell's one output has been."""
    shown = []

    class DisplayHandle:
        def display(self, output, *, raw):
            assert raw
            assert not shown
            shown.append(output)

        def update(self, output, *, raw):
            assert raw
            shown.append(output)

    ipython, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    display.DisplayHandle = DisplayHandle
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return shown


def test_a_kernel_is_a_notebook_and_a_shell_is_none(outputs, monkeypatch):
    assert in_notebook()
    for shell in (None, types.SimpleNamespace()):
        monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda one=shell: one)
        assert not in_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not in_notebook()


def test_one_output_has_a_bar_and_the_warnings_and_says_when_it_is_done(outputs):
    with progress_for(None, lambda _: None) as callback:
        for event in (STAGE, EPOCH, {"event": "warning", "text": "odd & <i>."}):
            callback(event)
        assert "[1/3] <b>train: epoch 1/2, loss 0.2500" in outputs[-1]["text/plain"]
        assert outputs[-1]["text/plain"].count("█") == 12
        assert "&lt;b&gt;train: odd &amp; &lt;i&gt;." in outputs[-1]["text/html"]
        callback({"event": "end", "status": "done"})
    assert outputs[-1]["text/plain"] == "[1/3] <b>train: odd & <i>.\ndone in 0:00"
    assert "<b>" not in outputs[-1]["text/html"]


def test_steps_that_come_too_fast_are_not_sent(outputs):
    with progress_for(True, lambda _: None) as callback:
        for event in (STAGE, *[STEP] * 20):
            callback(event)
    assert len(outputs) == 2  # and where it stopped


def test_where_it_stopped_is_said(outputs):
    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), progress_for(None, interrupt) as callback:
        callback(STAGE)
    assert outputs[-1]["text/plain"].startswith("stopped: 0:00  [1/3]")


def test_what_is_not_wanted_is_not_shown(outputs):
    with progress_for(False, lambda _: None) as callback:
        callback(STAGE)
    assert not outputs
