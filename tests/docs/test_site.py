"""The site: every page is in its navigation, every link leads somewhere, and it builds."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.tools.site import outside

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")


def plain(text):
    """The text without its code, in which nothing is a link or a heading."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(path):
    """What a link may name in a page, as GitHub and mkdocs make it of headings."""
    headings = re.findall(r"^#+ (.+)$", plain(path.read_text()), re.MULTILINE)
    words = [re.sub(r"\]\([^)]*\)|[`*\[]", "", one).strip().lower() for one in headings]
    return {re.sub(r"[^\w\- ]", "", one).replace(" ", "-") for one in words}


@pytest.mark.fast
@pytest.mark.parametrize("page", [*PAGES, "../README.md", "../CONTRIBUTING.md"])
def test_links_and_their_anchors_lead_somewhere(page):
    path = DOCS / page
    for link in LINK.findall(plain(path.read_text())):
        if link.startswith(("http:", "https:")):
            continue
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path.resolve()
        assert target.exists(), link
        assert not anchor or target.suffix != ".md" or anchor in anchors(target), link


@pytest.mark.fast
def test_every_page_is_in_the_navigation():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]

    def listed(part):
        if isinstance(part, str):
            return [part]
        parts = part.values() if isinstance(part, dict) else part
        return [page for one in parts for page in listed(one)]

    assert sorted(listed(nav)) == PAGES


@pytest.mark.fast
@pytest.mark.parametrize(
    ("page", "link", "leads"),
    [
        ("data.md", "../README.md", "README.md"),
        ("reference/prune.md", "../pruning.md", None),
        ("reference/index.md", "../../recipes/recipe.schema.json", "recipes/recipe.schema.json"),
        ("data.md", "../docs/pruning.md", None),
    ],
)
def test_links_out_of_the_pages_lead_to_the_repository(page, link, leads):
    assert outside(page, link) == leads


@pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None,
    reason="needs the extra docs: pip install -e '.[docs]'",
)
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "reference" / "python" / "index.html").read_text()
    assert "Run the stages on a candidate and measure the artifact after each." in page
    assert ":class:" not in page
