"""Whether quantizing and pruning keep a budget, or only another architecture does."""

import pytest

from compress import LocalTarget, Recipe, ReplayTarget
from compress.budget import Budget
from compress.running.reach import Point, reach_of, verdict

POINTS = (Point(700, 1000, 2000, 1.0), Point(190, 1000, 2000, 0.5), Point(10, 50, 20, 0.1))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"artifact_kib": 700}, ["keeps it as it comes in, with 700 KiB"]),
        ({"artifact_kib": 190}, ["quantizing alone reaches it: all in int8 it takes 190 KiB"]),
        (
            {"artifact_kib": 100},
            ["does not reach it, with 190 KiB; with pruning about 52% of the parameters may stay"],
        ),
        ({"artifact_kib": 11}, ["about 6% of the parameters may stay, of which little can be hop"]),
        ({"artifact_kib": 9}, ["it still takes 10 KiB; only another architecture fits: distill"]),
        ({"latency_p50_ms": 0.5}, ["latency_p50_ms 0.5: quantizing alone reaches it: all in int8"]),
        ({"latency_p50_ms": 0.3}, ["pruning about 50% of the multiply-accumulates may stay"]),
        (
            {"artifact_kib": 200, "latency_p50_ms": 0.09},
            ["artifact_kib 200: quantizing alone", "latency_p50_ms 0.09: no quantizing and prun"],
        ),
        ({"accuracy_drop": 0.01}, []),
    ],
    ids=str,
)
def test_each_limit_has_its_verdict(limits, said):
    found = list(verdict(Budget(**limits), POINTS))
    assert len(found) == len(said)
    for sentence, part in zip(found, said, strict=True):
        assert part in sentence


@pytest.mark.fast
def test_a_time_that_is_not_known_has_none():
    untimed = [Point(one.kib, one.parameters, one.macs) for one in POINTS]
    assert list(verdict(Budget(latency_p50_ms=1), untimed)) == []


def notes(tmp_path, limits, target=None):
    recipe = Recipe.loads(
        f"task: digits\nmodel: {{arch: resnet, width: 8}}\nbudget: {limits}\n"
        "stages: [{kind: quantize}]"
    )
    task = recipe.make_task()
    job = recipe.job(
        recipe.make_candidate(task), task, workdir=tmp_path, targets=[target or ReplayTarget()]
    )
    return reach_of(job)


# The residual net of 44k parameters takes 173 KiB in float32 and 52 in int8.
@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ("{artifact_kib: 60}", "quantizing alone reaches it"),
        ("{artifact_kib: 25}", "of the parameters may stay"),
        ("{artifact_kib: 1}", "only another architecture fits"),
        ("{model_peak_mib: 1}", None),
    ],
)
def test_the_verdict_is_of_the_files_that_a_run_would_make(limits, said, tmp_path):
    found = notes(tmp_path, limits)
    assert len(found) == (said is not None)
    assert all(said in sentence for sentence in found)


@pytest.mark.exhaustive
def test_a_limit_of_time_is_held_against_times_of_this_machine(tmp_path):
    (said,) = notes(tmp_path, "{latency_p50_ms: 0.000001}", LocalTarget(threads=1))
    assert "only another architecture fits" in said
    assert notes(tmp_path, "{latency_p50_ms: 1}") == []  # declared times are not measured


def test_plan_notes_it_where_it_is_asked_to(tmp_path):
    recipe = Recipe.loads(
        "task: digits\nmodel: {arch: mlp}\nbudget: {artifact_kib: 1000}\nstages: [{kind: quantize}]"
    )
    said = "budget artifact_kib 1000: the model keeps it as it comes in"
    assert not any(said in note for note in recipe.plan(workdir=tmp_path).notes)
    assert any(said in note for note in recipe.plan(workdir=tmp_path, reach=True).notes)
