"""Figures: nothing clipped, no labels across one another, the same bytes every time."""

import itertools

import matplotlib as mpl
import pytest
from matplotlib.text import Text

from compress.pareto import recommend
from compress.report.figures.canvas import LIGHT, render
from compress.report.figures.pareto import draw_pareto
from compress.report.figures.pareto_data import pareto_info
from compress.report.figures.stages import draw_stages
from compress.report.figures.stages_data import stages_info

RECORDS = ["chain", "one_row", "failed", "lower_is_better", "adversarial", "clustered"]


def texts(figure):
    renderer = figure.canvas.get_renderer()
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip():
            yield text, text.get_window_extent(renderer)


def shared_area(a, b):
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    return max(width, 0) * max(height, 0)


@pytest.fixture(params=RECORDS)
def record(request):
    return request.getfixturevalue(request.param)


def test_no_text_is_clipped_and_no_label_lies_on_another(record):
    target = record.targets[0]
    figure = draw_pareto(pareto_info(record, target))
    figure.draw_without_rendering()
    drawn = list(texts(figure))
    page = figure.bbox
    outside = [
        t.get_text()
        for t, box in drawn
        if box.x0 < 0 or box.x1 > page.x1 or box.y0 < 0 or box.y1 > page.y1
    ]
    assert not outside
    labels = [box for text, box in drawn if (text.get_gid() or "").startswith("label-")]
    assert len(labels) == len(pareto_info(record, target).points)
    assert all(shared_area(a, b) < 1 for a, b in itertools.combinations(labels, 2))
    axes = figure.axes[0].get_window_extent()
    assert all(
        axes.x0 <= b.x0 and b.x1 <= axes.x1 and axes.y0 <= b.y0 and b.y1 <= axes.y1 for b in labels
    )


def test_titles_legends_and_captions_do_not_meet(record):
    figure = draw_pareto(pareto_info(record, record.targets[0]))
    figure.draw_without_rendering()
    own = set(figure.texts)
    around = [box for text, box in texts(figure) if text in own]
    frame = figure.axes[0].get_tightbbox()
    assert all(shared_area(box, frame) < 1 for box in around)
    legends = [legend.get_window_extent() for legend in figure.legends]
    assert all(shared_area(a, b) < 1 for a, b in itertools.combinations([*around, *legends], 2))


def test_no_text_of_the_stages_is_clipped(record):
    figure = draw_stages(stages_info(record, record.targets[0]))
    figure.draw_without_rendering()
    page = figure.bbox
    outside = [
        t.get_text()
        for t, box in texts(figure)
        if box.x0 < 0 or box.x1 > page.x1 or box.y0 < 0 or box.y1 > page.y1
    ]
    assert not outside


def test_the_same_record_gives_the_same_bytes(chain):
    def files():
        figure = draw_pareto(pareto_info(chain, "laptop"))
        return render(figure, "png"), render(figure, "svg")

    first = files()
    assert first == files()
    assert b"dc:date" not in first[1]


def test_drawing_leaves_the_users_settings_alone(one_row):
    with mpl.rc_context({"font.size": 31.0}):
        before = dict(mpl.rcParams)
        render(draw_pareto(pareto_info(one_row, "laptop")), "svg")
        assert dict(mpl.rcParams) == before


def test_the_users_settings_do_not_change_the_figure(one_row):
    plain = render(draw_pareto(pareto_info(one_row, "laptop")), "svg")
    with mpl.rc_context({"font.size": 31.0, "axes.grid": True}):
        assert render(draw_pareto(pareto_info(one_row, "laptop")), "svg") == plain


def test_a_budget_beyond_the_right_edge_is_said_not_drawn(make):
    record = make.build(make.four_rows(), baseline=1, budget={"latency_p50_ms": 900})
    figure = draw_pareto(pareto_info(record, "laptop"))
    assert "budget" not in [text.get_text() for legend in figure.legends for text in legend.texts]
    assert any(
        "latency budget, 900 ms, is beyond" in text.get_text().replace("\n", " ")
        for text in figure.texts
    )


def test_a_title_that_fits_is_shown_whole(clustered, adversarial):
    titles = [
        draw_pareto(pareto_info(record, record.targets[0])).texts[0].get_text()
        for record in (clustered, adversarial)
    ]
    assert titles[0] == "sweep on laptop"
    assert titles[1].endswith("…")


def test_nothing_to_draw_is_said_in_the_figure(make):
    specs = make.four_rows()[1:3]
    for spec in specs:
        spec.seconds = None
    figure = draw_pareto(pareto_info(make.build(specs), "laptop"))
    assert "No row has both" in figure.axes[0].texts[0].get_text()


def luminance(color):
    parts = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_has_the_contrast_that_wcag_asks_for():
    for color in (LIGHT.ink, LIGHT.muted):
        lighter, darker = sorted((luminance(color), luminance(LIGHT.face)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5


def test_the_subtitle_is_the_advice_and_nothing_else(chain):
    figure = draw_pareto(pareto_info(chain, "laptop"))
    drawn = [" ".join(text.get_text().split()) for text, _ in texts(figure)]
    assert recommend(chain, "laptop").reasons in drawn
