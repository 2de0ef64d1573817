"""Metrics over a data set: their values, and intervals by resampling samples."""

import time

import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score, roc_auc_score

from compress.errors import DataError
from compress.measure.ondevice.dataset_metrics import (
    DATASET_METRICS,
    DatasetScore,
    dataset_score,
    evaluate,
    resampled,
)
from compress.measure.ondevice.scoring import METRICS, OVER_DATA_SETS
from compress.measure.score import UndefinedMetric, accuracy_facts, score
from compress.task import METRICS as OF_TASKS

from .metric_cases import CASES, classes, numbers, several

pytestmark = pytest.mark.fast


def test_every_metric_is_tried_and_known_everywhere():
    assert {name for name, _, _ in CASES.values()} == set(DATASET_METRICS) == set(OVER_DATA_SETS)
    assert set(OF_TASKS) == {*METRICS, *OVER_DATA_SETS}


@pytest.mark.parametrize("case", CASES)
def test_values_are_those_of_known_libraries(case):
    name, data, known = CASES[case]
    outputs, labels = data()
    assert score(outputs, labels, name).value == pytest.approx(known(outputs, labels), abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_every_resample_is_the_metric_of_the_samples_drawn(case):
    name, data, known = CASES[case]
    outputs, labels = data(60)
    counts = np.random.default_rng(1).multinomial(60, [1 / 60] * 60, 5)
    weighted = DATASET_METRICS[name](outputs, labels)(counts)
    plain = evaluate(known, outputs, labels)(counts)
    assert weighted == pytest.approx(plain, abs=1e-6)


def test_a_model_is_compared_with_the_baseline_on_the_same_resamples():
    outputs, labels = several()
    worse = outputs + np.random.default_rng(3).normal(size=outputs.shape) * 0.3
    base, own = (score(each, labels, "auroc") for each in (outputs, worse))
    facts = accuracy_facts(own, base)
    versus = facts.versus_baseline
    assert versus["delta"] == pytest.approx(own.value - base.value)
    apart = np.hypot(np.ptp(facts.ci95), np.ptp(accuracy_facts(base).ci95))
    # Samples that are hard for one are hard for the other.
    assert versus["delta_ci_hi"] - versus["delta_ci_lo"] < 0.7 * apart
    assert versus.keys() == {"p_value", "delta", "delta_ci_lo", "delta_ci_hi"}
    same = accuracy_facts(base, base).versus_baseline
    assert (same["delta"], same["p_value"]) == (0, 1)


def test_a_clear_difference_has_a_small_p_value():
    outputs, labels = numbers()
    shuffled = np.random.default_rng(0).permutation(outputs)
    own, base = (score(each, labels, "spearman") for each in (shuffled, outputs))
    assert accuracy_facts(own, base).versus_baseline["p_value"] < 0.005


def largest(outputs, labels):
    return np.abs(outputs - labels).max()


def test_a_function_of_ones_own_may_give_one_number_for_all():
    outputs, labels = numbers()
    found = score(outputs, labels, largest)
    assert isinstance(found, DatasetScore)
    assert found.value == largest(outputs, labels) >= np.nanmax(found.draws)
    facts = accuracy_facts(found)
    assert (facts.n, facts.resamples) == (400, 2000)


def test_a_slow_metric_gets_fewer_resamples():
    def slow(counts):
        time.sleep(0.005)
        return counts.mean(1)

    assert len(resampled(slow, 10, most_s=0.001).draws) == 100
    assert len(resampled(slow, 10).draws) == 2000


def test_missing_labels_do_not_count():
    outputs, labels = several()
    gone = labels.copy()
    gone[::3, 1] = np.nan
    known = ~np.isnan(gone[:, 1])
    columns = [0, 2]
    values = [roc_auc_score(labels[:, k], outputs[:, k]) for k in columns]
    values.append(roc_auc_score(labels[known, 1], outputs[known, 1]))
    assert score(outputs, gone, "auroc").value == pytest.approx(np.mean(values))
    classes_, of_class = classes()
    hidden = np.where(np.arange(400) % 5 == 0, -1, of_class)
    kept = hidden >= 0
    expected = f1_score(of_class[kept], classes_[kept].argmax(1), average="macro")
    assert score(classes_, hidden, "f1").value == pytest.approx(expected)


@pytest.mark.parametrize("name", ["f1", "mean-iou", "auroc"])
@pytest.mark.parametrize("data", [classes, several])
def test_outputs_that_are_not_finite_are_wrong(name, data):
    outputs, labels = data()
    broken = np.full_like(outputs, np.nan)
    assert score(broken, labels, name).value == 0


def test_positions_count_each():
    outputs, labels = classes(n=400)
    masks = outputs.reshape(25, 4, 4, 4).transpose(0, 3, 1, 2), labels.reshape(25, 4, 4)
    expected = jaccard_score(labels, outputs.argmax(1), average="macro")
    assert score(*masks, "mean-iou").value == pytest.approx(expected)


def test_what_has_no_value_is_refused():
    outputs, labels = several()
    with pytest.raises(
        UndefinedMetric, match=r"auroc has no value on these 400 samples.*give more"
    ):
        score(outputs, np.zeros_like(labels), "auroc")
    with pytest.raises(UndefinedMetric, match="spearman has no value"):
        score(np.ones((5, 1)), np.arange(5.0)[:, None], "spearman")
    rare = np.zeros((400, 1))
    rare[0] = 1  # in two of three resamples
    with pytest.raises(UndefinedMetric, match="not on enough resamples of them"):
        score(outputs[:, :1], rare, "auroc")


@pytest.mark.parametrize("name", sorted(DATASET_METRICS))
def test_shapes_that_do_not_go_together_are_refused(name):
    with pytest.raises(ValueError, match=r"a label for each output; got \(4, 3\) and \(4, 2\)"):
        dataset_score(np.zeros((4, 3)), np.zeros((4, 2)), name)
    with pytest.raises(DataError, match="4 outputs and 3 labels"):
        score(np.zeros((4, 3)), np.zeros((3, 3)), name)
