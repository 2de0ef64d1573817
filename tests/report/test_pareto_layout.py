"""The layout of the Pareto figure by itself, before anything is drawn."""

import dataclasses
import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.measure.quantity import Estimate
from compress.report.figures.axes import axes_of, spot_of
from compress.report.figures.markers import color_of, corners_of, legend_of
from compress.report.figures.pareto_data import ParetoInfo, PlotCurve, PlotPoint, pareto_info
from compress.report.figures.pareto_layout import Frame, layout_of, place_labels
from compress.report.figures.ticks import binary_ticks, brief, linear_ticks, log_ticks, thinned
from compress.report.overlay import groups, overlay_info

pytestmark = pytest.mark.fast

RECORDS = ["chain", "one_row", "lower_is_better", "clustered", "failed", "perfect"]
LATENCY, SCORE, PEAK = "latency_p50_s", "accuracy", "model_peak_bytes"


@pytest.fixture
def info(chain):
    return pareto_info(chain, "laptop")


@pytest.fixture(params=RECORDS)
def layout(request):
    return layout_of(pareto_info(request.getfixturevalue(request.param), "laptop"))


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


def apart(make):
    """Two runs that were measured apart."""
    records = [make.build(make.four_rows(), baseline=1) for _ in range(2)]
    for row in records[1].rows:
        row.measurements[0].artifact.sha256 = "1" * 64
    [group] = groups(records)
    return group


def test_several_runs_have_no_baseline_in_common(make):
    axes = axes_of(overlay_info(apart(make)))
    assert all(axis.ratios == () for axis in axes.values())


@st.composite
def estimates(draw, low, high):
    """Values with intervals, some of them one-sided or without an end."""
    value = draw(st.floats(low, high))
    below, above = draw(st.floats(0, 0.5)), draw(st.sampled_from([0.0, 0.01, 0.5, math.inf]))
    return Estimate(value, value * (1 - below), value * (1 + above))


@st.composite
def figures(draw):
    """Figures of any rows, with a budget and a baseline where they have one."""
    points = tuple(
        PlotPoint(
            label=f"{row} stage",
            row=row,
            kind=draw(st.sampled_from(["train", "quantize", "mine"])),
            values={
                LATENCY: draw(estimates(1e-7, 1e3)),
                SCORE: draw(estimates(0.0, 1.0)),
                PEAK: draw(estimates(0, 1e9)),
                "artifact_bytes": draw(estimates(1, 1e9)),
            },
            front_probability=draw(st.floats(0, 1)),
            on_front=draw(st.booleans()),
        )
        for row in range(draw(st.integers(1, 6)))
    )
    limits = draw(st.fixed_dictionaries({}, optional={LATENCY: st.floats(1e-7, 1e3)}))
    limits |= draw(st.fixed_dictionaries({}, optional={SCORE: st.floats(0, 1)}))
    higher = draw(st.booleans())
    words = dict.fromkeys(("title", "subtitle", "caption"), "")
    return ParetoInfo(
        **words,
        metric="accuracy" if higher else "mse",
        higher_is_better=higher,
        points=points,
        limits=limits,
        baseline={name: each.value for name, each in points[0].values.items()},
    )


@settings(max_examples=100, deadline=None)
@given(figures())
def test_whatever_is_drawn_lies_inside_the_frame(info):
    layout = layout_of(info)
    for spots in layout.spots:
        for spot in spots.values():
            assert 0 <= spot.lo <= spot.at <= spot.hi <= 1
    for axis in layout.axes.values():
        places = [at for at, _ in axis.ticks]
        assert all(-1e-9 <= at <= 1 + 1e-9 for at in places)
        assert len(set(places)) == len(places)
        assert all(0 <= at <= 1 for at, _ in axis.ratios)
        assert axis.limit is None or 0 <= axis.limit[0] <= 1


