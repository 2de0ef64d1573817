"""The page of evidence says what the kept results say."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]


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
