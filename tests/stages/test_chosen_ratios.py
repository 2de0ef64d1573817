"""``scope: sensitivity``: layers go that cost most of a goal, and are missed least."""

import json
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import nn

from compress import Candidate, PruneStage, Recipe, ReplayTarget
from compress.errors import CompressError, NoEffect, SettingsError, StageError
from compress.measure.profile.layer_times import LayerTimes
from compress.pruning.channels import ChannelPruning
from compress.quantization.sensitivity import outputs_of, relative_error
from compress.running import candidate_measurements
from compress.stage import LayerSeconds, NoEvaluator
from compress.stages.cut_costs import TimesByRatio
from compress.stages.cut_table import RATIOS, CutGroup, CutTable, cut_table
from compress.stages.goals import count_macs
from compress.testing.nets import NETS
from compress.testing.stage_contract import ParameterCounter, bench_context
from compress.testing.structures import STRUCTURES
from compress.training.distributed import Processes
from tests.covering import kept_of
from tests.stages.test_goals import LANDS, Killed, counts, start_of

LAYERS = ("first", "second", "third")


class Chain(nn.Module):
    """Three layers of which one can spare three quarters of its channels: they are all zero."""

    def __init__(self, spare):
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(16, 16) for _ in range(3))
        self.head = nn.Linear(16, 3)
        following = dict(zip(LAYERS, (*LAYERS[1:], "head"), strict=True))
        with torch.no_grad():
            for tensor in getattr(self, spare).parameters():
                tensor[4:] = 0
            if spare in following:
                getattr(self, following[spare]).weight[:, 4:] = 0

    def forward(self, x):
        for layer in (self.first, self.second, self.third):
            x = layer(x).relu()
        return self.head(x)


@dataclass
class LayerCounter(ParameterCounter):
    """A target whose time is that of the weights of some layers, so many seconds each."""

    seconds: dict = field(default_factory=dict)

    def measure(self, candidate, parts=()):
        found = super().measure(candidate, parts)
        before, own = (sum(self.of(one).values()) for one in (self.incoming, candidate))
        speedup = before / own
        return replace(
            found, latency_s=own, speedup=speedup, speedup_ci95=(0.99 * speedup, 1.01 * speedup)
        )

    def of(self, candidate):
        each = {n: candidate.module.get_submodule(n).weight.numel() for n in self.seconds}
        return {n: 1e-3 + each[n] * s for n, s in self.seconds.items()}

    def layer_seconds(self, candidate, layers):
        before, after = self.of(self.incoming), self.of(candidate)
        return LayerSeconds(before, after, sum(before.values()), sum(after.values()))


def chain(spare):
    torch.manual_seed(0)
    return Candidate.of(Chain(spare).eval(), torch.randn(2, 16))


def context_of(start, folder, evaluator=None):
    context = replace(bench_context(start, folder), evaluator=evaluator or ParameterCounter(start))
    # The example's samples are what every net takes; of the chain there are more.
    data = [(torch.randn(16), 0) for _ in range(32)]
    if not isinstance(start.module, Chain):
        data = [(sample(start.example, place), 0) for place in (0, 1)]
    return replace(context, task=replace(context.task, train=data, calibration=data))


def sample(inputs, place):
    if isinstance(inputs, torch.Tensor):
        return inputs[place % len(inputs)]
    return {name: sample(tensor, place) for name, tensor in inputs.items()}


def cut(start, folder, goal, evaluator=None, **settings):
    settings = {"scope": "sensitivity", **settings}
    return PruneStage(goal=goal, **settings).run(start, context_of(start, folder, evaluator))


def widths(candidate):
    return [getattr(candidate.module, name).out_features for name in LAYERS]


def moved(start, made):
    inputs = [torch.randn(64, 16)]
    return relative_error(outputs_of(start.module, inputs), outputs_of(made.module, inputs))