@settings(max_examples=100, deadline=None)
@given(figures())
def test_a_better_value_is_never_farther_from_the_good_end(info):
    for name, axis in axes_of(info).items():
        sign = -1 if axis.quantity.higher_is_better else 1
        points = [point for point in info.points if spot_of(axis, point)]
        points.sort(key=lambda point: sign * point.values[name].value)
        places = [spot_of(axis, point).at for point in points]
        assert places == sorted(places)


@settings(max_examples=100, deadline=None)
@given(figures())
def test_the_step_line_only_rises_to_the_right_and_no_member_is_above_it(info):
    layout = layout_of(info)
    line = layout.step_line()
    assert bool(line) == any(point.on_front for point in info.points)
    for (x0, y0), (x1, y1) in itertools.pairwise(line):
        assert (x0 == x1 and y1 < y0) or (y0 == y1 and x0 <= x1)
    if line:
        assert (line[0][1], line[-1][0]) == (1.0, 1.0)
    for point, (x, y) in zip(info.points, layout.shown, strict=True):
        if point.on_front:
            assert min(down for across, down in line if across <= x.at) <= y.at


def test_the_step_line_goes_from_fastest_to_most_accurate(info, lower_is_better):
    layout = layout_of(info)
    assert [info.points[k].label for k in layout.corners()] == ["4 prune", "2 distill", "1 train"]
    assert layout.corners(SCORE, LATENCY) == layout.corners()[::-1]
    small = pareto_info(lower_is_better, "laptop")
    scores = [small.points[k].values[SCORE].value for k in layout_of(small).corners()]
    assert scores == [0.0342, 0.0221, 0.0213]


def test_beaten_rows_and_rows_off_the_scale_are_no_corner(info):
    def changed(**fields):
        points = (dataclasses.replace(info.points[0], **fields), *info.points[1:])
        return layout_of(dataclasses.replace(info, points=points)).corners()

    assert 0 in layout_of(info).corners()
    assert 0 not in changed(on_front=False)
    assert 0 not in changed(off_scale=True)
    none = tuple(dataclasses.replace(point, on_front=False) for point in info.points)
    assert layout_of(dataclasses.replace(info, points=none)).step_line() == []


def with_value(info, name, found):
    first = dataclasses.replace(info.points[1], values={**info.points[1].values, name: found})
    return dataclasses.replace(info, points=(info.points[0], first, *info.points[2:]))


def test_an_exact_nothing_has_no_place_on_a_log_scale(info):
    changed = with_value(info, PEAK, Estimate(0.0, 0.0, 0.0))
    layout = layout_of(changed)
    assert PEAK not in layout.spots[1]
    assert PEAK in layout.spots[0]


def test_a_nothing_that_may_be_more_stands_at_the_good_end_and_sets_no_scale(info):
    bound = info.points[1].values[PEAK].hi
    changed = with_value(info, PEAK, Estimate(0.0, 0.0, bound))
    spot = layout_of(changed).spots[1][PEAK]
    assert (spot.at, spot.lo) == (0.0, 0.0)
    assert spot.hi > 0
    axis = axes_of(changed)[PEAK]
    assert axis.natural(0) > bound / 4


def test_ends_that_are_not_finite_set_no_scale(info):
    found = info.points[1].values[LATENCY]
    changed = with_value(info, LATENCY, Estimate(found.value, 0.0, math.inf))
    before, after = axes_of(info)[LATENCY], axes_of(changed)[LATENCY]
    assert (after.low, after.high) == pytest.approx((before.low, before.high), abs=0.1)


def test_a_scale_of_ratios_spans_a_factor_of_two_at_least(one_row):
    axis = axes_of(pareto_info(one_row, "laptop"))[LATENCY]
    assert axis.natural(1) / axis.natural(0) == pytest.approx(2)
    assert len(axis.ticks) >= 2


