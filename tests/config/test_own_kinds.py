"""Every kind of own part in every form: functions and classes, with keys that reach them or not."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, replace
from typing import Any

import pytest

from compress import Recipe, ReplayTarget
from compress.config.references import CodeReferences
from compress.errors import CompressError
from compress.stages import STAGES
from compress.testing.stage_contract import bench_context

pytestmark = pytest.mark.fast

PARTS = """
from dataclasses import dataclass
import torch
from pydantic import BaseModel, Field
from torch import nn
from compress import ReplayTarget
from compress.tasks import make_task
{head}

noted = []


def bare({args}):
    return {result}


def keyed({args}{comma}margin=0.5, power: int = 2):
    noted.append((margin, power))
    return {result}


@dataclass
class Fields:
    margin: float
    power: int = 2

    def __call__(self{comma_args}):
        noted.append((self.margin, self.power))
        return {result}


class Model(BaseModel):
    margin: float = Field(gt=0)
    power: int = 2

    def __call__(self{comma_args}):
        noted.append((self.margin, self.power))
        return {result}


class Plain:
    def __init__(self, margin: float, power: int = 2):
        self.margin, self.power = margin, power

    def __call__(self{comma_args}):
        noted.append((self.margin, self.power))
        return {result}


class Fails:
    def __init__(self, margin: float = 1.0):
        raise ValueError("there is\\nno such thing")

    def __call__(self{comma_args}):
        return {result}


