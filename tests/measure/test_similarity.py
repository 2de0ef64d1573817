import numpy as np
import pytest

from compress.measure.similarity import neighbor_overlap, similarity_spearman

pytestmark = pytest.mark.fast

METRICS = [similarity_spearman, neighbor_overlap]


def embeddings(count=40, width=8, seed=0):
    return np.random.default_rng(seed).normal(size=(count, width))


@pytest.mark.parametrize("metric", METRICS)
def test_the_same_similarities_score_one_whatever_the_length_and_turn(metric):
    x = embeddings()
    turn = np.linalg.qr(embeddings(8, 8, seed=1))[0]
    assert np.allclose(metric(3 * x @ turn, x), 1)
    assert metric(x, x).shape == (40,)


@pytest.mark.parametrize("metric", METRICS)
def test_widths_may_differ(metric):
    x = embeddings()
    assert np.allclose(metric(np.hstack([x, np.zeros((40, 3))]), x), 1)


def test_it_is_spearmans_coefficient_of_each_row():
    from scipy.stats import spearmanr

    a, b = embeddings(30), embeddings(30) + 0.5 * embeddings(30, seed=2)
    similar = []
    for x in (a, b):
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        similar.append(unit @ unit.T)
    expected = [
        spearmanr(np.delete(similar[0][i], i), np.delete(similar[1][i], i)).statistic
        for i in range(30)
    ]
    assert np.allclose(similarity_spearman(a, b), expected)


def test_unrelated_embeddings_score_nothing():
    a, b = embeddings(300), embeddings(300, seed=3)
    assert abs(similarity_spearman(a, b).mean()) < 0.02
    assert neighbor_overlap(a, b).mean() == pytest.approx(10 / 299, abs=0.02)


def test_neighbors_are_counted():
    a = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]])
    b = np.array([[1, 0], [0, 1], [0.9, 0.1], [0.1, 0.9]])
    assert neighbor_overlap(a, b, count=1).tolist() == [0, 0, 0, 0]
    assert neighbor_overlap(a, b, count=3).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("metric", METRICS)
def test_what_is_not_finite_scores_zero(metric):
    x = embeddings()
    bad = x.copy()
    bad[5] = np.nan
    scores = metric(bad, x)
    assert scores[5] == 0
    assert np.isfinite(scores).all()
    assert np.delete(scores, 5).mean() > 0.8


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("count", [1, 2])
def test_too_few_samples_to_differ_score_one(metric, count):
    assert metric(embeddings(count), embeddings(count, seed=1)).tolist() == [1] * count


@pytest.mark.parametrize("metric", METRICS)
def test_many_samples_are_compared_with_the_first_ones(metric):
    a, b = embeddings(50), embeddings(50) + 0.3 * embeddings(50, seed=4)
    scores = metric(a, b, most_others=20)
    assert scores.shape == (50,)
    assert np.allclose(scores[:20], metric(a[:20], b[:20]))
