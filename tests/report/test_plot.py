"""Axes, places and marks of the page's plot."""

import itertools
import re

import pytest

from compress.report.figures.axes import axes_of, spot_of
from compress.report.figures.pareto_data import pareto_info
from compress.report.figures.ticks import binary_ticks, brief, linear_ticks, log_ticks, thinned
from compress.report.overlay import groups, overlay_info
from compress.report.page.markers import legend, radius_of, shape_path
from compress.report.page.plots.pareto_svg import plot_data, plot_of, plot_svg

pytestmark = pytest.mark.fast


@pytest.fixture
def info(chain):
    return pareto_info(chain, "laptop")


def test_left_and_up_are_better_on_every_axis(info):
    axes = axes_of(info)
    assert list(axes) == [
        *("accuracy", "latency_p50_s", "artifact_bytes", "model_peak_bytes"),
        *("parameters", "macs"),
    ]
    baseline, distilled, _, pruned = info.points
    accuracy = [spot_of(axes["accuracy"], p).at for p in info.points]
    assert accuracy == sorted(accuracy)  # the first is the most accurate, so nearest to 0
    for name in axes.keys() - {"accuracy"}:
        assert spot_of(axes[name], pruned).at < spot_of(axes[name], baseline).at
    assert spot_of(axes["latency_p50_s"], distilled).text == "64.0 µs"


def test_a_metric_that_is_to_be_small_has_its_small_values_up(lower_is_better):
    info = pareto_info(lower_is_better, "laptop")
    axis = axes_of(info)["accuracy"]
    places = [spot_of(axis, p).at for p in info.points]
    assert places == sorted(places)
    assert axis.quantity.title == "mse"


@pytest.mark.parametrize("name", ["chain", "one_row", "lower_is_better", "clustered", "failed"])
def test_points_intervals_and_ticks_lie_inside(name, request):
    info = pareto_info(request.getfixturevalue(name), "laptop")
    for axis in axes_of(info).values():
        for point in info.points:
            spot = spot_of(axis, point)
            assert 0 <= spot.lo <= spot.at <= spot.hi <= 1
        assert 2 <= len(axis.ticks) <= 8
        assert all(-1e-9 <= at <= 1 + 1e-9 for at, _ in (*axis.ticks, *axis.ratios))
        assert len({words for _, words in axis.ticks}) == len(axis.ticks)


def test_places_are_proportional_to_the_logarithm(info):
    axis = axes_of(info)["latency_p50_s"]
    step = axis.at(200e-6) - axis.at(100e-6)
    assert axis.at(400e-6) - axis.at(200e-6) == pytest.approx(step)
    assert axis.natural(axis.at(123e-6)) == pytest.approx(123e-6)


def test_ratios_are_those_to_the_baseline(info):
    axis = axes_of(info)["latency_p50_s"]
    ratios = {words: at for at, words in axis.ratios}
    assert ratios["1x"] == pytest.approx(axis.at(392e-6))
    assert ratios["4x"] == pytest.approx(axis.at(98e-6))
    assert axes_of(info)["accuracy"].ratios == ()


def test_several_runs_have_no_baseline_in_common(make):
    [group] = groups([make.build(make.four_rows(), baseline=1) for _ in range(2)])
    axes = axes_of(overlay_info(group))
    assert all(axis.ratios == () for axis in axes.values())


def test_a_destroyed_row_stands_at_the_edge_with_its_value(make):
    specs = make.four_rows()
    specs[3].accuracy = 0.1169
    info = pareto_info(make.build(specs, baseline=1), "laptop")
    spot = spot_of(axes_of(info)["accuracy"], info.points[2])
    assert spot.off_scale
    assert spot.at == spot.lo == spot.hi < 1
    assert "3 quantize ↓ 11.69 %" in plot_svg(plot_of(info))
    data = plot_data(plot_of(info))["points"][2]
    assert data["at"]["accuracy"][3] == "11.69 %"


def test_a_row_without_memory_has_no_place_on_that_axis(make):
    specs = make.four_rows()[1:4]
    specs[1].peak_mib = None
    info = pareto_info(make.build(specs), "laptop")
    assert spot_of(axes_of(info)["model_peak_bytes"], info.points[1]) is None
    assert "model_peak_bytes" not in plot_data(plot_of(info))["points"][1]["at"]


def test_marks_say_kind_by_shape_and_size_by_area(info):
    assert len({shape_path(k) for k in ("train", "distill", "quantize", "prune", "input")}) == 5
    assert shape_path("anyone's") == shape_path("else's")
    big, middle = radius_of(info, info.points[0]), radius_of(info, info.points[1])
    assert big > middle >= 5.5
    shown = [name for _, name in legend(info, with_choice=True)]
    for words in ("baseline (train)", "distill", "quantize", "prune", "best under your budget"):
        assert words in shown


def test_the_step_line_of_the_static_plot_goes_down_by_corners(info):
    svg = plot_svg(plot_of(info))
    step_line = re.search('class="step-line" d="([^"]+)"', svg).group(1)
    assert step_line.count("V") == 3
    assert step_line.endswith("H742.0")


def test_labels_of_the_static_plot_do_not_lie_on_one_another(clustered, info):
    for shown in (info, pareto_info(clustered, "laptop")):
        boxes = []
        svg = plot_svg(plot_of(shown))
        rows = re.findall(
            r'translate\(([\d.]+),([\d.]+)\).*?class="name" x="([-\d.]+)" '
            r'y="([-\d.]+)">([^<]*)<',
            svg,
        )
        assert len(rows) == len(shown.points)
        for x, y, dx, dy, words in rows:
            left, base = float(x) + float(dx), float(y) + float(dy)
            boxes.append((left, base - 11, left + 6.7 * len(words), base + 4))
        for a, b in itertools.combinations(boxes, 2):
            assert not (a[0] < b[2] and b[0] < a[2] and a[1] + 1 < b[3] and b[1] + 1 < a[3])


def test_what_a_reader_learns_of_a_row(info):
    facts = dict(plot_data(plot_of(info))["points"][1]["facts"])
    assert facts["speed"] == "6.12x the baseline's"
    share = f"{100 * info.points[1].front_probability:.0f} %"
    assert facts["front"] == f"not beaten; not dominated in {share} of draws"
    assert facts["artifact size"] == "221 KiB"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.912, 0.941, [0.915, 0.92, 0.925, 0.93, 0.935, 0.94]), (0, 10, [0, 2, 4, 6, 8, 10])],
)
def test_linear_ticks_are_round(low, high, expected):
    assert linear_ticks(low, high) == pytest.approx(expected)


def test_ticks_of_other_scales_are_round_too():
    assert log_ticks(9e-6, 120e-6) == pytest.approx([1e-5, 2e-5, 5e-5, 1e-4])
    assert binary_ticks(900, 5000) == [1024, 2048, 4096]
    assert thinned(range(10), 4) == [0, 3, 6, 9]
    assert linear_ticks(1, 1) == [1]


@pytest.mark.parametrize(
    ("long", "short"),
    [("2.00 MiB", "2 MiB"), ("1.50k", "1.5k"), ("20.0 µs", "20 µs"), ("100 µs", "100 µs")],
)
def test_brief(long, short):
    assert brief(long) == short


def test_a_tie_says_in_what(make):
    specs = make.four_rows()[1:4]
    specs[2].seconds, specs[2].flips = 64.5e-6, (351, 194)
    info = pareto_info(make.build(specs), "laptop")
    facts = dict(plot_data(plot_of(info))["points"][1]["facts"])
    assert facts["in accuracy and speed not told from"] == "2 quantize"
