"""Cuts in steps, and trainings that shrink what they remove: where they end, what they say."""

import sys
import types
from dataclasses import replace
from itertools import pairwise, product

import pytest
import torch
from torch import nn

from compress import Candidate, PruneStage, QuantizeStage
from compress.config.references import CodeReferences
from compress.errors import NoEffect, SettingsError, StageError
from compress.pruning.channels import ChannelPruning, find_cut
from compress.pruning.penalties import channel_penalty, weight_penalty
from compress.stages.prune_schedule import CutSchedule
from compress.testing.nets import NETS
from compress.testing.stage_contract import bench_context
from compress.training.checkpoint import Checkpoint, unpack

ONCE = {"epochs": 1, "batch_size": 32, "learning_rate": 5e-3}
CURVES = ("cubic", "linear", "geometric")


class First:
    """The first samples of a data set."""

    def __init__(self, dataset, count=64):
        self._dataset, self._count = dataset, count

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        return self._dataset[index]


def bench(net, folder, events=None):
    """A candidate of a small net and a context with few samples."""
    case = NETS[net]
    start = Candidate.of(case.build(), case.example())
    task = replace(case.make_task(), augment=None)
    task = replace(task, train=First(task.train), validation=First(task.validation, 32))
    report = (lambda _: None) if events is None else events.append
    return start, replace(bench_context(start, folder), task=task, report=report)


def shapes(candidate):
    return {name: tuple(p.shape) for name, p in candidate.module.named_parameters()}


def zeros(candidate):
    names = [name for one in candidate.invariants for name in one.tensors]
    weights = {name: candidate.module.get_parameter(name) for name in names}
    return {name: (int((w == 0).sum()), w.numel()) for name, w in weights.items()}


# The curves.


@pytest.mark.fast
@pytest.mark.parametrize("curve", CURVES)
def test_a_curve_rises_to_the_whole_of_what_is_asked_for(curve):
    for steps, ratio in product((2, 3, 7, 64), (1e-3, 0.3, 0.5, 0.97)):
        found = CutSchedule(steps=steps, curve=curve).shares(ratio)
        assert len(found) == steps
        assert found[-1] == ratio
        assert all(0 < one < other for one, other in pairwise(found))
        removed = [other - one for one, other in pairwise((0.0, *found))]
        left = [(1 - other) / (1 - one) for one, other in pairwise((0.0, *found))]
        if curve == "cubic":
            assert all(one > other for one, other in pairwise(removed))
            assert found[0] == pytest.approx(ratio * (1 - (1 - 1 / steps) ** 3))
        else:
            same = removed if curve == "linear" else left
            assert same == pytest.approx([same[0]] * steps)


@pytest.mark.fast
@pytest.mark.parametrize("curve", CURVES)
def test_a_pattern_gets_sparser_with_every_step(curve):
    for n, m in ((2, 4), (1, 4), (1, 16), (3, 8), (60, 64)):
        for steps in range(2, m - n + 1):
            patterns = CutSchedule(steps=steps, curve=curve).patterns(n, m)
            kept = [m, *(one for one, _ in patterns)]
            assert len(patterns) == steps
            assert kept[-1] == n
            assert all(one > other for one, other in pairwise(kept))
        assert kept == list(range(m, n - 1, -1))  # as many steps as inputs


@pytest.mark.fast
@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"schedule": {"steps": 4}}, "schedule takes the settings of its training from finetune"),
        ({"sparsify": {"epochs": 1}}, "sparsify takes the settings of its training from finetune"),
        ({"schedule": {"steps": 1}, "finetune": ONCE}, "schedule.steps"),
        ({"schedule": {"steps": 65}, "finetune": ONCE}, "schedule.steps"),
        (
            {"schedule": {}, "goal": {"macs": 0.5}, "finetune": ONCE},
            "schedule goes with ratio: a goal is reached in one cut; give ratio in place",
        ),
        (
            {"schedule": {"steps": 3}, "granularity": "2:4", "finetune": ONCE},
            "each step of 2:4 takes one more of every 4 inputs at least, .* at most 2; got steps 3",
        ),
        (
            {"schedule": {"steps": 2}, "granularity": "1:2", "finetune": ONCE},
            "1:2 takes one of every 2 inputs, which is one step; leave schedule out",
        ),
        (
            {"sparsify": {"penalty": "l1"}, "finetune": ONCE},
            "sparsify: for channels the penalty is group-lasso or bn-scale; got l1",
        ),
        (
            {"sparsify": {"penalty": "bn-scale"}, "granularity": "weights", "finetune": ONCE},
            "sparsify: for weights the penalty is l1; got bn-scale",
        ),
    ],
)
def test_what_does_not_go_together_is_said(keys, said):
    with pytest.raises(SettingsError, match=said):
        PruneStage(**keys)


