"""``relative: true``: a drop that is a share of the score."""

import pytest

from compress import Budget, QuantizeStage
from compress.budget import check_budget
from compress.cli.budgets import budgets_of
from compress.errors import RecipeError, SettingsError
from compress.pareto import recommend
from compress.record import Record
from compress.stages.goals import Goal


def test_a_share_is_of_the_baseline():
    budget = Budget(accuracy_drop="1%", relative=True)
    assert budget.resolved(0.8).accuracy_drop == pytest.approx(0.008)
    assert budget.resolved(-20.0).accuracy_drop == pytest.approx(0.2)
    assert budget.resolved(None) is budget
    absolute = Budget(accuracy_drop=0.01)
    assert absolute.resolved(0.8) is absolute


def test_budgets_that_do_not_use_it_are_written_as_they_were():
    assert "relative" not in Budget(accuracy_drop=0.01).model_dump()
    written = Budget(accuracy_drop=0.01, relative=True).model_dump(exclude_none=True)
    assert written == {"accuracy_drop": 0.01, "relative": True}
    assert "relative" not in Goal(macs=0.5).model_dump()
    assert Goal(macs=0.5, max_drop=0.01, relative=True).sentence.endswith("of the score")
    assert "relative" not in QuantizeStage(max_drop=0.1).model_dump()


def test_it_fits_every_metric_and_is_below_all():
    check_budget(Budget(accuracy_drop="2%", relative=True), "perplexity")
    with pytest.raises(RecipeError, match="points are of a rate"):
        check_budget(Budget(accuracy_drop="2%"), "perplexity")
    with pytest.raises(RecipeError, match="would be all of it; relative drops are shares below 1"):
        check_budget(Budget(accuracy_drop=2.0, relative=True), "perplexity")


@pytest.mark.parametrize(
    "make", [lambda: Budget(relative=True), lambda: Goal(macs=1, relative=True)]
)
def test_alone_it_is_about_nothing(make):
    with pytest.raises(SettingsError, match="relative is about"):
        make()


def test_the_advice_takes_it_as_a_share(chain):
    def advised(**budget):
        record = Record.model_validate({**chain.model_dump(), "budget": budget})
        found = recommend(record, record.targets[0])
        return found.index, found.meets_budget, found.missed

    row = chain.rows[chain.baseline]
    score = row.on(chain.targets[0]).accuracy.value
    for share in (0.0, 0.01, 0.05):
        expected = advised(accuracy_drop=share * score)
        assert advised(accuracy_drop=share, relative=True) == expected


def test_the_command_line_takes_it(chain):
    (budget,) = budgets_of(["accuracy_drop=1%,relative=true"], [chain])
    assert budget.relative
