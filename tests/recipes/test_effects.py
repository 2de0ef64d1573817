"""Recipes of image filters: the filter is one line, and the student knows nothing of it."""

from __future__ import annotations

import importlib.util
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from compress import Recipe, ReplayTarget
from compress.cli import main
from compress.effects.lite0_weights import PACKAGE
from compress.zoo import build

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = ("effect", "effect-oil", "effect-quick")
CONTROLS = ", controls: {strength: 1}"


def text_of(name):
    return (RECIPES / f"{name}.yaml").read_text()


def block(text, key, end):
    """The lines from a key to the next one."""
    start = text.index(f"\n{key}:") + 1
    return text[start : text.index(f"\n{end}:", start)]


def test_another_filter_leaves_model_stages_and_student_as_they_are():
    style, oil = text_of("effect"), text_of("effect-oil")
    stages = [one.partition("\nstages:")[2] for one in (style, oil)]
    plain = stages[0].replace("   # 13 ms in int8 at 256x256, once it is cut", "")
    assert plain == stages[1].replace(CONTROLS, "")
    assert block(style, "model", "targets") == block(oil, "model", "targets").replace(CONTROLS, "")
    assert style.count("style-transfer") == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_student_is_the_model_and_all_trainings_learn_from_the_filters_images(name):
    recipe = Recipe.load(RECIPES / f"{name}.yaml")
    distill, quantize, prune = recipe.stages
    assert distill.student.architecture == recipe.model.architecture
    assert distill.teacher.labels
    assert prune.finetune.teacher.labels
    assert distill.makes_baseline()
    assert quantize.kind == "quantize"
    assert recipe.budget.accuracy_drop == 1
    controls = recipe.task.options.get("controls") or {}
    assert set(recipe.model.options.get("controls", {})) == set(controls)
    net = build(recipe.model.arch, recipe.model.options)
    assert recipe.task.options["size"] % net.multiple == 0
    assert recipe.task.options["crop"] % net.multiple == 0


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    module = types.ModuleType("mine")
    code = (
        "def dimmed(image, controls):\n"
        "    return image / 255.0 * (1 - 0.5 * controls.get('strength', 1.0))\n"
    )
    exec(code, vars(module))
    module.dimmed.__module__ = "mine"
    monkeypatch.setitem(sys.modules, "mine", module)
    folder, random = tmp_path / "photos", np.random.RandomState(0)
    folder.mkdir()
    for number in range(4):
        small = (255 * random.rand(6, 6, 3)).astype(np.uint8)
        Image.fromarray(small).resize((48, 40)).save(folder / f"{number}.png")
    return folder


HAS_WEIGHTS = importlib.util.find_spec(PACKAGE) is not None

SMALL = {
    "model.width": 8,
    "model.depth": 2,
    "model.blocks": 1,
    "stages.distill.student.width": 8,
    "stages.distill.student.depth": 2,
    "stages.distill.student.blocks": 1,
    "stages.distill.epochs": 10,
    "stages.distill.batch_size": 8,
    "stages.prune.finetune.epochs": 1,
    "stages.prune.round_to": 1,
    "task.size": 40,
    "task.crop": 32,  # training sees parts, and all else whole images
    "task.pairs": 16,
    "task.frames": 2,
    "task.perceptual": str(HAS_WEIGHTS).lower(),
    "task.teacher": "{name: 'mine:dimmed'}",
}


def _video(path, photos):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container, Image.open(photos / "0.png") as image:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 40, "yuv420p"
        for _ in range(6):
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode(None))


