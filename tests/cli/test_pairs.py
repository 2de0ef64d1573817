"""``compresskit pairs``: a slow teacher is asked before a run, and further after a kill."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from compress.cli import main

TEACHER = """
import time

def slow(image, controls, seconds=0.0):
    time.sleep(seconds)
    return 255 - image
"""

RECIPE = """
schema: 1
name: slow
task:
  name: image-to-image
  images: photos
  teacher: {name: "slow_effect:slow", seconds: 0.15}
  size: 32
  pairs: 30
  frames: 1
model: {arch: mobile-unet, width: 8, depth: 2, blocks: 1}
stages: [{kind: distill, teacher: {labels: true}, epochs: 1}]
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    (tmp_path / "slow_effect.py").write_text(TEACHER)
    (tmp_path / "slow.yaml").write_text(RECIPE)
    (tmp_path / "photos").mkdir()
    random = np.random.RandomState(0)
    for number in range(3):
        pixels = (255 * random.rand(40, 40, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "photos" / "text.png").write_text("no image")
    yield tmp_path
    sys.modules.pop("slow_effect", None)


def files(here):
    return list((here / "caches").rglob("*.npz"))


def test_pairs_are_made_further_after_a_kill(here, capsys):
    code = "import sys; from compress.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "pairs", "slow.yaml", "--import", "slow_effect"]
    with subprocess.Popen(command, cwd=here, env=os.environ, stdout=subprocess.PIPE) as process:
        until = time.monotonic() + 120
        while len(files(here)) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        process.kill()
    made = len(files(here))
    assert 2 <= made < 32
    given = ["slow.yaml", "--import", "slow_effect"]
    assert main(["plan", *given]) == 2
    said = capsys.readouterr().err
    assert f"{32 - made} of 32 pairs of the task are not made yet, and a plan makes none" in said
    assert main(["pairs", *given]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "1 file left out: " in lines[0]
    assert f"1 for train, 1 for validation, 1 for test; pairs: {made} of 32 are made" in lines[1]
    assert lines[-4].startswith("pairs: 32 of 32, ")
    assert lines[-2].startswith("the teacher takes ")
    # The teacher is the negative, which is a map of colors.
    assert "60.0 dB by the map of colors that fits the training pairs best" in lines[-1]
    assert len(files(here)) == 32
    assert main(["pairs", *given]) == 0
    assert "pairs: 32 of 32 are made" in capsys.readouterr().out


def test_another_task_has_none(tiny, capsys):
    assert main(["pairs", str(tiny)]) == 2
    assert "is of no task image-to-image, which alone has pairs" in capsys.readouterr().err
