"""Nets that make images: which frames go back to the teacher, by plain numpy, and the command."""

import json
import os
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from scipy.stats import spearmanr

from compress import Recipe
from compress.cascade.frame_cascade import FrameCascade, frames_text
from compress.cascade.frames import Expectation, Looked, curve_of, facts_of, look_at
from compress.cascade.program.frames import agreement, moved
from compress.cascade.threshold import NEVER
from compress.cli import main
from compress.overwriting import check_cascade_folder
from compress.pareto import readings
from compress.record import Record

RANDOM = np.random.default_rng(0)
TEACHER = """
def dim(image, controls):
    return image / 255.0 * (1 - 0.5 * controls["strength"])
"""
RECIPE = """
name: dim
task:
  name: image-to-image
  images: photos
  teacher: {name: "dim_effect:dim"}
  controls: {strength: [0, 1]}
  size: 32
  pairs: 4
  frames: 1
model: {arch: mobile-unet, width: 8, depth: 2, blocks: 1, controls: {strength: 1}}
stages: [{kind: distill, teacher: {labels: true}, epochs: 1}]
"""


# -- how a net agrees with itself -----------------------------------------------------------------


def pattern(image, _):
    """Does another thing wherever a thing stands."""
    places = np.indices(image.shape)
    return (image + 0.2 * (places[1] * places[2] % 7 > 3)).clip(0, 1)


def inverted(image, _):
    """Does the same wherever it stands."""
    return 1 - image


def looked(agreement_db, psnr_db, photographs, **controls):
    arrays = {name: np.array(values, float) for name, values in controls.items()}
    return Looked(np.array(agreement_db), np.array(psnr_db), np.array(photographs), arrays)


def test_a_filter_that_does_the_same_everywhere_agrees_with_itself():
    images = RANDOM.integers(0, 256, (3, 3, 40, 48)).astype(np.uint8)
    numbers = np.arange(3)
    same = look_at(inverted, images, 255 - images, {}, numbers)
    assert same.agreement_db == pytest.approx([60] * 3)
    assert same.psnr_db == pytest.approx([60] * 3, abs=0.1)
    other = look_at(pattern, images, images, {"strength": np.ones((3, 1))}, numbers)
    assert (other.agreement_db < 20).all()
    assert (other.psnr_db < 20).all()
    assert other.controls["strength"].tolist() == [1, 1, 1]


def test_the_agreement_is_the_psnr_of_what_is_away_from_the_edges():
    made, of_moved = RANDOM.random((2, 3, 64, 80))
    back = of_moved[:, 8 + 0 : -8, 8:-8]
    by_hand = made[:, 8 - 3 : 64 - 8 - 3, 8 - 5 : 80 - 8 - 5]
    wanted = -10 * np.log10(((back - by_hand) ** 2).mean())
    assert agreement(made, of_moved) == pytest.approx(wanted)
    assert agreement(made, moved(made)) == 60
    assert agreement(np.stack([made, made]), moved(np.stack([made, made]))).shape == (2,)


def test_a_line_is_what_is_expected():
    given = looked([10, 20, 30], [21, 26, 31], [0, 0, 1])
    line = Expectation.of(given)
    assert (line.at_zero_db, line.for_each_db) == pytest.approx((16, 0.5))
    level = Expectation.of(looked([20, 20], [30, 40], [0, 1]))
    assert (level.at_zero_db, level.for_each_db) == (35, 0)


def test_facts_are_of_those_below_the_threshold():
    given = looked([10, 20, 30, 40], [20, 31, 30, 35], [0, 0, 1, 1])
    facts = facts_of("test", given, 20.0, Expectation(20, 0.5))
    assert facts.share == 0.25
    assert facts.kept_db == pytest.approx(32)
    assert (facts.worst_db, facts.worst_kept_db) == (20, 30)
    assert facts.correlation == pytest.approx(spearmanr([1, 2, 3, 4], [1, 3, 2, 4])[0])
    assert facts.ci95[0] <= facts.correlation <= facts.ci95[1]
    off = np.array([20, 31, 30, 35]) - np.array([25, 30, 35, 40])
    assert facts.off_db == pytest.approx(np.sqrt((off**2).mean()))
    none = facts_of("test", given, float("inf"), Expectation(20, 0.5))
    assert (none.share, none.kept_db, none.worst_kept_db) == (1, None, None)
    assert facts_of("test", given, NEVER, Expectation(20, 0.5)).share == 0


