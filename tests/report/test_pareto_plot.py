"""The Pareto figure as the page's SVG, and as data for the page's script."""

import dataclasses
import itertools
import re

import pytest

from compress.report.figures.axes import axes_of, spot_of
from compress.report.figures.markers import corners_of, legend_of
from compress.report.figures.pareto_data import pareto_info
from compress.report.figures.pareto_layout import layout_of
from compress.report.page.plots.markers import legend, shape_path
from compress.report.page.plots.pareto import pareto_script_data, pareto_svg

pytestmark = pytest.mark.fast


@pytest.fixture
def info(chain):
    return pareto_info(chain, "laptop")


def test_a_destroyed_row_stands_at_the_edge_with_its_value(make):
    specs = make.four_rows()
    specs[3].accuracy = 0.1169
    info = pareto_info(make.build(specs, baseline=1), "laptop")
    spot = spot_of(axes_of(info)["accuracy"], info.points[2])
    assert spot.off_scale
    assert spot.at == spot.lo == spot.hi < 1
    assert "3 quantize ↓ 11.69 %" in pareto_svg(layout_of(info))
    data = pareto_script_data(layout_of(info))["points"][2]
    assert data["at"]["accuracy"][3] == "11.69 %"


def test_a_row_without_memory_has_no_place_on_that_axis(make):
    specs = make.four_rows()[1:4]
    specs[1].peak_mib = None
    info = pareto_info(make.build(specs), "laptop")
    assert spot_of(axes_of(info)["model_peak_bytes"], info.points[1]) is None
    assert "model_peak_bytes" not in pareto_script_data(layout_of(info))["points"][1]["at"]


def test_shapes_are_closed_paths_and_a_circle_is_round(info):
    for corners in map(corners_of, ("distill", "quantize", "prune", "mine")):
        path = shape_path(corners)
        assert path.count("L") == len(corners) - 1
        assert path.endswith("Z")
    assert "A0.9,0.9" in shape_path(corners_of("train"))
    blocks = legend(legend_of(info, with_budget=True))
    assert [title for title, _ in blocks] == ["Stage", "Artifact size", "Marks"]
    drawn = [key for _, keys in blocks for key in keys]
    assert len(drawn) == 11
    assert [name for key, name in drawn if 'class="key ship"' in key] == ["recommended"]
    assert [name for key, name in drawn if 'class="limit"' in key] == ["budget"]


def test_the_step_line_of_the_static_plot_goes_up_by_corners(info):
    layout = layout_of(info)
    svg = pareto_svg(layout)
    line = re.search('class="step-line" d="M([^"]+)"', svg).group(1)
    places = [tuple(map(float, place.split(","))) for place in line.split("L")]
    assert len(places) == 2 * len(layout.corners()) + 1
    assert (places[0][1], places[-1][0]) == (390.0, 742.0)
    assert f'class="shade" d="M{line}L742.0,390.0"' in svg


def test_the_static_plot_has_the_lines_of_the_recipes_budget(info):
    svg = pareto_svg(layout_of(info))
    assert svg.count('class="limit"') == svg.count('class="outside"') == 2
    free = dataclasses.replace(info, limits={})
    assert 'class="limit"' not in pareto_svg(layout_of(free))


def test_the_script_gets_the_corners_for_every_pair_of_axes(info):
    layout = layout_of(info)
    data = pareto_script_data(layout)
    assert {(x, y) for x, found in data["corners"].items() for y in found} == set(
        itertools.permutations(data["axes"], 2)
    )
    assert data["corners"]["latency_p50_s"]["accuracy"] == layout.corners()
    assert data["corners"]["accuracy"]["latency_p50_s"] == layout.corners()[::-1]


def test_labels_of_the_static_plot_do_not_lie_on_one_another(clustered, info):
    for shown in (info, pareto_info(clustered, "laptop")):
        boxes = []
        svg = pareto_svg(layout_of(shown))
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
    facts = dict(pareto_script_data(layout_of(info))["points"][1]["facts"])
    assert facts["speed"] == "6.12x the baseline's"
    share = f"{100 * info.points[1].front_probability:.0f} %"
    assert facts["front"] == f"not beaten; not dominated in {share} of draws"
    assert facts["artifact size"] == "221 KiB"


def test_a_tie_says_in_what(make):
    specs = make.four_rows()[1:4]
    specs[2].seconds, specs[2].flips = 64.5e-6, (351, 194)
    info = pareto_info(make.build(specs), "laptop")
    facts = dict(pareto_script_data(layout_of(info))["points"][1]["facts"])
    assert facts["in accuracy and speed not told from"] == "2 quantize"
