"""A cascade of two rows: what is found, its folder, the program in it, and what is refused."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from compress import Recipe, ReplayTarget
from compress.backends.onnx.features import expose_features
from compress.cascade.build import Asked, build
from compress.cascade.figure import figures_of
from compress.cascade.models import check_kind
from compress.cascade.program.scores import confidence
from compress.cascade.result import read_cascade
from compress.cascade.threshold import Wanted
from compress.cascade.words import cascade_text
from compress.cli import main
from compress.errors import DataError, LoweringError, RecipeError, RecordError, StageError
from compress.record import Record
from compress.running.scoring import scoring_of, supervision_of_job
from compress.tasks.arrays import ArrayDataset

RECIPE = """\
name: tiny
task: digits
model: {arch: mlp, in_features: 64, width: 64}
stages:
  - {kind: train, epochs: 4, batch_size: 32, learning_rate: 0.01}
  - kind: distill
    student: {arch: mlp, in_features: 64, width: 8}
    epochs: 5
    batch_size: 32
    learning_rate: 0.01
  - {kind: quantize}
"""
TARGET = ReplayTarget(name="local")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    recipe = Recipe.loads(RECIPE)
    task = recipe.make_task()
    model = recipe.make_candidate(task)
    recipe.run(model, task, targets=[TARGET], workdir=folder, report=False, cache="none")
    job = recipe.job(model, task, targets=[TARGET], workdir=folder)
    return folder, job


@pytest.fixture(autouse=True, scope="module")
def without_pictures():
    """Four pictures take longer than all else; the command's test draws them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compress.cascade.build.figures_of", lambda *_: {})
        yield


def foreign(task):
    noise = torch.randn(task.test.inputs.shape, generator=torch.Generator().manual_seed(0))
    return {
        "noisy": ArrayDataset(task.test.inputs + 1.5 * noise, task.test.labels),
        "noise": ArrayDataset(noise[:100], None),
    }


def built(ran, out, wanted=Wanted(share=0.1), **asked):  # noqa: B008 - frozen
    folder, job = ran
    against = asked.pop("against", {})
    return build(Record.load(folder), folder, job, Asked(wanted, out, **asked), against)


@pytest.fixture(scope="module")
def found(ran, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "cascade"
    scores = ("probability", "neighbors", "mahalanobis")
    return out, built(ran, out, scores=scores, row=3, against=foreign(ran[1].task))


def answers(path, inputs):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (port,) = session.get_inputs()
    return np.concatenate([session.run(None, {port.name: x[None]})[0] for x in inputs])


def test_what_is_found_is_what_both_files_do(found, ran):
    out, cascade = found
    task = ran[1].task
    inputs, labels = task.test.inputs.numpy(), task.test.labels.numpy()
    first, second = (answers(out / name, inputs) for name in ("student.onnx", "larger.onnx"))
    back = confidence("probability", first) < cascade.threshold
    right = np.where(back, second.argmax(1), first.argmax(1)) == labels
    assert cascade.point.share == pytest.approx(back.mean())
    assert cascade.point.accuracy == pytest.approx(right.mean())
    larger = (second.argmax(1) == labels).mean()
    assert cascade.point.change == pytest.approx(right.mean() - larger)
    assert cascade.student.accuracy == pytest.approx((first.argmax(1) == labels).mean())
    on_validation = confidence(
        "probability", answers(out / "student.onnx", task.validation.inputs.numpy())
    )
    assert (on_validation < cascade.threshold).mean() == pytest.approx(cascade.validation_share)
    assert cascade.validation_share <= 0.1


def test_times_are_of_the_share_that_goes_back_on_the_test_split(found):
    _, cascade = found
    timed, point = cascade.timed, cascade.point
    wanted = timed.student_s + timed.score_s + point.share * timed.larger_s
    assert point.mean_s == pytest.approx(wanted)
    assert point.ratio == pytest.approx(wanted / timed.larger_s, rel=0.01)
    assert point.ratio_ci95[0] <= point.ratio <= point.ratio_ci95[1]
    assert cascade.curve[0].share == 0
    assert cascade.curve[-1].share == 1


def test_noise_is_told_from_test_samples_by_every_score(found):
    _, cascade = found
    noisy, noise = cascade.foreign
    assert [each.score for each in cascade.scores] == [
        *("probability", "neighbors", "mahalanobis", "margin", "energy")
    ]
    assert set(noise.auroc) == {each.score for each in cascade.scores}
    assert noise.auroc["mahalanobis"].value > 0.8
    assert noise.point is None
    assert noisy.student == pytest.approx(noisy.fixed["0"])
    assert noisy.larger == pytest.approx(noisy.fixed["1"])
    assert noisy.share > cascade.point.share


def test_the_file_says_all_of_it_and_may_be_a_strangers(found, tmp_path):
    out, cascade = found
    assert read_cascade(out) == cascade
    assert set(cascade.files) == {path.name for path in out.iterdir()} - {"cascade.json"}
    text = " ".join(cascade_text(cascade).split())
    assert "row 3 (quantize) answers, row 1 (train) where it is not sure" in text
    assert "was chosen on 270 validation samples for at most 10 % sent back" in text
    content = json.loads((out / "cascade.json").read_text())
    content["cascade"]["point"]["share"] = "most"
    (tmp_path / "cascade.json").write_text(json.dumps(content))
    with pytest.raises(RecordError, match=r"cascade.point.share: .*write it anew"):
        read_cascade(tmp_path)


def python(*arguments):
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=plain, timeout=120)


