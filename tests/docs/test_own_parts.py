"""The examples of own parts in docs/recipes.md, run as they stand."""

import re
import sys
import types
from pathlib import Path

import pytest

from compress import Recipe

ROOT = Path(__file__).parents[2]
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "recipes.md").read_text(), re.S)
STAGES = {
    "Energy": "{kind: distill, epochs: 1, student: {arch: dscnn, width: 8}, losses: [{kind: "
    "'mine:Energy', student: 'blocks.*', teacher: 'blocks.*', power: 1.5}]}",
    "energy": "{kind: prune, importance: {kind: 'mine:energy', power: 1.5}}",
}


@pytest.mark.parametrize("name", STAGES)
def test_an_example_is_complete_short_and_plans(name, tmp_path, monkeypatch):
    [code] = [one for one in EXAMPLES if re.search(rf"(class|def) {name}\b", one)]
    assert len(code.splitlines()) <= 30
    module = types.ModuleType("mine")
    monkeypatch.setitem(sys.modules, "mine", module)
    exec(code, vars(module))
    start = "name: own\ntask: {name: digits, limit: 64}\nmodel: {arch: resnet, width: 8}\n"
    text = f"{start}stages: [{STAGES[name]}]"
    recipe = Recipe.loads(text, imports=["mine"])
    assert f"mine:{name} (" in recipe.stages[0].explain()
    recipe.plan(workdir=tmp_path / "run")