@pytest.mark.parametrize("what", ["macs", "parameters"])
@pytest.mark.parametrize("spare", LAYERS[:2])
def test_what_is_not_missed_goes(spare, what, tmp_path):
    start = chain(spare)
    made = cut(start, tmp_path, {what: 0.6})
    expected = [4 if name == spare else 16 for name in LAYERS]
    assert [w <= 8 if e == 4 else w == 16 for w, e in zip(widths(made), expected, strict=True)]
    assert (
        moved(start, made) < 1e-9 < moved(start, cut(start, tmp_path, {what: 0.6}, scope="local"))
    )
    assert counts(made)[what] <= 0.6 * counts(start)[what]
    assert "ratios of their own for 1 of 3 groups of layers gives" in made.notes[-1]


@pytest.mark.parametrize("slow", LAYERS)
def test_what_takes_the_time_goes(slow, tmp_path):
    # All are missed alike, and one takes nearly all of the time.
    start = chain("head")
    evaluator = LayerCounter(start, seconds={n: 1e-3 if n == slow else 1e-9 for n in LAYERS})
    made = cut(start, tmp_path, {"latency_p50": 0.6}, evaluator)
    assert evaluator.measure(made).latency_s / evaluator.measure(start).latency_s >= 0.9 * 0.6
    assert evaluator.measure(made).latency_s <= 0.6 * evaluator.measure(start).latency_s
    # The time of a layer is of its channels and of those before it.
    touched = LAYERS[max(0, LAYERS.index(slow) - 1) : LAYERS.index(slow) + 1]
    assert all(w == 16 for name, w in zip(LAYERS, widths(made), strict=True) if name not in touched)


def test_of_two_goals_both_hold(tmp_path):
    start = start_of()
    made = cut(start, tmp_path, {"macs": 0.5, "parameters": 0.7})
    before, after = counts(start), counts(made)
    assert after["macs"] <= 0.5 * before["macs"]
    assert after["parameters"] <= 0.7 * before["parameters"]


@pytest.mark.parametrize("net", kept_of(LANDS, ("resnet", "attention")))
def test_it_lands_on_nets_of_every_kind(net, tmp_path):
    start = start_of(net)
    made = cut(start, tmp_path, {"macs": LANDS[net]})
    share = count_macs(made.module, made.example) / count_macs(start.module, start.example)
    if "the nearest that was found" not in made.notes[-1]:
        assert 0.97 * LANDS[net] <= share <= LANDS[net]
    assert 0.8 * LANDS[net] <= share <= LANDS[net]


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", STRUCTURES)
def test_public_designs_keep_the_goal(name, tmp_path):
    case = STRUCTURES[name]
    start = Candidate.of(case.build(), case.example())
    try:
        alike = cut(start, tmp_path, {"parameters": 0.7}, scope="local")
    except (NoEffect, StageError) as error:
        with pytest.raises(type(error)):
            cut(start, tmp_path, {"parameters": 0.7})
        return
    if name == "shufflenet-v1":  # whose shuffles hold all layers together
        with pytest.raises(NoEffect, match="by itself; ignore less, or take scope local, which"):
            cut(start, tmp_path, {"parameters": 0.7})
        return
    made = cut(start, tmp_path, {"parameters": 0.7})
    most = 0.7 * counts(start)["parameters"]
    assert max(counts(made)["parameters"], counts(alike)["parameters"]) <= most


def test_multiples_and_ignored_layers_are_kept(tmp_path):
    made = cut(chain("second"), tmp_path, {"macs": 0.6}, round_to=8, ignore=("second",))
    assert widths(made)[1] == 16
    assert all(width % 8 == 0 for width in widths(made))


def test_a_criterion_that_reads_data_ranks_the_cut_that_is_made(tmp_path):
    start = start_of()
    made = cut(start, tmp_path, {"macs": 0.6}, importance="taylor")
    assert count_macs(made.module, made.example) <= 0.6 * count_macs(start.module, start.example)


def test_less_is_cut_where_the_goal_loses_too_much(tmp_path):
    start = chain("second")

    class Losing(LayerCounter):
        def measure(self, candidate, parts=()):
            found, share = super().measure(candidate, parts), min(widths(candidate)) / 16
            return replace(found, score=1.0 if share > 0.4 else 0.5, score_ci95=(0.4, 1.0))

    made = cut(start, tmp_path, {"macs": 0.4, "max_drop": 0.1}, Losing(start, seconds={"first": 1}))
    assert "a smaller choice is the largest that was tried and keeps max_drop" in made.notes[-1]
    assert min(widths(made)) > 6


