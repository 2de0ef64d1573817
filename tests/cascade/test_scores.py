"""Scores, thresholds, the area under the curve, and what a mix takes."""

import numpy as np
import pytest
from scipy.special import logsumexp, softmax
from sklearn.metrics import roc_auc_score

from compress.cascade.curve import Answered, curve_of, point_of
from compress.cascade.detection import auroc
from compress.cascade.fitting import fit
from compress.cascade.latency import MixTimes, mix_times
from compress.cascade.program.scores import confidence
from compress.cascade.threshold import NEVER, Wanted, sent_back, threshold_for, threshold_of_share
from compress.errors import DataError, MeasurementError, StageError

RNG = np.random.default_rng(0)
LOGITS = 5 * RNG.standard_normal((50, 4)).astype(np.float32)


# -- scores ---------------------------------------------------------------------------------------


def test_scores_of_logits_are_what_their_names_say():
    chances = np.sort(softmax(LOGITS.astype(float), axis=1), axis=1)
    np.testing.assert_allclose(confidence("probability", LOGITS), chances[:, -1])
    np.testing.assert_allclose(confidence("margin", LOGITS), chances[:, -1] - chances[:, -2])
    np.testing.assert_allclose(confidence("energy", LOGITS), logsumexp(LOGITS, axis=1), rtol=1e-6)
    fitted = {"temperature": np.array(2.0)}
    warm = confidence("energy", LOGITS, None, fitted)
    np.testing.assert_allclose(warm, 2 * logsumexp(LOGITS / 2, axis=1), rtol=1e-6)


@pytest.mark.parametrize("score", ["probability", "margin", "energy"])
def test_scores_of_a_yes_or_no_are_alike_on_both_sides(score):
    sure = confidence(score, np.array([-6.0, 6.0, 0.1, -2.0]))
    assert sure[0] == pytest.approx(sure[1])
    assert sure[1] > sure[3] > sure[2]
    np.testing.assert_array_equal(sure, confidence(score, np.array([[-6.0], [6.0], [0.1], [-2.0]])))


def test_distances_to_classes_are_those_of_mahalanobis():
    classes = np.repeat([0, 1], 400)
    mixing = np.array([[3.0, 1.0], [0.0, 0.2]])
    features = RNG.standard_normal((800, 2)) @ mixing + 20 * classes[:, None]
    fitted = fit("mahalanobis", features, classes)
    means = np.stack([features[classes == k].mean(0) for k in (0, 1)])
    inside = features - means[classes]
    precision = np.linalg.inv(inside.T @ inside / 800)
    given = np.array([[0.0, 0.0], [3.0, 0.0], [20.0, 21.0]])
    away = given[:, None] - means
    wanted = -np.einsum("nki,ij,nkj->nk", away, precision, away).min(1)
    found = confidence("mahalanobis", np.zeros((3, 2)), given, fitted)
    np.testing.assert_allclose(found, wanted, rtol=0.2, atol=0.05)  # a little variance is added


def test_distances_to_neighbors_are_of_features_of_length_one():
    features = RNG.standard_normal((600, 5)).astype(np.float32)
    fitted = fit("neighbors", features, np.zeros(600, int))
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    given = RNG.standard_normal((300, 5)).astype(np.float32)
    own = given / np.linalg.norm(given, axis=1, keepdims=True)
    distances = np.sort(np.linalg.norm(own[:, None] - units[None], axis=2), axis=1)
    found = confidence("neighbors", np.zeros((300, 2)), 7 * given, fitted)
    np.testing.assert_allclose(found, -distances[:, 9], rtol=1e-3, atol=1e-3)


def test_features_without_known_classes_are_refused():
    with pytest.raises(DataError, match="--score neighbors: it takes two training samples"):
        fit("neighbors", np.ones((5, 2)), np.full(5, -1))


# -- thresholds -----------------------------------------------------------------------------------


