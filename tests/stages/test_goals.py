"""Goals of a prune stage: the cut lands on them, or a sentence says why it does not."""

import contextlib
import itertools
import json
from dataclasses import dataclass, field, replace

import onnx
import pytest
import torch

from compress import Candidate, PruneStage, QuantizeStage, Recipe, ReplayTarget
from compress.candidate import count_parameters
from compress.errors import AlreadySo, NoEffect, RecipeError, SettingsError, StageError
from compress.record import Record
from compress.running.encoding import encode
from compress.stage import EVALUATION_PARTS, Evaluation, apply_stage
from compress.stages.goals import count_macs
from compress.testing.nets import NETS
from compress.testing.stage_contract import ParameterCounter, bench_context
from compress.testing.structures import STRUCTURES
from compress.zoo import build
from tests.covering import kept_of

LANDS = {"resnet": 0.5, "dscnn": 0.6, "unet": 0.5, "attention": 0.7, "mobilenet-v3": 0.6}


def start_of(net="resnet"):
    case = NETS[net]
    return Candidate.of(case.build(), case.example())


def cut(goal, start, folder, context=None, **settings):
    context = context or replace(bench_context(start, folder), evaluator=ParameterCounter(start))
    return PruneStage(goal=goal, **settings).run(start, context)


def counts(candidate):
    parameters = count_parameters(candidate.module)[0]
    return {"macs": count_macs(candidate.module, candidate.example), "parameters": parameters}


@pytest.mark.parametrize("what", ["macs", "parameters"])
@pytest.mark.parametrize("net", LANDS)
def test_a_cut_lands_within_3_percent_of_what_is_counted(net, what, tmp_path):
    start = start_of(net)
    made = cut({what: LANDS[net]}, start, tmp_path)
    share = counts(made)[what] / counts(start)[what]
    # The nets are tiny: where one channel of one layer is more than that, the note says so.
    if "the nearest that was found" not in made.notes[-1]:
        assert 0.97 * LANDS[net] <= share <= LANDS[net]
    assert 0.8 * LANDS[net] <= share <= LANDS[net]
    assert f"for the goal {what} {LANDS[net]:g}" in made.notes[-1]


def test_a_number_is_a_limit_as_a_share_is(tmp_path):
    start = start_of()
    made = cut({"parameters": 4000}, start, tmp_path)
    assert 0.97 * 4000 <= counts(made)["parameters"] <= 4000


def test_of_two_goals_both_hold(tmp_path):
    start = start_of()
    made = cut({"parameters": 0.8, "macs": 0.4}, start, tmp_path)
    before, after = counts(start), counts(made)
    assert after["macs"] <= 0.4 * before["macs"]
    assert after["parameters"] <= 0.8 * before["parameters"]
    assert "parameters" in made.notes[-1]


def test_a_scope_and_a_multiple_are_kept(tmp_path):
    start = start_of()
    made = cut({"parameters": 0.5}, start, tmp_path, scope="global", round_to=4)
    assert counts(made)["parameters"] <= 0.5 * counts(start)["parameters"]
    widths = [len(p) for name, p in made.module.named_parameters() if "conv" in name]
    assert all(width % 4 == 0 for width in widths)


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        ({"parameters": 0.999999}, None),
        (
            {"parameters": 10**9},
            r"kept already, so that nothing is cut: parameters [\d,]+ \(goal 1,000,000,000\)\.",
        ),
        (
            {"macs": 10**9, "parameters": 10**9},
            r"so that nothing is cut: macs .*, parameters",
        ),
    ],
)
def test_a_goal_that_is_kept_leaves_the_model_with_a_note(goal, said, tmp_path):
    start = start_of()
    if said is None:
        assert counts(cut(goal, start, tmp_path))["parameters"] < counts(start)["parameters"]
        return
    with pytest.raises(AlreadySo, match=said):
        cut(goal, start, tmp_path)
    context = bench_context(start, tmp_path)
    same = apply_stage(PruneStage(goal=goal), start, context)
    assert same.module is not start.module
    assert "kept already" in same.notes[-1]


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        (
            {"parameters": 10},
            (
                r"the goal parameters 10 is out of reach by cutting: with all cut that may be, "
                r"the model has parameters [\d,]+ \(goal 10\); ask for less, ignore less, or "
                r"distill into a smaller student before\."
            ),
        ),
        ({"latency_p50": 1e-6}, r"the goal latency_p50 1e-06 is out of reach"),
    ],
)
def test_a_goal_out_of_reach_says_what_the_most_is(goal, said, tmp_path):
    with pytest.raises(StageError, match=said):
        cut(goal, start_of(), tmp_path)


