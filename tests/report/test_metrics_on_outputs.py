"""Metrics on outputs, such as ``f1(scores)``, in tables, the page, figures, budgets and csv."""

import csv
import io

import pytest

from compress.budget import Budget, check_budget
from compress.errors import RecipeError
from compress.formatting import score, score_change
from compress.metrics import allowance, most
from compress.pareto import recommend
from compress.record import Accuracy, Record
from compress.report import text_table, write_report
from tests.records import build, four_rows


@pytest.fixture
def record():
    found = build(four_rows(), baseline=1, metric="f1(scores)", budget={"accuracy_drop": 0.02})
    found.task.metrics = {"r2(boxes)": True, "own(boxes)": False}
    for row in found.rows:
        for place, name in enumerate(found.task.metrics):
            value = 0.5 - 0.01 * row.index - 0.1 * place
            facts = Accuracy(value=value, ci95=(value - 0.01, value + 0.01), n=100)
            row.measurements[0].metrics[name] = facts
    return found


def test_the_table_has_a_column_for_each(record):
    shown = text_table(record, "laptop", width=200)
    assert "f1(scores)" in shown
    assert "r2(boxes)" in shown
    assert "own(boxes)" in shown


def test_the_page_the_figures_and_the_csv_name_them(record, tmp_path):
    write_report(record, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "f1(scores), higher is better" in page
    assert "F1(scores)" in page
    assert "R2(boxes)" in page
    lines = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert lines[0]["metric"] == "f1(scores)"
    assert float(lines[1]["metric_r2(boxes)"]) == pytest.approx(0.49)


def test_a_record_with_them_is_read_again(record, tmp_path):
    record.save(tmp_path)
    again = Record.load(tmp_path)
    assert again.task.metrics == {"r2(boxes)": True, "own(boxes)": False}
    assert again == record


def test_rules_of_showing_and_losing_are_those_of_the_metric(record):
    assert score("accuracy(mask)", 0.5) == score("accuracy", 0.5)
    assert score_change("f1(scores)", -0.01) == score_change("f1", -0.01)
    assert (most("f1(scores)"), most("mse(boxes)")) == (1.0, None)
    assert allowance("f1(scores)", 0.2) == 0.01
    assert recommend(record, "laptop") is not None


def test_a_budget_of_points_is_of_a_rate_on_an_output_too():
    check_budget(Budget(accuracy_drop="1%"), "f1(scores)")
    with pytest.raises(RecipeError, match=r"points are of a rate.*and mse\(boxes\) is none"):
        check_budget(Budget(accuracy_drop="1%"), "mse(boxes)")
