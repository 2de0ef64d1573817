"""What would stop a run after its training stops the plan, and the run before it trains."""

import pytest
from torch import nn

from compress import LocalTarget, Recipe, ReplayTarget
from compress.artifact import Lowering
from compress.backends import ONNX, check_formats
from compress.errors import LoweringError, MeasurementError, RecipeError
from compress.measure.remote.ssh import SshTarget
from compress.measure.target import backend_of, refused_formats
from compress.quantization.numerics import LayerFormat

REFUSED = (("int16", "this runtime rounds it to int8"),)
SENTENCE = (
    "is declared int16, and this runtime rounds it to int8; quantize to another format, or leave "
    "this target out."
)
TRAIN = "{kind: train, epochs: 1}"


class Undecided(nn.Module):
    """No static graph computes this."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        y = self.layer(x.flatten(1))
        return y * 2 if float(y.detach().sum()) > 1e9 else y


def undecided():
    return Undecided()


class Own(ReplayTarget):
    """A target with a device that nothing may ask."""

    refused_formats = REFUSED

    def lowering(self):
        raise MeasurementError("the device is off.")


def recipe_of(*stages, more=""):
    head = f"name: r\ntask: digits\nmodel: {{arch: mlp}}\n{more}"
    return Recipe.loads(f"{head}stages: [{', '.join(stages)}]\n", imports=[__name__])


def events_of(recipe, target, folder):
    """The names of the run's events, and the error that ended it."""
    seen = []
    task = recipe.make_task()
    with pytest.raises(LoweringError) as stopped:
        recipe.run(
            recipe.make_candidate(task),
            task,
            workdir=folder,
            targets=[target],
            observer=lambda event: seen.append(event["event"]),
            report=False,
        )
    return seen, stopped.value


def test_a_format_that_a_target_refuses_stops_a_run_before_it_trains(tmp_path):
    recipe = recipe_of(TRAIN, "{kind: quantize, activations: int16}")
    target = ReplayTarget(encoding=Lowering(refused=REFUSED))
    seen, error = events_of(recipe, target, tmp_path / "run")
    assert str(error).endswith(SENTENCE)
    assert (error.index, error.label) == (1, "quantize")
    assert not {"epoch", "measure"} & set(seen)


def test_a_plan_finds_such_a_format_with_the_same_sentence(tmp_path):
    more = "targets: [{kind: local, runtime: openvino}]\n"
    recipe = recipe_of(TRAIN, "{kind: quantize, activations: int16}", more=more)
    with pytest.raises(LoweringError, match="is declared int16, and OpenVINO's CPU") as planned:
        recipe.plan()
    seen, error = events_of(recipe, LocalTarget(runtime="openvino"), tmp_path / "run")
    assert str(error) == str(planned.value)
    assert "epoch" not in seen


def test_what_a_target_refuses_is_known_without_its_device():
    assert refused_formats(Own()) == REFUSED
    assert refused_formats(SshTarget(host="nowhere.invalid")) == ()
    assert refused_formats(LocalTarget(runtime="openvino"))[0][0] == "int16"
    assert refused_formats(ReplayTarget(encoding=Lowering(refused=REFUSED))) == REFUSED


@pytest.mark.fast
@pytest.mark.parametrize("layer", ["head", ""])
def test_only_refused_formats_are_refused(layer):
    fine, other = LayerFormat(), LayerFormat(weights="int8", activations="int16")
    check_formats({layer: fine}, REFUSED)
    check_formats({layer: other}, ())
    with pytest.raises(LoweringError) as refused:
        check_formats({"first": fine, layer: other}, REFUSED)
    assert str(refused.value) == f"{layer or 'the model'} {SENTENCE}"


def test_a_student_that_makes_no_file_is_found_before_it_learns(tmp_path):
    student = f"{{kind: distill, student: {{arch: '{__name__}:undecided'}}, epochs: 1}}"
    recipe = recipe_of(TRAIN, student)
    with pytest.raises(LoweringError, match="decides by the values of a tensor") as planned:
        recipe.plan(workdir=tmp_path)
    seen, error = events_of(recipe, ReplayTarget(), tmp_path / "run")
    assert str(error) == str(planned.value)
    assert (error.index, error.label) == (1, "distill")
    assert not {"epoch", "measure"} & set(seen)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("backend", "given"), [(3, "int"), (None, "NoneType"), (type(ONNX), "the class OnnxBackend")]
)
def test_a_backend_that_is_none_is_one_sentence(backend, given, tmp_path):
    class Wrong(ReplayTarget):
        pass

    Wrong.backend = backend
    with pytest.raises(RecipeError) as wrong:
        backend_of(Wrong(name="board"))
    assert str(wrong.value) == (
        "target 'board': its backend is an object with the attributes and methods of "
        f"compress.backends.Backend, such as compress.backends.ONNX; got {given}."
    )
    recipe = recipe_of(TRAIN)
    task = recipe.make_task()
    candidate = recipe.make_candidate(task)
    with pytest.raises(RecipeError, match="target 'board': its backend") as stopped:
        recipe.run(
            candidate, task, workdir=tmp_path / "run", targets=[Wrong(name="board")], report=False
        )
    assert stopped.value.label == "input"
    assert not (tmp_path / "run").exists()
