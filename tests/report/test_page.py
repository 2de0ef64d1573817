"""The HTML page: whole, safe, accessible, self-contained."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

import compress.report
from compress.record import Energy
from compress.report import write_report
from compress.report.page.details import row_facts
from compress.report.page.markup import data_block, policy
from compress.report.page.page import page
from compress.report.page.plots.curves import curves_of, svg_of

PACKAGE = Path(compress.report.__file__).parent / "page"
VOID = {"meta", "br", "path", "polyline", "circle", "rect", "input"}


class Reader(HTMLParser):
    """Checks nesting and collects tags, attributes and text."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


RECORDS = ["chain", "one_row", "failed", "lower_is_better", "two_targets", "adversarial"]


@pytest.mark.parametrize("name", RECORDS)
def test_every_page_is_well_formed_and_asks_nobody_for_anything(name, request):
    text = page(request.getfixturevalue(name))
    reader = read(text)
    assert not reader.all("link")
    assert not reader.all("img")
    for _, attrs in reader.tags:
        assert not any(key.startswith("on") or key in ("src", "srcset", "style") for key in attrs)
        assert (attrs.get("href") or "#").startswith("#")
    assert "url(" not in text
    assert "@import" not in text
    assert len(text) < 300_000


def test_only_our_own_script_and_style_may_run(one_row):
    text = page(one_row)
    data, script = read(text).all("script")
    assert data == {"type": "application/json", "id": "data"}
    assert script == {}
    [content] = [a["content"] for a in read(text).all("meta") if "http-equiv" in a]
    rules = dict(rule.split(" ", 1) for rule in content.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    for name, tag in (("script-src", "script"), ("style-src", "style")):
        [inside] = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"


def test_a_policy_names_both_hashes_and_nothing_unsafe():
    assert policy("a", "b").count("sha256-") == 2
    assert "unsafe" not in policy("a", "b")


def test_script_and_style_can_stand_inside_their_elements():
    for name in ("page.js", "page.css"):
        content = (PACKAGE / name).read_text(encoding="utf-8")
        assert not re.search(r"</|<!--", content)
    script = (PACKAGE / "page.js").read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", script)


def test_no_text_can_end_the_block_of_data():
    hostile = ["</script><script>alert(1)</script>", "<!--", "\u2028\u2029", "&lt;", "]]>"]
    block = data_block(hostile)
    inside = block.removeprefix('<script type="application/json" id="data">')
    inside = inside.removesuffix("</script>")
    assert not re.search("[<>&\u2028\u2029]", inside)
    assert json.loads(inside) == hostile


def test_what_json_cannot_say_is_an_error():
    with pytest.raises(ValueError, match="not JSON compliant"):
        data_block([float("nan")])


def test_intervals_without_ends_do_not_break_the_page(chain):
    for row in chain.rows:
        found = row.measurements[0]
        found.accuracy.ci95 = (float("nan"), float("inf"))
        found.latency.ci95_p50_s = (0.0, float("inf"))
    read(page(chain))


def test_hostile_text_is_shown_not_run(adversarial):
    text = page(adversarial)
    assert text.count("<script") == 2
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script>alert(1)</script>" in "".join(read(text).text)


def test_the_recipe_on_the_page_is_the_recipe(adversarial, chain):
    for record in (chain, adversarial):
        text = "".join(read(page(record)).text)
        start = text.index("As it ran, with every default filled in.")
        shown = text[start:].split("filled in.", 1)[1].split("How to reproduce", 1)[0]
        assert yaml.safe_load(shown) == record.recipe


def test_the_page_can_be_read_without_seeing_it(chain):
    reader = read(page(chain))
    assert reader.all("html") == [{"lang": "en"}]
    assert all(
        drawing.get("aria-label") or drawing.get("aria-hidden") for drawing in reader.all("svg")
    )
    assert len(reader.all("caption")) == len(reader.all("table"))
    assert all(head.get("scope") in ("col", "row") for head in reader.all("th"))
    levels = [int(tag[1]) for tag, _ in reader.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    for region in (a for _, a in reader.tags if a.get("role") == "region"):
        assert region["tabindex"] == "0"
        assert region["aria-label"]


def test_the_answer_stands_before_the_figures(chain):
    text = page(chain)
    assert text.index("Ship row 2 (distill)") < text.index("<figure")
    assert "6.12x faster than the baseline" in text


def test_a_missed_budget_is_marked(make):
    record = make.build(make.four_rows(), baseline=1, budget={"artifact_kib": 10})
    text = page(record)
    assert 'class="recommendation missed" data-row="4"' in text
    assert "artifact size 61.3 KiB, budget 10.0 KiB" in text


def test_an_unfinished_record_has_a_page(chain):
    chain.rows, chain.status = [], "running"
    text = page(chain)
    read(text)
    assert "Nothing has been measured yet." in text


def test_how_to_reproduce_names_versions_and_mode(chain):
    chain.environment["mode"] = "strict"
    text = page(chain)
    assert "pip install torch==2.13.0 onnxruntime==1.32.0" in text
    assert "compresskit run recipe.yaml --strict" in text


def test_row_facts_say_what_the_table_cannot(chain):
    facts = dict(row_facts(chain, chain.rows[3], "laptop"))
    assert facts["Against the baseline"].startswith(
        "194 samples gained, 354 lost; change −1.60 pt [−2.06, −1.14]"
    )
    assert facts["Against the baseline"].endswith("exact McNemar p = 0.012")
    assert facts["Computed in int8"] == "97.0 % of multiply-accumulates"
    assert facts["Inside the file"] == "weights 45.2 KiB (int8 45.2 KiB), graph 45.2 KiB"
    assert facts["Float between int8"] == "ReduceMean"
    assert facts["Parity with its module"].startswith("99.80 % same answer, largest error 0.031")
    assert "p99 needs 299 timed runs; 7 processes, 210 timed runs" in facts["Latency"]


def test_bits_per_token_are_told_with_their_perplexity(lower_is_better):
    record = lower_is_better.model_copy(deep=True)
    assert "perplexity" not in str(dict(row_facts(record, record.rows[1], "laptop")))
    record.task.metric = "bits_per_token"
    record.rows[1].measurements[0].accuracy.value = 2.0
    told = dict(row_facts(record, record.rows[1], "laptop"))["Bits_per_token"]
    assert told.startswith("2")
    assert " (perplexity 4), " in told


def test_energy_is_told_only_where_a_sensor_told_it(chain):
    row = chain.rows[3].model_copy(deep=True)
    assert "Energy" not in dict(row_facts(chain, row, "laptop"))
    row.on("laptop").energy = Energy(
        inference_j=1.234e-3,
        range_j=(9.5e-4, 2.1),
        above_idle_j=8e-6,
        source="RAPL,\npackage-0",
        inferences=10,
    )
    assert dict(row_facts(chain, row, "laptop"))["Energy"] == (
        "1.23 mJ an inference, 950 µJ to 2.10 J in its windows, 8.00 µJ above idling; "
        "from RAPL, package-0"
    )


def test_row_facts_of_an_unmeasured_row_are_those_of_its_stage(chain):
    labels = [label for label, _ in row_facts(chain, chain.rows[3], "phone")]
    assert "Latency" not in labels
    assert labels[0] == "Kind"


def test_other_paired_comparisons_are_shown_as_stored(lower_is_better):
    row = lower_is_better.rows[1]
    row.measurements[0].accuracy.versus_baseline = {"difference": 0.0008, "p_value": 0.04}
    assert (
        dict(row_facts(lower_is_better, row, "laptop"))["Against the baseline"]
        == "paired p = 0.04; difference 0.0008"
    )


def test_curves_take_the_loss_and_whatever_validation_there_is():
    history = [
        {"epoch": 1, "loss": 2.0, "validation_loss": 1.5},
        {"epoch": 2, "loss": float("nan"), "validation_loss": 1.0},
        {"epoch": 3, "loss": 0.5, "validation_loss": "broken"},
    ]
    loss, validation = curves_of(history)
    assert loss.points == ((1.0, 2.0), (3.0, 0.5))
    assert (validation.name, validation.points) == ("validation loss", ((1.0, 1.5), (2.0, 1.0)))
    assert curves_of([{"note": "no epochs here"}]) == []
    twice = [{"epoch": epoch, "loss": loss} for epoch, loss in ((1, 3), (2, 2), (1, 2), (2, 1))]
    assert curves_of(twice)[0].points == ((1, 3), (2, 2), (3, 2), (4, 1))


def test_each_of_several_losses_has_a_curve_of_its_own():
    history = [
        {"epoch": 1, "loss": 2.0, "losses": {"response": 1.5, "label": 5.0}},
        {"epoch": 2, "loss": 1.0, "losses": {"response": 0.5, "label": float("inf")}},
        {"epoch": 3, "loss": 0.9, "losses": "broken"},
    ]
    whole, response, label = curves_of(history)
    assert (whole.name, whole.is_part) == ("loss", False)
    assert (response.name, response.is_part) == ("loss: response", True)
    assert response.points == ((1.0, 1.5), (2.0, 0.5))
    assert label.points == ((1.0, 5.0),)


def test_the_curve_of_a_single_loss_is_not_drawn_twice():
    history = [{"epoch": 1, "loss": 2.0, "losses": {"label": 2.0}}]
    assert [curve.name for curve in curves_of(history)] == ["loss"]


def test_curves_of_losses_reach_the_page_with_their_numbers(make):
    specs = make.four_rows()
    specs[1].history = [
        entry | {"losses": {"hint": 0.125 / entry["epoch"], "<i>:mine": 3.0}}
        for entry in make.history(4)
    ]
    shown = page(make.build(specs, baseline=0))
    assert "<figcaption>loss: hint <small>before its weight</small></figcaption>" in shown
    assert 'aria-label="loss: hint: 0.125 at epoch 1, 0.03125 at epoch 4"' in shown
    assert "Each loss is before its weight." in shown
    assert '<th scope="col">loss: hint</th>' in shown
    assert "0.04167" in shown  # the third epoch, in the table
    assert "<i>" not in shown
    assert "loss: &lt;i&gt;:mine" in shown


def test_a_curve_is_drawn_to_scale_with_its_numbers_in_words():
    [curve] = curves_of([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}])
    shown = svg_of(curve)
    assert 'points="44.0,12.0 310.0,108.0"' in shown
    assert 'aria-label="loss: 2 at epoch 1, 1 at epoch 2"' in shown


@pytest.mark.parametrize("least", [0.000176, -1.23e-5, 0.5])
def test_the_ends_of_an_axis_fit_on_the_drawing(least):
    [curve] = curves_of([{"loss": 2.0}, {"loss": least}])
    (left,) = re.findall(r'viewBox="(-?\d+) ', svg_of(curve))
    (end,) = re.findall(rf'<text x="(\d+)" y="\d+" text-anchor="end">{least:.3g}<', svg_of(curve))
    assert int(end) - int(left) >= 6.4 * len(f"{least:.3g}")  # a character in the page's font


def test_a_curve_of_one_epoch_can_be_drawn():
    [curve] = curves_of([{"loss": 2.0}])
    read(svg_of(curve))


def test_curves_reach_the_page(chain):
    assert page(chain).count('<svg class="curve"') == 6


def test_a_report_is_written_whole(chain, tmp_path):
    written = write_report(chain, tmp_path)
    names = [path.name for path in written]
    assert names == [
        "report.html",
        *("pareto.png", "pareto.svg", "stages.png", "stages.svg"),
        "table.csv",
        "table.md",
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)
    assert (tmp_path / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert len(written[0].read_bytes()) < 300_000


def test_every_target_has_files_of_its_own_inside_the_folder(make, tmp_path):
    record = make.build(make.four_rows()[1:2], targets=("../pi 4", "../pi:4"))
    written = write_report(record, tmp_path)
    assert [path.name for path in written if path.suffix == ".png"] == [
        *("pareto-pi-4.png", "stages-pi-4.png"),
        *("pareto-pi-4-2.png", "stages-pi-4-2.png"),
    ]
    assert all(path.parent == tmp_path and path.exists() for path in written)


def test_a_record_without_rows_still_gets_page_and_table(chain, tmp_path):
    chain.rows = []
    assert [p.name for p in write_report(chain, tmp_path)] == [
        "report.html",
        "table.csv",
        "table.md",
    ]


def test_a_page_of_ten_rows_and_long_trainings_is_small(make):
    specs = make.four_rows() * 2
    for spec in specs:
        spec.history = make.history(200)
    assert len(page(make.build(specs, baseline=1)).encode()) < 300_000


def test_every_figure_has_a_table_below_it(chain):
    text = page(chain)
    figures = [found.start() for found in re.finditer("<figure class=|<div class=.curves", text)]
    assert len(figures) >= 5  # the plot, the stages, and the curves of three trained rows
    for start, end in zip(figures, [*figures[1:], len(text)], strict=True):
        assert "<table" in text[start:end]


def test_a_page_without_a_script_has_plot_tables_and_answer(chain):
    text = page(chain)
    assert text.count('<g class="row ') == 4
    assert 'data-point="1" aria-label="Row 2 distill: accuracy 91.96 % (91.46 % to 92.46 %)' in text
    assert re.search('<path class="step-line" d="M[^"]+H[^"]+"/>', text)
    assert text.count(" hidden>") >= 3  # the forms of sliders and axes, and the tip


def test_rows_of_the_plot_can_be_reached_and_are_named(chain):
    rows = [a for _, a in read(page(chain)).tags if "data-point" in a]
    assert all(a["tabindex"] == "0" and a["role"] == "img" and a["aria-label"] for a in rows)
    sliders = [a for a in read(page(chain)).all("input") if a["type"] == "range"]
    labels = {a["for"] for a in read(page(chain)).all("label") if "for" in a}
    assert len(sliders) == 4
    assert {a["id"] for a in sliders} <= labels
    assert all(a["aria-valuetext"] for a in sliders)


def test_targets_have_sections_with_links_to_them(two_targets, chain):
    reader = read(page(two_targets))
    assert [a["href"] for a in reader.all("a")] == ["#part-0", "#part-1"]
    assert {"part-0", "part-1"} <= {a.get("id") for a in reader.all("h2")}
    assert not read(page(chain)).all("nav")


def test_operators_are_those_of_the_record(chain, adversarial):
    text = page(chain)
    assert '<th scope="row">Conv</th><td>9</td>' in text
    for row in chain.rows:
        row.measurements[0].artifact.operators = {}
    assert "<h2>Operators</h2>" not in page(chain)


def test_curves_of_many_epochs_have_a_table_of_some(make):
    specs = make.four_rows()[1:2]
    specs[0].history = make.history(100)
    text = page(make.build(specs))
    assert "of 100 epochs; all are in record.json." in text
    assert '<th scope="row">100</th>' in text


def luminance(color):
    parts = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_on_the_page_has_the_contrast_that_wcag_asks_for(theme):
    style = (PACKAGE / "page.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    colors = dict(re.findall(r"--([\w-]+): (#\w+)", blocks[0]))
    if theme == "dark":
        colors |= dict(re.findall(r"--([\w-]+): (#\w+)", blocks[1]))
    pairs = [(ink, face) for ink in ("ink", "muted") for face in ("face", "panel")]
    pairs += [("accent", "face"), ("good", "face"), ("bad", "face")]
    pairs += [(ink, face) for ink in ("ink", "muted") for face in ("good-face", "bad-face")]
    for ink, face in pairs:
        high, low = sorted((luminance(colors[ink]), luminance(colors[face])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, face)
