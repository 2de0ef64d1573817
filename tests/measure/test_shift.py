"""Whether two samples differ, at the level that is said, and accuracy without labels."""

import numpy as np
import pytest

from compress.measure import without_labels
from compress.measure.shift import FEWEST, features_of, told_apart
from compress.measure.without_labels import changed_copies, confidence, estimated, trials


def pool(count, seed=0):
    """Correlated outputs of ten classes, as a net gives them."""
    rng = np.random.default_rng(seed)
    return 3 * rng.standard_normal((count, 10)) + rng.standard_normal((count, 1))


def test_of_200_draws_of_equal_samples_at_most_5_are_called_different():
    everyone = pool(20_000)
    rng = np.random.default_rng(1)
    shown = 0
    for draw in range(200):
        chosen = everyone[rng.choice(len(everyone), 160, replace=False)]
        found = told_apart(chosen[:80], chosen[80:], seed=draw)
        assert found is not None
        assert found.held_out == 80
        shown += found.is_shown
    assert shown <= 5


def test_a_change_of_the_mean_or_of_the_spread_is_shown_and_its_interval_is_above_a_half():
    first = pool(400)
    for second in (pool(400, 1) + 2, 2 * pool(400, 1)):
        found = told_apart(first, second)
        assert found.is_shown
        assert 0.5 < found.ci95.lo < found.share < found.ci95.hi


def test_what_never_varies_tells_nothing_apart_and_few_samples_are_not_tested():
    same = np.ones((50, 3))
    assert told_apart(same, same).share == 0.5
    assert told_apart(same[: FEWEST - 1], same) is None


def test_wide_outputs_and_values_that_are_not_finite_become_a_few_numbers():
    wide = np.random.default_rng(0).standard_normal((30, 3, 8, 8))
    wide[0, 0, 0, 0] = np.inf
    found = features_of({"a": wide, "b": np.ones((30, 2))})
    assert found.shape == (30, 64)
    assert np.isfinite(found).all()


# -- without labels ---------------------------------------------------------------------------


def predict(inputs):
    """The logits of a net that knows where the classes are."""
    return 4 * inputs[""]


def samples(count, noise, seed):
    """Points about the corners of four classes."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 4, count)
    points = np.eye(4)[classes] + noise * rng.standard_normal((count, 4))
    return points.astype(np.float32), classes


def test_the_confidence_is_the_probability_of_the_likeliest_class():
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25]])) + 3
    assert confidence(logits) == pytest.approx([0.7, 0.5])


def test_the_estimate_of_samples_of_the_same_kind_holds_the_truth():
    (inputs, classes), (served, truth) = samples(600, 0.5, 0), samples(600, 0.5, 1)

    def tried(threshold):
        return trials(predict, {"": inputs}, classes, threshold)

    found = estimated(predict({"": served}), predict({"": inputs}), classes, tried)
    accuracy = (predict({"": served}).argmax(1) == truth).mean()
    assert found.ci95.lo <= accuracy <= found.ci95.hi
    assert found.ci95.hi - found.ci95.lo <= without_labels.WIDEST


def test_samples_of_which_confidence_says_nothing_have_no_estimate():
    (inputs, classes), (served, _) = samples(600, 0.3, 0), samples(600, 0.3, 1)

    def tried(threshold):
        return trials(predict, {"": inputs}, classes, threshold)

    far = predict({"": 9 * served[:, ::-1]})
    assert estimated(far, predict({"": inputs}), classes, tried) is None


def test_changed_copies_keep_shape_and_type_and_change_what_they_can():
    rng = np.random.default_rng(0)
    images = {"": rng.standard_normal((8, 1, 8, 8)).astype(np.float32)}
    copies = list(changed_copies(images))
    assert len(copies) == 15
    assert all(copy[""].dtype == np.float32 and copy[""].shape == (8, 1, 8, 8) for copy in copies)
    assert not any(np.array_equal(copy[""], images[""]) for copy in copies)
    tokens = {"ids": rng.integers(0, 9, (8, 5)), "mask": rng.integers(0, 2, (8, 5))}
    others = list(changed_copies(tokens))
    assert len(others) == 3
    assert all(copy["ids"].dtype == np.int64 for copy in others)
