"""The HTML page: whole, safe, accessible, self-contained."""

import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
import yaml

from compress.report import write_report
from compress.report.curves import curves_of, svg_of
from compress.report.details import row_facts
from compress.report.html import page
from compress.report.markup import Picture

VOID = {"meta", "img", "source", "br", "path", "polyline", "circle"}


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


def picture(alt="alt"):
    return Picture(b"<svg/>", b"<svg/>", alt, "caption")


def page_of(record):
    return page(record, {target: [picture(), picture()] for target in record.targets})


RECORDS = ["chain", "one_row", "failed", "lower_is_better", "two_targets", "adversarial"]


@pytest.mark.parametrize("name", RECORDS)
def test_every_page_is_well_formed_and_asks_nobody_for_anything(name, request):
    text = page_of(request.getfixturevalue(name))
    reader = read(text)
    assert not reader.all("script")
    assert not reader.all("link")
    for _, attrs in reader.tags:
        assert not any(key.startswith("on") for key in attrs)
        for key in ("src", "srcset", "href"):
            assert (attrs.get(key) or "data:").startswith("data:")
    assert "url(" not in text
    assert "@import" not in text
    assert len(text) < 300_000


def test_a_policy_forbids_scripts_and_requests(one_row):
    policies = [a["content"] for a in read(page_of(one_row)).all("meta") if "http-equiv" in a]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_hostile_text_is_shown_not_run(adversarial):
    text = page_of(adversarial)
    assert "<script" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script>alert(1)</script>" in "".join(read(text).text)


def test_a_hostile_figure_text_stays_inside_its_attribute(one_row):
    text = page(one_row, {"laptop": [picture('"><script>alert(1)</script>')]})
    [image] = read(text).all("img")
    assert image["alt"] == '"><script>alert(1)</script>'


def test_the_recipe_on_the_page_is_the_recipe(adversarial, chain):
    for record in (chain, adversarial):
        text = "".join(read(page_of(record)).text)
        start = text.index("As it ran, with every default filled in.")
        shown = text[start:].split("filled in.", 1)[1].split("How to reproduce", 1)[0]
        assert yaml.safe_load(shown) == record.recipe


def test_the_page_can_be_read_without_seeing_it(chain):
    reader = read(page_of(chain))
    assert reader.all("html") == [{"lang": "en"}]
    assert all(image["alt"] for image in reader.all("img"))
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
    text = page_of(chain)
    assert text.index("Ship row 2 (distill)") < text.index("<figure>")
    assert "6.12x faster than the baseline" in text


def test_a_missed_budget_is_marked(make):
    record = make.build(make.four_rows(), baseline=1, budget={"artifact_kib": 10})
    text = page_of(record)
    assert 'class="answer missed"' in text
    assert "artifact size 61.3 KiB, budget 10.0 KiB" in text


def test_an_unfinished_record_has_a_page(chain):
    chain.rows, chain.status = [], "running"
    text = page_of(chain)
    read(text)
    assert "Nothing has been measured yet." in text


def test_how_to_reproduce_names_versions_and_mode(chain):
    chain.environment["mode"] = "strict"
    text = page_of(chain)
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
    assert "p99 needs more samples" in facts["Latency"]


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


def test_a_curve_is_drawn_to_scale_with_its_numbers_in_words():
    [curve] = curves_of([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}])
    shown = svg_of(curve)
    assert 'points="44.0,12.0 310.0,108.0"' in shown
    assert 'aria-label="loss: 2 at epoch 1, 1 at epoch 2"' in shown


def test_a_curve_of_one_epoch_can_be_drawn():
    [curve] = curves_of([{"loss": 2.0}])
    read(svg_of(curve))


def test_curves_reach_the_page(chain):
    assert page_of(chain).count('<svg class="curve"') == 6


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
    without_images = re.sub('base64,[^"]+', "", written[0].read_text(encoding="utf-8"))
    assert len(without_images) < 300_000


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