def test_the_program_in_the_folder_answers_as_before_without_this_package(found, tmp_path):
    out, _ = found
    done = python(out / "run.py")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["samples"] == said["as_before"] == 64
    code = (
        f"import sys; sys.path.insert(0, {str(out)!r}); import run; run.Cascade()\n"
        "print(*{'compress', 'torch', 'scipy', 'onnx'} & sys.modules.keys())"
    )
    assert python("-c", code).stdout.split() == []
    assert len((out / "run.py").read_text().splitlines()) < 100


def test_a_distance_of_features_decides_in_the_folder_too(ran, tmp_path):
    folder = tmp_path / "cascade"
    cascade = built(ran, folder, scores=("neighbors",), row=3)
    assert cascade.model["features"] in {
        value.name for value in onnx.load(folder / "student.onnx").graph.output
    }
    assert "as one more output" in cascade.notes[0]
    said = json.loads(python(folder / "run.py").stdout)
    assert said["as_before"] == 64
    again = built(ran, folder, row=2, wanted=Wanted(share=0.2))
    assert again.student.row == 2
    assert again.model["features"] is None
    assert read_cascade(folder).point == again.point


def test_a_share_or_an_accuracy_is_kept_on_validation(ran, tmp_path):
    least = built(ran, tmp_path / "a", wanted=Wanted(drop=0.02), row=3)
    most = built(ran, tmp_path / "b", wanted=Wanted(drop=0.0), row=3)
    assert least.validation_share <= most.validation_share
    with pytest.raises(StageError, match=r"no threshold reaches 100.00 % .* the best is 9\d"):
        built(ran, tmp_path / "c", wanted=Wanted(accuracy=1.0), row=3)
    assert not (tmp_path / "c").exists()


def test_the_quickest_row_answers_and_the_baseline_is_behind_it(ran, tmp_path):
    cascade = built(ran, tmp_path / "cascade")
    record = Record.load(ran[0])
    assert cascade.larger.row == record.baseline == 1
    assert cascade.student.row in (2, 3)


def test_what_is_no_pair_of_rows_is_refused(ran, tmp_path):
    with pytest.raises(RecipeError, match=r"row 1 .* would be both the student"):
        built(ran, tmp_path / "a", row=1)
    with pytest.raises(RecordError, match="--row 9: the run tiny has rows 0 to 3"):
        built(ran, tmp_path / "a", row=9)
    record = Record.load(ran[0])
    alone = record.model_copy(update={"rows": record.rows[:2]})
    asked = Asked(Wanted(share=0.1), tmp_path / "a")
    with pytest.raises(RecipeError, match="has no row beside the larger model"):
        build(alone, ran[0], ran[1], asked, {})


def test_a_file_that_is_gone_or_changed_is_refused(ran, tmp_path):
    folder, job = ran
    record = Record.load(folder)
    for name, content in (("gone.onnx", None), ("other.onnx", b"nothing")):
        rows = [row.model_copy(deep=True) for row in record.rows]
        rows[2].measurements[0].artifact.path = f"stages/{name}"
        if content is not None:
            (folder / "stages" / name).write_bytes(content)
        broken = record.model_copy(update={"rows": rows})
        asked = Asked(Wanted(share=0.1), tmp_path / "a", row=2)
        with pytest.raises(RecordError, match=r"is gone|is not the one that the record describes"):
            build(broken, folder, job, asked, {})