@dataclass(frozen=True)
class Told(Processes):
    """One of two processes; the second hears what the first has said before."""

    said: list = field(default_factory=list)

    def broadcast(self, message=b"", timeout=None):
        if not self.is_rank_zero:
            return self.said.pop(0)
        self.said.append(message)
        return message


def test_other_processes_cut_alike_without_a_device(tmp_path):
    start = chain("second")

    class Losing(LayerCounter):
        def measure(self, candidate, parts=()):
            found, share = super().measure(candidate, parts), min(widths(candidate)) / 16
            return replace(found, score=1.0 if share > 0.4 else 0.5, score_ci95=(0.4, 1.0))

    stage = PruneStage(goal={"latency_p50": 0.4, "max_drop": 0.1}, scope="sensitivity")
    context = context_of(start, tmp_path, Losing(start, seconds=dict.fromkeys(LAYERS, 1e-3)))
    first = Told()
    made = stage.run(start, replace(context, processes=first))
    assert "a smaller choice is the largest" in made.notes[-1]
    second = Told(rank=1, said=list(first.said))
    alike = replace(context, processes=second, evaluator=NoEvaluator())
    assert stage.run(start, alike).fingerprint == made.fingerprint
    assert second.said == []


def test_a_weight_that_a_hook_computes_is_no_obstacle(tmp_path):
    start = chain("second")
    module = start.fork().module
    with pytest.warns(FutureWarning, match="deprecated"):
        torch.nn.utils.weight_norm(module.first)
    module(start.example)  # the hook leaves a weight that gradients flow through
    table = cut_table(module, start.example, [start.example], LAYERS, ChannelPruning(ratio=0.0))
    assert [group.layers for group in table.groups][-2:] == [("second",), ("third",)]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "scope: sensitivity chooses for a goal: give goal, or take scope: global"),
        ({"ratio": 0.3}, "scope: sensitivity chooses for a goal"),
        ({"ratios": {"a": 0.5}}, "scope: sensitivity chooses for a goal"),
        ({"goal": {"macs": 0.5}, "granularity": "heads"}, "is for granularity channels, not heads"),
        ({"goal": {"macs": 0.5}, "granularity": "blocks"}, "granularity channels, not blocks"),
        ({"granularity": "weights"}, "granularity channels, not weights"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, said):
    with pytest.raises(SettingsError, match=said):
        PruneStage(scope="sensitivity", **settings)


def test_where_no_layer_can_be_timed_the_sentence_says_what_would_do(tmp_path):
    said = (
        r"prune: scope sensitivity: target 'replay' cannot be profiled from here, so that no layer "
        r"has a time; scope local needs no times of layers\."
    )
    case = NETS["mlp"]
    stage = PruneStage(goal={"latency_p50": 0.8}, scope="sensitivity")
    with pytest.raises(CompressError, match=said):
        Recipe(name="x", stages=(stage,)).run(
            Candidate.of(case.build(), case.example()),
            case.make_task(),
            targets=[ReplayTarget(latency_s=lambda model: 1e-9 * model.stat().st_size)],
            workdir=tmp_path,
            report=False,
        )
    with pytest.raises(StageError, match="nothing times layers here; scope local needs no times"):
        cut(chain("second"), tmp_path, {"latency_p50": 0.8})


def test_where_nothing_may_be_cut_that_is_said(tmp_path):
    with pytest.raises(NoEffect, match=r"no channel of any layer can be removed.*ignore less"):
        cut(chain("second"), tmp_path, {"macs": 0.5}, ignore=("*",))


# -- what the program is given --------------------------------------------------------------


