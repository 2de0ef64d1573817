"""Every recipe that ships loads, plans, is in the table, and fits the schema."""

import itertools
import json
from pathlib import Path

import pytest
import yaml
from torch import nn

from compress import Recipe, ReplayTarget, TrainStage
from compress.cli.new import starter
from compress.cli.schema import recipe_schema
from compress.errors import RecipeError, SettingsError
from compress.stages import STAGES
from compress.stages.training_settings import Training
from compress.tasks import make_task
from compress.training.data import is_labeled
from compress.zoo import build
from tests.tools.recipe_table import recipe_files, recipe_table

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
FILES = recipe_files(RECIPES)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_recipe_loads_and_comes_back_equal_from_what_it_dumps(path):
    recipe = Recipe.load(path)
    assert Recipe.loads(recipe.dumps()).resolved() == recipe.resolved()
    assert recipe.description
    assert recipe.task is not None
    assert recipe.model is not None


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_recipe_is_named_after_its_file(path):
    prefix = {"orders": "order-", "families": "family-"}.get(path.parent.name, "")
    assert Recipe.load(path).name == prefix + path.stem


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if p.stem in ("quickstart", "distill-quantize-prune")],
    ids=lambda p: p.stem,
)
def test_recipe_plans(path, tmp_path):
    plan = Recipe.load(path).plan(workdir=tmp_path / "none")
    assert plan.stages[0].label == "input"
    assert len(plan.stages) == 5
    assert plan.seconds > plan.measuring_s > 0
    assert plan.memory_bytes > 100e6
    assert plan.disk_bytes > 1e5
    assert not (tmp_path / "none").exists()


def test_the_table_is_up_to_date():
    assert (RECIPES / "README.md").read_text() == recipe_table(RECIPES)


def test_the_schema_is_up_to_date():
    assert json.loads((RECIPES / "recipe.schema.json").read_text()) == recipe_schema()


def test_all_six_orders_spend_the_same():
    recipes = [Recipe.load(path) for path in FILES if path.parent.name == "orders"]
    assert len(recipes) == 6
    assert len({tuple(stage.kind for stage in r.stages) for r in recipes}) == 6
    assert len({sum(s.epochs_of_training() for s in r.stages) for r in recipes}) == 1
    assert len({frozenset(s.model_dump_json() for s in r.stages) for r in recipes}) == 1


def families():
    return {p.stem: Recipe.load(p) for p in FILES if p.parent.name == "families"}


def test_all_families_train_one_student_at_one_budget():
    found = families()
    direct = found.pop("direct")
    student = direct.model.architecture
    assert sum(p.numel() for p in build(student.arch, student.options).parameters()) < 30_000
    [budget] = [training_of(stage) for stage in direct.stages]
    for recipe in found.values():
        [stage] = recipe.stages
        assert stage.student.architecture == student
        assert training_of(stage) == budget
        assert (recipe.task, recipe.seed) == (direct.task, direct.seed)


def training_of(stage):
    return {name: getattr(stage, name) for name in Training.model_fields}


def test_families_differ_in_their_losses():
    losses = [
        str(recipe.stages[0].losses) for name, recipe in families().items() if name != "direct"
    ]
    kinds = {loss.kind for r in families().values() for loss in getattr(r.stages[0], "losses", ())}
    assert len(set(losses)) == len(losses)
    assert kinds >= {"response", "logits-mse", "dkd", "dist", "hint", "attention-transfer"}
    assert kinds >= {"rkd-distance", "similarity", "pkt", "crd", "label"}


def test_a_teacher_is_swapped_by_one_key():
    ours, theirs = (
        (RECIPES / f"{name}.yaml").read_text().splitlines()
        for name in ("fashion-mnist-kd", "fashion-mnist-kd-depthwise")
    )
    assert len(ours) == len(theirs)
    changed = [
        line.partition(":")[0] for line, other in zip(ours, theirs, strict=True) if line != other
    ]
    assert changed == ["name", "description", "    teacher"]
    assert block(ours, "student") == block(theirs, "student")
    assert len(block(ours, "student")) == 5


def block(lines, key):
    """The lines of one key of a stage, as they are written."""
    start = next(i for i, line in enumerate(lines) if line.startswith(f"    {key}:"))
    inside = itertools.takewhile(lambda line: line.startswith("     "), lines[start + 1 :])
    return [lines[start], *inside]


def test_a_recipe_without_labels_names_none_and_runs(tmp_path):
    path = RECIPES / "fashion-mnist-inputs-only.yaml"
    assert "label" not in path.read_text().lower()
    small = ("task.name=digits", "task.limit=64", "stages.0.epochs=2", "stages.0.views=1")
    recipe = Recipe.load(path, settings=small)
    task = recipe.make_task()
    assert not any(is_labeled(split) for split in (task.train, task.validation, task.test))
    start = recipe.make_candidate(task)
    record = recipe.run(
        start, task, workdir=tmp_path / "run", targets=[ReplayTarget()], report=False
    )
    assert record.status == "done"
    assert record.task.metric == "agreement"
    assert [row.kind for row in record.rows] == ["input", "distill", "quantize"]
    assert record.rows[0].measurements[0].accuracy.value == 1.0
    assert [list(entry["losses"]) for entry in record.rows[1].history] == [["response"]] * 2


def test_the_starter_is_a_recipe_whose_every_key_is_in_the_schema():
    recipe = Recipe.loads(starter())
    assert {stage.kind for stage in recipe.stages} == {"train", "distill", "quantize", "prune"}
    schema = recipe_schema()
    assert set(yaml.safe_load(starter())) <= set(schema["properties"])
    for block in yaml.safe_load(starter())["stages"]:
        stage = next(s for s in STAGES if s.model_fields["kind"].default == block["kind"])
        assert set(block) <= set(schema["$defs"][stage.__name__]["properties"])


@pytest.mark.parametrize(
    "model", ["f.onnx", Path("f.onnx"), {"onnx": "f.onnx"}, {"arch": "f.onnx"}]
)
def test_from_python_an_onnx_file_cannot_begin_a_recipe_either(model, tmp_path):
    with pytest.raises(SettingsError) as error:
        Recipe(model=model, stages=[TrainStage()])
    assert str(error.value) == (
        "Recipe: model: an ONNX file cannot begin a recipe yet: f.onnx can teach (`teacher: {onnx: "
        "f.onnx}` in a distill stage) and be measured (`compresskit bench f.onnx`); begin with "
        "arch and weights, or hf."
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("f.onnx", r"an ONNX file cannot begin .*; run takes an nn\.Module, or a Candidate"),
        (nn.Linear, r"run takes an nn\.Module, or a Candidate; got <class .*Linear"),
    ],
)
def test_what_is_run_is_a_candidate(given, message, tmp_path):
    recipe = Recipe(stages=[TrainStage()])
    with pytest.raises(RecipeError, match=message):
        recipe.run(given, make_task("digits"), workdir=tmp_path / "run", report=False)