number = 3
"""


@dataclass(frozen=True)
class Kind:
    """One kind of own part: what it is called with and gives, and where a recipe names it."""

    arguments: str
    result: str
    place: str
    key: str
    head: str = ""

    @property
    def source(self) -> str:
        with_comma = f", {self.arguments}" if self.arguments else ""
        return PARTS.format(
            args=self.arguments,
            comma=", " if self.arguments else "",
            comma_args=with_comma,
            result=self.result,
            head=self.head,
        )

    def recipe(self, reference: str, **keys: Any) -> dict[str, Any]:
        """A recipe with the block in its place."""
        data: dict[str, Any] = {
            "schema": 1,
            "name": "own",
            "task": {"name": "digits", "limit": 64},
            "model": {"arch": "dscnn", "width": 4},
            "stages": [{"kind": "quantize"}],
        }
        block = {self.key: reference, **keys}
        if self.place == "stages[0]":
            data["stages"] = [block]
        elif self.place == "targets[0]":
            data["targets"] = [block]
        elif self.place in ("task", "model"):
            data[self.place] = block
        elif "importance" in self.place:
            data["stages"] = [{"kind": "prune", "importance": block if keys else reference}]
        elif "teacher" in self.place:
            data["stages"] = [{"kind": "distill", "epochs": 1, "teacher": block}]
        else:
            data["stages"] = [{"kind": "distill", "epochs": 1, "losses": [block]}]
        return data


KINDS = {
    "loss": Kind(
        "student, teacher, labels", "(student - teacher.detach() * 0.5).abs().mean()",
        "stages[0].losses[0]", "kind",
    ),
    "importance": Kind("group", "group.weights.norm(dim=1)", "stages[0].importance", "kind"),
    "teacher": Kind("inputs", "torch.ones(len(inputs), 10)", "stages[0].teacher", "callable"),
    "task": Kind("", "make_task('digits')", "task", "name"),
    "architecture": Kind(
        "", "nn.Sequential(nn.Flatten(), nn.Linear(64, 10))", "model", "arch"
    ),
    "target": Kind("", "ReplayTarget()", "targets[0]", "kind"),
    "stage": Kind("candidate, context", "candidate.fork()", "stages[0]", "kind"),
}  # fmt: skip
FUNCTIONS, CLASSES = ("bare", "keyed"), ("Fields", "Model", "Plain")


@pytest.fixture
def mine(request, tmp_path, monkeypatch):
    kind = KINDS[request.getfixturevalue("name")]
    (tmp_path / "mine.py").write_text(kind.source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("mine", None)
    yield kind
    sys.modules.pop("mine", None)


def loaded(kind: Kind, part: str, **keys: Any) -> Recipe:
    return Recipe.loads(json.dumps(kind.recipe(f"mine:{part}", **keys)), imports=["mine"])


def use(kind: Kind, recipe: Recipe, folder: Any) -> None:
    """Let the part do its work."""
    if kind.place == "task":
        recipe.make_task()
    elif kind.place == "stages[0]":
        candidate = recipe.make_candidate(recipe.make_task())
        [stage] = recipe.stages
        context = bench_context(candidate, folder)
        stage.run(candidate, replace(context, references=CodeReferences.of("mine")))
    elif kind.place == "model":
        recipe.make_candidate(recipe.make_task())
    else:
        recipe.plan(workdir=folder / "run")


def cases(*parts: str) -> list[tuple[str, str]]:
    return [(name, part) for name in KINDS for part in parts if can_be(name, part)]


def can_be(name: str, part: str) -> bool:
    """A stage that is a class is a subclass of ``Stage``."""
    return name != "stage" or part not in (*CLASSES, "Fails")


@pytest.mark.parametrize(("name", "part"), cases("bare", "keyed"))
def test_a_function_needs_no_keys(name, part, mine, tmp_path):
    recipe = loaded(mine, part)
    use(mine, recipe, tmp_path)
    expected = {(0.5, 2)} if part == "keyed" else set()
    assert set(sys.modules["mine"].noted) == expected


@pytest.mark.parametrize(("name", "part"), cases("keyed", *CLASSES))
def test_keys_reach_a_part_and_come_back_from_what_is_dumped(name, part, mine, tmp_path):
    recipe = loaded(mine, part, margin=0.25, power=3)
    again = Recipe.loads(recipe.dumps(), imports=["mine"])
    assert again == recipe
    use(mine, again, tmp_path)
    assert set(sys.modules["mine"].noted) == {(0.25, 3)}


WRONG = [
    (
        "keyed",
        {"marign": 0.2},
        ".marign",
        "mine:keyed does not take 'marign'; did you mean 'margin'? it takes margin, power.",
    ),
    ("keyed", {"power": 0.5}, ".power", "should be a valid integer; got 0.5."),
    ("keyed", {"power": True}, ".power", "should be a valid integer; got True."),
    ("bare", {"tau": 1}, ".tau", "mine:bare does not take 'tau'; it takes no options."),
    ("Fields", {"power": 3}, "", "mine:Fields needs the key 'margin'."),
    ("Fields", {"margin": "0.2"}, ".margin", "should be a valid number; got '0.2'."),
    ("Model", {"margin": -1.0}, ".margin", "should be greater than 0; got -1.0."),
    ("Model", {"margin": 1, "powr": 2}, ".powr", "mine:Model does not take 'powr'; did you me"),
    ("Plain", {}, "", "mine:Plain needs the key 'margin'."),
    ("Plain", {"margin": [1]}, ".margin", "should be a valid number; got [1]."),
    ("Plain", {"margin": "30%"}, ".margin", "should be a valid number; got '30%'; write 0.3."),
    ("number", {}, "KEY", "'mine:number' is a int, which cannot be called."),
    ("gone", {"margin": 1}, "KEY", "the module 'mine' has no 'gone'."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "part", "keys", "place", "message"),
    [(name, *wrong) for name in KINDS for wrong in WRONG if can_be(name, wrong[0])],
)
def test_a_wrong_key_is_one_sentence_with_its_place(name, part, keys, place, message, mine):
    with pytest.raises(CompressError) as caught:
        loaded(mine, part, **keys)
    said = str(caught.value)
    where = mine.place + place.replace("KEY", f".{mine.key}")
    assert said.startswith(f"recipe:1: {where}: {message}"), said
    assert caught.value.exit_code == 2
    assert "\n" not in said


@pytest.mark.parametrize(("name", "part"), cases("Fails"))
def test_a_class_that_fails_is_one_sentence_where_it_is_used(name, part, mine, tmp_path):
    recipe = loaded(mine, part)
    with pytest.raises(CompressError) as caught:
        use(mine, recipe, tmp_path)
    said = str(caught.value)
    pattern = r"^[^\n]+: failed with ValueError at .*mine\.py:\d+: there is no such thing\.$"
    assert re.search(pattern, said), said
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["loss", "importance", "architecture", "stage"])
def test_a_plan_shows_a_part_with_its_options(name, mine):
    recipe = loaded(mine, "keyed", margin=0.25)
    said = "mine:keyed (margin: 0.25)"
    if name == "architecture":
        assert recipe.model.words == said
    else:
        assert said in recipe.stages[0].explain()


@pytest.mark.parametrize("name", ["loss", "importance", "teacher"])
def test_a_recipe_that_is_made_in_python_is_checked_where_it_is_used(name, mine, tmp_path):
    data = mine.recipe("mine:keyed", marign=1)
    [block] = data["stages"]
    stages = [
        one.model_validate(block)
        for one in STAGES
        if one.model_fields["kind"].default == block["kind"]
    ]
    recipe = Recipe.model_validate({**data, "stages": stages})
    task = recipe.make_task()
    with pytest.raises(CompressError, match="mine:keyed does not take 'marign'; did you mean"):
        recipe.run(
            recipe.make_candidate(task),
            task,
            workdir=tmp_path / "run",
            targets=[ReplayTarget()],
            imports=["mine"],
            cache="none",
            report=False,
        )