def test_frames_are_ranked_among_those_with_the_same_controls():
    # Strength decides both, and says nothing of the frames.
    agreements = [[50, 51, 52], [20, 21, 22]]
    psnr = [[52, 51, 50], [22, 21, 20]]
    given = looked(
        np.ravel(agreements), np.ravel(psnr), [0, 1, 2] * 2, strength=np.repeat([0, 1], 3)
    )
    assert facts_of("test", given, 0.0, Expectation(0, 1)).correlation == pytest.approx(-1)


def test_too_few_frames_have_no_rank():
    facts = facts_of("test", looked([10, 20], [20, 30], [0, 1]), 0.0, Expectation(0, 1))
    assert (facts.correlation, facts.ci95) == (None, None)
    alike = facts_of("test", looked([10] * 4, [1, 2, 3, 4], range(4)), 0.0, Expectation(0, 1))
    assert (alike.correlation, alike.ci95) == (None, None)
    of_one = facts_of("test", looked([1, 2, 3], [1, 2, 3], [0] * 3), 0.0, Expectation(0, 1))
    assert (of_one.correlation, of_one.ci95) == (pytest.approx(1), None)


def test_the_curve_leaves_the_least_sure_out():
    given = looked([40, 10, 30, 20], [35, 20, 30, 31], [0, 0, 1, 1])
    points = {back: (mean, least) for back, mean, least in curve_of(given)}
    assert points[0] == pytest.approx((29, 20))
    assert points[0.25] == pytest.approx((32, 30))
    assert points[0.5] == pytest.approx((32.5, 30))


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    here = tmp_path_factory.mktemp("dim")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.syspath_prepend(here)
        patch.setenv("XDG_CACHE_HOME", str(here / "caches"))
        (here / "dim_effect.py").write_text(TEACHER)
        (here / "dim.yaml").write_text(RECIPE)
        (here / "photos").mkdir()
        for number in range(4):
            pixels = RANDOM.integers(0, 256, (40, 48, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(here / "photos" / f"{number}.png")
        recipe = Recipe.load(here / "dim.yaml", imports=["dim_effect"])
        task = recipe.make_task()
        recipe.run(recipe.make_candidate(task), task, workdir=here / "run", mode="quick")
        yield here
        sys.modules.pop("dim_effect", None)


def command(here, *given):
    return main(["cascade", str(here / "run"), "--import", "dim_effect", *map(str, given)])


def test_the_command_finds_what_the_file_does(ran, capsys):
    assert command(ran, "--share", "40%", "--against", ran / "photos", "--row", 1, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["command"], said["score"], said["wanted"]) == (
        *("cascade", "agreement"),
        "at most 40 % sent back",
    )
    assert said["controls"] == [{"name": "strength", "low": 0, "high": 1, "default": 1}]
    assert said["test"]["frames"] == 5
    assert said["test"]["photographs"] == 1
    (foreign,) = said["foreign"]
    assert foreign["frames"] == 4
    folder = ran / "run" / "cascade"
    assert set(said["files"]) | {"cascade.json"} == set(os.listdir(folder))
    session = onnxruntime.InferenceSession(folder / "student.onnx")
    with Image.open(ran / "photos" / "2.png") as image:
        pixels = np.asarray(image.crop((4, 0, 44, 40)).resize((32, 32), Image.Resampling.BILINEAR))
    given = (pixels.transpose(2, 0, 1) / 255).astype(np.float32)
    port = next(one.name for one in session.get_inputs() if len(one.shape) == 4)
    at = {"strength": np.ones((1, 1), np.float32)}
    made, after = (
        session.run(None, {port: image[None], **at})[0][0].clip(0, 1)
        for image in (given, np.roll(given, (3, 5), (1, 2)))
    )
    inner = np.roll(made, (3, 5), (1, 2))[:, 8:-8, 8:-8]
    by_hand = -10 * np.log10(((inner - after[:, 8:-8, 8:-8]) ** 2).mean())
    assert foreign["agreements"][2][0] == pytest.approx(by_hand, abs=1)  # resized otherwise
    off_db = -10 * np.log10(((made - given / 2) ** 2).mean())
    assert foreign["agreements"][2][1] == pytest.approx(off_db, abs=1)
    as_in_the_table = readings(Record.load(ran / "run"), "local")[1]["latency_p50_s"]
    assert said["net_s"] == as_in_the_table.value
    values = [one[0] for one in said["validation"]["agreements"]]
    assert np.mean(np.array(values) < said["threshold"]) == said["validation"]["share"] <= 0.4


def test_the_folder_runs_with_numpy_and_onnxruntime_alone(ran, capsys):
    out = ran / "alone"
    assert command(ran, "-o", out) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in (
        "dim on local: row",
        "its teacher where it is not sure",
        "Note: validation has 1 photograph, so that threshold",
        "Every frame takes the net twice",
        f"run it: python {out / 'run.py'}",
    ):
        assert words in said
    code = "import sys; sys.modules.update(torch=None, compress=None, PIL=None)\n"
    code += f"sys.path.insert(0, {str(out)!r}); import run; sys.exit(run.main())"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["as_before"] == found["samples"] == 5
    check_cascade_folder(out, "--out")
    assert command(ran, "-o", out, "--share", "100%") == 0  # in the place of the earlier
    assert json.loads((out / "cascade.json").read_text())["frames"]["threshold"] is None
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert json.loads(ended.stdout)["sent_back"] == 5


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (("--larger", "0"), "--larger: it is for models that answer with a class"),
        (("--drop", "1pt"), "--drop: it is for models that answer with a class"),
        (("--score", "energy"), "--score: it is for models that answer with a class"),
        (("--strict",), "--strict: it is for models that answer with a class"),
        (("--against", "nowhere"), "--against nowhere: there is no picture"),
        (("--against", "dim.yaml"), "--against dim.yaml: "),
        (("--share", "2"), "--share '2': give a share of the samples"),
        (("--row", "9"), "9"),
        (("--target", "phone"), "phone"),
        (("-o", "photos"), "holds"),
    ],
)
def test_what_makes_no_sense_is_said(ran, capsys, monkeypatch, given, sentence):
    monkeypatch.chdir(ran)
    assert command(ran, *given) in (1, 2)
    assert sentence in capsys.readouterr().err


