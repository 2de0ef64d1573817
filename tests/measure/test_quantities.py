"""Quantities: what is declared once reaches records, tables, files and axes by itself."""

import csv
import io
from dataclasses import replace

import pytest

from compress.measure.quantities import QUANTITIES, quantities_of, quantity_named
from compress.measure.quantity import Estimate, FromAnswers, Quantity, Unit
from compress.measure.stats import median_interval
from compress.measure.summary import declared_quantities
from compress.pareto import OBJECTIVES, readings
from compress.record import Energy, MeasuredQuantity, Measurement, Record, TaskFacts
from compress.report import text_table
from compress.report.csv import csv_text
from compress.report.figures.axes import axes_of
from compress.report.figures.pareto_data import pareto_info
from compress.report.table import columns

pytestmark = pytest.mark.fast

TASK = TaskFacts(name="t", metric="mse", higher_is_better=False, test_samples=9)
TEMPERATURE = Quantity("heat_k", "heat", Unit("k", str), answers=FromAnswers("mk", 1e-3))


@pytest.fixture
def with_energy(chain):
    """A record whose rows took 1, 2, ... millijoules an inference; its last row was not asked."""
    for number, row in enumerate(chain.rows[:-1], start=1):
        joules = 1e-3 * number
        row.measurements[0].energy = Energy(
            inference_j=joules,
            range_j=(0.9 * joules, 1.1 * joules),
            above_idle_j=0.0,
            source="a sensor",
            inferences=9,
        )
    return chain


def test_names_are_unique_and_end_with_their_units():
    names = [quantity.name for quantity in QUANTITIES]
    assert len(set(names)) == len(names)
    for quantity in QUANTITIES:
        assert quantity.unit.suffix in quantity.name
        assert quantity_named(quantity.name) is quantity
    columns = [name for quantity in QUANTITIES for name in quantity.csv_names]
    assert len(set(columns)) == len(columns)


@pytest.mark.parametrize("quantity", QUANTITIES, ids=lambda quantity: quantity.name)
def test_every_quantity_is_read_in_one_way_and_can_be_shown(quantity, chain):
    ways = [quantity.answers, quantity.timed, quantity.measured, quantity.of_row]
    assert sum(way is not None for way in ways) == 1
    assert quantity.unit.shown(1.5)
    assert all(quantity.gains)
    row = chain.rows[1]
    assert quantity.read(row, None) is None or quantity.of_row
    found = quantity.read(row, row.measurements[0])
    assert found is None or found.lo <= found.value <= found.hi
    assert (quantity.name in OBJECTIVES) == quantity.objective


def test_the_metric_is_a_quantity_of_its_task():
    first, *others = quantities_of(TASK)
    assert (first.name, first.title, first.higher_is_better) == ("accuracy", "mse", False)
    assert first.unit.shown(0.0213) == "0.0213"
    assert first.csv_names == ("score", "score_low", "score_high")
    assert tuple(others) == QUANTITIES


def test_csv_names_put_the_ends_before_the_unit():
    names = quantity_named("latency_p50_s").csv_names
    assert names == ("p50_s", "p50_low_s", "p50_high_s")
    assert TEMPERATURE.csv_names == ("heat_k", "heat_low_k", "heat_high_k")


def test_a_record_keeps_what_has_no_block_and_no_key_without_any(chain):
    measurement = chain.rows[1].measurements[0]
    assert "quantities" not in measurement.model_dump(mode="json")
    assert '"quantities"' not in chain.dumps()
    kept = MeasuredQuantity(value=300.0, ci95=(299.0, 302.0), samples=7)
    measurement.quantities["heat_k"] = kept
    again = Record.model_validate_json(chain.dumps()).rows[1].measurements[0]
    assert again.quantities == {"heat_k": kept}
    assert TEMPERATURE.read(chain.rows[1], again) == Estimate(300.0, 299.0, 302.0)
    other = Measurement.model_validate({**again.model_dump(), "quantities": {}})
    assert TEMPERATURE.read(chain.rows[1], other) is None


def test_answers_of_processes_become_a_median_with_its_interval():
    told = {"time": [{"mk": mk} for mk in (299_000, 302_000, 300_000)], "memory": []}
    found = declared_quantities(told, [TEMPERATURE])["heat_k"]
    assert (found.value, found.samples) == (300.0, 3)
    assert found.ci95 == pytest.approx(median_interval([299, 302, 300]))
    one = declared_quantities({"time": [{"mk": 5}], "memory": []}, [TEMPERATURE])["heat_k"]
    assert one.ci95 == (5e-3, 5e-3)
    peaks = replace(TEMPERATURE, answers=FromAnswers("mk", job="memory"))
    assert (
        declared_quantities({"time": [], "memory": [{"mk": 0}] * 2}, [peaks])["heat_k"].value == 0
    )


def test_answers_of_an_older_worker_leave_nothing():
    told = {"time": [{"mk": 1}, {}], "memory": []}
    assert declared_quantities(told, [TEMPERATURE]) == {}
    assert declared_quantities({"time": [{"mk": None}], "memory": []}, [TEMPERATURE]) == {}


def test_a_quantity_is_an_objective_with_its_interval(with_energy):
    table = readings(with_energy, "laptop")
    assert table[2]["inference_j"].value == 3e-3
    assert table[2]["inference_j"].ci95 == pytest.approx((2.7e-3, 3.3e-3))
    assert "inference_j" not in table[4]


def test_a_quantity_has_a_column_where_something_was_measured(with_energy, one_row):
    by_heading = {column.heading: column for column in columns(with_energy, "laptop")}
    assert by_heading["energy"].unit == "mJ"
    assert by_heading["energy"].cells == ("1", "2", "3", "4", "-")
    assert "energy" not in {column.heading for column in columns(one_row, "laptop")}


def test_a_narrow_terminal_leaves_out_what_was_declared_since(with_energy):
    assert "energy" in text_table(with_energy, "laptop", width=150)
    assert "energy" not in text_table(with_energy, "laptop", width=90)


def test_a_quantity_has_columns_at_the_end_of_the_csv(with_energy, one_row):
    rows = list(csv.DictReader(io.StringIO(csv_text([("run", with_energy)]))))
    assert list(rows[0])[-3:] == ["inference_j", "inference_low_j", "inference_high_j"]
    assert rows[1]["inference_j"] == "0.002"
    assert rows[4]["inference_j"] == ""
    # Several runs have one heading.
    lines = csv_text([("a", one_row), ("b", with_energy)]).splitlines()
    assert len({line.count(",") for line in lines}) == 1
    assert "inference_j" not in csv_text([("a", one_row)])


def test_a_quantity_is_an_axis_of_the_page(with_energy, one_row):
    info = pareto_info(with_energy, "laptop")
    axis = axes_of(info)["inference_j"]
    assert axis.cue == "less"
    assert axis.relative == "how many times less than the baseline"
    assert axis.at(2e-3) < axis.at(4e-3)
    assert any(words.endswith("mJ") for _, words in axis.ticks)
    assert "inference_j" not in axes_of(pareto_info(one_row, "laptop"))