def test_a_share_is_never_exceeded_whatever_is_equally_sure():
    sure = np.array([0.1, 0.2, 0.2, 0.2, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    for share, back in ((0.05, 0), (0.1, 1), (0.3, 1), (0.4, 4), (0.5, 5), (1.0, 10)):
        assert sent_back(sure, threshold_of_share(sure, share)).sum() == back


def test_what_is_no_number_goes_back():
    sure = np.array([np.nan, 0.5, 0.9, 1.0])
    assert list(sent_back(sure, threshold_of_share(sure, 0.25))) == [True, False, False, False]


def test_the_fewest_samples_go_back_that_reach_an_accuracy():
    sure = np.arange(10) / 10
    student = np.array([0, 0, 1, 0, 1, 1, 1, 1, 1, 1])
    larger = np.array([1, 1, 0, 1, 1, 1, 1, 1, 1, 1])
    threshold = threshold_for(Wanted(accuracy=0.9), sure, student, larger)
    assert sent_back(sure, threshold).sum() == 2
    threshold = threshold_for(Wanted(drop=0.1), sure, student, larger)
    assert sent_back(sure, threshold).sum() == 1
    assert threshold_for(Wanted(accuracy=0.7), sure, student, larger) == NEVER
    with pytest.raises(StageError, match=r"no threshold reaches 95.00 % .* the best is 90.00 %"):
        threshold_for(Wanted(accuracy=0.95), sure, student, larger)


# -- the curve ------------------------------------------------------------------------------------


def test_a_curve_goes_from_the_student_to_the_larger_model():
    rng = np.random.default_rng(1)
    sure = rng.random(1000)
    student = (rng.random(1000) < sure).astype(float)
    larger = (rng.random(1000) < 0.9).astype(float)
    answered = Answered(sure, student, larger)
    times = MixTimes([np.full(300, 1e-4)] * 3, [np.full(300, 1e-3)] * 3, 1e-5)
    first, *_, last = curve = curve_of(sure, answered, times)
    assert (first.share, first.accuracy) == (0, pytest.approx(student.mean()))
    assert (last.share, last.accuracy) == (1, pytest.approx(larger.mean()))
    assert last.threshold is None
    assert last.change == 0
    assert first.mean_s == pytest.approx(1.1e-4)
    assert last.ratio == pytest.approx(1.11)
    assert [point.share for point in curve] == sorted(point.share for point in curve)
    tenth = point_of(answered, threshold_of_share(sure, 0.1), times)
    assert tenth.mean_s == pytest.approx(2.1e-4)
    assert tenth.ratio == pytest.approx(0.21)
    assert tenth.p99_s == pytest.approx(1.11e-3)
    assert tenth.change_ci95[0] < tenth.change < tenth.change_ci95[1]


def test_times_of_a_mix_come_from_raw_lines():
    def line(index, number, values, runs=1):
        common = {"kind": "time", "index": index, "round": number, "runs_per_sample": runs}
        return {**common, "samples_ns": values}

    lines = [{"kind": "session"}]
    for number in range(3):
        lines += [line(0, number, [1000_000] * 200)] * 2
        lines += [line(1, number, [(400_000 + number) * 4] * 100, 4)]
    times = mix_times(lines, 0.0)
    assert times.rounds == 3
    assert times.mean_s(0.5) == pytest.approx(0.9e-3, rel=1e-3)
    assert times.p99_s(0.005) is None  # it lies among means of four inferences
    assert times.p99_s(0.5) == pytest.approx(1.4e-3, rel=1e-3)
    value, (low, high) = times.ratio(0.1)
    assert low <= value <= high
    assert value == pytest.approx(0.5, rel=1e-3)
    with pytest.raises(MeasurementError, match="no round of the session timed both"):
        mix_times(lines[:2], 0.0)


# -- detection ------------------------------------------------------------------------------------


def test_the_area_is_that_of_the_curve_and_its_interval_covers_it():
    rng = np.random.default_rng(3)
    own, foreign = rng.normal(1, 1, 400).round(1), rng.normal(0, 1, 300).round(1)
    found = auroc(own, foreign)
    labels = np.repeat([1, 0], [400, 300])
    assert found.value == pytest.approx(roc_auc_score(labels, np.concatenate([own, foreign])))
    draws = [
        auroc(rng.choice(own, len(own)), rng.choice(foreign, len(foreign))).value
        for _ in range(500)
    ]
    np.testing.assert_allclose(found.ci95, np.quantile(draws, [0.025, 0.975]), atol=0.01)


def test_an_area_of_one_is_not_certain():
    found = auroc(np.array([3.0, 4.0, 5.0]), np.array([0.0] * 30 + [np.nan]))
    assert found.value == 1
    assert found.ci95 == (0.0, 1.0)
    assert auroc(np.arange(100) + 50.0, -np.arange(60.0)).ci95 == (0.95, 1.0)
