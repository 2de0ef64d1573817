"""How a budget's drop may be written."""

import pytest
import yaml

from compress import Recipe
from compress.budget import Budget
from compress.errors import RecipeError, SettingsError

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("written", "share"),
    [
        ("1%", 0.01),
        ("1pt", 0.01),
        (" 0.5 pt ", 0.005),
        (".5%", 0.005),
        ("100%", 1.0),
        (0.015, 0.015),
        ("0.015", 0.015),
        ("1e-2", 0.01),  # what YAML takes for text
        (0, 0.0),
    ],
)
def test_points_and_shares_are_kept_as_a_share(written, share):
    budget = Budget(accuracy_drop=written)
    assert budget.accuracy_drop == share
    kept = budget.model_dump(mode="json", exclude_none=True)
    assert kept == {"accuracy_drop": share}
    assert type(kept["accuracy_drop"]) is float
    assert Budget.model_validate(yaml.safe_load(yaml.safe_dump(kept))) == budget


@pytest.mark.parametrize("written", ["one", "1 percent", "-1%", "150%", "0,5pt", ""])
def test_text_that_is_neither_is_refused_in_one_sentence(written):
    with pytest.raises(SettingsError) as refused:
        Budget(accuracy_drop=written)
    assert str(refused.value) == (
        f"Budget: accuracy_drop: {written!r} is neither a number nor points of accuracy, up to "
        "100; write 0.01, 1% or 1pt."
    )


@pytest.mark.parametrize("written", [-0.1, float("nan"), float("inf"), "nan", [0.1]])
def test_numbers_that_are_no_drop_are_refused(written):
    with pytest.raises(SettingsError):
        Budget(accuracy_drop=written)


def recipe(drop):
    return (
        f"name: mine\ntask: digits\nmodel: {{arch: resnet}}\nbudget:\n  accuracy_drop: {drop}\n"
        "stages: [{kind: train, epochs: 1}]\n"
    )


def test_a_recipe_takes_points_and_writes_a_share():
    read = Recipe.loads(recipe("1pt"))
    assert read.resolved()["budget"] == {"accuracy_drop": 0.01}
    assert Recipe.loads(read.dumps()) == read


def test_a_recipe_says_where_a_drop_is_wrong():
    with pytest.raises(RecipeError) as refused:
        Recipe.loads(recipe("a bit"))
    assert str(refused.value) == (
        "recipe:5: budget.accuracy_drop: 'a bit' is neither a number nor points of accuracy, up to "
        "100; write 0.01, 1% or 1pt."
    )


def test_the_schema_lets_an_editor_accept_all_three():
    number, text = Budget.model_json_schema()["properties"]["accuracy_drop"]["anyOf"][:2]
    assert number == {"minimum": 0, "type": "number"}
    assert text["type"] == "string"
