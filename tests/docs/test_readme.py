"""The README's words are true: its numbers, its recipe, its code, its links."""

import re
from pathlib import Path

import pytest
import yaml

from compress import Recipe, Record
from compress.report import markdown
from compress.testing.stage_contract import CHECKS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_table_is_that_of_the_kept_record():
    record = Record.load(ROOT / "benchmarks" / "results" / "quickstart")
    shown = re.search(r"<!-- begin: .*?-->\n(.*?)<!-- end -->", README, re.DOTALL)[1]
    assert shown.strip() == markdown(record, record.targets[0]).strip()


def test_the_recipe_loads():
    (text,) = blocks("yaml")
    recipe = Recipe.loads(text)
    assert [stage.kind for stage in recipe.stages] == ["train", "distill", "quantize", "prune"]
    assert yaml.safe_load(text)["budget"] == recipe.budget.model_dump(exclude_none=True)


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_the_stage_keeps_the_contract(check, tmp_path):
    code = next(block for block in blocks("python") if "class ClipStage" in block)
    names = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec", dont_inherit=True), names)
    check(names["ClipStage"](deviations=1.0), tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_pictures_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
