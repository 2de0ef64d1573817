"""The page of evidence says what the kept results say."""

import importlib.util
import json
from pathlib import Path

import pytest

from compress import Record
from compress.config.recipe_text import plain_data

ROOT = Path(__file__).parents[2]
RUNS = sorted((ROOT / "benchmarks" / "results").glob("*/record.json"))


def script():
    spec = importlib.util.spec_from_file_location("evidence", ROOT / "benchmarks" / "evidence.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_made_of_the_kept_results():
    page = script().page(ROOT / "benchmarks" / "results")
    assert (ROOT / "docs" / "evidence.md").read_text() == page


def test_a_claim_that_does_not_hold_is_said_to(tmp_path):
    kept = json.loads((ROOT / "benchmarks" / "results" / "startup.json").read_text())
    claim = {**kept["claims"][0], "value": 5.0, "bound": 4.0, "holds": False}
    (tmp_path / "startup.json").write_text(json.dumps({**kept, "claims": [claim], "table": "a b"}))
    page = script().page(tmp_path)
    assert "| 5 | 2.8 to 3.09 | ≤ 4 | **no** |" in page
    assert "```\na b\n```" in page


@pytest.mark.parametrize("path", RUNS, ids=lambda p: p.parent.name)
def test_a_kept_run_is_whole_and_of_the_recipe_as_it_is_written_now(path):
    record = Record.load(path)
    file = ROOT / "recipes" / f"{record.name}.yaml"
    written, _ = plain_data(file.read_text(), file.name)
    assert path.parent.name == record.name
    assert record.status == "done"
    assert len(record.rows) == 1 + len(written["stages"])
    written.pop("description")  # which nothing that ran depends on
    assert says(record.recipe, written)


def says(kept, written):
    """Whether all that is written is in what is kept, where defaults are filled in."""
    if isinstance(written, dict):
        return all(says(kept.get(key), value) for key, value in written.items())
    if isinstance(written, list):
        return len(kept) == len(written) and all(map(says, kept, written))
    if isinstance(written, str) and isinstance(kept, dict):
        return kept["name"] == written
    if isinstance(written, str) and written.startswith("../"):
        return kept.endswith(written.removeprefix("../"))
    if isinstance(written, str) and isinstance(kept, str) and kept.endswith(f"/{written}"):
        return True  # a path, which is kept with the folder of the recipe
    if isinstance(written, str) and isinstance(kept, list):
        return kept == [written]
    return kept == written
