"""The page's templates: everything is escaped, nothing is missing, a section more is one line."""

import ast
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import pytest

import compress.report
from compress.report.page.markup import DataTable, Markup, element, render
from compress.report.page.page import page
from compress.report.page.plots.panels import DrawnPanel, PanelFigure
from compress.report.page.sections import RECORD_SECTIONS, TARGET_SECTIONS, Section

FOLDER = Path(compress.report.__file__).parent / "page"
TEMPLATES = sorted(FOLDER.glob("*.html"))
PYTHON = [*FOLDER.glob("*.py"), *(FOLDER.parent / "repeat").glob("*.py")]
HOSTILE = "</pre><script>alert(1)</script>\"' & {{ 7 * 7 }} \x1b[31m\u202e"


class Outline(HTMLParser):
    """Elements and the names of their attributes, in order."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, [name for name, _ in attrs]))

    def handle_endtag(self, tag):
        self.found.append(tag)


def table_of(said):
    return DataTable([said], [[said, said]], said)


def figure_of(said):
    drawing = element("svg", {"aria-label": said}, element("text", {"x": 1}, said))
    return PanelFigure(said, [DrawnPanel(said, "→", drawing)], said, table_of(said))


@pytest.mark.parametrize(
    ("template", "data_of"),
    [
        ("findings.html", lambda said: [said]),
        ("panels.html", figure_of),
        (
            "details.html",
            lambda said: [{"index": 1, "stage": said, "facts": [(said, said)], "notes": [said]}],
        ),
        ("environment.html", lambda said: [(said, said)]),
        ("recipe.html", lambda said: {"recipe": said, "seed": said, "commands": [said]}),
        ("operators.html", table_of),
        (
            "widths.html",
            lambda said: [{"index": 1, "stage": said, "cut": 1, "table": table_of(said)}],
        ),
        (
            "training.html",
            lambda said: [{"index": 1, "stage": said, "curves": [], "table": table_of(said)}],
        ),
    ],
)
def test_no_text_changes_what_elements_a_template_makes(template, data_of):
    shown = render(template, {"data": data_of(HOSTILE)})
    assert Outline(shown).found == Outline(render(template, {"data": data_of("quiet")})).found
    assert "{{ 7 * 7 }}" in shown
    if template != "recipe.html":  # where YAML has escaped them already
        assert not {"\x1b", "\u202e"} & set(shown)


def test_elements_of_drawings_escape_texts_and_attributes_but_not_elements():
    inner = element("text", {"x": 1}, "<b>\x1b")
    shown = element("g", {"aria-label": '">\u202e<script>'}, inner, "&")
    assert shown == (
        '<g aria-label="&#34;&gt; &lt;script&gt;"><text x="1">&lt;b&gt;</text>&amp;</g>'
    )
    assert element("path", {"d": "M0,0" * 2000}).count("M0,0") == 2000  # a drawing is not cut
    assert element("g", {}, "") == "<g></g>"
    assert isinstance(shown, Markup)


def test_what_a_template_prints_and_is_not_given_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="'data' is undefined"):
        render("findings.html", {})


def test_only_one_file_makes_markup_of_strings():
    for path in PYTHON:
        calls = [n.func for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        names = {ast.unparse(called) for called in calls}
        assert "Markup" not in names or path.name == "markup.py", path
    for path in TEMPLATES:
        assert not re.search(r"\|\s*safe|autoescape|mark_safe", path.read_text()), path


def test_attributes_of_templates_are_quoted():
    for path in TEMPLATES:
        assert not re.search(r"=\{\{", path.read_text()), path


def test_every_template_is_printed_by_something():
    texts = "".join(path.read_text() for path in (*TEMPLATES, *PYTHON))
    for path in TEMPLATES:
        assert f'"{path.name}"' in texts, path


def test_sections_stand_in_the_order_of_their_tuples(chain):
    text = page(chain)
    heads = ["All rows", "Findings", "What each stage bought", "Row by row"]
    heads += ["Training curves", "Operators", "Environment", "Recipe", "How to reproduce"]
    found = re.findall("<h[23]>(?!Row \\d)([^<]+)</h[23]>", text)
    assert [head for head in found if head in heads] == heads
    assert len(set(found)) == len(found)


def test_a_plot_more_is_a_function_and_a_line(chain):
    def gather(target):
        drawing = element("svg", {"aria-label": target.name, "viewBox": "0 0 1 1"})
        table = DataTable(["row", "energy"], [["1", "2 mJ"]], "Energy of every row.")
        return PanelFigure("Energy", [DrawnPanel("energy", "", drawing)], "A dot is a row.", table)

    text = page(chain, (*TARGET_SECTIONS, Section("panels.html", gather)))
    assert text.index("Row by row") < text.index("<h3>Energy</h3>") < text.index("Training curves")
    assert '<svg aria-label="laptop" viewBox="0 0 1 1"/>' in text
    assert '<th scope="row">1</th><td>2 mJ</td>' in text


def test_a_section_without_data_is_left_out(chain):
    silent = Section("operators.html", lambda record: None)
    sections = tuple(
        silent if each.template == "operators.html" else each for each in RECORD_SECTIONS
    )
    assert "<h2>Operators</h2>" in page(chain)
    assert page(chain, of_record=sections) == page(chain, of_record=sections[:2] + sections[3:])
    assert "<h2>Operators</h2>" not in page(chain, of_record=sections)


def test_templates_are_loaded_when_a_page_is_made_and_not_before():
    code = "import sys, compress.report; print('jinja2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
