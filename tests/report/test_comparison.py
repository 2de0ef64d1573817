"""Runs by hand side by side: what tells them apart, their names, and who wins."""

import dataclasses

import pytest

from compress.budget import Budget
from compress.report import compared, comparison_text, overlay
from compress.report.differences import differences, short_names

pytestmark = pytest.mark.fast


def sweep(make, *ratios, **recipe):
    """Runs of one recipe with several ratios, whose pruned rows are the smaller the more is cut."""
    records = []
    for ratio in ratios:
        specs = make.four_rows()
        specs[4].bytes = round(80_000 * (1 - ratio))
        specs[4].accuracy = 0.92 - 0.02 * ratio
        record = make.build(specs, baseline=1)
        record.recipe["stages"][-1]["ratio"] = ratio
        record.recipe |= recipe
        record.rows[4].fingerprint = f"pruned by {ratio}"
        records.append(record)
    return records


def keys(records):
    return {each.key: each.values for each in differences(records)}


def test_the_keys_that_differ_are_named_as_set_takes_them(make):
    records = sweep(make, 0.2, 0.4)
    records[1].recipe["seed"] = 3
    records[1].recipe["model"] = {"arch": "resnet", "width": 8}
    records[0].recipe["stages"][1] |= {"losses": [{"kind": "response"}, {"kind": "label"}]}
    records[1].recipe["stages"][1] |= {"losses": [{"kind": "response", "weight": 0.5}]}
    records[1].environment["packages"] = {"torch": "2.13.0", "onnxruntime": "1.31.0"}
    assert keys(records) == {
        "seed": ("-", "3"),
        "model": ("-", "{arch: resnet, width: 8}"),
        "stages.distill.losses": ("response, label", "response"),
        "stages.distill.losses.response.weight": ("-", "0.5"),
        "stages.prune.ratio": ("0.2", "0.4"),
        "version of onnxruntime": ("1.32.0", "1.31.0"),
    }


def test_a_stage_that_only_some_have_is_said_once(make):
    records = sweep(make, 0.2, 0.4, 0.4)
    del records[2].recipe["stages"][2:]
    found = keys(records)
    assert found["stages"] == (*["train, distill, quantize, prune"] * 2, "train, distill")
    assert found["stages.prune.ratio"] == ("0.2", "0.4", "-")
    assert "stages.quantize.kind" not in found


@pytest.mark.parametrize(
    ("ratios", "change", "folders", "expected"),
    [
        ((0.2, 0.4, 0.6), None, (), ["ratio 0.2", "ratio 0.4", "ratio 0.6"]),
        (
            (0.2, 0.2),
            [{"budget": {"artifact_kib": 5}}, {"budget": {"artifact_kib": 9}}],
            (),
            ["artifact_kib 5", "artifact_kib 9"],
        ),
        (
            (0.2, 0.2, 0.4, 0.4),
            [{"seed": 0}, {"seed": 1}, {"seed": 0}, {"seed": 1}],
            (),
            ["ratio 0.2, seed 0", "ratio 0.2, seed 1", "ratio 0.4, seed 0", "ratio 0.4, seed 1"],
        ),
        ((0.2, 0.2), None, ("monday", "tuesday"), ["monday", "tuesday"]),
        (
            (0.2, 0.2, 0.4),
            None,
            ("a", "b", "c"),
            ["ratio 0.2, a", "ratio 0.2, b", "ratio 0.4"],
        ),
        (
            (0.2, 0.2),
            [{f"key{n}": n for n in range(20)}, {f"key{n}": -n for n in range(20)}],
            ("x", "y"),
            ["x", "y"],
        ),
    ],
)
def test_runs_are_named_by_what_differs(make, ratios, change, folders, expected):
    records = sweep(make, *ratios)
    for record, more in zip(records, change or [{}] * len(records), strict=True):
        record.recipe |= more
    assert short_names(records, folders) == expected


def test_twelve_runs_of_one_recipe_have_twelve_names(make):
    records = [make.build(make.four_rows(), baseline=1) for _ in range(12)]
    names = short_names(records)
    assert len(set(names)) == 12
    assert max(map(len, names)) < 40


def test_two_stages_of_one_kind_are_told_apart_in_a_name(make):
    records = sweep(make, 0.2, 0.4)
    for record, ratio in zip(records, (0.2, 0.1), strict=True):
        record.recipe["stages"] = [*record.recipe["stages"], {"kind": "prune", "ratio": ratio}]
    assert short_names(records) == ["prune.ratio 0.2", "prune.ratio 0.4"]


