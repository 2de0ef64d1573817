"""What each stage bought, on the page."""

import re

import pytest

from compress.report.figures.stages_data import stages_info
from compress.report.page.page import page
from compress.report.page.plots.stages import steps_panels, steps_table

pytestmark = pytest.mark.fast


def panels(info):
    return [panel.drawing for panel in steps_panels(info)]


def test_bars_run_from_the_row_before_and_say_what_was_bought(chain):
    info = stages_info(chain, "laptop")
    latency = next(p for p in info.panels if p.name == "latency_p50_s")
    points = {p.position: p for p in latency.points}
    assert points[2].previous == pytest.approx(392e-6)
    assert points[3].previous == pytest.approx(64e-6)
    assert (points[3].step, points[3].step_verdict) == ("0.71x", "worse")
    assert (points[2].step, points[2].step_verdict) == ("6.12x", "better")
    assert points[0].previous is points[1].previous is None  # rows up to the baseline buy nothing


def test_bars_are_marked_better_worse_or_open(chain):
    latency = panels(stages_info(chain, "laptop"))[1]
    assert latency.count('class="bar good"') == 2
    assert latency.count('class="bar bad"') == 1
    size = panels(stages_info(chain, "laptop"))[3]
    assert size.count('class="bar good"') == 3


def test_the_untrained_row_stands_at_the_edge_and_leaves_the_scale_to_the_rest(chain):
    accuracy = panels(stages_info(chain, "laptop"))[0]
    assert accuracy.count('class="arrow"') == 1
    assert "10.32 %, off scale" in accuracy
    places = [float(x) for x in re.findall(r"translate\(([\d.]+),\d+\) scale", accuracy)]
    assert len(places) == 4
    assert max(places) - min(places) > 50


def test_a_metric_that_is_to_be_small_has_its_edge_on_the_right(lower_is_better):
    lower_is_better.rows[2].measurements[0].accuracy.value = 0.9
    info = stages_info(lower_is_better, "laptop")
    assert 'd="M-4,-6L6,0L-4,6Z"' in panels(info)[0]


def test_a_step_needs_a_row_before_it_that_was_measured(failed):
    latency = stages_info(failed, "laptop").panels[1]
    assert [p.position for p in latency.points] == [0, 1]
    failed.rows[1].measurements[0].memory = None
    failed.rows[2].measurements[0].memory = failed.rows[0].measurements[0].memory
    memory = stages_info(failed, "laptop").panels[2]
    assert [(p.position, p.previous) for p in memory.points] == [(0, None), (2, None)]


def test_what_was_never_measured_has_no_panel_and_no_columns(make):
    specs = make.four_rows()[1:3]
    for spec in specs:
        spec.peak_mib = None
    info = stages_info(make.build(specs), "laptop")
    assert len(panels(info)) == 3
    heads = steps_table(info).heads
    assert "peak" not in heads
    assert "p50" in heads
    assert all(len(line) == len(heads) for line in steps_table(info).lines)


def test_the_table_has_the_numbers_of_the_panels(chain):
    table = steps_table(stages_info(chain, "laptop"))
    [line] = [line for line in table.lines if line[0] == "3 quantize"]
    every = [cell for line in table.lines for cell in line]
    for cell in ("90.0 µs", "0.71x", "4.36x"):
        assert cell in line
    for cell in ("91.92 %", "≈ −0.04 pt"):
        assert cell in every
    shown = page(chain)
    assert '<th scope="row">3 quantize</th>' in shown
    for cell in line[1:]:
        assert f"<td>{cell}</td>" in shown


def test_words_are_against_the_baseline_and_say_so(chain):
    info = stages_info(chain, "laptop")
    latency = panels(info)[1]
    assert "90.0 µs 4.36x<" in latency
    assert "0.71x" not in latency
    assert "Changes in words are against the baseline" in page(chain)
    assert steps_table(info).heads[2:4] == ["vs row before", "vs baseline"]
    assert '<th scope="col">vs row before</th><th scope="col">vs baseline</th>' in page(chain)
