"""Intervals of metrics over a data set, against 500 resamples that are drawn one by one."""

import numpy as np
import pytest

from compress.measure.score import accuracy_facts, score
from tests.covering import kept_of

from .metric_cases import CASES

# scikit-learn's take half a minute each.
SHORT = [case for case in CASES if not case.startswith("auroc of ")]


@pytest.mark.parametrize("case", kept_of(CASES, SHORT))
def test_intervals_are_those_of_resampling_by_hand(case):
    name, data, known = CASES[case]
    outputs, labels = data()
    ci95 = accuracy_facts(score(outputs, labels, name)).ci95
    rng = np.random.default_rng(7)
    drawn = (rng.integers(0, len(labels), len(labels)) for _ in range(500))
    by_hand = np.quantile([known(outputs[k], labels[k]) for k in drawn], [0.025, 0.975])
    # An end of such an interval is known to 3 hundredths of its width; scikit-learn is slow.
    assert ci95 == pytest.approx(by_hand, abs=0.13 * np.ptp(by_hand))
