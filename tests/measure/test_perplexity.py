"""Bits per token, perplexity and continuations, against a sum that is written out."""

import math

import numpy as np
import pytest

from compress.measure.perplexity import (
    bits_per_token,
    continuation_agreement,
    greedy_continuations,
    perplexity,
)

pytestmark = pytest.mark.fast

OUTPUTS = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 5, size=(3, 4))


def test_bits_are_the_mean_information_of_the_true_tokens():
    for outputs, labels, bits in zip(OUTPUTS, LABELS, bits_per_token(OUTPUTS, LABELS), strict=True):
        total = 0.0
        for place, label in enumerate(labels):
            powers = [math.exp(score) for score in outputs[:, place]]
            total -= math.log2(powers[label] / sum(powers))
        assert bits == pytest.approx(total / 4, rel=1e-5)


def test_scores_of_any_size_and_any_shift_have_bits():
    shifted = OUTPUTS * 1000 + 1e4
    assert np.isfinite(bits_per_token(shifted, LABELS)).all()
    assert bits_per_token(OUTPUTS + 7, LABELS) == pytest.approx(
        bits_per_token(OUTPUTS, LABELS), rel=1e-5
    )


def test_places_without_a_label_do_not_count():
    labels = LABELS.copy()
    labels[0, 2:], labels[1] = -1, -1
    bits = bits_per_token(OUTPUTS, labels)
    assert bits[0] == pytest.approx(bits_per_token(OUTPUTS[:1, :, :2], LABELS[:1, :2])[0])
    assert bits[1] == 0


def test_a_net_that_knows_nothing_chooses_among_all():
    bits = bits_per_token(np.zeros((1, 8, 3)), np.zeros((1, 3), int))
    assert perplexity(float(bits[0])) == pytest.approx(8)


def test_a_continuation_is_asked_for_token_by_token():
    windows = np.array([[1, 2, 9, 9], [3, 4, 9, 9]])
    seen = []

    def predict(texts):
        seen.append(texts.copy())
        # The next token is the present one and the first, added up.
        following = (texts + texts[:, :1]) % 10
        return np.eye(10)[following].transpose(0, 2, 1)

    assert greedy_continuations(predict, windows, 2, 2).tolist() == [[3, 4], [7, 0]]
    assert [texts.shape for texts in seen] == [(2, 4), (2, 4)]
    assert windows[0].tolist() == [1, 2, 9, 9]


def test_agreement_ends_where_texts_part():
    reference = np.array([[1, 2, 3, 4]] * 4)
    tokens = np.array([[1, 2, 3, 4], [1, 2, 0, 4], [0, 2, 3, 4], [1, 2, 3, 0]])
    assert continuation_agreement(tokens, reference).tolist() == [1, 0.5, 0, 0.75]