def test_where_the_slow_part_may_not_be_cut_the_best_without_it_is_said(run):
    said = (
        r"the goal latency_p50 0\.5 is out of reach by cutting: with all cut that may be, the "
        r"model has latency_p50 0\.\d+ \(goal 0\.5\); ask for less, ignore less, or distill"
    )
    with pytest.raises(StageError, match=said):
        run(PruneStage(goal={"latency_p50": 0.5}, ignore=("layers.0",)))


def test_where_nothing_may_be_cut_that_is_said(tmp_path):
    with pytest.raises(NoEffect, match=r"no channel of any layer can be removed.*ignore less"):
        cut({"macs": 0.5}, start_of("mlp"), tmp_path, ignore=("layers",))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"goal": {}}, "give what is to be reached: latency_p50, latency_p50_ms, macs, param"),
        ({"goal": {"max_drop": 0.01}}, "give what is to be reached"),
        ({"goal": {"macs": 0.5, "max_drop": 0}}, "a max_drop of 0 leaves nothing to cut"),
        ({"goal": {"latency_p50": 1.5}}, "should be less than 1; got 1.5"),
        ({"goal": {"macs": -1}}, "should be greater than 0"),
        ({"goal": {"macs": "50%"}}, "should be a valid number; got '50%'; write 0.5"),
        ({"goal": {"flops": 0.5}}, "flops"),
        ({"goal": {"macs": 0.5}, "ratio": 0.3}, "give ratio or goal"),
        ({"goal": {"macs": 0.5}, "granularity": "weights"}, "zeros change no cost"),
        ({"goal": {"macs": 0.5}, "of": "original"}, "goal is of the model that comes in"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, said):
    with pytest.raises(SettingsError, match=said):
        PruneStage(**settings)


def test_a_stage_writes_what_decides_how_much_goes():
    assert "goal" not in PruneStage().model_dump()
    written = PruneStage(goal={"macs": 0.5}).model_dump()
    assert "ratio" not in written
    assert PruneStage(**written) == PruneStage(goal={"macs": 0.5})


class Elementwise(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(4))

    def forward(self, x):
        return x * self.scale


def test_a_model_without_products_has_none_to_save(tmp_path):
    start = Candidate.of(Elementwise(), torch.zeros(2, 4))
    with pytest.raises(StageError, match="the goal macs: the model has none that are counted"):
        cut({"macs": 0.5}, start, tmp_path)


# -- measured --------------------------------------------------------------------------------


def by_size_s(model):
    return 1e-5 + 1e-8 * model.stat().st_size


@pytest.fixture
def run(tmp_path):
    def call(*stages, target=None, name="run", net="mlp", **options):
        start, task = start_of(net), NETS[net].make_task()
        return Recipe(name="goal", stages=stages).run(
            start,
            task,
            targets=[target or ReplayTarget(latency_s=by_size_s)],
            workdir=tmp_path / name,
            report=False,
            **options,
        )

    return call


def test_a_time_is_measured_and_lands_within_5_percent(run):
    record = run(PruneStage(goal={"latency_p50": 0.8}), QuantizeStage(), net="resnet")
    (measured,) = record.rows[1].measurements
    assert 0.95 * 0.8 <= 1 / measured.speedup.value <= 0.8
    assert "for the goal latency_p50 0.8" in record.rows[1].notes[-1]
    assert record.rows[2].fingerprint != record.rows[1].fingerprint


def test_milliseconds_and_kib_are_limits(run):
    before = run(PruneStage(goal={"latency_p50": 0.9})).rows[0].measurements[0]
    limit = {"artifact_kib": 0.6 * before.artifact.bytes / 1024}
    (small,) = run(PruneStage(goal=limit), name="kib").rows[1].measurements
    assert 0.97 * limit["artifact_kib"] <= small.artifact.bytes / 1024 <= limit["artifact_kib"]
    asked = 1e3 * before.latency.p50_s * 0.85
    record = run(PruneStage(goal={"latency_p50_ms": asked}), name="ms")
    (fast,) = record.rows[1].measurements
    assert 0.95 * asked <= 1e3 * fast.latency.p50_s <= asked


def slow_unless_in_eights_s(model):
    shapes = [list(one.dims) for one in onnx.load(model).graph.initializer if len(one.dims) == 4]
    odd = any(shape[0] % 8 for shape in shapes)
    return (3 if odd else 1) * (1e-3 + 1e-8 * model.stat().st_size)


@pytest.mark.exhaustive
def test_widths_are_multiples_where_the_target_is_faster_with_them(run):
    target = ReplayTarget(latency_s=slow_unless_in_eights_s)
    record = run(PruneStage(goal={"latency_p50": 0.85}), target=target, net="resnet")
    assert "in multiples of 8, in which the target computes faster" in record.rows[1].notes[-1]
    assert all(width.after % 8 == 0 for width in record.rows[1].widths if not width.is_output)


