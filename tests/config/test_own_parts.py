"""Code of one's own: modules are there, options are passed on or refused, failures are said."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import pytest

from compress import Recipe
from compress.cli import main
from compress.config.references import CodeReferences
from compress.errors import CodeReferenceError, CompressError

pytestmark = pytest.mark.fast

PARTS = """
from typing import ClassVar, Literal
from pydantic import field_validator
from torch import nn
from compress import Stage
from compress.tasks import make_task

seen = []


class Net(nn.Module):
    def __init__(self, width=8, norm="batch"):
        super().__init__()
        seen.append((width, norm))
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(x.flatten(1))


class Plain:
    pass


class Leaves(nn.Module):
    def __init__(self):
        raise SystemExit("bye")


def make(fold=1, folder=None, size=8):
    seen.append((fold, folder, size))
    return make_task("digits")


def anything(**options):
    seen.append(options)
    return make_task("digits")


def positional(a, /):
    return make_task("digits")


def nothing():
    return None


def leaves():
    raise SystemExit(3)


def raises():
    raise ValueError("two\\nlines")


class Half(Stage):
    effects: ClassVar = frozenset()
    kind: Literal["half"] = "half"


class Odd(Half):
    x: int = 1

    @field_validator("x")
    @classmethod
    def _no(cls, x):
        raise TypeError("no")

    def run(self, candidate, context):
        return candidate


number = 3


def __getattr__(name):
    if name == "burst":
        raise RuntimeError("burst")
    raise AttributeError(name)
