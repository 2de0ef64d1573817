"""Several runs side by side."""

import csv

import pytest

from compress.report import overlay
from compress.report.overlay import combined_columns, groups, overlay_info


@pytest.fixture
def pair(make):
    slower = make.four_rows()
    for spec in slower:
        spec.seconds *= 2
    return [make.build(make.four_rows(), baseline=1), make.build(slower, baseline=1)]


def test_runs_on_one_device_share_a_figure(pair):
    [group] = groups(pair)
    assert group.slug == ""
    assert [member.name for member in group.members] == [
        "fashion-mnist-distill…",
        "fashion-mnist-dis… (2)",
    ]
    info = overlay_info(group)
    assert [p.label for p in info.points][:2] == ["A/1 train", "A/2 distill"]
    assert {p.run for p in info.points} == {0, 1}
    assert not info.baseline
    assert not info.limits
    assert "as timed" in info.legend


def test_the_front_is_that_of_all_rows(make):
    worse = make.four_rows()[1:3]
    for spec in worse:
        spec.seconds, spec.accuracy, spec.bytes = (
            spec.seconds * 2,
            spec.accuracy - 0.05,
            spec.bytes * 2,
        )
    [group] = groups([make.build(make.four_rows()[1:3]), make.build(worse)])
    info = overlay_info(group)
    assert [p.label for p in info.points if p.on_front] == ["A/0 train", "A/1 distill"]
    assert "A/0 train, A/1 distill" in info.subtitle


def test_rows_are_compared_by_their_own_intervals(pair):
    info = overlay_info(groups(pair)[0])
    latency = info.points[1].values["latency_p50_s"]
    assert (latency.lo, latency.hi) == pytest.approx((64e-6 * 0.98, 64e-6 * 1.02))


@pytest.mark.parametrize("other", [{"laptop": "zzz"}, {"laptop": ""}])
def test_other_or_unknown_devices_are_never_on_one_front(make, other):
    records = [
        make.build(make.four_rows(), baseline=1),
        make.build(make.four_rows(), baseline=1, devices=other),
    ]
    found = groups(records)
    assert [len(group.members) for group in found] == [1, 1]
    assert len({group.slug for group in found}) == 2


def test_two_unknown_devices_are_not_taken_for_one(make):
    records = [make.build(make.four_rows()[1:2], devices={"laptop": ""}) for _ in range(2)]
    assert len(groups(records)) == 2


def test_other_tasks_and_metrics_are_apart(make, lower_is_better):
    assert len(groups([make.build(make.four_rows()), lower_is_better])) == 2


def test_what_is_not_drawn_is_named_by_run(pair):
    assert overlay_info(groups(pair)[0]).missing == (
        "not drawn: row 0 of A",
        "not drawn: row 0 of B",
    )


def test_the_table_names_runs_and_keeps_one_unit(make, pair):
    for row in pair[1].rows:
        row.measurements[0].latency.p50_s *= 1000
    shown = combined_columns(groups(pair)[0])
    assert shown[0].cells[:2] == ("A/0", "A/1*>")
    assert shown[0].cells[5:7] == ("B/0", "B/1*>")
    assert next(c for c in shown if c.heading == "p50").unit == "µs"
    assert len({len(column.cells) for column in shown}) == 1


def test_an_overlay_is_written_whole(pair, tmp_path):
    names = [path.name for path in overlay(pair, tmp_path)]
    assert names == ["report.html", "pareto.png", "pareto.svg", "table.csv", "table.md"]
    with (tmp_path / "table.csv").open(encoding="utf-8") as stream:
        assert len(list(csv.DictReader(stream))) == 10


def test_separate_figures_carry_number_and_target(make, tmp_path):
    records = [
        make.build(make.four_rows()[1:3]),
        make.build(make.four_rows()[1:3], devices={"laptop": "zzz"}),
    ]
    names = [path.name for path in overlay(records, tmp_path)]
    assert "pareto-1-laptop.png" in names
    assert "pareto-2-laptop.png" in names
    assert "numbers from one section do not compare" in (tmp_path / "report.html").read_text()


def test_scores_against_different_references_are_never_on_one_front(make):
    records = [make.build(make.four_rows(), baseline=1) for _ in range(4)]
    for record in records[1:]:
        record.task.reference = "row 0"
    records[3].rows[0].fingerprint = "another model"
    found = groups(records)
    assert [len(group.members) for group in found] == [1, 2, 1]
    assert found[1].heading.endswith(", scored against row 0")
