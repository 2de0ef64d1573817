"""The rows that a recipe will have, and what the loop knows of their stages."""

from typing import ClassVar, Literal

import pytest
import torch
from pydantic import TypeAdapter

from compress import PruneStage, QuantizeStage, Recipe, TrainStage
from compress.errors import DataError, StageError
from compress.running.planned_rows import INPUT, located, planned_stages
from compress.stage import Effect, Stage


class Scaled(Stage):
    """All weights times a factor; notes what its teacher says of the example."""

    effects: ClassVar = frozenset({Effect.WEIGHTS})
    kind: Literal["scaled"] = "scaled"
    factor: float = 0.5
    taught: ClassVar[list[torch.Tensor]] = []

    def run(self, candidate, context):
        """The scaled candidate."""
        self.taught.append(context.teacher(candidate.example))
        after = candidate.fork()
        with torch.no_grad():
            for parameter in after.module.parameters():
                parameter.mul_(self.factor)
        return after


class Pretrained(Scaled):
    makes_teacher: ClassVar = True
    kind: Literal["pretrained"] = "pretrained"


def test_every_stage_has_a_row_a_label_and_its_position():
    stages = [
        PruneStage(ratio=0.5),
        PruneStage(ratio=0.5),
        QuantizeStage(label="input"),
        Scaled(label="prune"),
    ]
    planned = planned_stages(stages)
    assert [one.index for one in planned] == [1, 2, 3, 4]
    assert [one.position for one in planned] == [0, 1, 2, 3]
    assert [one.label for one in planned] == ["prune", "prune-2", "input-2", "prune-3"]
    assert [one.stage for one in planned] == stages
    assert [one.kind for one in planned] == ["prune", "prune", "quantize", "scaled"]
    assert (INPUT.index, INPUT.label, INPUT.kind) == (0, "input", "input")


@pytest.mark.parametrize(
    ("row", "place"),
    [(INPUT, (-1, "input")), (planned_stages([QuantizeStage()])[0], (0, "quantize"))],
)
def test_errors_say_where_they_belong(row, place):
    with pytest.raises(DataError) as raised, located(row):
        raise DataError("wrong.")
    assert (raised.value.index, raised.value.label) == place
    with pytest.raises(StageError, match=r"failed with ZeroDivisionError") as raised, located(row):
        _ = 1 / 0
    assert (raised.value.index, raised.value.label) == place
    with pytest.raises(DataError) as raised, located(INPUT), located(row):
        raise DataError("of the inner one.")
    assert (raised.value.index, raised.value.label) == place


def test_what_pydantic_says_in_a_stage_of_ones_own_is_one_sentence():
    said = r"^failed with ValidationError at .*py:\d+: .*integer.* \(--debug shows how .*\)\.$"
    with pytest.raises(StageError, match=said) as raised, located(planned_stages([Scaled()])[0]):
        TypeAdapter(int).validate_python("many")
    assert "http" not in str(raised.value)


@pytest.fixture
def run(candidate, task, target, tmp_path):
    def call(*stages):
        Scaled.taught.clear()
        recipe = Recipe(name="taught", stages=stages)
        return recipe.run(candidate, task, targets=[target], workdir=tmp_path, report=False)

    return call


def said(model, candidate):
    with torch.no_grad():
        return model(candidate.example)


def test_a_first_stage_that_makes_the_teacher_makes_the_baseline_row(run, candidate):
    record = run(Pretrained(), Scaled())
    assert record.baseline == 1
    first, second = Scaled.taught
    assert torch.equal(first, said(candidate.module, candidate))
    halved = candidate.fork().module
    with torch.no_grad():
        for parameter in halved.parameters():
            parameter.mul_(0.5)
    assert torch.equal(second, said(halved, candidate))


def test_a_later_one_makes_the_teacher_and_no_baseline(run, candidate):
    record = run(Scaled(), Pretrained(), Scaled())
    assert record.baseline == 0
    first, second, third = Scaled.taught
    assert torch.equal(first, second)
    assert not torch.equal(second, third)


def test_training_makes_the_teacher_and_no_other_stage_of_ours_does():
    assert TrainStage.makes_teacher
    assert not PruneStage.makes_teacher
    assert not any(one.measures for one in (TrainStage, PruneStage, QuantizeStage))
