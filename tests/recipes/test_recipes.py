"""Every recipe that ships loads, plans, is in the table, and fits the schema."""

import json
from pathlib import Path

import pytest
import yaml

from compress import Recipe
from compress.cli.new import starter
from compress.cli.schema import recipe_schema
from compress.stages import STAGES
from compress.testing.recipe_table import recipe_files, recipe_table

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


def test_the_starter_is_a_recipe_whose_every_key_is_in_the_schema():
    recipe = Recipe.loads(starter())
    assert {stage.kind for stage in recipe.stages} == {"train", "distill", "quantize", "prune"}
    schema = recipe_schema()
    assert set(yaml.safe_load(starter())) <= set(schema["properties"])
    for block in yaml.safe_load(starter())["stages"]:
        stage = next(s for s in STAGES if s.model_fields["kind"].default == block["kind"])
        assert set(block) <= set(schema["$defs"][stage.__name__]["properties"])