def test_a_cut_that_is_not_shown_to_be_faster_is_not_made(tmp_path):
    start = start_of()

    class Noisy(ParameterCounter):
        def measure(self, candidate, parts=EVALUATION_PARTS):
            found = super().measure(candidate, parts)
            return replace(found, speedup_ci95=(0.98, 1.1))

    context = replace(bench_context(start, tmp_path), evaluator=Noisy(start))
    said = r"the goal latency_p50 0\.97: the cut that is nearest to it is not shown to be faster \("
    with pytest.raises(NoEffect, match=said):
        cut({"latency_p50": 0.97}, start, tmp_path, context)


def test_a_cut_that_cannot_be_timed_says_so(run):
    target = ReplayTarget(errors={"candidate.onnx": "the device is busy."})
    with pytest.raises(
        StageError, match=r"a cut could not be timed for the goal: .*the device is b"
    ):
        run(PruneStage(goal={"latency_p50": 0.5}), target=target)


def test_plan_knows_about_how_much_goes_without_measuring(tmp_path):
    text = (
        "task: digits\nmodel: {arch: mlp}\nstages: [{kind: prune, goal: {latency_p50: 0.5, "
        "max_drop: 1pt}, finetune: {epochs: 1}}]"
    )
    plan = Recipe.loads(text).plan(workdir=tmp_path)
    before, row = plan.stages
    assert "until latency_p50 0.5, max_drop 0.01, then train 1 epochs" in row.sentence
    assert 0.45 < row.parameters / before.parameters <= 0.55
    assert row.seconds > 30  # a dozen cuts will be timed


def test_plan_takes_the_size_of_a_file_from_the_formats_that_are_declared(tmp_path):
    text = (
        "task: digits\nmodel: {arch: mlp}\nstages: [{kind: quantize}, "
        "{kind: prune, goal: {artifact_kib: 8}}]"
    )
    row = Recipe.loads(text).plan(workdir=tmp_path).stages[-1]
    assert 6500 < row.parameters <= 8 * 1024  # each in a byte, and its channel's scale


# -- what may be lost ------------------------------------------------------------------------


@dataclass
class Losing:
    """Loses ``slope`` of accuracy for each share of the parameters that is gone."""

    incoming: Candidate
    slope: float
    metric: str = "accuracy"
    scored: list[float] = field(default_factory=list)

    def measure(self, candidate, parts=EVALUATION_PARTS):
        share = counts(candidate)["parameters"] / counts(self.incoming)["parameters"]
        if "score" in parts:
            self.scored.append(share)
        score = 0.9 - self.slope * (1 - share)
        return Evaluation(1, score, (score, score), True, metric=self.metric)


def within(goal, slope, folder, metric="accuracy", start=None, **settings):
    start = start or start_of()
    losing = Losing(start, slope, metric)
    context = replace(bench_context(start, folder), evaluator=losing)
    return cut(goal, start, folder, context, **settings), losing


def test_a_drop_that_is_kept_is_said(tmp_path):
    made, losing = within({"parameters": 0.5, "max_drop": "6pt"}, 0.1, tmp_path)
    assert len(losing.scored) == 2
    assert counts(made)["parameters"] <= 0.5 * counts(start_of())["parameters"]


def test_less_is_cut_where_the_goal_loses_too_much(tmp_path):
    made, losing = within({"parameters": 0.3, "max_drop": 0.02}, 0.1, tmp_path)
    share = counts(made)["parameters"] / counts(start_of())["parameters"]
    assert 1 - share <= 0.2
    assert share == max(share, min(one for one in losing.scored if 0.1 * (1 - one) <= 0.02))
    assert len(losing.scored) <= 5
    note = made.notes[-1]
    assert "which loses 0.07" in note
    assert "is the largest that was tried and keeps max_drop, with -0.0" in note


def test_no_cut_is_tried_twice_where_few_blocks_can_go(tmp_path):
    module = build("resnet", {"width": 4, "blocks": 3})
    start = Candidate.of(module, start_of().example)
    goal = {"parameters": 0.4, "max_drop": 0.01}
    made, losing = within(goal, 0.1, tmp_path, start=start, granularity="blocks")
    came_in, *cuts = losing.scored
    assert came_in == 1
    assert len(cuts) == len(set(cuts)) > 1
    assert 1 - counts(made)["parameters"] / counts(start)["parameters"] <= 0.1


def test_where_every_cut_loses_too_much_nothing_is_cut(tmp_path):
    said = (
        r"the goal parameters 0\.3, max_drop 0\.001: every cut that was tried loses more than "
        r"max_drop, the least 0\.\d+ of accuracy; train longer after the cut, or allow more\."
    )
    with pytest.raises(NoEffect, match=said):
        within({"parameters": 0.3, "max_drop": 0.001}, 1.0, tmp_path)


