"""First inference: the time of the first call in each fresh process, from worker to report."""

import itertools
from pathlib import Path

import pytest

from compress.measure.compare import compare, table
from compress.measure.quantities import quantity_named
from compress.measure.raw_samples import RawLog
from compress.measure.replay import ReplayTarget
from compress.measure.rounds import Device, run_session
from compress.measure.target import BenchmarkConfig
from compress.pareto import front_facts
from compress.record import MeasuredQuantity
from compress.report import markdown, text_table
from compress.report.csv import csv_text
from compress.report.figures.axes import axes_of
from compress.report.figures.pareto_data import pareto_info
from compress.report.page.page import page
from compress.tracking.callback import target_values

NAME = "first_inference_s"
TARGET = ReplayTarget(
    latency_s={"a": 1e-3, "b": 2e-3}, model_peak_bytes={"a": 1, "b": 1}, noise=0.0
)


def timings(first_ns):
    """Of two models, whose processes answer with the given times of the first call in turn."""
    told = itertools.cycle(first_ns)

    def call(kind, model, settings):
        answer = TARGET.answer(kind, model, 0.0)
        return {**answer, "first_run_ns": next(told)} if kind == "time" else answer

    device = Device(call, threads=1, batch=1, cores=2)
    with RawLog(None) as log:
        config = BenchmarkConfig({}, "quick")
        return run_session([Path("a"), Path("b")], config, device, log)


@pytest.fixture
def measured(chain):
    """A record with a first inference of 1, 2, ... ms in all rows but the last."""
    for number, row in enumerate(chain.rows[:-1], start=1):
        ms = 1e-3 * number
        found = MeasuredQuantity(value=ms, ci95=(0.9 * ms, 1.2 * ms), samples=7)
        row.measurements[0].quantities[NAME] = found
    return chain


def test_it_is_the_median_over_processes_with_its_interval():
    base, other = timings([5e6])
    assert other.quantities[NAME].value == pytest.approx(5e-3)
    assert base.quantities[NAME].samples == 2 * other.quantities[NAME].samples == 6
    base, other = timings([4e6, 5e6, 9e6])
    for found in (base.quantities[NAME], other.quantities[NAME]):
        assert 4e-3 <= found.value <= 9e-3
        assert found.ci95[0] < found.value < found.ci95[1]


def test_bench_shows_it_in_a_column():
    rows = compare([Path("a"), Path("b")], TARGET, "quick", inputs={})
    head, _, first, second = table(rows).splitlines()[:4]
    assert "  first ms  " in head
    assert (first.split()[-2], second.split()[-2]) == ("1.000", "2.000")


def test_old_records_show_nothing(chain):
    assert "first" not in text_table(chain, "laptop", width=200)
    assert NAME not in csv_text([("run", chain)])
    assert NAME not in page(chain)
    assert NAME not in target_values(chain.rows[1].measurements[0].model_dump(mode="json"))


def test_new_records_have_it_in_table_csv_axes_page_and_trackers(measured):
    heads = text_table(measured, "laptop", width=200).splitlines()[2]
    assert heads.split()[-1] == "first"
    assert "first ms" in markdown(measured, "laptop")
    assert (
        csv_text([("run", measured)])
        .splitlines()[0]
        .endswith("first_inference_s,first_inference_low_s,first_inference_high_s")
    )
    assert axes_of(pareto_info(measured, "laptop"))[NAME].quantity.title == "first inference"
    shown = page(measured)
    assert "2.00 ms, 95 % interval 1.80 ms to 2.40 ms; 7 processes" in shown
    values = target_values(measured.rows[1].measurements[0].model_dump(mode="json"))
    assert (values[NAME], values[f"{NAME}_ci95_high"]) == pytest.approx((2e-3, 2.4e-3))


def test_a_front_may_be_made_of_it_and_is_not_by_itself(measured):
    assert NAME not in front_facts(measured, "laptop").objectives
    facts = front_facts(measured, "laptop", ("accuracy", NAME))
    assert facts.objectives == ["accuracy", NAME]
    assert quantity_named(NAME).margin == 0.05
