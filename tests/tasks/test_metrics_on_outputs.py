"""What a task says of several outputs: what each is, which ship, and which a metric is on."""

from __future__ import annotations

import pytest
import torch

from compress import MetricOn, Recipe, Task
from compress.errors import DataError, RecipeError
from compress.metrics import bare, has_absolute_drop, is_rate, metric_direction, metric_name
from compress.task import METRICS

pytestmark = pytest.mark.fast

DATA = [(torch.zeros(3), 0)] * 4
BOTH = {"boxes": "values", "scores": "independent-logits"}


def two(**said):
    return Task("two", DATA, DATA, DATA, **{"outputs": BOTH, **said})


def own(outputs, labels):
    return 0.0


def read(task):
    text = f"name: r\ntask: {{name: digits, {task}}}\nstages: [{{kind: quantize}}]\n"
    return Recipe.loads(text)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_on_an_output_is_named_and_shown_as_the_metric_is(name):
    metric = MetricOn(name, "scores")
    assert metric_name(metric) == f"{name}(scores)"
    assert bare(f"{name}(scores)") == bare(name) == name
    assert metric_direction(metric) is metric_direction(name)
    assert is_rate(f"{name}(scores)") is is_rate(name)
    assert has_absolute_drop(f"{name}(scores)") is has_absolute_drop(name)


def test_one_of_ones_own_on_an_output_has_its_name_and_direction():
    own.higher_is_better = False
    assert metric_name(MetricOn(own, "boxes")) == "own(boxes)"
    assert metric_direction(MetricOn(own, "boxes")) is False


def test_a_mapping_says_what_each_output_is_and_which_ship():
    task = two(metric=MetricOn("f1", "scores"))
    assert task.ships == ("boxes", "scores")
    assert task.kind_of("boxes") == "values"
    assert task.kind_of(None) is None
    assert two(outputs={"boxes": "values"}).kind_of(None) == "values"
    one = Task("one", DATA, DATA, DATA, outputs="values")
    assert (one.ships, one.kind_of(None), one.kind_of("anything")) == ((), "values", "values")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            {"metric": "f1"},
            (
                r"^task 'two': the metric f1 is on one output, and the model has 2 \(boxes, "
                r"scores\); say which, such as metric: \{name: f1, on: boxes\}, in Python "
                r"MetricOn\('f1', 'boxes'\)\.$"
            ),
        ),
        (
            {"metric": MetricOn("f1", "score")},
            (
                r"^task 'two': the metric f1\(score\) is on 'score', and the outputs that ship are "
                r"boxes, scores\.$"
            ),
        ),
        (
            {"metric": MetricOn("r2", "scores")},
            (
                r"^task 'two': the metric r2 is for an output that is image or values, and "
                r"'scores' is said to be independent-logits; take another metric, or put it on "
                r"another output\.$"
            ),
        ),
        ({"metric": MetricOn("f2", "scores")}, r"there is no metric 'f2'; built in are accuracy"),
        ({"metric": MetricOn(3, "scores")}, r"a metric is a name or a function.*got a int"),
        (
            {"metric": MetricOn("f1", "scores"), "further_metrics": (MetricOn("f1", "scores"),)},
            r"the metric f1\(scores\) is there twice",
        ),
        (
            {"metric": MetricOn(lambda o, y: 0.0, "boxes")},
            r"whether more of the metric <lambda> is better is not said",
        ),
        ({"outputs": {}}, r"^task 'two': outputs has no name in it; give each output that ships"),
        (
            {"outputs": {"boxes": "value"}},
            r"^task 'two': outputs\.boxes is one of class-scores, values, .*; got 'value'\.$",
        ),
    ],
)
def test_what_cannot_be_meant_is_a_sentence(said, message):
    with pytest.raises(DataError, match=message):
        two(**said)


def test_a_place_is_written_in_quotes():
    with pytest.raises(DataError, match=r"metric: \{name: f1, on: '0'\}, in Python MetricOn"):
        two(metric="f1", outputs={"0": "values", "1": "values"})


def test_one_metric_may_be_on_two_outputs():
    task = two(
        outputs={"age": "values", "height": "values"},
        metric=MetricOn("r2", "age"),
        further_metrics=(MetricOn("r2", "height"), MetricOn("spearman", "age")),
    )
    assert task.metric_name == "r2(age)"
    assert task.direction is True


def test_a_recipe_says_the_same():
    task = read(
        "outputs: {boxes: values, scores: independent-logits}, "
        "metric: [{name: f1, on: scores}, {name: r2, on: boxes}]"
    ).make_task()
    assert task.metric == MetricOn("f1", "scores")
    assert task.further_metrics == (MetricOn("r2", "boxes"),)
    assert task.outputs == BOTH


def test_a_resolved_recipe_says_it_again():
    recipe = read("outputs: {boxes: values}, metric: {name: r2, on: boxes}")
    assert recipe.resolved()["task"]["metric"] == {"name": "r2", "on": "boxes"}
    assert recipe.resolved()["task"]["outputs"] == {"boxes": "values"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("metric: {name: f2, on: boxes}", "task.metric: there is no metric 'f2'; built in are"),
        ("metric: {name: f1}", "task.metric: a metric on one output is {name: f1, on: OUTPUT}"),
        ("metric: [f1, {on: boxes}]", "task.metric: a metric on one output is {name: f1, on: OUT"),
        ("metric: {name: f1, on: '0', x: 1}", "a metric on one output is {name: f1, on: OUTPUT}"),
        ("outputs: {boxes: value}", "task.outputs: the output 'boxes' is one of class-scores"),
        ("outputs: {}", "task.outputs: give each output that ships by name, with what it is"),
        ("outputs: {0: values}", "keys are words; got 0; put it in quotes if it is meant"),
    ],
)
def test_a_wrong_recipe_is_a_sentence(given, message):
    with pytest.raises(RecipeError) as caught:
        read(given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
