"""What draws the Pareto figure draws the layout: matplotlib and the page's SVG agree to a pixel."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from compress.report.figures.canvas import drawable
from compress.report.figures.pareto import draw_pareto
from compress.report.figures.pareto_data import pareto_info
from compress.report.figures.pareto_layout import layout_of
from compress.report.figures.stages import draw_stages
from compress.report.figures.stages_data import stages_info
from compress.report.overlay import groups, overlay_info
from compress.report.page.plots.pareto import pareto_svg
from compress.report.page.plots.stages import steps_panels

RECORDS = ["chain", "one_row", "failed", "lower_is_better", "perfect", "clustered", "adversarial"]
CORNER, SIZE = np.array([62.0, 46.0]), np.array([680.0, 344.0])  # of the SVG's frame, in pixels


@pytest.fixture(params=[*RECORDS, "destroyed", "several"])
def info(request, make):
    if request.param == "several":
        return overlay_info(groups([make.build(make.four_rows(), baseline=1)] * 2)[0])
    if request.param == "destroyed":
        specs = make.four_rows()
        specs[3].accuracy = 0.1169
        return pareto_info(make.build(specs, baseline=1, budget=make.budget), "laptop")
    record = request.getfixturevalue(request.param)
    return pareto_info(record, record.targets[0])


def by_matplotlib(info):
    """Where parts of the PNG are, in pixels of the SVG's frame from its upper left corner."""
    axes = draw_pareto(info).axes[0]
    frame = axes.get_window_extent()

    def pixels(places):
        drawn = axes.transData.transform(np.reshape(places, (-1, 2)))
        return np.abs((drawn - [frame.x0, frame.y1]) / frame.size) * SIZE

    marks = [line for line in axes.lines if line.get_linestyle() == "None"]
    lines = [line for line in axes.lines if line not in marks]
    bars = [c for c in axes.collections if isinstance(c, LineCollection) and c.zorder == 3]
    return {
        # A ring, which is hollow, lies around a marker that is there as well.
        "markers": pixels([m.get_xydata()[0] for m in marks if m.get_markerfacecolor()[1] > 0]),
        "intervals": pixels([bar.get_segments()[0] for bar in bars]),
        "steps": pixels([line.get_xydata() for line in lines if line.get_linewidth() == 1.3]),
        "limits": pixels([line.get_xydata() for line in lines if line.is_dashed()]),
        "across": pixels([(at, 1) for at in axes.get_xticks()]),
        "up": pixels([(0, at) for at in axes.get_yticks()]),
    }


def by_svg(info):
    """The same of the SVG."""
    svg = ElementTree.fromstring(pareto_svg(layout_of(info)))

    def numbers(look):
        found = svg.iterfind(f".//path[@class='{look}']")
        return [[float(n) for n in re.findall(r"-?[\d.]+", path.get("d"))] for path in found]

    def pixels(places):
        return np.reshape(places, (-1, 2)) - CORNER

    rows = [row.get("transform") for row in svg.iterfind(".//g[@data-point]")]
    middles = [[float(n) for n in re.findall(r"[\d.]+", transform)] for transform in rows]
    intervals = [
        ((x + left, y), (x + right, y), (x, y + up), (x, y + down))
        for (x, y), (left, _, right, _, up, down) in zip(middles, numbers("bars"), strict=True)
    ]
    return {
        "markers": pixels(middles),
        "intervals": pixels(intervals),
        "steps": pixels(numbers("step-line")),
        "limits": pixels(
            [(x, y, x, to) if y == 46 else (x, y, to, y) for x, y, to in numbers("limit")]
        ),
        "across": pixels([(x, y) for x, y, _ in numbers("tick")]),
        "up": pixels([(x, y) for x, y, _ in numbers("line")]),
    }


def test_both_draw_the_same_places(info):
    png, svg = by_matplotlib(info), by_svg(info)
    assert len(svg["markers"]) == len(info.points)
    for part in png:
        assert png[part] == pytest.approx(svg[part], abs=1), part


def test_both_write_the_same_words(info):
    axes = draw_pareto(info).axes[0]
    svg = ElementTree.fromstring(pareto_svg(layout_of(info)))
    words = [text.text for text in svg.iterfind(".//g[@class='grid']/text")]
    ticks = [text.get_text() for text in (*axes.get_xticklabels(), *axes.get_yticklabels())]
    ratios = [tick for top in axes.child_axes for tick in top.get_xticklabels()]
    assert words[:-2] == [*ticks, *(text.get_text() for text in ratios)]
    names = [text.text for text in svg.iterfind(".//text[@class='name']")]
    labels = [text for text in axes.texts if (text.get_gid() or "").startswith("label-")]
    for name, label in zip(names, labels, strict=True):
        assert (
            label.get_text().split("\n")[0].removesuffix(" (ship)").startswith(drawable(name)[:40])
        )


def test_up_and_left_are_better_for_either_kind_of_metric(chain, lower_is_better):
    for record in (chain, lower_is_better):
        info = pareto_info(record, "laptop")
        sign = 1 if info.higher_is_better else -1
        scores = [sign * point.values["accuracy"].value for point in info.points]
        times = [point.values["latency_p50_s"].value for point in info.points]
        places = by_matplotlib(info)["markers"]
        assert places[:, 1].argmin() == np.argmax(scores)
        assert places[:, 0].argmin() == np.argmin(times)


@pytest.mark.parametrize("name", ["chain", "lower_is_better", "failed", "perfect"])
def test_both_draw_the_same_stages(name, request):
    record = request.getfixturevalue(name)
    record.rows[-1].on("laptop").accuracy.value = 0.9 if name == "lower_is_better" else 0.92
    info = stages_info(record, "laptop")
    panels = [panel for panel in info.panels if panel.points]
    drawn = [axes for axes in draw_stages(info).axes if len(axes.lines)]
    for axes, panel, shown in zip(drawn, panels, steps_panels(info), strict=True):
        marks = [line for line in axes.lines if line.get_linestyle() == "None"]
        heights = [line.get_ydata()[0] for line in marks]
        assert heights == [panel.share_of(point) for point in panel.points]
        places = re.findall(r'transform="translate\(([\d.]+),', shown.drawing)
        shares = [(float(x) - 104) / (212 - 104) for x in places]
        assert heights == pytest.approx(shares, abs=1 / 108)


def test_what_is_off_the_scale_of_the_stages_stands_at_its_worse_end(chain, lower_is_better):
    assert stages_info(chain, "laptop").panels[0].share(1.0) == 1.0
    lower_is_better.rows[2].measurements[0].accuracy.value = 0.9
    for record, worst in ((chain, 0.0), (lower_is_better, 1.0)):
        panel = stages_info(record, "laptop").panels[0]
        [off] = [point for point in panel.points if point.off_scale]
        assert panel.share_of(off) == worst
        assert all(0 < at < 1 for at, _ in panel.ticks)
