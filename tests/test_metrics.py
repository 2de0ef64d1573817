"""What the name of a metric means: rates, drops, and budgets that cannot have been meant."""

import pytest

from compress.budget import Budget, check_budget
from compress.errors import RecipeError
from compress.formatting import score, score_cells, score_change, score_interval
from compress.metrics import (
    allowance,
    change_unit,
    has_absolute_drop,
    is_rate,
    metric_direction,
    metric_unit,
    most,
)
from compress.report.figures.ticks import tick_score

pytestmark = pytest.mark.fast

RATES = ("accuracy", "agreement", "binary-accuracy", "binary-agreement")


@pytest.mark.parametrize("metric", RATES)
def test_rates_are_percent_everywhere_and_may_lose_a_point(metric):
    assert is_rate(metric)
    assert score(metric, 0.9731) == "97.31 %"
    assert score_change(metric, -0.0123) == "−1.23 pt"
    assert score_cells(metric, 1.0, 0.9124, 1.0) == ("100.00", "[91.24, 100.00]")
    assert tick_score(metric, 0.97, 0.1) == "97 %"
    assert allowance(metric, 0.5) == 0.01
    assert most(metric) == 1.0


def test_r2_is_no_percentage_but_its_drop_is_absolute():
    assert not is_rate("r2")
    assert has_absolute_drop("r2")
    assert score("r2", 0.97314) == "0.9731"
    assert score("r2", -0.5) == "−0.5000"
    assert score_change("r2", -0.0123) == "−0.0123"
    assert score_cells("r2", 0.98, 0.97, 0.985) == ("0.9800", "[0.9700, 0.9850]")
    assert allowance("r2", 0.0) == allowance("r2", -3.0) == 0.01
    assert most("r2") == 1.0


def test_decibels_are_decibels_everywhere_and_may_lose_a_tenth_of_one():
    assert score("psnr", 24.307) == score("psnr(image)", 24.307) == "24.31 dB"
    assert score_change("psnr", -0.4) == "−0.40 dB"
    assert score_interval("psnr", -0.85, 0.1) == "[−0.85, +0.10]"
    assert score_cells("psnr", 24.307, 23.0, 25.5) == ("24.31", "[23.00, 25.50]")
    assert tick_score("psnr", 24.0, 5) == "24"
    assert allowance("psnr", 24.0) == allowance("psnr", 0.0) == 0.1
    assert most("psnr") is None
    assert (metric_unit("psnr"), change_unit("psnr")) == ("dB", "dB")
    assert metric_direction("psnr")
    check_budget(Budget(accuracy_drop=1), "psnr")  # 1 dB


@pytest.mark.parametrize("metric", ["mse", "bits_per_token", "my_metric"])
def test_other_metrics_may_lose_a_share_of_the_baselines_value(metric):
    assert not is_rate(metric)
    assert not has_absolute_drop(metric)
    assert allowance(metric, -2.0) == 0.02
    assert allowance(metric, 0.0) == 0.0
    assert most(metric) is None


@pytest.mark.parametrize(
    ("drop", "metric", "message"),
    [
        (
            1,
            "accuracy",
            "budget.accuracy_drop: 1 would be all of the accuracy; write 1pt for one point.",
        ),
        (
            1.5,
            "binary-agreement",
            (
                "budget.accuracy_drop: 1.5 would be more than all of the binary-agreement; "
                "write 1.5pt for 1.5 points."
            ),
        ),
        (
            2,
            "r2",
            "budget.accuracy_drop: 2 would be more than all of the r2; write 2pt for 2 points.",
        ),
        (
            "1pt",
            "psnr",
            (
                "budget.accuracy_drop: points are of a rate such as accuracy, and psnr is none; "
                "give the drop as a number in the unit of psnr."
            ),
        ),
        (
            "1%",
            "mse",
            (
                "budget.accuracy_drop: points are of a rate such as accuracy, and mse is none; "
                "give the drop as a number in the unit of mse."
            ),
        ),
    ],
)
def test_a_drop_that_cannot_have_been_meant_is_refused(drop, metric, message):
    with pytest.raises(RecipeError) as refused:
        check_budget(Budget(accuracy_drop=drop), metric)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("drop", "metric"),
    [("1pt", "accuracy"), ("100%", "accuracy"), (0.5, "agreement"), (3, "mse"), ("1pt", "r2")],
)
def test_other_drops_are_fine(drop, metric):
    check_budget(Budget(accuracy_drop=drop), metric)
    check_budget(Budget(artifact_kib=4), metric)
    check_budget(None, metric)
