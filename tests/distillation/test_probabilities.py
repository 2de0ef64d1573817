"""Probabilities told from logits, and turned into them."""

import pytest
import torch

from compress.distillation.probabilities import are_probabilities, logits_of
from compress.errors import DataError

pytestmark = pytest.mark.fast

LOGITS = 4 * torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
PROBABILITIES = LOGITS.softmax(1)

YES = {
    "a softmax": PROBABILITIES,
    "in half precision": PROBABILITIES.half(),
    "two classes": LOGITS[:, :2].softmax(1),
    "one-hot": torch.eye(5),
    "of positions": torch.randn(2, 5, 3, 3).softmax(1),
}
NO = {
    "logits": LOGITS,
    "log-probabilities": LOGITS.log_softmax(1),
    "several labels": LOGITS.sigmoid(),
    "one column of ones": torch.ones(6, 1),
    "values": torch.ones(6),
    "classes": torch.eye(5).long(),
    "after relu": LOGITS.relu(),
    "along another axis": torch.randn(2, 5, 3).softmax(2),
    "not finite": PROBABILITIES * float("nan"),
    "nothing": torch.empty(0, 5),
    "nearly": 1.01 * PROBABILITIES,
}


@pytest.mark.parametrize("outputs", YES.values(), ids=YES)
def test_probabilities_are_recognized(outputs):
    assert are_probabilities(outputs)


@pytest.mark.parametrize("outputs", NO.values(), ids=NO)
def test_other_outputs_are_not_taken_for_them(outputs):
    assert not are_probabilities(outputs)


def test_eight_bits_are_recognized_where_coarse_sums_are_allowed():
    rounded = (PROBABILITIES * 256).round() / 256 * 1.02
    assert not are_probabilities(rounded)
    assert are_probabilities(rounded, coarse=True)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_their_logarithm_is_right_at_every_temperature(temperature):
    softened = (logits_of(PROBABILITIES) / temperature).softmax(1)
    assert torch.allclose(softened, (LOGITS / temperature).softmax(1), atol=1e-6)


def test_a_probability_of_zero_stays_finite():
    logits = logits_of(torch.eye(5).half())
    assert logits.dtype == torch.float32
    assert bool(torch.isfinite(logits).all())
    assert torch.allclose((logits / 4).softmax(1), torch.eye(5), atol=1e-8)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (LOGITS, r"at least 0 and sum to 1 over two classes or more; the smallest is -\d"),
        (LOGITS.sigmoid() + 1, r"a sum is \d.* away from 1"),
        (torch.ones(6, 1), r"the shape is \(6, 1\)"),
        (torch.ones(6), r"the shape is \(6,\)"),
    ],
)
def test_what_is_no_probability_has_no_logits(outputs, message):
    with pytest.raises(DataError, match=message):
        logits_of(outputs)


def test_values_that_are_not_finite_are_left_for_others_to_see():
    assert bool(logits_of(PROBABILITIES * float("nan")).isnan().all())