@pytest.mark.parametrize(
    ("name", "limit", "is_shown"),
    [
        (LATENCY, 300e-6, True),
        (LATENCY, 1.1e-3, True),
        (LATENCY, 1.3e-3, False),
        (LATENCY, 21e-6, True),
        (LATENCY, 15e-6, False),
        (SCORE, 0.95, True),
        (SCORE, 0.80, False),
        ("artifact_bytes", 262_144, True),
        ("artifact_bytes", 2**40, False),
    ],
)
def test_a_limit_is_shown_on_its_axis_where_that_costs_little_of_the_scale(
    info, name, limit, is_shown
):
    axis = axes_of(dataclasses.replace(info, limits={name: limit}))[name]
    bare = axes_of(dataclasses.replace(info, limits={}))[name]
    if is_shown:
        assert axis.limit == (axis.at(limit), axis.quantity.unit.shown(limit))
        assert 0 < axis.limit[0] < 1
    else:
        assert axis.limit is None
        assert (axis.low, axis.high) == (bare.low, bare.high)


def test_labels_lie_inside_apart_from_one_another_and_off_the_markers(layout):
    sizes = [(6.5 * len(label), 12.0) for label in layout.full_labels]
    frame = Frame(60, 40, 740, 390, largest=12)
    boxes = [found.box for found in place_labels(layout, frame, sizes)]
    inside = frame.box((0, 0), (1, 1))
    assert all(inside.holds(box) for box in boxes)
    assert all(a.overlap(b) == 0 for a, b in itertools.combinations(boxes, 2))
    middles = [frame.at(x.at, y.at) for x, y in layout.shown]
    assert not any(box.nearest(middle) == middle for box in boxes for middle in middles)


def test_labels_keep_off_what_is_taken(layout):
    frame = Frame(0, 0, 500, 350, largest=9)
    taken = frame.box((0, 0), (1, 0.3))
    sizes = [(60.0, 11.0)] * len(layout.labels)
    found = place_labels(layout, frame, sizes, [taken])
    assert all(each.box.overlap(taken) == 0 for each in found)


def test_labels_name_ties_and_what_is_off_the_scale(info):
    point = dataclasses.replace(info.points[0], ties=("2 distill", "3 quantize"))
    crowd = dataclasses.replace(info.points[1], ties=("1 a", "3 b", "4 c", "5 d"), off_scale=True)
    layout = layout_of(dataclasses.replace(info, points=(point, crowd, *info.points[2:])))
    assert layout.labels[:2] == ("1 train ≈ 2, 3", "2 distill ≈ 4 others")
    assert layout.full_labels[:2] == ["1 train ≈ 2, 3", "2 distill ≈ 4 others ↓ 91.96 %"]


def test_marks_say_kind_by_shape_and_size_by_area(info):
    assert len({corners_of(k) for k in ("train", "distill", "quantize", "prune", "input")}) == 5
    assert corners_of("anyone's") == corners_of("else's")
    assert color_of("anyone's") == "kind-other"
    big, middle, _, small = layout_of(info).markers
    assert big.radius > middle.radius > small.radius
    area = (middle.radius / (big.radius / 1.3)) ** 2
    assert area == pytest.approx(info.points[1].bytes / info.points[0].bytes)
    for corners in map(corners_of, ("distill", "quantize", "prune", "mine")):
        assert max(math.hypot(*corner) for corner in corners) < 1.17


def test_marks_are_the_paler_the_less_certain(info):
    for point, marker in zip(info.points, layout_of(info).markers, strict=True):
        if point.on_front:
            assert marker.fill == pytest.approx(0.3 + 0.7 * point.front_probability)
        else:
            assert marker.fill < 0.3
        assert marker.ringed == point.is_recommended