@pytest.mark.fast
def test_a_stage_without_them_is_written_as_before():
    assert not {"schedule", "sparsify"} & PruneStage(finetune=ONCE).model_dump().keys()
    whole = PruneStage(
        ratio=0.6, sparsify={"epochs": 3}, schedule={"steps": 4, "epochs": 2}, finetune=ONCE
    )
    assert whole.epochs_of_training() == 3 + 3 * 2 + 1
    assert whole.explain() == (
        "train 3 epochs with a penalty on what may go, remove 60% of the current channels by "
        "group-l2 in 4 steps (cubic) with 2 epochs between, then train 1 epochs"
    )


# Cuts in steps.


def more(net, keys):
    """A case for the exhaustive run: its cuts take seconds to prove."""
    return pytest.param(net, keys, marks=pytest.mark.exhaustive)


@pytest.mark.parametrize(
    ("net", "keys"),
    [
        ("mlp", {"ratio": 0.4, "of": "original", "schedule": {"steps": 4}}),
        ("resnet", {"ratio": 0.6, "schedule": {"steps": 2}}),
        more("resnet", {"ratio": 0.5, "round_to": 8, "schedule": {"steps": 3, "curve": "linear"}}),
        more("resnet", {"ratio": 0.4, "of": "original", "schedule": {"steps": 2}}),
        more("dscnn", {"ratio": 0.45, "schedule": {"steps": 3, "curve": "geometric"}}),
        ("attention", {"ratio": 0.5, "granularity": "heads", "schedule": {"steps": 2}}),
        more("attention", {"ratio": 0.7, "schedule": {"steps": 3}}),
    ],
)
def test_the_widths_are_those_of_one_cut(net, keys, tmp_path):
    events = []
    start, context = bench(net, tmp_path, events)
    made = PruneStage(**keys, finetune=ONCE).run(start, context)
    # The epochs between the cuts are nothing to widths.
    one = PruneStage(**{key: value for key, value in keys.items() if key != "schedule"})
    assert shapes(made) == shapes(one.run(start, context)) != shapes(start)
    in_steps, in_one = [event for event in events if event["event"] == "widths"]
    assert in_steps == in_one
    assert shapes(PruneStage(**keys, finetune=ONCE).rehearse(start, context)) == shapes(made)


def test_over_all_layers_as_much_goes_as_in_one_cut_and_no_layer_goes_entirely(tmp_path):
    start, context = bench("resnet", tmp_path)
    keys = {"ratio": 0.8, "scope": "global"}
    made = PruneStage(**keys, schedule={"steps": 2}, finetune=ONCE).run(start, context)
    one = PruneStage(**keys).run(start, context)
    total = [sum(s[0] for n, s in shapes(c).items() if "conv" in n) for c in (start, made, one)]
    assert total[1] == pytest.approx(total[2], abs=0.02 * total[0])
    for name, shape in shapes(start).items():
        left = shapes(made)[name][0]
        assert left >= shape[0] - int(0.9 * shape[0])


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("before", [(), (QuantizeStage(weights="int4", activations="float32"),)])
@pytest.mark.parametrize("ratio", [0.37, 0.9])
def test_exactly_the_share_of_weights_is_zero_in_the_end(ratio, before, scope, tmp_path):
    start, context = bench("mlp", tmp_path)
    for stage in before:
        start = stage.run(start, context)
    keys = {"granularity": "weights", "ratio": ratio, "scope": scope}
    made = PruneStage(**keys, schedule={"steps": 3}, finetune=ONCE).run(start, context)
    found = zeros(made)
    if scope == "global":
        total = sum(size for _, size in found.values())
        found = {"all": (sum(count for count, _ in found.values()), total)}
    assert all(count == round(ratio * size) for count, size in found.values())
    assert len(made.invariants) == 1
    steps = [clause.split(",")[0] for clause in made.notes[0].split("; ")]
    assert steps == ["prune: step 1 of 3", "step 2 of 3", "step 3 of 3"]
    assert made.notes[0].count("more weights to zero") == 3


