"""Scores of samples, and the accuracy facts made of them."""

import numpy as np
import pytest
import torch

from compress.distillation.losses.image import ssim
from compress.errors import DataError
from compress.measure import stats
from compress.measure.score import accuracy_facts, score

pytestmark = pytest.mark.fast


def test_accuracy_is_right_or_wrong_per_sample():
    outputs = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    assert score(outputs, np.array([1, 1, 1]), "accuracy").tolist() == [1, 0, 1]


def test_accuracy_of_many_positions_is_their_share():
    outputs = np.zeros((2, 3, 2, 2))
    outputs[0, 1] = 1  # class 1 in all four positions of sample 0; class 0 everywhere in sample 1
    labels = np.array([[[1, 1], [1, 2]], [[0, 0], [1, 2]]])
    assert score(outputs, labels, "accuracy").tolist() == [0.75, 0.5]


def test_outputs_that_are_not_finite_are_wrong():
    outputs = np.array([[np.nan, 0.0], [np.inf, 0.0], [1.0, 0.0]])
    assert score(outputs, np.zeros(3, int), "accuracy").tolist() == [0, 0, 1]


def test_mse_is_the_mean_over_a_samples_values():
    outputs, labels = np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [3.0, 4.0]])
    assert score(outputs, labels, "mse").tolist() == [2.5, 12.5]


def test_mse_does_not_compare_all_with_all():
    assert score(np.array([[1.0], [2.0]]), np.array([1.0, 4.0]), "mse").tolist() == [0, 4]
    assert score(np.array([[1.0]]), np.array([3.0]), "mse").tolist() == [4]


def test_psnr_is_in_decibels_of_each_image_as_it_is_shown():
    wanted = np.full((3, 3, 16, 16), 0.5)
    outputs = wanted + np.array([0.1, 0.0, 0.0]).reshape(3, 1, 1, 1)
    outputs[2, :, :8] = 5.0  # shown as 1
    found = score(outputs, wanted, "psnr", "image")
    assert found.tolist() == pytest.approx([20.0, 60.0, -10 * np.log10(0.125)])


def test_ssim_is_that_of_the_loss():
    generator = torch.Generator().manual_seed(0)
    ours, wanted = torch.rand(2, 2, 3, 20, 17, generator=generator).unbind()
    found = score(ours.numpy(), wanted.numpy(), "ssim", "image")
    assert found.tolist() == pytest.approx(
        [1 - float(ssim(a[None], b[None])) for a, b in zip(ours, wanted, strict=True)], abs=1e-5
    )
    assert score(wanted.numpy(), wanted.numpy(), "ssim").tolist() == pytest.approx([1, 1])
    with pytest.raises(DataError, match=r"ssim needs images \(n, channels, height, width\)"):
        score(np.zeros((2, 3)), np.zeros((2, 3)), "ssim")


def test_a_metric_of_ones_own_gets_outputs_and_labels():
    def close(outputs, labels):
        return np.abs(outputs[:, 0] - labels) < 0.5

    assert score(np.array([[1.1], [2.0]]), np.array([1, 4]), close).tolist() == [1, 0]


def pair(outputs, labels):
    return np.zeros(2)


def invalid(outputs, labels):
    return np.full(len(labels), np.nan)


@pytest.mark.parametrize(
    ("outputs", "labels", "metric", "said"),
    [
        (np.zeros((3, 2)), np.zeros(2, int), "accuracy", "3 outputs and 2 labels"),
        (np.zeros(3), np.zeros(3, int), "accuracy", r"\(n, classes, ...\)"),
        (np.zeros((3, 2)), np.zeros((3, 1), int), "accuracy", r"got \(3, 2\) and \(3, 1\)"),
        (
            np.zeros((3, 2)),
            np.array([0, 1, 2]),
            "accuracy",
            "class indices 0 to 1; got int64 from 0",
        ),
        (np.zeros((3, 2)), np.array([0, 1, -100]), "accuracy", "a sample has no label"),
        (np.zeros((3, 2)), np.array([0.0, 1, 1]), "accuracy", "class indices 0 to 1; got float64"),
        (np.zeros((3, 2)), np.zeros((3, 4)), "mse", "outputs and labels of one shape"),
        (np.zeros((4, 9)), np.zeros((4, 3, 3)), "mse", "outputs and labels of one shape"),
        (np.zeros((3, 2)), np.zeros(3), pair, r"must return one .*, or 3 .*got shape \(2,\), 0"),
        (np.zeros((3, 2)), np.zeros(3), invalid, "metric invalid .* 3 not finite"),
    ],
)
def test_what_does_not_go_together_is_refused(outputs, labels, metric, said):
    with pytest.raises(DataError, match=said):
        score(outputs, labels, metric)


def test_right_or_wrong_scores_get_wilsons_interval_and_mcnemar():
    baseline = np.repeat([1.0, 0.0], [80, 20])
    scores = baseline.copy()
    scores[:15] = 0  # lost
    scores[80:85] = 1  # gained
    facts = accuracy_facts(scores, baseline)
    assert (facts.value, facts.n) == (0.7, 100)
    assert facts.ci95 == stats.wilson(70, 100)
    versus = facts.versus_baseline
    assert (versus["lost"], versus["gained"]) == (15, 5)
    assert versus["p_value"] == pytest.approx(0.0414, abs=1e-4)
    assert versus["delta"] == pytest.approx(-0.1)
    assert versus["delta_ci_lo"] < -0.1 < versus["delta_ci_hi"] < 0


def test_graded_scores_get_seeded_resampling():
    rng = np.random.default_rng(0)
    baseline = rng.random(300)
    scores = baseline + rng.normal(0.05, 0.05, 300)
    facts = accuracy_facts(scores, baseline, seed=3)
    assert facts == accuracy_facts(scores, baseline, seed=3)
    assert facts.ci95[0] < facts.value < facts.ci95[1]
    versus = facts.versus_baseline
    assert versus["p_value"] < 0.01
    assert 0.03 < versus["delta_ci_lo"] < versus["delta"] < versus["delta_ci_hi"] < 0.07


def test_where_lower_is_better_a_rise_is_a_loss():
    scores, baseline = np.array([2.0, 5.0, 1.0]), np.array([1.0, 4.0, 3.0])
    versus = accuracy_facts(scores, baseline, higher_is_better=False).versus_baseline
    assert (versus["lost"], versus["gained"]) == (2, 1)


def test_the_same_scores_show_no_difference():
    scores = np.array([1.0, 0.0, 1.0])
    versus = accuracy_facts(scores, scores).versus_baseline
    assert (versus["lost"], versus["gained"], versus["delta"]) == (0, 0, 0)
    assert versus["p_value"] == 1


def test_without_a_baseline_there_is_nothing_to_compare():
    assert accuracy_facts(np.array([1.0, 0.0])).versus_baseline is None


def test_no_samples_or_other_samples_are_refused():
    with pytest.raises(DataError, match="no samples to score"):
        accuracy_facts(np.array([]))
    with pytest.raises(DataError, match="the same samples; got 2 scores and 3"):
        accuracy_facts(np.ones(2), np.ones(3))