def test_the_legend_names_what_is_drawn_and_nothing_else(info, make):
    def names(shown, with_budget=False):
        blocks = legend_of(shown, with_budget=with_budget)
        return {title: [key.name for key in keys] for title, keys in blocks}

    assert names(info, True) == {
        "Stage": ["baseline (train)", "distill", "quantize", "prune"],
        "Artifact size": ["708 KiB", "208 KiB", "61.3 KiB"],
        "Marks": ["not beaten by any row", "recommended", "best attained", "budget"],
    }
    beaten = dataclasses.replace(info.points[0], on_front=False)
    shown = dataclasses.replace(info, points=(beaten, *info.points[1:]))
    assert "beaten by another row" in names(shown)["Marks"]
    assert "budget" not in names(shown)["Marks"]
    several = names(overlay_info(apart(make)))
    assert len(several["Run"]) == 2
    assert "recommended" not in several["Marks"]
    [group] = groups([make.build(make.four_rows(), baseline=1) for _ in range(2)])
    assert names(overlay_info(group, chosen={1}))["Run"] == ["shared by several runs"]
    assert "wins under a budget" in names(overlay_info(group, chosen={1}))["Marks"]
    alike = [
        dataclasses.replace(p, values={**p.values, "artifact_bytes": ONE_SIZE}) for p in info.points
    ]
    alone = names(dataclasses.replace(info, points=tuple(alike)))
    assert alone["Artifact size"] == ["1.00 KiB"]
    beaten = [dataclasses.replace(p, on_front=False) for p in info.points]
    assert names(dataclasses.replace(info, points=tuple(beaten)))["Marks"] == [
        "beaten by another row",
        "recommended",
    ]


ONE_SIZE = Estimate(1024.0, 1024.0, 1024.0)


def sized(info, *sizes):
    points = [
        dataclasses.replace(
            point, values={**point.values, "artifact_bytes": Estimate(size, size, size)}
        )
        for point, size in zip(info.points, sizes, strict=True)
    ]
    return [m.radius for m in layout_of(dataclasses.replace(info, points=tuple(points))).markers]


def test_no_two_sizes_are_drawn_alike_however_far_they_are_apart(info):
    _, large, small, _ = sized(info, 104 << 10, 104 << 10, 16 << 10, 16 << 10)
    assert (large / small) ** 2 == pytest.approx(104 / 16)
    radii = sized(info, 1 << 30, 1 << 20, 4 << 10, 1 << 10)
    assert radii == sorted(radii, reverse=True)
    assert len(set(radii)) == 4
    assert radii[-1] > 0.25


@settings(max_examples=60, deadline=None)
@given(figures())
def test_no_label_of_a_row_within_the_budget_stands_beyond_it_nor_on_a_marker_or_label(info):
    layout = layout_of(info)
    frame = Frame(0, 0, 700, 420, largest=9)
    placed = place_labels(layout, frame, [(60.0, 12.0)] * len(info.points))
    across, down = frame.at(*layout.affordable)
    for number, (found, spots) in enumerate(zip(placed, layout.shown, strict=True)):
        others = [each.box for each in placed[:number]] + layout.marker_boxes(frame)
        assert all(found.box.overlap(other) == 0 for other in others)
        if layout.keeps_limits(spots) and across > 130 and down > 130:
            assert found.box.x1 <= across
            assert found.box.y1 <= down


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


def test_a_curve_is_on_the_axes_and_labels_stay_off_it(chain):
    info = pareto_info(chain, "laptop")
    seconds = [point.values["latency_p50_s"].value for point in info.points]
    scores = [point.values["accuracy"].value for point in info.points]
    places = ((0.5 * min(seconds), min(scores)), (2 * max(seconds), max(scores)))
    curve = PlotCurve("cascade", places, (max(seconds), max(scores)))
    plain, layout = layout_of(info), layout_of(dataclasses.replace(info, curves=(curve,)))
    assert plain.curve_lines() == []
    ((first, last, chosen),) = layout.curve_lines()
    assert 0 < first[0] < chosen[0] < last[0] < 1
    assert first[1] > last[1]
    assert layout.across.at(places[0][0]) == pytest.approx(first[0])
    assert layout.across.at(max(seconds)) == pytest.approx(chosen[0])