def test_pictures_that_cannot_be_read_are_left_out_and_counted(ran, capsys):
    folder = ran / "mixed"
    folder.mkdir()
    (folder / "0.png").write_bytes((ran / "photos" / "0.png").read_bytes())
    (folder / "1.png").write_text("no image")
    (folder / "2.png").write_bytes((ran / "photos" / "2.png").read_bytes()[:500])
    assert command(ran, "--against", folder, "-o", ran / "left-out", "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["foreign"][0]["frames"] == 1
    assert "2 of 3 pictures cannot be read, and are left out; the first:" in said.err


def test_what_is_expected_may_fall_with_the_agreement():
    given = looked([10, 20, 30], [31, 26, 21], [0, 0, 1])
    expected = Expectation.of(given)
    facts = facts_of("test", given, 15.0, expected)
    found = FrameCascade(
        run="r",
        target="local",
        row=1,
        stage="s",
        teacher="t",
        wanted="w",
        threshold=15.0,
        at_zero_db=36.0,
        for_each_db=-0.5,
        validation=facts,
        test=facts,
        curve=[(0.0, 1.0, 2.0)],
        foreign=[],
        net_s=None,
        teacher_s=None,
        controls=[],
    )
    said = " ".join(frames_text(found).split())
    assert "A PSNR of 36.0 - 0.50 times that is expected" in said
    assert "It is not shown to predict the PSNR to the teacher" in said
    assert "Every frame takes" not in said


def test_a_file_of_another_size_than_the_tasks_is_refused(ran, capsys, monkeypatch):
    monkeypatch.setattr("compress.cli.cascade_frames.DeployedFilter.size", 48)
    assert command(ran) == 2
    assert "takes images of 48 pixels, and the run's task has 32; run the recipe again." in (
        capsys.readouterr().err
    )


def test_a_teacher_is_not_asked_for_pictures_without_end(ran, capsys, monkeypatch):
    monkeypatch.setattr("compress.cli.cascade_frames._MOST_PICTURES", 3)
    assert command(ran, "--against", ran / "photos") == 1
    assert "4 pictures, and the teacher would be asked for each; give at most 3." in (
        capsys.readouterr().err
    )
