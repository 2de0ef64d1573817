"""Sliders, and the table from which the page's script chooses."""

import json

import pytest

from compress.pareto import choice_table, recommend
from compress.pareto.choice import NO_WORSE, SHOWN_BETTER, SHOWN_WORSE
from compress.report.figures.pareto_data import pareto_info
from compress.report.page.axes import axes_of
from compress.report.page.budget import choice_data, slider_form, sliders_of


def by_field(record, target="laptop"):
    return {slider.field: slider for slider in sliders_of(record, target)}


def test_every_limit_has_a_slider_that_starts_at_the_recipes_budget(chain):
    found = by_field(chain)
    assert list(found) == ["latency_p50_ms", "artifact_kib", "model_peak_mib", "accuracy_drop"]
    start = {name: slider.stops[slider.start] for name, slider in found.items()}
    assert start["latency_p50_ms"].value == 0.3
    assert start["latency_p50_ms"].words == "300 µs"
    assert start["artifact_kib"].value == 256
    assert start["accuracy_drop"].words == "−2.00 pt"
    assert (start["model_peak_mib"].value, start["model_peak_mib"].words) == (None, "no limit")


@pytest.mark.parametrize(
    "name", ["chain", "clustered", "lower_is_better", "one_row", "failed", "perfect"]
)
def test_stops_rise_and_reach_from_none_to_all_rows(name, request):
    record = request.getfixturevalue(name)
    table = choice_table(record, "laptop")
    for slider in sliders_of(record, "laptop"):
        values = [stop.value for stop in slider.stops if stop.value is not None]
        assert values == sorted(set(values))
        assert len(values) == len(slider.stops) - 1
        assert len(values) >= 8
        drops = slider.objective == "accuracy"
        mine = table.drops if drops else table.values[slider.objective]
        known = [value for value in mine if value is not None]
        assert values[-1] * slider.unit >= max(known)
        assert values[0] * slider.unit < min(known) or drops


def test_the_drop_that_holds_where_nobody_says_has_a_stop_of_its_own(make, lower_is_better):
    free = make.build(make.four_rows(), baseline=1)
    slider = by_field(free)["accuracy_drop"]
    assert slider.stops[slider.start].value is None
    assert slider.stops[slider.start].words == "−1.00 pt"
    assert slider.stops[slider.start - 1].value == 0.01
    other = by_field(lower_is_better)["accuracy_drop"]
    assert other.stops[other.start].words == "+0.000213"


def test_no_sliders_where_the_budget_limits_what_was_not_measured(make):
    specs = make.four_rows()[1:3]
    for spec in specs:
        spec.peak_mib = None
    assert "model_peak_mib" not in by_field(make.build(specs))
    assert sliders_of(make.build(specs, budget={"model_peak_mib": 3}), "laptop") == []


def test_the_table_says_how_each_row_compares_with_each(chain):
    table = choice_table(chain, "laptop")
    assert table.rows == (1, 2, 3, 4)
    latency = table.versus["latency_p50_s"]
    assert int(latency[1][0]) == NO_WORSE | SHOWN_BETTER  # distilled against the baseline
    assert int(latency[0][1]) == SHOWN_WORSE
    assert int(latency[2][2]) == NO_WORSE
    assert table.drops == pytest.approx((0, 0.0156, 0.016, 0.0215))
    assert table.default_drop == 0.01


def test_what_was_not_measured_compares_with_nothing(failed):
    table = choice_table(failed, "laptop")
    assert table.values["latency_p50_s"][2] is None
    assert table.costs["latency_p50_s"][2] is None
    assert table.versus["latency_p50_s"] == ("120".replace("2", "4"), "310", "000")


def test_the_data_is_json_and_places_limits_on_their_axes(chain):
    axes = axes_of(pareto_info(chain, "laptop"))
    data = choice_data(chain, "laptop", sliders_of(chain, "laptop"), axes)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    latency, _, _, drop = data["sliders"]
    value, words, at = latency["stops"][latency["start"]]
    assert (value, words) == (0.3, "300 µs")
    assert at == pytest.approx(axes["latency_p50_s"].at(0.3e-3), abs=1e-4)
    assert drop["stops"][drop["start"]][2] == pytest.approx(axes["accuracy"].at(0.9152), abs=1e-4)
    assert latency["stops"][0][2] is None or 0 <= latency["stops"][0][2] <= 1
    assert data["gains"][0] == ""
    assert data["gains"][1] in recommend(chain, "laptop").reasons


def test_the_form_waits_for_the_script(chain):
    form = slider_form(sliders_of(chain, "laptop"), 3)
    assert form.startswith('<form class="budget" hidden>')
    assert form.count('type="range"') == 4
    assert 'id="limit-3-0"' in form


def test_a_drop_without_a_limit_of_its_own_has_a_slider_all_the_same(perfect):
    slider = by_field(perfect)["accuracy_drop"]
    assert slider.label == "Change of mse from the baseline, no worse than"
    assert (slider.stops[0].value, slider.stops[-1].words) == (0.0, "no limit")
    assert slider.start == len(slider.stops) - 1
    perfect.recipe["budget"] = {"accuracy_drop": 0.005}
    slider = by_field(perfect)["accuracy_drop"]
    assert slider.stops[slider.start].words == "+0.005"