def groups(*errors):
    """Two layers in a row: the first gives 8 channels, which the second reads and gives 8."""
    shapes = []
    for mine in ("a", "b"):
        own = [{}]
        for ratio in RATIOS[1:]:
            left = round(8 * (1 - ratio))
            own.append(
                {"a": {"a.weight": (left, 4), "b.weight": (8, left)}, "b": {"b.weight": (left, 8)}}[
                    mine
                ]
            )
        shapes.append(tuple(own))
    return CutTable(
        tuple(CutGroup((n,), tuple(e), s) for n, e, s in zip("ab", errors, shapes, strict=True)),
        {"a.weight": (8, 4), "b.weight": (8, 8)},
    )


def test_times_at_two_ratios_multiply_and_the_rest_falls_with_them():
    left = np.array([1 - ratio for ratio in RATIOS])
    table = groups(left, left)
    # The first layer has one side that is cut, the second two.
    times = TimesByRatio({"a": 2e-3 * left, "b": 4e-3 * left**2}, 6e-3 * left**2 + 1e-3)
    limit = times.limit(table, 0.5)
    assert limit.most == pytest.approx(-0.5 * 7e-3)
    for one, other in ((0, 0), (4, 0), (0, 4), (3, 6)):
        layers = 2e-3 * left[one] + 4e-3 * left[one] * left[other] - 6e-3
        rest = times.whole - times.layers["a"] - times.layers["b"]
        shares = np.array([4e-3, 2e-3]) / 6e-3  # the time of the second layer is of both
        beside = shares @ (rest[[one, other]] - rest[0])
        assert limit.cost([one, other]) == pytest.approx(layers + beside)


def test_a_layer_that_is_slower_when_it_is_narrower_stays_wide():
    left = np.array([1 - ratio for ratio in RATIOS])
    odd = np.where(np.arange(8) % 4 == 0, left, 2.0)  # only multiples of 4 channels are fast
    errors = [0.0, *(1e-3 * np.arange(1, 8))]
    times = TimesByRatio({"a": odd, "b": np.ones(8)}, odd + 1)
    assert groups(errors, errors).choose([times.limit(groups(errors, errors), 0.9)]) == [4, 0]


def test_errors_go_on_growing_where_they_saturate():
    errors = [0.0, 0.5, 0.9, 1.2, 1.2, 1.1, 1.2, 1.2]
    found = groups(errors, [0.0, *(np.arange(1, 8) ** 2 / 50)]).steepened
    removed = [-np.log(1 - ratio) for ratio in RATIOS]
    assert all(made >= given for made, given in zip(found.groups[0].errors, errors, strict=True))
    assert found.groups[0].errors[7] == pytest.approx(0.5 / removed[1] * removed[7])
    assert found.groups[1].errors[1:3] == pytest.approx((1 / 50, 4 / 50))


# -- on a target ------------------------------------------------------------------------------


def test_times_of_layers_are_kept_for_a_run_that_was_killed(tmp_path, monkeypatch):
    case, calls = NETS["conv1d"], []

    def by_size(models, layers, target, mode, seed=0):
        calls.append(mode)
        sizes = [path.stat().st_size for path in models]
        return [LayerTimes(1e-9 * size, {}, dict.fromkeys(layers, 1e-10 * size)) for size in sizes]

    def killing(event):
        if event.get("what") == "timing layers, cut" and event["number"] == 3:
            raise Killed

    monkeypatch.setattr(candidate_measurements, "layer_times", by_size)
    start = Candidate.of(case.build(), case.example())
    cutting = PruneStage(goal={"latency_p50": 0.9}, scope="sensitivity")

    def run(**options):
        return Recipe(name="x", stages=(cutting,)).run(
            start,
            case.make_task(),
            targets=[ReplayTarget(latency_s=lambda model: 1e-9 * model.stat().st_size)],
            workdir=tmp_path,
            report=False,
            **options,
        )

    with pytest.raises(Killed):
        run(observer=killing)
    kept = tmp_path / "stages" / "01-prune" / "checkpoint" / "measured.json"
    assert len(json.loads(kept.read_text())["layers"]) == len(calls) == 2
    assert "ratios of their own" in run().rows[1].notes[-1]
    assert len(calls) == len(RATIOS) - 1
