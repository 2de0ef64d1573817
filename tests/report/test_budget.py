"""Sliders, and the answers that the page's script looks up."""

import json

import pytest

from compress.pareto import ShipRule, recommend, ship_answers
from compress.report.figures.axes import axes_of
from compress.report.figures.pareto_data import pareto_info
from compress.report.page.budget import choice_data, sliders_of
from compress.report.page.markup import render

pytestmark = pytest.mark.fast


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
    rule = ShipRule(record, "laptop")
    for slider in sliders_of(record, "laptop"):
        values = [stop.value for stop in slider.stops if stop.value is not None]
        assert values == sorted(set(values))
        assert len(values) == len(slider.stops) - 1
        assert len(values) >= 8
        drops = slider.objective == "accuracy"
        found = [readings.get(slider.objective) for readings in rule.table.values()]
        known = [reading.value for reading in found if reading is not None]
        if drops:
            known = [drop for drop in rule.drops.values() if drop is not None]
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


def data_of(record, target="laptop"):
    axes = axes_of(pareto_info(record, target))
    return choice_data(record, target, sliders_of(record, target), axes)


@pytest.mark.parametrize("name", ["chain", "clustered", "lower_is_better", "failed", "perfect"])
def test_every_place_of_the_sliders_has_an_answer(name, request):
    data = data_of(request.getfixturevalue(name))
    rows = len(data["rows"])
    # By the rows that each slider can leave, whatever the others do.
    left = {(True,) * rows}
    for slider in data["sliders"]:
        for _, _, missed in slider["stops"]:
            if missed is None:
                continue
            keeps = [penalty is None for penalty in missed]
            left |= {tuple(a and b for a, b in zip(kept, keeps, strict=True)) for kept in left}
    digits = {"".join("01"[each] for each in kept) for kept in left if any(kept)}
    assert digits <= {key.rstrip("ld") for key in data["answers"]}
    assert {position for position, _ in data["answers"].values()} <= set(range(rows))
    for kept, (position, reason) in data["answers"].items():
        assert kept[position] == "1"
        assert data["reasons"][reason]


def test_the_answers_are_those_that_are_given_of_the_recipes_budget(chain):
    data = data_of(chain)
    missed = [slider["stops"][slider["start"]][2] for slider in data["sliders"]]
    keeps = [all(each is None or each[k] is None for each in missed) for k in range(4)]
    position, reason = data["answers"]["".join("01"[each] for each in keeps) + "d"]
    sentence = data["before"][position] + data["reasons"][reason] + data["after"][1][position]
    assert sentence == recommend(chain, "laptop").reasons


def test_a_row_that_misses_fewer_limits_is_nearer_whatever_it_misses_them_by(failed, chain):
    rule = ShipRule(chain, "laptop")
    latency, size = (slider.quantity for slider in sliders_of(chain, "laptop")[:2])
    far, near = rule.penalty(1, latency, 1e-9), rule.penalty(1, size, 724_947)
    assert rule.penalty(1, size, 724_948) is None
    assert near < far < 2 * near
    # What was not measured is further off than all that was.
    assert far < ShipRule(failed, "laptop").penalty(2, latency, 1.0) < 2 * near
    assert rule.penalty(4, None, 0.0215) is None
    assert rule.value_text(4, None) == ("accuracy −2.15 pt against the baseline", True)
    assert ShipRule(failed, "laptop").value_text(2, latency) == (
        "p50 latency was not measured",
        False,
    )


def test_too_many_answers_are_none(chain):
    kept = [{(True, False, True, True)}, {(False, True, True, True)}]
    assert ship_answers(chain, "laptop", kept, set(), most=4) is not None
    assert ship_answers(chain, "laptop", kept, set(), most=3) is None
    assert ship_answers(chain, "laptop", kept, {(True,) * 4}, most=4) is None


def test_the_data_is_json_and_places_limits_on_their_axes(chain):
    axes = axes_of(pareto_info(chain, "laptop"))
    data = data_of(chain)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    latency, _, _, drop = data["sliders"]
    words, at, missed = latency["stops"][latency["start"]]
    assert words == "300 µs"
    assert [penalty is None for penalty in missed] == [False, True, True, True]
    assert at == pytest.approx(axes["latency_p50_s"].at(0.3e-3), abs=1e-4)
    assert drop["stops"][drop["start"]][1] == pytest.approx(axes["accuracy"].at(0.9152), abs=1e-4)
    assert latency["stops"][0][1] is None or 0 <= latency["stops"][0][1] <= 1
    assert latency["stops"][-1] == ["no limit", None, None]
    assert latency["texts"][0] == "p50 latency 392 µs, budget "
    assert data["after"][0][0] == "."
    assert "6.12x faster" in data["after"][0][1]


def test_the_form_waits_for_the_script(chain):
    form = render("budget.html", {"data": {"sliders": sliders_of(chain, "laptop"), "number": 3}})
    form = form.lstrip()
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
