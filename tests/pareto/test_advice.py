"""Which row to ship, what each stage did, and int8 that is slower."""

import pytest

from compress.errors import RecordError
from compress.pareto import (
    allowed_drop,
    default_drop,
    int8_slowdowns,
    recommend,
    stage_effects,
)
from compress.report.sentences import findings

pytestmark = pytest.mark.fast


def test_the_fastest_row_within_the_budget_is_recommended(chain):
    advice = recommend(chain, "laptop")
    assert (advice.index, advice.meets_budget, advice.missed) == (2, True, ())
    assert "Ship row 2 (distill): the fastest of 2 rows within the budget." in advice.reasons
    assert "6.12x faster [6.00, 6.25]" in advice.reasons
    assert "accuracy changes by −1.56 pt" in advice.reasons


def test_without_a_budget_one_point_may_be_lost(make):
    advice = recommend(make.build(make.four_rows(), baseline=1), "laptop")
    assert (advice.index, advice.meets_budget) == (1, True)
    assert "the only row within −1.00 pt of the baseline" in advice.reasons


def test_a_missed_budget_names_the_nearest_row_and_by_how_much(make):
    budget = {"latency_p50_ms": 0.05, "artifact_kib": 32, "accuracy_drop": 0.05}
    advice = recommend(make.build(make.four_rows(), baseline=1, budget=budget), "laptop")
    assert advice.index == 4
    assert not advice.meets_budget
    assert advice.missed == (
        "p50 latency 59.0 µs, budget 50.0 µs",
        "artifact size 61.3 KiB, budget 32.0 KiB",
    )
    assert "no row meets the budget" in advice.reasons


def test_a_drop_of_exactly_the_budget_is_within_it(make):
    budget = {"accuracy_drop": 0.0156}
    advice = recommend(make.build(make.four_rows(), baseline=1, budget=budget), "laptop")
    assert advice.index == 2


def test_a_missed_accuracy_budget_is_told_in_points(make):
    specs = make.four_rows()[1:3]
    budget = {"artifact_kib": 300, "latency_p50_ms": 0.1, "accuracy_drop": 0.001}
    advice = recommend(make.build(specs, budget=budget), "laptop")
    assert not advice.meets_budget
    assert advice.index == 1
    assert advice.missed == ("accuracy −1.56 pt against the baseline, budget −0.10 pt",)


def test_what_was_not_measured_misses_its_budget(make):
    specs = make.four_rows()[1:2]
    specs[0].seconds = specs[0].peak_mib = specs[0].accuracy = None
    budget = {"latency_p50_ms": 1, "model_peak_mib": 1, "accuracy_drop": 0.1}
    advice = recommend(make.build(specs, budget=budget), "laptop")
    assert advice.missed == (
        "p50 latency was not measured",
        "peak memory was not measured",
        "accuracy was not measured",
    )


def test_of_rows_tied_in_speed_and_score_the_smallest_is_recommended(make):
    specs = make.four_rows()[1:4]
    specs[2].seconds, specs[2].flips = 64.5e-6, (351, 194)
    specs[1].accuracy_half = specs[2].accuracy_half = 0.02
    record = make.build(specs, budget={"accuracy_drop": 0.02})
    advice = recommend(record, "laptop")
    assert advice.index == 2
    assert advice.reasons.startswith("Ship row 2 (quantize)")


def test_of_tied_rows_of_one_size_the_one_that_is_likely_better_is_recommended(make):
    specs = make.four_rows()[1:4]
    specs[2].seconds, specs[2].flips, specs[2].bytes = 64.0e-6, (340, 194), specs[1].bytes
    specs[2].accuracy = specs[1].accuracy + 0.001
    specs[1].accuracy_half = specs[2].accuracy_half = 0.02
    record = make.build(specs, budget={"accuracy_drop": 0.02})
    advice = recommend(record, "laptop")
    assert advice.index == 2
    assert "tied for fastest and most accurate" in advice.reasons


def test_a_beaten_row_is_not_recommended(make):
    specs = make.four_rows()[1:3]
    copy = make.Spec(**{**vars(specs[1]), "bytes": 100_000, "seconds": 64.1e-6})
    record = make.build([*specs, copy], budget={"accuracy_drop": 0.02})
    assert recommend(record, "laptop").index == 2


def test_no_row_accurate_enough_falls_back_to_the_most_accurate(make):
    record = make.build(make.four_rows(), baseline=1, budget={"latency_p50_ms": 0.1})
    advice = recommend(record, "laptop")
    assert advice.index == 2
    assert "the most accurate row within the budget" in advice.reasons
    assert "none of those is within −1.00 pt" in advice.reasons


def test_int8_that_is_slower_is_said_in_words(chain):
    sentence = int8_slowdowns(chain, "laptop")[3]
    assert sentence == (
        "int8 row 3 (quantize) is 1.41x [1.37, 1.45] slower here than fp32 row 2 (distill) that it "
        "was made from; its file is 2.44x smaller (90.4 KiB against 221 KiB)."
    )
    assert sentence in findings(chain, "laptop")