def _demo(tmp_path, photos, capsys):
    """The deployed file on pictures, with the teacher's images, and by its control."""
    run, out = str(tmp_path / "run"), tmp_path / "out"
    given = ["demo", run, str(photos), "--row", "3", "--import", "mine", "--teacher", "--moving"]
    assert main([*given, "-o", str(out), "--control", "strength=0.5"]) == 0
    said = capsys.readouterr().out
    assert "frames a second with one thread" in said
    assert "times the net's time" in said
    assert re.search(r"net \d+\.\d\d dB \[.*\], teacher 60\.00 dB \[60\.00, 60\.00\]", said)
    sizes = []
    for name in ("sheet.png", "0.png.png"):
        with Image.open(out / name) as image:
            sizes.append(image.size)
    assert sizes == [(3 * 40, 4 * 40), (40, 40)]
    _video(tmp_path / "clip.mp4", photos)
    given_video = ["demo", run, str(tmp_path / "clip.mp4"), "--import", "mine", "--frames", "3"]
    assert main([*given_video, "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert "to decode and scale, " in said
    assert "3 frames in" in said
    assert "input and net side by side; the video may have more (--frames)" in said
    assert (out / "clip.mp4").is_file()
    for wrong, problem in (
        (["--frames", "0"], "--frames 0: give 1 or more"),
        (["--teacher"], "a teacher is too slow for a video"),
        (["--moving"], "how a video moves is not known"),
    ):
        assert main([*given_video, *wrong]) == 2
        assert problem in capsys.readouterr().err
    assert main(["demo", run, "--row", "1", "--import", "mine"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table[-5:]] == ["0", "0.25", "0.5", "0.75", "1"]
    assert table[-5].split()[3] == "60.00"  # the teacher changes nothing at no strength
    for wrong, problem in (
        (["-o", str(photos)], "holds something else than images of a demo"),
        (["--control", "size=1"], "the net's controls are strength"),
        (["--control", "strength"], "write NAME=NUMBER"),
        (["--control", "strength=2"], "strength is from 0 to 1; got 2"),
    ):
        assert main([*given, *wrong]) == 2
        assert problem in capsys.readouterr().err


def _pictures(run, record):
    """The contact sheet of the run, and how its rows follow the control, on a page made twice."""
    with Image.open(run / "contact-sheet.png") as image:
        assert image.size == (4 + 5 * 44, 4 + 2 * 16 + 4 + 4 * 44)  # of a test photograph two parts
        pixels = np.array(image)
    assert (record.contact_sheet.rows, record.contact_sheet.images) == ([1, 2, 3], 2)
    assert record.contact_sheet.controls == {"strength": 1}
    shown = [pixels[40:80, 4 + 44 * k : 44 + 44 * k].mean() for k in range(5)]
    # The teacher makes images half as bright at full strength, and nets learn it.
    assert shown[1] < 0.6 * shown[0]
    assert all(each < 0.8 * shown[0] for each in shown[2:])
    values = record.rows[1].measurements[0].controls["strength"]
    assert [one.value for one in values] == [0, 0.25, 0.5, 0.75, 1]
    assert values[0].teacher_to_input == 60 > values[4].teacher_to_input
    assert values[4].to_input.value < values[0].to_input.value
    page = record.report().read_text()
    assert "How the rows follow strength" in page
    assert "Contact sheet of 2 test images. Columns: input, teacher, row 1 distill (psnr" in page
    assert (run / "controls.png").is_file()
    assert record.report().read_text() == page
    (run / "contact-sheet.png").write_bytes(b"another")
    assert "contact-sheet.png is not the picture of this record" in record.report().read_text()


def test_a_controlled_filter_is_followed_to_the_end(photos, tmp_path, capsys):
    given = {**SMALL, "task.images": photos}
    recipe = Recipe.load(
        RECIPES / "effect-oil.yaml",
        settings=[f"{key}={value}" for key, value in given.items()],
        imports=["mine"],
    )
    task = recipe.make_task()
    record = recipe.run(
        recipe.make_candidate(task),
        task,
        workdir=tmp_path / "run",
        targets=[ReplayTarget()],
        report=False,
    )
    assert [row.kind for row in record.rows] == ["input", "distill", "quantize", "prune"]
    assert (record.task.metric, record.baseline) == ("psnr", 1)
    metrics = record.rows[2].measurements[0].metrics
    assert set(metrics) == {"ssim", "perceptual"} if HAS_WEIGHTS else {"ssim"}
    if HAS_WEIGHTS:
        assert record.task.metrics == {"ssim": True, "perceptual": False}
        low, high = metrics["perceptual"].ci95
        assert 0 < low <= metrics["perceptual"].value <= high < 1
    float_, int8, cut = (row.measurements[0].accuracy.value for row in record.rows[1:])
    assert min(int8, cut) > float_ - 3
    _demo(tmp_path, photos, capsys)
    _pictures(tmp_path / "run", record)
    module = record.module("prune")
    inputs = {"image": torch.rand(1, 3, 40, 40), "strength": torch.zeros(1, 1)}
    with torch.no_grad():
        bright, dark = (module(**inputs | {"strength": torch.full((1, 1), s)}) for s in (0.0, 1.0))
    assert float(dark.mean()) < 0.95 * float(bright.mean())