def test_the_winner_is_named_under_each_budget(make):
    records = sweep(make, 0.2, 0.4, 0.6, budget={"artifact_kib": 45, "accuracy_drop": 0.03})
    asked = Budget(artifact_kib=64, accuracy_drop=0.02)
    [group] = compared(records, budgets=[asked]).groups
    given, own = group.winners
    assert (given.budget, given.asked_by, given.meets_budget) == (asked, (), True)
    assert own.asked_by == (0, 1, 2)
    assert own.entry.places == (2,)
    assert own.sentence.startswith(
        "Under the budget of all runs (artifact size at most 45.0 KiB, accuracy within −3.00 pt of "
        "the baseline), row 4 (prune) of ratio 0.6 wins, the only row within the budget: accuracy "
    )
    assert group.chosen == {given.number, own.number}
    assert not group.info.limits  # two budgets would be two zones


def test_one_budget_is_drawn_and_each_runs_own_is_named(make):
    records = sweep(make, 0.2, 0.4, budget={"artifact_kib": 64, "accuracy_drop": 0.03})
    [group] = compared(records).groups
    assert group.info.limits["accuracy"] == pytest.approx(0.9352 - 0.03)
    records[1].recipe["budget"] = {"latency_p50_ms": 1.0}
    [group] = compared(records).groups
    assert [winner.asked_by for winner in group.winners] == [(0,), (1,)]
    assert "Under the budget of ratio 0.4 (p50 latency at most 1" in group.winners[1].sentence
    assert not group.info.limits


def test_where_no_row_keeps_a_budget_none_wins(make):
    [group] = compared(sweep(make, 0.2, 0.4), budgets=[Budget(artifact_kib=1)]).groups
    [winner] = group.winners
    assert "no row keeps it; row 4 (prune) of ratio 0.4 misses it by the least" in winner.sentence
    assert not winner.meets_budget
    assert not group.chosen


def test_without_a_budget_the_rule_of_one_run_holds(make):
    [group] = compared(sweep(make, 0.2, 0.4)).groups
    [winner] = group.winners
    assert winner.sentence.startswith("Without a budget, row 1 (train) of all runs wins")


@pytest.mark.parametrize("width", [80, 112])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_terminal_has_what_differs_the_table_and_who_wins(make, width, encoding):
    found = compared(sweep(make, 0.1, 0.2, 0.3, 0.4, 0.5, budget={"artifact_kib": 45}))
    text = comparison_text(found, width=width, encoding=encoding)
    text.encode(encoding)
    assert max(map(len, text.splitlines())) <= width
    flat = " ".join(text.split())
    for words in ("stages.prune.ratio", "ratio 0.5", "wins under a budget", "Hypervolume: how"):
        assert words in flat
    assert flat.count(" quantize ") == 1  # a row of all runs, said once


def test_a_run_that_failed_and_one_without_rows_are_named(make, tmp_path):
    records = sweep(make, 0.2, 0.4, 0.6)
    records[1] = records[1].model_copy(
        update={"status": "failed", "error": "nothing was pruned.", "rows": records[1].rows[:4]}
    )
    records[2] = records[2].model_copy(update={"status": "failed", "rows": []})
    found = compared(records)
    assert {each.key: each.values for each in found.differences}["status"] == (
        "done", "failed", "failed",
    )  # fmt: skip
    text = " ".join(comparison_text(found, encoding="utf-8").split())
    assert "ratio 0.4: The run failed: nothing was pruned." in text
    assert "ratio 0.6: nothing was measured, so it is in no table." in text
    overlay(records, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "ratio 0.6: nothing was measured" in page
    assert "stages.prune.ratio" in page


def test_runs_of_two_tasks_have_a_section_each_and_names_of_their_own(make, lower_is_better):
    found = compared([*sweep(make, 0.2, 0.4), lower_is_better])
    assert len(found.groups) == 2
    assert len(set(found.names)) == 3
    assert len({each.group.heading for each in found.groups}) == 2


def test_equal_runs_say_that_they_are(make):
    record = sweep(make, 0.2)[0]
    assert "recipes of these runs are equal" in comparison_text(compared([record, record]))
    assert "equal" not in comparison_text(compared([record]))


def test_hostile_names_and_values_are_one_printable_line(adversarial, make):
    other = adversarial.model_copy(update={"recipe": {**adversarial.recipe, "seed": 2}})
    found = compared([adversarial, other], [make.hostile, "b"])
    assert "\x1b" not in comparison_text(found, encoding="utf-8")
    assert all(dataclasses.astuple(each)[0].isprintable() for each in found.differences)
