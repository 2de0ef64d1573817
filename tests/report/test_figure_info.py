"""What the figures show, before anything is drawn."""

import pytest

from compress.report.figures.pareto_data import pareto_info, scale_floor
from compress.report.figures.stages_data import stages_info

pytestmark = pytest.mark.fast


def by_label(info):
    return {point.label.split(" ")[0]: point for point in info.points}


def test_points_carry_values_intervals_and_roles(chain):
    info = pareto_info(chain, "laptop")
    points = by_label(info)
    assert set(points) == {"1", "2", "3", "4"}
    assert points["1"].is_baseline
    assert points["1"].notes == ("over artifact size budget",)
    assert points["2"].is_recommended
    latency = points["2"].values["latency_p50_s"]
    assert latency.value == pytest.approx(64e-6)
    assert latency.lo == pytest.approx(64e-6 / 1.02)
    assert latency.hi == pytest.approx(64e-6 / 0.98)
    score = points["3"].values["accuracy"]
    assert (score.lo, score.hi) == pytest.approx((0.9142, 0.9242))
    assert points["2"].bytes == 225_901
    assert info.baseline["latency_p50_s"] == 392e-6


def test_limits_are_those_of_the_budget_in_the_unit_of_their_quantity(chain, lower_is_better):
    limits = pareto_info(chain, "laptop").limits
    assert limits["latency_p50_s"] == pytest.approx(0.3e-3)
    assert limits["artifact_bytes"] == 256 * 2**10
    assert limits["accuracy"] == pytest.approx(0.9152)
    assert "model_peak_bytes" not in limits
    assert pareto_info(lower_is_better, "laptop").limits == {}
    lower_is_better.recipe["budget"] = {"accuracy_drop": 0.002}
    assert pareto_info(lower_is_better, "laptop").limits == {"accuracy": pytest.approx(0.0233)}


def test_rows_that_cannot_be_drawn_are_named_with_the_reason(failed, chain):
    assert pareto_info(failed, "laptop").missing == ("not drawn: 2 quantize (no latency)",)
    missing = pareto_info(chain, "laptop").missing
    assert missing == ("not drawn: 0 input (untrained, before the baseline)",)


def test_a_row_without_a_measurement_is_named_too(chain):
    chain.rows[4].measurements = []
    assert "not drawn: 4 prune (not measured)" in pareto_info(chain, "laptop").missing


def test_ties_are_named_on_both_sides(make):
    specs = make.four_rows()[1:4]
    specs[2].seconds, specs[2].flips = 64.5e-6, (351, 194)
    points = by_label(pareto_info(make.build(specs), "laptop"))
    assert points["1"].ties == ("2 quantize",)
    assert points["2"].ties == ("1 distill",)


def test_a_destroyed_row_does_not_set_the_scale(make):
    specs = make.four_rows()
    specs[3].accuracy = 0.1169
    info = pareto_info(make.build(specs, baseline=1), "laptop")
    assert [p.label for p in info.points if p.off_scale] == ["3 quantize"]


@pytest.mark.parametrize(
    ("scores", "higher", "floor"),
    [
        ([0.93, 0.92, 0.91, 0.11], True, 0.91),
        ([0.93, 0.80, 0.70, 0.60], True, None),
        ([0.93, 0.11], True, None),
        ([0.02, 0.021, 0.022, 0.9], False, 0.022),
        ([0.5, 0.5, 0.5, 0.1], True, 0.5),
    ],
)
def test_scale_floor(scores, higher, floor):
    assert scale_floor(scores, higher) == floor


def test_alternative_text_states_the_numbers(chain):
    alt = pareto_info(chain, "laptop").alt
    assert "2 distill: 91.96 % at 64.0 µs, 221 KiB, on the front" in alt
    assert "not drawn: 0 input" in alt
    assert "3 quantize 90.0 µs (4.36x)" in stages_info(chain, "laptop").alt


def test_the_caption_says_device_samples_level_and_date(chain):
    chain.environment["mode"] = "quick"
    caption = pareto_info(chain, "laptop").caption
    for fact in ("AMD EPYC 7763", "onnxruntime", "10,000 test", "95 %", "7 proc", "2026-03-01"):
        assert fact in caption
    assert "quick mode" in caption


def test_a_device_may_describe_itself_in_a_block(chain):
    chain.environment["targets"] = {"laptop": {"device": {"board": "Raspberry Pi 5"}}}
    assert "Raspberry Pi 5" in pareto_info(chain, "laptop").caption


def test_stages_compare_every_row_with_the_baseline(chain):
    info = stages_info(chain, "laptop")
    panels = {panel.name: panel for panel in info.panels}
    assert list(panels) == ["accuracy", "latency_p50_s", "model_peak_bytes", "artifact_bytes"]
    latency = panels["latency_p50_s"]
    assert [point.note for point in latency.points] == [
        "≈ 1.00x",
        "baseline",
        "6.12x",
        "4.36x",
        "6.64x",
    ]
    assert latency.points[2].text == "64.0 µs"
    assert latency.baseline == pytest.approx(392e-6)
    assert [point.off_scale for point in panels["accuracy"].points] == [True] + [False] * 4
    assert info.marks[3] == ("49.4k weights", "97 % int8")
    assert info.marks[2] == ("49.4k weights",)


def test_the_untrained_model_does_not_set_the_scale_of_the_stages(make):
    accuracy = stages_info(make.build(make.four_rows()[:3], baseline=1), "laptop").panels[0]
    assert [point.off_scale for point in accuracy.points] == [True, False, False]


def test_a_change_that_is_not_shown_is_marked(make):
    specs = make.four_rows()[1:3]
    specs[1].seconds, specs[1].latency_half = 390e-6, 0.1
    latency = stages_info(make.build(specs), "laptop").panels[1]
    assert latency.points[1].note == "≈ 1.01x"


def test_a_quantity_that_was_never_measured_has_an_empty_panel(make):
    specs = make.four_rows()[1:3]
    for spec in specs:
        spec.peak_mib = None
    panel = stages_info(make.build(specs), "laptop").panels[2]
    assert (panel.points, panel.baseline) == ((), None)
