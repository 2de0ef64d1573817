"""What each stage bought over the row before it, in words."""

import pytest

from compress.report.sentences import findings
from compress.report.step_words import step_words

pytestmark = pytest.mark.fast


def built(make, *specs):
    return make.build([make.Spec("train", "train", 0.95, 400e-6, 400_000), *specs], baseline=0)


def test_each_stage_is_compared_with_the_row_before_it(make):
    record = built(
        make,
        make.Spec("distill", "distill", 0.94, 200e-6, 200_000),
        make.Spec("quantize", "quantize", 0.94, 100e-6, 50_000, int8=1.0),
    )
    first, second = step_words(record, "laptop")
    assert first.startswith("Row 1 (distill) against row 0: 2.00x as fast [")
    assert "2.00x smaller, accuracy −1.00 pt [" in first
    assert second.startswith("Row 2 (quantize) against row 1: 2.00x as fast [")
    assert second.endswith("(100 % of multiply-accumulates in int8, 0 % before).")
    assert {first, second} <= set(findings(record, "laptop"))


def test_fewer_multiply_accumulates_are_named(make):
    record = built(make, make.Spec("prune", "prune", 0.95, 200e-6, 400_000))
    before, after = record.rows
    after.macs = before.macs // 4
    (sentence,) = step_words(record, "laptop")
    assert "multiply-accumulates, 4.00x fewer)" in sentence
    assert "as large" in sentence


def test_a_change_within_the_noise_is_no_gain(make):
    record = built(make, make.Spec("distill", "distill", 0.95, 399e-6, 400_000))
    (sentence,) = step_words(record, "laptop")
    assert "1.00x as fast" in sentence
    assert "not shown to be faster or slower" in sentence


def test_a_slower_row_is_called_slower(make):
    record = built(make, make.Spec("distill", "distill", 0.96, 800e-6, 800_000))
    (sentence,) = step_words(record, "laptop")
    assert "2.00x slower [" in sentence
    assert "2.00x larger" in sentence


def test_int8_that_is_slower_has_one_sentence_and_not_two(make):
    record = built(make, make.Spec("quantize", "quantize", 0.95, 800e-6, 100_000, int8=1.0))
    assert list(step_words(record, "laptop")) == []
    assert sum("slower" in sentence for sentence in findings(record, "laptop")) == 1


def test_a_row_that_was_not_timed_says_what_is_known(make):
    record = built(make, make.Spec("distill", "distill", None, None, 200_000))
    (sentence,) = step_words(record, "laptop")
    assert sentence == "Row 1 (distill) against row 0: 2.00x smaller."


def test_rows_up_to_the_baseline_bought_nothing(chain):
    assert len(list(step_words(chain, "laptop"))) <= len(chain.rows) - 1 - chain.baseline
