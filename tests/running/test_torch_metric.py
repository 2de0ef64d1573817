"""Metrics of torchmetrics as they are: on what targets return, with intervals."""

import warnings

import numpy as np
import pytest
import torch
from torchmetrics import Metric
from torchmetrics.classification import (
    BinaryF1Score,
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassJaccardIndex,
    MultilabelAUROC,
)
from torchmetrics.regression import MeanAbsoluteError, SpearmanCorrCoef

from compress import Candidate, QuantizeStage, Recipe, ReplayTarget, Task, TrainStage
from compress.errors import CompressError, DataError
from compress.fingerprints import code_fingerprint
from compress.measure.score import score
from compress.report import text_table, write_report
from compress.running.torch_metric import as_function
from compress.tasks.arrays import ArrayDataset

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, 200)
SCORES = RNG.normal(size=(200, 4)).astype(np.float32) + np.eye(4, dtype=np.float32)[LABELS]
YES = (RNG.random((200, 3)) < 0.4).astype(float)
LOGITS = (RNG.normal(size=(200, 3)) + YES).astype(np.float32)
VALUES = RNG.normal(size=(200, 1))
MASKS = np.where(RNG.random((200, 5)) < 0.2, 255, RNG.integers(0, 4, (200, 5)))
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that it keeps all samples, which are few
    SPEARMAN = SpearmanCorrCoef()
PLACES = RNG.normal(size=(200, 4, 5)).astype(np.float32)


@pytest.mark.parametrize(
    ("metric", "outputs", "labels", "kind", "same"),
    [
        (MulticlassF1Score(4), SCORES, LABELS, "class-scores", "f1"),
        (MulticlassJaccardIndex(4), SCORES, LABELS, "class-scores", "mean-iou"),
        (MultilabelAUROC(3), LOGITS, YES, "independent-logits", "auroc"),
        (BinaryF1Score(), LOGITS[:, :1], YES[:, :1], "independent-logits", "f1"),
        (SPEARMAN, (VALUES + 0.5)[:, 0], VALUES[:, 0], "values", "spearman"),
        (MulticlassJaccardIndex(4, ignore_index=255), PLACES, MASKS, "class-scores", "mean-iou"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Metric) else None,
)
def test_they_are_what_the_built_in_ones_are(metric, outputs, labels, kind, same):
    ignored = 255 if labels is MASKS else None
    ours = score(outputs, labels, same, kind, ignored)
    theirs = score(outputs, labels, as_function(metric, ignored), kind, ignored)
    assert theirs.value == pytest.approx(ours.value, abs=1e-5)
    both = min(len(ours.draws), len(theirs.draws))
    assert theirs.draws[:both] == pytest.approx(ours.draws[:both], abs=1e-5)


def test_the_users_own_metric_stays_as_it_was():
    metric = MulticlassF1Score(4)
    metric.update(torch.from_numpy(SCORES), torch.from_numpy(LABELS))
    before = metric.compute()
    score(SCORES, LABELS[::-1].copy(), as_function(metric), "class-scores")
    assert metric.compute() == before
    assert metric.validate_args


def test_one_that_gives_a_value_for_each_class_is_refused():
    each = as_function(MulticlassAccuracy(4, average=None))
    with pytest.raises(DataError, match=r"MulticlassAccuracy must give one number; got \(4,\)"):
        score(SCORES, LABELS, each, "class-scores")


def test_one_that_does_not_take_these_outputs_is_refused():
    with pytest.raises(DataError, match=r"does not take outputs and labels of the shapes \(200, 4"):
        score(SCORES, LABELS, as_function(MulticlassF1Score(7)), "class-scores")


def test_anything_else_is_left_alone():
    def mine(outputs, labels):
        return 0.0

    assert as_function(mine) is mine
    assert as_function("f1") == "f1"


def test_its_settings_are_what_it_is_told_apart_by():
    first, same = (code_fingerprint(MulticlassF1Score(4), "the metric") for _ in range(2))
    other = code_fingerprint(MulticlassF1Score(4, average="micro"), "the metric")
    assert first == same != other


# -- in a run ---------------------------------------------------------------------------------


def mean_margin(outputs, labels):
    return float(np.sort(outputs, axis=1)[:, -1].mean())


mean_margin.higher_is_better = True


def task(**given):
    parts = [
        ArrayDataset(torch.from_numpy(SCORES[k::3]), torch.from_numpy(LABELS[k::3]))
        for k in range(3)
    ]
    return Task("scores", *parts, **given)


def run(tmp_path, task_):
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    candidate = Candidate.of(module, torch.zeros(2, 4))
    stages = [TrainStage(epochs=3, batch_size=16), QuantizeStage()]
    return Recipe(name="metrics", stages=stages).run(
        candidate, task_, targets=[ReplayTarget()], workdir=tmp_path, report=False
    )


def test_several_metrics_are_recorded_and_the_first_leads(tmp_path):
    further = (MulticlassF1Score(4), "auroc", mean_margin)
    record = run(tmp_path, task(metric="accuracy", further_metrics=further))
    assert record.task.metrics == {"MulticlassF1Score": True, "auroc": True, "mean_margin": True}
    for row in record.rows:
        found = row.measurements[0]
        assert list(found.metrics) == list(record.task.metrics)
        assert found.accuracy.resamples is None
        for accuracy in found.metrics.values():
            assert accuracy.ci95[0] <= accuracy.value <= accuracy.ci95[1]
            assert accuracy.n == len(LABELS[2::3])
            assert (accuracy.versus_baseline is None) == (row.index == record.baseline)
    write_report(record, tmp_path)
    header = (tmp_path / "table.csv").read_text().splitlines()[0]
    assert "metric_auroc,metric_auroc_low,metric_auroc_high" in header
    assert "Mean_margin" in (tmp_path / "report.html").read_text()
    assert "auroc" in text_table(record, record.targets[0])


@pytest.mark.exhaustive
def test_a_metric_over_the_data_set_leads_where_it_is_first(tmp_path):
    record = run(tmp_path, task(metric=MulticlassF1Score(4), further_metrics=("accuracy",)))
    assert record.task.metric == "MulticlassF1Score"
    row = record.rows[-1].measurements[0]
    assert row.accuracy.resamples >= 100
    assert {"delta", "p_value"} <= row.accuracy.versus_baseline.keys()
    assert "lost" in row.metrics["accuracy"].versus_baseline


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"metric": "f2"}, "there is no metric 'f2'; built in are accuracy"),
        ({"metric": 3}, "a metric is a name or a function of outputs and labels; got a int"),
        ({"metric": "f1", "further_metrics": ("f1",)}, "the metric f1 is there twice"),
        ({"further_metrics": ("f1",)}, "further metrics are there and no leading one"),
        (
            {"metric": "accuracy", "further_metrics": (lambda outputs, labels: 0.0,)},
            "add an attribute higher_is_better to <lambda>, True or False",
        ),
        (
            {"metric": lambda outputs, labels: 0.0},
            "add higher_is_better=True or higher_is_better=False",
        ),
        (
            {"metric": "accuracy", "further_metrics": ("spearman",), "outputs": "class-scores"},
            "the metric spearman is for outputs that are image or values",
        ),
        ({"metric": MeanAbsoluteError(), "further_metrics": ("f2",)}, "no metric 'f2'"),
    ],
)
def test_wrong_metrics_are_refused(given, said):
    with pytest.raises(CompressError, match=said):
        task(**given)