def test_int8_that_is_slower_and_no_smaller_has_no_excuse(make):
    specs = make.four_rows()[1:4]
    specs[2].bytes = specs[1].bytes
    sentence = int8_slowdowns(make.build(specs), "laptop")[2]
    assert sentence.endswith("that it was made from, and no smaller (221 KiB against 221 KiB).")


@pytest.mark.parametrize("seconds", [40e-6, 64.5e-6])
def test_int8_that_is_faster_or_equal_is_not_called_slower(make, seconds):
    specs = make.four_rows()
    specs[3].seconds = seconds
    assert int8_slowdowns(make.build(specs, baseline=1), "laptop") == {}


def test_the_parent_is_found_by_fingerprint(make):
    record = make.build(make.four_rows(), baseline=1)
    record.rows[3].parent = "fp1"  # quantized from the trained row, which is slower
    assert int8_slowdowns(record, "laptop") == {}


def test_pruning_an_int8_model_is_not_quantizing_it(make):
    specs = make.four_rows()
    specs[4].seconds = 200e-6
    assert set(int8_slowdowns(make.build(specs, baseline=1), "laptop")) == {3}


def test_nothing_measured_is_an_error_that_names_the_targets(chain):
    with pytest.raises(RecordError, match=r"measured on the target 'phone'; .*: 'laptop'"):
        recommend(chain, "phone")


def test_allowed_drop_is_relative_for_other_metrics(lower_is_better, chain, make):
    assert allowed_drop(lower_is_better, "laptop") == pytest.approx(0.000213)
    assert allowed_drop(chain, "laptop") == 0.02
    assert allowed_drop(chain, "nowhere") is None


def test_stage_effects_compare_with_the_row_before_and_the_baseline(chain):
    effects = {e.row: e.effects for e in stage_effects(chain, "laptop")}
    latency = effects[3]["latency_p50_s"]
    assert latency.from_previous.value == pytest.approx(64 / 90)
    assert latency.from_previous.verdict == "worse"
    assert latency.from_baseline.value == pytest.approx(392 / 90)
    low, high = latency.from_baseline.ci95
    assert low < 392 / 90 < high
    accuracy = effects[2]["accuracy"]
    assert accuracy.from_baseline.value == pytest.approx(-0.0156)
    assert not accuracy.from_baseline.is_ratio
    assert effects[4]["artifact_bytes"].from_previous.value == pytest.approx(92_560 / 62_738)
    assert effects[0]["latency_p50_s"].from_previous is None
    assert effects[1]["latency_p50_s"].from_baseline.value == 1.0


def test_stage_effects_of_a_metric_that_is_to_be_small_keep_its_sign(lower_is_better):
    effects = stage_effects(lower_is_better, "laptop")
    change = effects[2].effects["accuracy"].from_baseline
    assert change.value == pytest.approx(0.0129)
    assert change.verdict == "worse"


def test_stage_effects_skip_what_was_not_measured(failed):
    effects = stage_effects(failed, "laptop")
    assert set(effects[2].effects) == {"accuracy", "artifact_bytes", "parameters", "macs"}


def test_advice_is_given_once_and_knows_the_budget(make):
    # Row 3 is slower than row 2, which is over the budget: no other sentence may call for row 2.
    budget = {"artifact_kib": 100, "accuracy_drop": 0.02}
    record = make.build(make.four_rows(), baseline=1, budget=budget)
    said = findings(record, "laptop")
    assert said[0].startswith("Ship row 3 (quantize): the only row within the budget.")
    assert [sentence for sentence in said if "ship row" in sentence.lower()] == [said[0]]
    assert any(sentence.startswith("int8 row 3 (quantize) is 1.41x") for sentence in said)


def test_what_a_perfect_baseline_may_lose_is_said_and_not_nothing(perfect):
    assert default_drop(perfect, "laptop") is None
    assert allowed_drop(perfect, "laptop") is None
    advice = recommend(perfect, "laptop")
    assert advice.index == 2
    assert advice.reasons.startswith("Ship row 2 (prune): the fastest of 3 rows measured.")
    assert advice.reasons.endswith(
        "No change of mse counted as too much, for 1 % of the baseline's 0 is nothing: a budget's "
        "accuracy_drop, in the unit of mse, would limit it."
    )


def test_a_budget_limits_what_a_perfect_baseline_may_lose(perfect):
    perfect.recipe["budget"] = {"accuracy_drop": 0.003}
    assert allowed_drop(perfect, "laptop") == 0.003
    advice = recommend(perfect, "laptop")
    assert advice.index == 1
    assert "No change of" not in advice.reasons


@pytest.mark.parametrize("metric", ["agreement", "binary-accuracy", "binary-agreement", "r2"])
def test_a_point_of_any_rate_and_of_r2_may_be_lost(make, metric):
    record = make.build(make.four_rows(), baseline=1, metric=metric)
    assert allowed_drop(record, "laptop") == 0.01


def test_a_row_that_only_its_score_tells_from_the_baseline_reads_well(make):
    specs = make.four_rows()[1:3]
    specs[1].bytes, specs[1].accuracy = specs[0].bytes, 0.9582
    for spec in specs:
        spec.seconds = None
    reasons = recommend(make.build(specs, budget={"artifact_kib": 900}), "laptop").reasons
    assert "Against baseline row 0 it is as large, and its accuracy changes by" in reasons
