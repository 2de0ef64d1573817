"""kill -9 in the middle of an epoch, the same command again: the weights of a run left alone."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from compress import ReplayTarget
from compress.recipe import Recipe

RECIPE = """\
schema: 1
name: killed
task: digits
model: {arch: mlp, in_features: 64, width: 16}
stages:
  - {kind: train, epochs: 30, batch_size: 32, patience: 25}
  - kind: prune
    ratio: 0.4
    granularity: weights
    finetune: {epochs: 30, batch_size: 32, ema: 0.99}
"""

RUN = """
import sys
import torch
from compress import Recipe, ReplayTarget
torch.set_num_threads(1)
recipe = Recipe.load("r.yaml")
task = recipe.make_task()
recipe.run(recipe.make_candidate(task), task, workdir="run", targets=[ReplayTarget()], report=False)
"""


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-c", RUN], cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def wait_for(path, words, process):
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if path.exists() and words in path.read_text():
            return
        time.sleep(0.002)
    raise AssertionError(f"{words!r} did not appear in {path}")


@pytest.fixture
def one_thread():
    """As the process has that is killed: what is computed with another number is not the same."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("one_thread")
def test_the_same_command_goes_on_and_ends_alike(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE)
    log, stages = tmp_path / "run" / "log.jsonl", tmp_path / "run" / "stages"
    for folder in ("01-train", "02-prune"):
        process = start(tmp_path)
        wait_for(log, f'"{folder[3:]}", "event": "epoch", "epoch": 9', process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert (stages / folder / "checkpoint" / "checkpoint.safetensors").exists()

    recipe = Recipe.load(tmp_path / "r.yaml")
    task = recipe.make_task()
    gone_on, alone = (
        recipe.run(
            recipe.make_candidate(task),
            task,
            workdir=tmp_path / name,
            targets=[ReplayTarget()],
            cache="none",
            report=False,
        )
        for name in ("run", "alone")
    )
    assert log.read_text().count('"event": "resumed"') == 2
    assert not list(stages.glob("*/checkpoint"))
    for row, expected in zip(gone_on.rows, alone.rows, strict=True):
        assert row.fingerprint == expected.fingerprint
        assert row.notes == expected.notes
        assert timeless(row.history) == timeless(expected.history)


def timeless(history):
    return [{**entry, "samples_per_s": 0} for entry in history]