def test_points_are_of_a_rate(tmp_path):
    with pytest.raises(RecipeError, match=r"goal\.max_drop: points are of a rate such as accuracy"):
        within({"parameters": 0.3, "max_drop": "1pt"}, 0.1, tmp_path, metric="mse")


# -- killed and gone on ----------------------------------------------------------------------


class Killed(BaseException):
    """As if the process had ended."""


@pytest.mark.parametrize(
    "moment", [pytest.param(n, marks=[pytest.mark.exhaustive] if n != 2 else []) for n in (1, 2, 4)]
)
def test_a_run_that_was_killed_goes_on_to_the_same_result(moment, run, tmp_path):
    stage = PruneStage(goal={"latency_p50": 0.8})
    whole = run(stage, name="whole", cache=tmp_path / "other")

    def killing(events):
        def observe(event):
            events.append(event["event"])
            if events.count("candidate") == moment:
                raise Killed

        return observe

    before, after = [], []
    with pytest.raises(Killed):
        run(stage, observer=killing(before))
    again = run(stage, observer=lambda event: after.append(event["event"]))
    assert again.rows[1].fingerprint == whole.rows[1].fingerprint
    lines = (tmp_path / "whole" / "log.jsonl").read_text().splitlines()
    in_all = sum(json.loads(line)["event"] == "candidate" for line in lines)
    # The one that was being told is known: it was kept before.
    assert after.count("candidate") == in_all - moment
    assert Record.load(tmp_path / "run").status == "done"
    assert not (tmp_path / "run" / "stages" / "01-prune" / "checkpoint").exists()


@pytest.mark.exhaustive  # the moments above, and tests/running/test_kill.py, in one
def test_a_goal_with_training_that_was_killed_at_ten_moments_ends_alike(run, tmp_path):
    stage = PruneStage(
        goal={"latency_p50": 0.5, "max_drop": 0.02},
        finetune={"epochs": 3, "batch_size": 16, "views": 2, "losses": [{"kind": "response"}]},
    )
    told = []
    whole = run(stage, name="whole", cache="none", observer=told.append)

    def killing(last):
        def observe(event, count=itertools.count(1)):  # noqa: B008  one for each observer
            if next(count) == last:
                raise Killed

        return observe

    begun = next(n for n, event in enumerate(told) if event["event"] == "candidate")
    for moment in torch.linspace(begun, len(told) - 2, 10).int().tolist():
        name = f"killed-{moment}"
        with pytest.raises(Killed):
            run(stage, name=name, cache="none", observer=killing(moment))
        again = run(stage, name=name, cache="none")
        assert again.rows[1].fingerprint == whole.rows[1].fingerprint
        assert again.rows[1].notes == whole.rows[1].notes


DAMAGED = [b"", b"{", b'{"key": "x", "measured": {"y": 3}}', b"[]"]


@pytest.mark.parametrize("content", kept_of(DAMAGED, DAMAGED[1:3]))
def test_measurements_that_were_damaged_are_made_again(content, run, tmp_path):
    place = tmp_path / "run" / "stages" / "01-prune" / "checkpoint" / "measured.json"
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    assert run(PruneStage(goal={"latency_p50": 0.8})).status == "done"


# -- counting --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "net", kept_of(NETS, ("resnet", "conv1d", "causal-lm", "attention", "mobilenet-v3"))
)
def test_counted_is_what_the_record_counts(net, tmp_path):
    start, task = start_of(net), NETS[net].make_task()
    target = ReplayTarget()
    artifact = encode(start, task, target, tmp_path / "model.onnx")
    assert count_macs(start.module, start.example) == artifact.census.macs


def test_products_in_recurrent_layers_count():
    net = torch.nn.LSTM(4, 8, batch_first=True)
    assert count_macs(net, torch.zeros(2, 5, 4)) == 5 * 4 * 8 * (4 + 8)


@pytest.mark.exhaustive  # nets after sixty public designs, a minute in all
@pytest.mark.parametrize("what", ["macs", "parameters"])
@pytest.mark.parametrize(
    "name", sorted(STRUCTURES.keys() - {"deberta"})
)  # whose tables cannot be cut
def test_cuts_of_public_designs_keep_the_goal(name, what, tmp_path):
    structure = STRUCTURES[name]
    start = Candidate.of(structure.make(), structure.example())
    made = None
    with contextlib.suppress(NoEffect):
        made = cut({what: 0.6}, start, tmp_path)
    if made is None:
        assert not structure.must_cut
        return
    share = counts(made)[what] / counts(start)[what]
    assert share <= 0.6
    assert share >= 0.97 * 0.6 or "the nearest that was found" in made.notes[-1]
