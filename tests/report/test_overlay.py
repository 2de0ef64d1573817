"""Several runs side by side."""

import csv

import pytest

from compress.report import overlay
from compress.report.comparison import combined_columns
from compress.report.figures.pareto import draw_pareto
from compress.report.figures.pareto_layout import layout_of
from compress.report.overlay import groups, overlay_info


@pytest.fixture
def pair(make):
    slower = make.four_rows()
    for spec in slower:
        spec.seconds *= 2
    return [make.build(make.four_rows(), baseline=1), make.build(slower, baseline=1)]


def test_runs_on_one_device_share_a_figure(pair):
    [group] = groups(pair)
    assert group.slug == ""
    first, second = (member.name for member in group.members)
    assert second == f"{first} (2)"
    info = overlay_info(group)
    assert [p.label for p in info.points][:2] == [f"{first}: 1 train", f"{first}: 2 distill"]
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
    name = group.members[0].name
    assert [p.label for p in info.points if p.on_front] == [
        f"{name}: 0 train",
        f"{name}: 1 distill",
    ]
    assert f"{name}: 0 train, 1 distill." in info.subtitle


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
    assert overlay_info(groups(pair)[0]).missing == ("not drawn: row 0 of all runs",)
    pair[1].rows.pop(0)
    [group] = groups(pair)
    assert overlay_info(group).missing == (f"not drawn: row 0 of {group.members[0].name}",)


def test_the_table_names_runs_and_keeps_one_unit(make, pair):
    for row in pair[1].rows:
        row.measurements[0].latency.p50_s *= 1000
    [group] = groups(pair)
    shown = combined_columns(group, {1, 6})
    assert shown[0].cells == tuple(member.name for member in group.members for _ in range(5))
    assert shown[1].cells == ("0", "1*", "2>", "3", "4", "0", "1*", "2", "3>", "4")
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
    assert ", scored against row 0" in found[1].heading
    assert len({group.heading for group in found}) == 3


def test_runs_that_share_a_baseline_are_compared_beside_it_and_what_they_share_is_shown_once(make):
    other = make.four_rows()
    other[4].seconds, other[4].accuracy = 50e-6, 0.90
    records = [make.build(make.four_rows(), baseline=1), make.build(other, baseline=1)]
    records[1].rows[4].fingerprint = "pruned further"
    for record, ratio in zip(records, (0.2, 0.4), strict=True):
        record.recipe["stages"][-1]["ratio"] = ratio
    [group] = groups(records)
    assert group.shares_baseline
    info = overlay_info(group)
    assert [p.label for p in info.points] == [
        "all runs: 1 train",
        "all runs: 2 distill",
        "all runs: 3 quantize",
        "ratio 0.2: 4 prune",
        "ratio 0.4: 4 prune",
    ]
    assert [p.run for p in info.points] == [None, None, None, 0, 1]
    assert info.baseline["latency_p50_s"] == pytest.approx(392e-6)
    assert "paired speedup" in info.legend
    assert combined_columns(group)[0].cells == ("all runs",) * 4 + ("ratio 0.2", "ratio 0.4")


def test_of_many_runs_the_best_rows_have_labels_and_the_legend_has_room(make):
    records = []
    for number in range(12):
        specs = make.four_rows()
        specs[4].seconds *= 1 + 0.01 * number
        specs[4].bytes += 1000 * number
        record = make.build(specs, baseline=1)
        record.recipe["stages"][-1]["ratio"] = number / 20
        record.rows[4].fingerprint = f"pruned {number}"
        records.append(record)
    info = overlay_info(groups(records)[0])
    layout = layout_of(info)
    assert len(info.points) == 15
    assert sum(layout.named) < 15
    assert all(
        has_label for has_label, p in zip(layout.named, info.points, strict=True) if p.on_front
    )
    figure = draw_pareto(info)
    bottom = min(legend.get_window_extent().y0 for legend in figure.legends)
    caption = min(figure.texts, key=lambda text: text.get_window_extent().y0)
    assert bottom > caption.get_window_extent().y1
    assert "rows without a label are in the table" in caption.get_text().replace("\n", " ")
