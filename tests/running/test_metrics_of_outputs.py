"""Metrics of models with several outputs: which one each is on, and what it is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score, r2_score, roc_auc_score
from torch import nn
from torchmetrics.classification import (
    MulticlassJaccardIndex,
    MultilabelAUROC,
    MultilabelF1Score,
)
from torchmetrics.regression import MeanAbsoluteError

from compress import Candidate, MetricOn, Recipe, Task
from compress.errors import CompressError
from compress.measure.score import accuracy_facts, score
from compress.running.preflight import preflight
from compress.running.scoring import scoring_of, supervision_of_job
from compress.running.split_arrays import SplitArrays

CLASSES, IGNORED = 3, 255
RNG = np.random.default_rng(0)
COUNT = 90
INPUTS = RNG.normal(size=(COUNT, 6)).astype(np.float32)
LABELS = {
    "boxes": INPUTS[:, :2] * 2 + 1,
    "tags": (INPUTS[:, 1:5] > 0.3).astype(np.float32),
    "mask": np.where(RNG.random((COUNT, 4)) < 0.2, IGNORED, RNG.integers(0, CLASSES, (COUNT, 4))),
}
KINDS = {"boxes": "values", "tags": "independent-logits", "mask": "class-scores"}
LABELS["mask"][:, 0] %= CLASSES  # a label at one place at least
OUTPUTS = {
    "boxes": (LABELS["boxes"] + RNG.normal(size=(COUNT, 2))).astype(np.float32),
    "tags": (LABELS["tags"] - 0.5 + RNG.normal(size=(COUNT, 4))).astype(np.float32),
    "mask": RNG.normal(size=(COUNT, CLASSES, 4)).astype(np.float32),
}


class Net(nn.Module):
    """Three heads, and one that only training has."""

    def __init__(self):
        super().__init__()
        self.boxes, self.tags = nn.Linear(6, 2), nn.Linear(6, 4)
        self.mask, self.extra = nn.Linear(6, CLASSES * 4), nn.Linear(6, 2)

    def forward(self, x):
        found = {"boxes": self.boxes(x), "tags": self.tags(x)}
        found["mask"] = self.mask(x).reshape(len(x), CLASSES, 4)
        return {**found, "extra": self.extra(x)} if self.training else found


class One(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Linear(6, 4)

    def forward(self, x):
        return self.map(x)


def data(*names, inputs=INPUTS):
    """Samples with the labels of these names; with one that is ``None`` they have none."""
    if names == (None,):
        return list(torch.from_numpy(inputs))
    rows = [{name: torch.as_tensor(LABELS[name][i]) for name in names} for i in range(COUNT)]
    return list(zip(torch.from_numpy(inputs), rows, strict=True))


def task(*names, given=None, **said):
    samples = data(*names) if given is None else given
    said.setdefault("ignore_index", IGNORED)
    return Task("three", samples[:30], samples[30:60], samples[60:], **said)


def job(task, net=Net, teacher=None):
    torch.manual_seed(0)
    start = Candidate.of(net().eval(), torch.from_numpy(INPUTS[:2].copy()))
    recipe = Recipe.loads("name: r\nstages: [{kind: quantize}]\n")
    return recipe.job(start, task, workdir=Path(), mode="quick")


def scoring(task, net=Net):
    made = job(task, net)
    return scoring_of(made, supervision_of_job(made))


def labels(*names):
    return {name: LABELS[name] for name in names}


def macro_f1(outputs, wanted):
    return f1_score(wanted["tags"], outputs["tags"] > 0, average="macro")


def box_error(outputs, wanted):
    return np.abs(outputs["boxes"] - wanted["boxes"]).mean(1)


macro_f1.higher_is_better, box_error.higher_is_better = True, False


def jaccard():
    known = LABELS["mask"] != IGNORED
    predicted = OUTPUTS["mask"].argmax(1)[known]
    return jaccard_score(LABELS["mask"][known], predicted, average="macro")


def r2(wanted, outputs):
    return r2_score(wanted, outputs, multioutput="variance_weighted")


BY_HAND = {
    "r2(boxes)": lambda: r2_score(
        LABELS["boxes"], OUTPUTS["boxes"], multioutput="variance_weighted"
    ),
    "mse(boxes)": lambda: ((LABELS["boxes"] - OUTPUTS["boxes"]) ** 2).mean(),
    "f1(tags)": lambda: f1_score(LABELS["tags"], OUTPUTS["tags"] > 0, average="macro"),
    "auroc(tags)": lambda: roc_auc_score(LABELS["tags"], OUTPUTS["tags"]),
    "binary-accuracy(tags)": lambda: ((OUTPUTS["tags"] > 0) == (LABELS["tags"] > 0.5)).mean(),
    "mean-iou(mask)": jaccard,
}
BUILT_IN = [
    *[MetricOn(name, "boxes") for name in ("r2", "mse", "spearman")],
    *[MetricOn(name, "tags") for name in ("f1", "auroc", "binary-accuracy", "mean-iou")],
    *[MetricOn(name, "mask") for name in ("accuracy", "f1", "mean-iou", "auroc")],
]


@pytest.mark.parametrize("metric", BUILT_IN, ids=lambda m: f"{m.metric}({m.on})")
def test_a_built_in_metric_is_on_its_output_alone(metric):
    found = scoring(task(*LABELS, outputs=KINDS, metric=metric))
    facts = accuracy_facts(found.of(OUTPUTS, labels(*LABELS)))
    alone = score(OUTPUTS[metric.on], LABELS[metric.on], metric.metric, KINDS[metric.on], IGNORED)
    assert facts == accuracy_facts(alone)
    assert found.name == f"{metric.metric}({metric.on})"
    if found.name in BY_HAND:
        assert facts.value == pytest.approx(BY_HAND[found.name](), abs=1e-6)


@pytest.mark.parametrize(
    ("metric", "same"),
    [
        (MetricOn(MultilabelF1Score(4), "tags"), MetricOn("f1", "tags")),
        (MetricOn(MultilabelAUROC(4), "tags"), MetricOn("auroc", "tags")),
        (
            MetricOn(MulticlassJaccardIndex(CLASSES, ignore_index=IGNORED), "mask"),
            MetricOn("mean-iou", "mask"),
        ),
        (
            MetricOn(MulticlassJaccardIndex(CLASSES, ignore_index=-100), "mask"),
            MetricOn("mean-iou", "mask"),
        ),
    ],
    ids=["f1", "auroc", "iou", "iou with its own ignore_index"],
)
def test_those_of_torchmetrics_are_on_an_output_too(metric, same):
    found = scoring(task(*LABELS, outputs=KINDS, metric=same, further_metrics=(metric,)))
    ours = accuracy_facts(found.of(OUTPUTS, labels(*LABELS)))
    [(name, theirs)] = found.further_of(OUTPUTS, labels(*LABELS)).items()
    assert name == f"{type(metric.metric).__name__}({metric.on})"
    assert accuracy_facts(theirs).value == pytest.approx(ours.value, abs=1e-5)


def test_labels_that_are_missing_are_left_out_by_those_of_torchmetrics_as_by_ours():
    tags = LABELS["tags"].copy()
    tags[::3, 1] = np.nan
    wanted = {**LABELS, "tags": tags}
    theirs = MetricOn(MultilabelF1Score(4, ignore_index=-1), "tags")
    given = task(*LABELS, outputs=KINDS, metric=MetricOn("f1", "tags"), further_metrics=(theirs,))
    found = scoring(given)
    [further] = found.further_of(OUTPUTS, wanted).values()
    assert further.value == pytest.approx(found.of(OUTPUTS, wanted).value, abs=1e-5)


def test_one_of_ones_own_gets_outputs_and_labels_by_name():
    given = task(*LABELS, outputs=KINDS, metric=macro_f1, further_metrics=(box_error,))
    found = scoring(given)
    assert (found.name, found.rule, found.directions) == ("macro_f1", None, {"box_error": False})
    facts = accuracy_facts(found.of(OUTPUTS, labels(*LABELS)))
    assert facts.value == pytest.approx(BY_HAND["f1(tags)"](), abs=1e-6)
    assert facts.resamples >= 100
    built_in = scoring(task(*LABELS, outputs=KINDS, metric=MetricOn("f1", "tags")))
    draws = built_in.of(OUTPUTS, labels(*LABELS)).draws
    own = found.of(OUTPUTS, labels(*LABELS)).draws
    assert own == pytest.approx(draws[: len(own)], abs=1e-6)
    [each] = found.further_of(OUTPUTS, labels(*LABELS)).values()
    assert each == pytest.approx(np.abs(OUTPUTS["boxes"] - LABELS["boxes"]).mean(1))


def test_one_of_ones_own_on_an_output_gets_that_and_its_labels():
    def error(outputs, wanted):
        assert outputs.shape == wanted.shape == (COUNT, 2)
        return np.abs(outputs - wanted).mean(1)

    error.higher_is_better = False
    given = task(*LABELS, outputs=KINDS, metric=MetricOn("f1", "tags"))
    given = Task(**{**vars(given), "further_metrics": (MetricOn(error, "boxes"),)})
    [(name, each)] = scoring(given).further_of(OUTPUTS, labels(*LABELS)).items()
    assert name == "error(boxes)"
    assert each == pytest.approx(np.abs(OUTPUTS["boxes"] - LABELS["boxes"]).mean(1))


def test_ragged_labels_are_padded_arrays_that_are_resampled_by_sample():
    """Boxes of different number for each image, as a detector has them."""
    boxes = RNG.random((COUNT, 5, 4))
    classes = RNG.integers(0, 4, (COUNT, 5))
    missing = np.arange(5) >= RNG.integers(1, 6, COUNT)[:, None]
    boxes[missing], classes[missing] = np.nan, -1
    seen = []

    def found_share(outputs, wanted):
        seen.append(len(wanted["classes"]))
        assert np.array_equal(np.isnan(wanted["boxes"]).all(2), wanted["classes"] < 0)
        best = outputs["tags"].argmax(1)[:, None] == wanted["classes"]
        return float(best.sum() / (wanted["classes"] >= 0).sum())

    found_share.higher_is_better = True
    rows = [
        {"boxes": torch.tensor(b), "classes": torch.tensor(c)}
        for b, c in zip(boxes, classes, strict=True)
    ]
    given = list(zip(torch.from_numpy(INPUTS), rows, strict=True))
    made = task(given=given, metric=found_share, loss=lambda outputs, _: outputs["tags"].sum())
    found = scoring(made)
    score = found.of(OUTPUTS, {"boxes": boxes, "classes": classes})
    assert set(seen) == {COUNT}
    draws = np.random.default_rng(0).integers(0, COUNT, (50, COUNT))
    right = (OUTPUTS["tags"].argmax(1)[:, None] == classes).sum(1)
    known = (classes >= 0).sum(1)
    by_hand = [right[row].sum() / known[row].sum() for row in draws]
    assert score.draws[:50] == pytest.approx(by_hand)
    preflight(job(made))
    split = SplitArrays.of(given)
    assert split.labels["boxes"].shape == (COUNT, 5, 4)
    assert found.device_labels(split) is None


# -- which output, where nobody says -----------------------------------------------------------


def test_without_a_metric_it_is_on_the_only_output_with_labels():
    found = scoring(task("tags", outputs=KINDS))
    assert found.name == "binary-accuracy(tags)"
    assert scoring(task("boxes", outputs=KINDS)).name == "r2(boxes)"
    assert scoring(task("tags", outputs=KINDS, metric=MetricOn("accuracy", "tags"))).name == (
        "binary-accuracy(tags)"
    )


def test_a_bare_metric_is_on_the_only_output_with_labels():
    assert scoring(task("tags", metric="auroc")).name == "auroc(tags)"


REFUSED = {
    "no metric": (
        lambda: task(*LABELS, outputs=KINDS),
        """
        task 'three': the model has 3 outputs (boxes, tags, mask), and nothing says which of
        them rows are scored by; say it, such as metric: {name: r2, on: boxes}, or give a metric
        of your own, which gets all of them by name.
        """,
    ),
    "a bare metric": (
        lambda: task(*LABELS, metric="f1"),
        """
        task 'three': the metric f1 is on one output, and the model has 3 (boxes, tags, mask);
        say which, such as metric: {name: f1, on: boxes}, in Python MetricOn('f1', 'boxes').
        """,
    ),
    "no metric and no labels": (
        lambda: task(None, outputs=KINDS),
        """
        task 'three': the model has 3 outputs (boxes, tags, mask), and nothing says which of
        them rows are scored by; say it, such as metric: {name: r2, on: boxes}, or give a metric
        of your own, which gets all of them by name.
        """,
    ),
    "no such output": (
        lambda: task(*LABELS, metric=MetricOn("f1", "tag")),
        """
        task 'three': the metric f1(tag) is on 'tag', and the outputs that ship are boxes, tags,
        mask.
        """,
    ),
    "no labels for it": (
        lambda: task("boxes", outputs=KINDS, metric=MetricOn("f1", "tags")),
        """
        scoring: the metric f1(tags) is on the output 'tags', and labels are for boxes; name
        them by the outputs that they are for, as with fields: {label: {tags: KEY}}.
        """,
    ),
    "torchmetrics on all": (
        lambda: task(*LABELS, metric=MultilabelF1Score(4)),
        """
        scoring: the metric MultilabelF1Score is given one output and its labels, and there are
        outputs (boxes, tags, mask); say which, as with MetricOn(MultilabelF1Score(...),
        'boxes'), or write a function of outputs and labels by name that gives it what it takes.
        """,
    ),
    "an output of training": (
        lambda: task(*LABELS, outputs={"boxes": "values", "extra": "values"}),
        """
        task 'three': the model has no output 'extra', which the task names in outputs; its
        outputs are boxes, tags, mask.
        """,
    ),
    "labels of another kind": (
        lambda: task(
            *LABELS,
            outputs={**KINDS, "boxes": "independent-logits"},
            metric=MetricOn("f1", "tags"),
        ),
        "task 'three', train split, output 'boxes': independent-logits need labels from 0 to 1",
    ),
}


@pytest.mark.parametrize(("given", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant_is_a_sentence_before_the_run(given, message):
    with pytest.raises(CompressError) as caught:
        preflight(job(given()))
    assert str(caught.value).startswith(" ".join(message.split()))


def test_a_metric_says_what_an_output_is():
    found = scoring(task("tags", metric=MetricOn("binary-accuracy", "tags")))
    assert found.kind == "independent-logits"
    assert found.labels(SplitArrays([], {}, labels("tags"))) == labels("tags")


# -- one output, and other numbers of labels ---------------------------------------------------


def test_a_model_with_one_output_takes_its_labels_by_name():
    found = scoring(task("tags", metric="f1"), One)
    assert found.name == "f1"
    assert found.device_labels(SplitArrays([], {}, labels("tags"))).shape == (COUNT, 4)
    score = found.of(OUTPUTS["tags"], labels("tags"))
    assert score.value == pytest.approx(BY_HAND["f1(tags)"](), abs=1e-6)


def test_one_of_torchmetrics_is_not_taken_for_accuracy():
    assert scoring(task("tags", metric=MultilabelF1Score(4)), One).name == "MultilabelF1Score"


def test_a_metric_may_name_an_only_output():
    found = scoring(task("tags", metric=MetricOn("f1", "output")), One)
    assert found.name == "f1(output)"


def test_one_of_ones_own_on_an_only_output_gets_all_labels():
    def own(outputs, wanted):
        assert set(wanted) == {"boxes", "tags"}
        return np.zeros(len(outputs))

    own.higher_is_better = True
    made = task("boxes", "tags", metric=own, loss=lambda outputs, wanted: outputs.sum())
    preflight(job(made, One))


# -- on devices, in keys and in sentences ------------------------------------------------------


def test_devices_get_the_labels_of_the_leading_output():
    found = scoring(task(*LABELS, outputs=KINDS, metric=MetricOn("mean-iou", "mask")))
    given = found.device_labels(SplitArrays([], {}, labels(*LABELS)))
    assert given.dtype == np.int64
    assert np.array_equal(given, np.where(LABELS["mask"] == IGNORED, -1, LABELS["mask"]))
    assert (found.rule, found.leading.output) == ("mean-iou", "mask")


def test_the_key_of_a_scoring_tells_outputs_apart():
    facts = [
        scoring(task(*LABELS, outputs=KINDS, metric=MetricOn("f1", on))).facts
        for on in ("tags", "mask")
    ]
    assert facts[0] != facts[1]
    assert facts[0][0] == "f1(tags)"
    assert facts[0][-1] == [list(item) for item in KINDS.items()]
    assert len(scoring(task("tags", metric="f1"), One).facts) == 5


def test_the_sentence_says_what_each_output_is():
    found = scoring(task(*LABELS, outputs=KINDS, metric=MetricOn("f1", "tags")))
    assert found.sentence == (
        "outputs are boxes (values), tags (independent-logits), mask (class-scores); rows are "
        "scored by f1(tags) on the labels of the test split (more is better)"
    )


def test_the_record_names_each_metric_with_its_output():
    mae = MetricOn(MeanAbsoluteError(), "boxes")
    given = task(*LABELS, outputs=KINDS, metric=MetricOn("f1", "tags"), further_metrics=(mae,))
    facts = scoring(given).task_facts(given)
    assert (facts.metric, facts.metrics) == ("f1(tags)", {"MeanAbsoluteError(boxes)": False})


def test_without_labels_each_metric_compares_its_own_output():
    given = task(
        None,
        outputs=KINDS,
        metric=MetricOn("accuracy", "mask"),
        further_metrics=(MetricOn("r2", "boxes"), MetricOn("binary-accuracy", "tags")),
    )
    found = scoring(given)
    assert found.name == "agreement(mask)"
    assert list(found.directions) == ["r2(boxes)", "binary-agreement(tags)"]
    said = found.as_labels(OUTPUTS)
    assert np.array_equal(said["mask"], OUTPUTS["mask"].argmax(1))
    assert accuracy_facts(found.of(OUTPUTS, said)).value == 1
    assert all(scores.mean() == 1 for scores in found.further_of(OUTPUTS, said).values())
    preflight(job(given))


def test_a_reference_with_one_output_is_for_the_leading_metrics():
    found = scoring(task(None, outputs=KINDS, metric=MetricOn("accuracy", "mask")))
    assert found.as_labels(OUTPUTS["mask"]).keys() == {"mask"}


def test_outputs_of_a_file_are_named_in_the_models_order():
    found = scoring(task(*LABELS, outputs=KINDS, metric=MetricOn("f1", "tags")))
    arrays = list(OUTPUTS.values())
    assert list(found.named(arrays)) == ["boxes", "tags", "mask"]
    assert list(found.named(arrays, ["a", "b", "c"])) == ["a", "b", "c"]
    assert found.named(arrays[:1]) is arrays[0]
    with pytest.raises(CompressError, match=r"the file gives 2 outputs, and the model has 3 \(box"):
        found.named(arrays[:2])


def test_what_training_alone_uses_neither_ships_nor_is_scored():
    found = scoring(task(*LABELS, metric=MetricOn("f1", "tags")))
    assert list(found.outputs) == ["boxes", "tags", "mask"]
    found = scoring(task("tags", outputs={"tags": "independent-logits"}))
    assert (list(found.outputs), found.name) == (["tags"], "binary-accuracy")