@pytest.mark.parametrize("importance", ["wanda", "snip"])
def test_weights_that_data_rank_end_at_the_share_too(importance, tmp_path):
    start, context = bench("mlp", tmp_path)
    keys = {"granularity": "weights", "ratio": 0.75, "importance": importance}
    made = PruneStage(**keys, schedule={"steps": 3}, finetune=ONCE).run(start, context)
    assert all(count == pytest.approx(0.75 * size) for count, size in zeros(made).values())


def test_zeros_that_are_there_count_and_zeros_of_a_step_stay(tmp_path):
    start, context = bench("mlp", tmp_path)
    start = PruneStage(granularity="weights", ratio=0.5).run(start, context)
    keys = {"granularity": "weights", "ratio": 0.8, "finetune": ONCE}
    made = PruneStage(**keys, schedule={"steps": 4}).run(start, context)
    assert "step 1 of 4, to 0.463: removed nothing" in made.notes[0]
    assert all(count == round(0.8 * size) for count, size in zeros(made).values())
    for name in zeros(made):
        old, new = start.module.get_parameter(name), made.module.get_parameter(name)
        assert bool((new[old == 0] == 0).all())


def test_a_pattern_is_reached_by_patterns_between(tmp_path):
    start, context = bench("mlp", tmp_path)
    made = PruneStage(granularity="2:4", schedule={"steps": 2}, finetune=ONCE).run(start, context)
    assert [one.pattern for one in made.invariants] == ["2:4"]
    assert made.notes[0].startswith("prune: step 1 of 2, to 3:4: ")
    assert "; step 2 of 2, to 2:4: set " in made.notes[0]
    for name in zeros(made):
        rows = made.module.get_parameter(name)
        groups = rows[:, : rows.shape[1] // 4 * 4].reshape(-1, 4)
        assert bool(((groups != 0).sum(1) == 2).all())


def test_every_step_ranks_the_weights_that_training_has_left(tmp_path, monkeypatch):
    seen = {}

    def criterion(group):
        if group.slices[0].parameter == "layers.0.weight":  # no cut changes its inputs
            seen[group.channels] = group.slices[0].weights.clone()
        return group.weights.norm(dim=1)

    own = types.ModuleType("own")
    own.criterion = criterion
    monkeypatch.setitem(sys.modules, "own", own)
    start, context = bench("mlp", tmp_path)
    context = replace(context, references=CodeReferences.of("own"))
    stage = PruneStage(importance="own:criterion", ratio=0.5, schedule={"steps": 2}, finetune=ONCE)
    stage.run(start, context)
    first, second = seen.values()
    assert len(first) > len(second)
    assert bool((torch.cdist(second, first).min(1).values > 0).all())


def test_a_step_too_small_to_remove_anything_says_so(tmp_path):
    start, context = bench("mlp", tmp_path)
    schedule = {"steps": 4, "curve": "linear"}
    keys = {"ratio": 0.3, "round_to": 8, "finetune": ONCE}
    made = PruneStage(**keys, schedule=schedule).run(start, context)
    assert any("step 1 of 4, to 0.075: removed nothing" in note for note in made.notes)
    keys.pop("finetune")
    assert shapes(made) == shapes(PruneStage(**keys).run(start, context))


def test_what_cannot_be_cut_is_known_before_anything_is_trained(tmp_path):
    events = []
    start, context = bench("mlp", tmp_path, events)
    for more in ({"schedule": {"steps": 2}}, {"sparsify": {"epochs": 1}}):
        with pytest.raises(NoEffect, match="no channel of any layer can be removed"):
            PruneStage(ignore=("layers",), finetune=ONCE, **more).run(start, context)
    stage = PruneStage(
        granularity="weights", ignore=("type:Linear",), sparsify={"epochs": 1}, finetune=ONCE
    )
    with pytest.raises(NoEffect, match="no weight that may be set to zero; ignore less"):
        stage.run(start, context)
    assert not events


def test_a_cut_that_was_made_already_is_trained_and_says_so(tmp_path):
    start, context = bench("mlp", tmp_path)
    keys = {"ratio": 0.5, "of": "original"}
    cut = PruneStage(**keys).run(start, context)
    more = {"sparsify": {"epochs": 1}, "schedule": {"steps": 2}, "finetune": ONCE}
    PruneStage(**keys, **more).rehearse(cut, context)
    made = PruneStage(**keys, **more).run(cut, context)
    assert "every layer is as near to its width as can be" in made.notes[0]
    assert made.fingerprint != cut.fingerprint


# What is reported.


def test_epochs_are_counted_through_and_have_the_name_of_their_training(tmp_path):
    events = []
    start, context = bench("mlp", tmp_path, events)
    stage = PruneStage(
        ratio=0.5,
        sparsify={"epochs": 2},
        schedule={"steps": 3},
        finetune={**ONCE, "epochs": 2},
    )
    stage.run(start, context)
    epochs = [event for event in events if event["event"] == "epoch"]
    assert [one["epoch"] for one in epochs] == [1, 2, 3, 4, 5, 6]
    assert {one["epochs"] for one in epochs} == {6} == {stage.epochs_of_training()}
    assert [one["part"] for one in epochs] == [
        *["sparsify"] * 2,
        "step 1 of 3",
        "step 2 of 3",
        *["finetune"] * 2,
    ]
    assert ["group-lasso" in one["losses"] for one in epochs] == [True] * 2 + [False] * 4
    assert epochs[0]["left_s"] > epochs[-1]["left_s"] == 0


def test_a_dry_run_forecasts_all_trainings(tmp_path):
    events = []
    start, context = bench("mlp", tmp_path, events)
    PruneStage(sparsify={}, schedule={}, finetune=ONCE).rehearse(start, context)
    assert [event["event"] for event in events].count("pace") == 2


# Resuming.


class CutOff(BaseException):
    """As a killed process is: nothing in the package may catch it."""


class Counted:
    """Augmentation that counts its batches, and cuts the run off before one of them."""

    def __init__(self, fatal=None):
        self.fatal, self.count = fatal, 0

    def __call__(self, inputs, generator):
        if self.count == self.fatal:
            raise CutOff
        self.count += 1
        return inputs + 0.1 * torch.randn(inputs.shape, generator=generator)


STAGES = {
    "channels": PruneStage(
        ratio=0.6, sparsify={"epochs": 2, "weight": 1e-2}, schedule={"steps": 3}, finetune=ONCE
    ),
    "weights": PruneStage(
        ratio=0.6,
        granularity="weights",
        sparsify={"epochs": 1},
        schedule={"steps": 3, "epochs": 2},
        finetune={**ONCE, "ema": 0.9},
    ),
}
TIMES = ("event", "left_s", "samples_per_s")


def history(events):
    """Of the epochs that a row would have, less times."""
    entries = []
    for event in events:
        entries += event["history"] if event["event"] == "resumed" else ()
        entries += [event] if event["event"] == "epoch" else ()
    return [{key: value for key, value in one.items() if key not in TIMES} for one in entries]


@pytest.mark.parametrize("name", STAGES)
def test_a_kill_in_any_training_is_gone_on_from_there_to_the_same_end(name, tmp_path):
    stage, events = STAGES[name], []
    start, context = bench("mlp", tmp_path / "work", events)

    def run(noise, checkpoint=None):
        events.clear()
        task = replace(context.task, augment=noise)
        return stage.run(start, replace(context, task=task, checkpoint=checkpoint))

    whole = Counted()
    expected = run(whole)
    reported = history(events)
    assert whole.count == 2 * stage.epochs_of_training()  # batches
    for fatal in (7, whole.count - 1):
        place = Checkpoint(tmp_path / f"checkpoint-{fatal}", "key")
        with pytest.raises(CutOff):
            run(Counted(fatal), place)
        again = Counted()
        made = run(again, place)
        assert made.fingerprint == expected.fingerprint
        assert made.notes == expected.notes
        assert history(events) == reported
        assert again.count == whole.count - fatal // 2 * 2  # no whole epoch is trained twice
        # What is over keeps its weights alone.
        files = sorted(place.folder.rglob("checkpoint.safetensors"))
        assert len(files) == 4
        kept = [unpack(file.read_bytes()).tensors for file in files]
        assert not any(name.startswith("optimizer.") for one in kept for name in one)
        place.remove()
        assert not place.folder.exists()


# Sparse learning.


class Two(nn.Module):
    """Two layers, with a norm between."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.norm(self.first(x)).relu())


@pytest.fixture
def two():
    net = Two().eval()
    with torch.no_grad():
        net.norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5, 0.0]))
    return net


def penalty_of(kind, net):
    found = find_cut(net, torch.rand(2, 3), ChannelPruning(0.5), net)
    return channel_penalty(kind, 1.0, net, found)


def test_group_lasso_is_the_sum_of_the_norms_of_what_goes_together(two):
    squares = two.first.weight.square().sum(1) + two.norm.weight.square()
    squares = squares + two.last.weight.square().sum(0)
    penalty = penalty_of("group-lasso", two)
    assert float(penalty.value(two).detach()) == pytest.approx(squares.sqrt().sum().item())
    assert penalty.norm(two) == pytest.approx(squares.sum().sqrt().item())
    with torch.no_grad():
        two.first.weight[0], two.norm.weight[0], two.last.weight[:, 0] = 0, 0, 0
    penalty.value(two).backward()
    assert bool((two.first.weight.grad[0] == 0).all())
    assert bool((two.first.weight.grad[1] != 0).any())
    assert two.first.bias.grad is None


def test_bn_scale_is_the_sum_of_scales_and_l1_that_of_weights(two):
    penalty = penalty_of("bn-scale", two)
    assert float(penalty.value(two).detach()) == pytest.approx(3.5)
    penalty.value(two).backward()
    assert two.norm.weight.grad.tolist() == [1, -1, 1, 0]
    single = weight_penalty(1.0, ["first.weight", "last.weight"])
    sizes = two.first.weight.abs().sum() + two.last.weight.abs().sum()
    assert float(single.value(two).detach()) == pytest.approx(sizes.item())


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ({}, "group-lasso"),
        ({"importance": "bn-scale"}, "bn-scale"),
        ({"granularity": "weights"}, "l1"),
        ({"granularity": "2:4"}, "l1"),
    ],
)
def test_what_will_go_is_smaller_for_the_training_before(keys, name, tmp_path):
    events = []
    start, context = bench("resnet" if name == "bn-scale" else "mlp", tmp_path, events)
    sparsify = {"epochs": 4, "weight": 0.05}
    finetune = {"epochs": 1, "batch_size": 8, "learning_rate": 3e-2}
    made = PruneStage(ratio=0.5, sparsify=sparsify, finetune=finetune, **keys).run(start, context)
    note = made.notes[0]
    assert note.startswith(f"sparsify: {name} went from ")
    numbers = [float(word.strip("(;")) for word in note.split() if word.strip("(;")[:1].isdigit()]
    before, after, epochs, share, without = numbers
    assert after < 0.9 * before
    assert epochs == 4
    assert share < without
    values = [event["losses"].get(name) for event in events if event["event"] == "epoch"]
    assert values[0] > values[3] > after
    assert values[4] is None


def test_where_no_batch_norm_scales_anything_there_is_a_sentence(tmp_path):
    start, context = bench("attention", tmp_path)
    stage = PruneStage(sparsify={"penalty": "bn-scale"}, finetune=ONCE)
    for step in (stage.run, stage.rehearse):
        with pytest.raises(StageError, match=r"has no batch norm to shrink.* group-lasso\."):
            step(start, context)


def test_a_goal_is_of_the_model_that_came_in(tmp_path):
    start, context = bench("mlp", tmp_path)
    stage = PruneStage(goal={"parameters": 0.5}, sparsify={"epochs": 1}, finetune=ONCE)
    made = stage.run(start, context)
    assert made.notes[0].startswith("sparsify: group-lasso went from ")
    assert "for the goal parameters 0.5" in made.notes[-1]
    count = [sum(p.numel() for p in one.module.parameters()) for one in (start, made)]
    assert 0.4 * count[0] < count[1] <= 0.5 * count[0]