def test_samples_of_another_shape_are_refused(ran, tmp_path):
    other = ArrayDataset(torch.zeros(5, 1, 28, 28), None)
    with pytest.raises(DataError, match=r"its inputs are \(1, 28, 28\), and those of the test"):
        built(ran, tmp_path / "a", against={"shoes": other})


def test_a_folder_of_somebody_is_left_alone(ran, tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(RecipeError, match=r"holds something .* \(such as thesis.txt\)"):
        built(ran, tmp_path)


def test_other_outputs_than_one_class_are_refused(ran):
    job = ran[1]
    scoring = scoring_of(job, supervision_of_job(job))
    check_kind(scoring, "digits")
    values = replace(scoring, leading=replace(scoring.leading, kind="values"))
    with pytest.raises(RecipeError, match="the outputs of the task digits are values"):
        check_kind(values, "digits")
    with pytest.raises(RecipeError, match="has no labels in its test split"):
        check_kind(replace(scoring, has_labels=False), "digits")


def test_a_run_of_images_is_refused_before_its_task_is_made(ran, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    record = Record.load(ran[0])
    task = record.task.model_copy(update={"metric": "psnr"})
    record.model_copy(update={"task": task}).save(folder)
    monkeypatch.setattr(Recipe, "make_task", None)
    assert main(["cascade", str(folder)]) == 2
    assert "is scored by psnr, which is of image" in capsys.readouterr().err


def test_features_are_what_the_last_product_takes(ran, tmp_path):
    record = Record.load(ran[0])
    for row in (2, 3):
        source = ran[0] / record.rows[row].measurements[0].artifact.path
        name = expose_features(source, tmp_path / "exposed.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "exposed.onnx")
        assert [each.name for each in session.get_outputs()][-1] == name
        inputs = {session.get_inputs()[0].name: np.ones((1, 1, 8, 8), np.float32)}
        *_, features = session.run(None, inputs)
        assert features.shape == (1, 8)
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    ports = [[value(name, onnx.TensorProto.FLOAT, [1, 4])] for name in "xy"]
    graph = onnx.helper.make_graph([node], "g", *ports)
    onnx.save(onnx.helper.make_model(graph), tmp_path / "none.onnx")
    with pytest.raises(LoweringError, match="no MatMul, Gemm or Conv between its inputs"):
        expose_features(tmp_path / "none.onnx", tmp_path / "out.onnx")


# -- the command ----------------------------------------------------------------------------------


def test_the_command_says_what_it_found(ran, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("compress.cascade.build.figures_of", figures_of)
    out = tmp_path / "out"
    samples = tmp_path / "noise.npz"
    pixels = np.random.default_rng(0).integers(0, 16, (40, 8, 8)).astype(np.uint8)
    np.savez(samples, inputs=pixels)
    arguments = ["cascade", ran[0], "--row", 3, "--drop", "1pt", "--quick", "-o", out]
    code = main([*map(str, arguments), "--against", str(samples), "--json"])
    said = json.loads(capsys.readouterr().out)
    assert code == 0, said
    assert said["command"] == "cascade"
    assert said["folder"] == str(out)
    assert said["wanted"] == "at most 1 points of accuracy lost to the larger model"
    assert [each["samples"] for each in said["foreign"]] == [40]
    assert said["timed"]["processes"] == 2
    assert Path(out, "run.py").is_file()
    assert Path(out, "cascade.png").is_file()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (("--share", "0"), "--share '0': give a share of the samples above 0 and up to 1"),
        (("--share", "110%"), "--share '110%': give a share of the samples above 0 and up to 1"),
        (("--drop", "some"), "--drop 'some': give points of accuracy from 0 on"),
        (("--accuracy", "93"), "--accuracy '93': give an accuracy above 0 and up to 1"),
        (("--share", "5%", "--drop", "1pt"), "--share and --drop: give one of them."),
        (("--against", "nowhere"), "--against nowhere: there is no such file or folder"),
        (("--against", "fashion-mnist-2"), "and no such task"),
        (("--target", "phone"), "--target phone: nothing was measured on it"),
    ],
)
def test_what_makes_no_sense_is_said(ran, capsys, given, sentence, tmp_path):
    assert main(["cascade", str(ran[0]), "-o", str(tmp_path / "o"), *given]) == 2
    assert sentence in capsys.readouterr().err