"""
MODULES = {
    "parts": PARTS,
    "parts_exit": "import sys; sys.exit(3)",
    "parts_raise": "1 / 0",
    "parts_syntax": "def f(:",
    "parts_lacks": "import no_such_thing",
    "parts_nul": "\0",
}


@pytest.fixture
def parts(tmp_path, monkeypatch):
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "parts_folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield lambda: sys.modules["parts"].seen
    for name in (*MODULES, "parts_folder"):
        sys.modules.pop(name, None)


def text(**more: Any) -> str:
    start = {"schema": 1, "name": "own", "task": "digits", "model": {"arch": "dscnn", "width": 4}}
    return json.dumps({**start, "stages": [{"kind": "quantize"}], **more})


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            "no_such_module",
            "module 'no_such_module' cannot be imported .*lie in the current folder",
        ),
        ("parts.x", "'parts.x' cannot be imported"),
        ("parts_lacks", r"'parts_lacks' cannot be imported \(No module named 'no_such_thing'\)"),
        ("parts_exit", r"importing the module 'parts_exit' failed with SystemExit at .*:1: 3\."),
        ("parts_raise", "failed with ZeroDivisionError at .*parts_raise.py:1: division by zero"),
        ("parts_syntax", "importing the module 'parts_syntax' failed with SyntaxError"),
        ("parts_nul", "importing the module 'parts_nul' failed with SyntaxError"),
        ("compress.os", "'compress.os' cannot be imported"),
        ("a b", "--import a b: that is no name of a module"),
        (".x", "that is no name of a module"),
        ("", "that is no name of a module"),
        ("parts:make", "that is no name of a module"),
        ("x" * 5000, "cannot be imported"),
        ("a\nb", "--import a\\\\nb: that is no name"),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_module_that_is_named_must_be_there(command, module, message, parts, tmp_path, capsys):
    (tmp_path / "r.yaml").write_text(text())
    assert main([command, "r.yaml", "--import", module]) == 2
    said = capsys.readouterr().err.strip()
    assert re.search(message, said), said
    assert len(said) < 500
    assert "\n" not in said


def test_several_modules_or_one_are_named_from_python(parts):
    assert CodeReferences.of("parts").imported().allowed == {"parts"}
    both = CodeReferences.of(["parts", "parts_folder"])
    assert both.imported() is both


def test_a_module_that_is_only_allowed_is_not_imported():
    assert Recipe.loads(text(), imports=["no_such_module"]).name == "own"
    with pytest.raises(CodeReferenceError, match=r"no_such_module: the module .* cannot be impo"):
        CodeReferences.of(["no_such_module"]).imported()


@pytest.mark.parametrize(
    ("task", "seen"),
    [
        ("parts:make", (1, None, 8)),
        ({"name": "parts:make", "fold": 3, "limit": 9}, (3, None, 8)),
        ({"name": "parts:make", "fold": None, "size": 16}, (None, None, 16)),
        ({"name": "parts:anything", "a": [1], "b": {"c": None}}, {"a": [1], "b": {"c": None}}),
    ],
)
def test_options_of_ones_own_task_are_passed_on(task, seen, parts):
    recipe = Recipe.loads(text(task=task), imports=["parts"])
    made = recipe.make_task()
    assert parts()[-1] == seen
    assert len(made.train) == (9 if isinstance(task, dict) and "limit" in task else 1077)
    again = Recipe.loads(recipe.dumps(), imports=["parts"])
    again.make_task()
    assert parts()[-1] == seen


def test_a_folder_of_ones_own_task_is_beside_the_recipe(parts, tmp_path):
    (tmp_path / "below").mkdir()
    file = tmp_path / "below" / "r.yaml"
    file.write_text(text(task={"name": "parts:make", "folder": "photos"}))
    Recipe.load(file, imports=["parts"]).make_task()
    assert parts()[-1][1] == tmp_path / "below" / "photos"


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"name": "parts:make", "foo": 3}, "does not take 'foo'; it takes fold, folder, size"),
        ({"name": "parts:make", "augment": False}, "does not take 'augment'; it takes fold"),
        ({"name": "parts:nothing", "x": 1}, "does not take 'x'; it takes no options"),
        (
            {"name": "parts:positional", "a": 1},
            "task.name: the argument 'a' of parts:positional is positional only, so that no key",
        ),
        ("parts:positional", "task.name: the argument 'a' of parts:positional is positional only"),
        ("parts:nothing", "must return a compress.Task; got NoneType"),
        ("parts:leaves", r"failed with SystemExit at .*: 3\."),
        ("parts:raises", r"failed with ValueError at .*: two lines\."),
        ("parts:number", "is a int, which cannot be called"),
        ("parts:gone", "the module 'parts' has no 'gone'"),
        ("parts:burst", "asking the module 'parts' for 'burst' failed with RuntimeError"),
        ("parts:Plain", "must return a compress.Task; got Plain"),
        ("parts:x.y", "there is no built-in task 'parts:x.y'"),
        ({"name": "parts:make", "limit": True}, "task.limit: should be a valid integer"),
    ],
)
def test_a_task_of_ones_own_that_makes_none_is_one_sentence(task, message, parts):
    with pytest.raises(CompressError, match=message) as caught:
        Recipe.loads(text(task=task), imports=["parts"]).make_task()
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_options_of_ones_own_net_are_passed_on(parts):
    model = {"arch": "parts:Net", "width": 3, "norm": None}
    recipe = Recipe.loads(text(model=model), imports=["parts"])
    recipe.make_candidate(recipe.make_task())
    assert parts()[-1] == (3, None)
    assert "norm: null" in recipe.dumps()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"arch": "parts:Net", "widht": 3},
            r"model.widht: parts:Net does not take 'widht'; did you mean 'width'",
        ),
        ({"arch": "parts:Plain"}, "must give a torch.nn.Module; got Plain"),
        ({"arch": "parts:Leaves"}, "failed with SystemExit at .*: bye"),
        ({"arch": "parts:number"}, "is a int, which cannot be called"),
        ({"arch": "parts:x.y"}, "there is no built-in architecture 'parts:x.y'"),
    ],
)
def test_a_net_of_ones_own_that_is_none_is_one_sentence(model, message, parts):
    def make():
        recipe = Recipe.loads(text(model=model), imports=["parts"])
        recipe.make_candidate(recipe.make_task())

    with pytest.raises(CompressError, match=message) as caught:
        make()
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"kind": "parts:Half"}, r"stages\[0\]: parts:Half failed with TypeError .*abstract"),
        ({"kind": "parts:Odd", "x": 2}, r"stages\[0\]: parts:Odd failed with TypeError at .*: no"),
        ({"kind": "parts:Odd", "y": 2}, r"stages\[0\].y: unknown key"),
        ({"kind": "parts:Net"}, "is not a subclass of compress.Stage"),
        (
            {"kind": "distill", "teacher": {"callable": "parts:f"}},
            "the module 'parts' has no 'f'",
        ),
        ({"kind": "distill", "teacher": {"onnx": "t.onnx", "a": 1}}, "a goes with arch"),
        ({"kind": "distill", "losses": [{"kind": "parts:f"}]}, "kind: the module 'parts' has no"),
    ],
)
def test_a_stage_of_ones_own_that_is_none_is_one_sentence(stage, message, parts):
    with pytest.raises(CompressError, match=message) as caught:
        Recipe.loads(text(stages=[stage]), imports=["parts"])
    assert caught.value.exit_code == 2
