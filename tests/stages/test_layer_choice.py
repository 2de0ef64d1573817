"""Formats and ratios of layers by an integer program: least loss within a budget."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from compress import Candidate, PruneStage, QuantizeStage
from compress.errors import AlreadySo, NoEffect, SelectorError, SettingsError, StageError
from compress.integer_program import Limit, least_loss
from compress.pruning.channels import ChannelPruning, prune_channels
from compress.quantization.fakequant import simulate
from compress.quantization.sensitivity import outputs_of, relative_error
from compress.quantization.stored import format_named, format_words, stored_bytes
from compress.running.cut_choice import choose_cuts, cuts_of
from compress.stage import Evaluation, formats_of, ranges_of
from compress.stages.format_choice import FormatChoice, TimeLimit
from compress.stages.goals import count_macs
from compress.testing.nets import NETS
from compress.testing.stage_contract import bench_context
from compress.training.data import head


@pytest.fixture(scope="module")
def trained():
    """A small net that has learned its task."""
    case = NETS["mlp"]
    module, task = case.build(), case.make_task()
    batch = head(task.train, len(task.train))
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    module.train()
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(batch.inputs), batch.labels).backward()
        optimizer.step()
    return Candidate.of(module.eval(), case.example())


def context_of(start, folder):
    return replace(bench_context(start, folder), task=NETS["mlp"].make_task())


# -- the program ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_the_program_finds_what_trying_all_finds(seed):
    draw = np.random.default_rng(seed)
    losses = [[0.0, *draw.random(2) ** 6] for _ in range(4)]
    limits = [
        Limit(
            most,
            [[1.0, *draw.random(2)] for _ in losses],
            {(k, k + 1): draw.random((3, 3)) for k in range(3)},
        )
        for most in (3.5, 4.0)
    ]
    within = [
        chosen
        for chosen in itertools.product(range(3), repeat=4)
        if all(limit.cost(chosen) <= limit.most for limit in limits)
    ]

    def lost(chosen):
        return sum(own[k] for own, k in zip(losses, chosen, strict=True))

    found = least_loss(losses, limits)
    if not within:
        assert found is None
    else:
        assert all(limit.cost(found) <= limit.most + 1e-6 for limit in limits)
        assert lost(found) <= min(map(lost, within)) + 1e-4


def test_errors_that_lie_decades_apart_are_told_apart():
    losses = [[0.0, 1e-3], [0.0, 1e-9], [0.0, 2e-9]]
    assert least_loss(losses, [Limit(2.0, [[1.0, 0.0]] * 3)]) == [0, 1, 0]


@pytest.mark.parametrize("taken", [None, [0.0, 1.0]])
def test_a_search_that_takes_too_long_gives_what_it_has_or_a_sentence(taken, monkeypatch):
    x = None if taken is None else np.asarray(taken)
    stopped = SimpleNamespace(x=x, status=1)
    monkeypatch.setattr("scipy.optimize.milp", lambda *_, **__: stopped)
    limit = Limit(1.0, [[0.0, 1.0]])
    if taken:
        assert least_loss([[1.0, 0.0]], [limit]) == [1]
        return
    with pytest.raises(StageError, match=r"no choice for 1 layers was found in 120 s; choose amo"):
        least_loss([[1.0, 0.0]], [limit])


# -- formats ----------------------------------------------------------------------------------


def choice(file_bytes, errors=None):
    errors = errors or {"small": {"a": 0.1, "b": 0.3}, "middle": {"a": 0.01, "b": 0.02}}
    saved = {"small": {"a": 60.0, "b": 60.0}, "middle": {"a": 40.0, "b": 40.0}}
    return FormatChoice(errors, {}, saved, file_bytes, "budget")


def weights_of(grown=0.0, mixed=0.0):
    def file_bytes(chosen):
        each = {"small": 60, "middle": 40}
        also = mixed if len(set(chosen.values())) > 1 else 0
        return int(200 - sum(each[own] - grown for own in chosen.values()) + also)

    return file_bytes


def test_formats_are_chosen_where_they_disturb_least():
    found = choice(weights_of()).within(100)
    assert found.formats == {"a": "small", "b": "middle"}
    assert found.file_bytes == 100
    assert found.error == pytest.approx(0.12)
    assert choice(weights_of()).within(200).formats == {}


def test_what_the_graph_grows_by_is_counted():
    # Each of 10 bytes: what seemed to be within 100 is not, and all have to be small.
    assert choice(weights_of(grown=10)).within(100).formats == {"a": "small", "b": "small"}


def test_a_file_larger_than_predicted_is_chosen_anew():
    found = choice(weights_of(mixed=5)).within(100)
    assert found.formats == {"a": "small", "b": "small"}


def test_no_choice_that_keeps_it_is_a_sentence():
    with pytest.raises(StageError, match=r"budget: no choice of formats keeps it: .* 0.07812 KiB"):
        choice(weights_of()).within(79)


def test_time_is_a_limit_beside_bytes():
    won = {"small": {"a": -1e-3, "b": 1e-3}, "middle": {"a": 0.0, "b": 0.0}}
    found = choice(weights_of()).within(float("inf"), TimeLimit(5e-3, won, 4.5e-3))
    assert found.formats == {"b": "small"}
    assert found.seconds == pytest.approx(4e-3)


def test_bytes_of_layers_have_their_scales_and_whole_bytes():
    layer = torch.nn.Linear(10, 4)
    sizes = [stored_bytes(layer, format_named(n)) for n in ("float32", "float16", "int8", "int4")]
    assert sizes == [160, 80, 56, 56]
    assert format_words(format_named("float16")) == "float16/float16"
    with pytest.raises(ValueError, match="write weights/activations"):
        format_named("int3")


class Weighing:
    """An evaluator whose files have what is stored of the weights, and nothing else."""

    def measure(self, candidate, parts=()):
        sizes = (
            stored_bytes(candidate.module.get_submodule(name), format)
            for name, format in formats_of(candidate).items()
        )
        return Evaluation(1000 + sum(sizes), None, None, higher_is_better=True)


def quantize(start, folder, kib, **budget):
    context = replace(context_of(start, folder), evaluator=Weighing())
    stage = QuantizeStage(budget={"artifact_kib": kib, **budget})
    return stage.run(start, context), context


def disturbance(start, made, context):
    formats = formats_of(made)
    batches = [head(context.task.validation, 64).inputs]
    expected = outputs_of(start.module, batches)
    with simulate(made.module, formats, ranges_of(made.module, formats, context.task)):
        return relative_error(expected, outputs_of(made.module, batches))


def test_on_a_trained_net_the_choice_disturbs_less_than_one_format_for_all(trained, tmp_path):
    size = Weighing().measure
    whole = size(trained).artifact_bytes
    of_all = QuantizeStage().run(trained, context_of(trained, tmp_path))
    middle = (whole + size(of_all).artifact_bytes) / 2 / 1024
    made, context = quantize(trained, tmp_path, middle)
    assert size(of_all).artifact_bytes <= size(made).artifact_bytes <= middle * 1024
    assert disturbance(trained, made, context) < disturbance(trained, of_all, context)
    assert f"quantize: budget artifact_kib {middle:g}: " in made.notes[-1]
    assert "get int8/int8" in made.notes[-1]
    finer, _ = quantize(trained, tmp_path, middle, formats=["float16"])
    assert disturbance(trained, finer, context) < disturbance(trained, made, context)
    assert size(finer).artifact_bytes <= middle * 1024


def test_a_file_that_is_small_enough_stays(trained, tmp_path):
    with pytest.raises(AlreadySo, match="the file that comes in has"):
        quantize(trained, tmp_path, 1000)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"budget": {"artifact_kib": 9}, "max_drop": 0.01}, "give max_drop or budget"),
        ({"budget": {"artifact_kib": 0}}, "greater than 0"),
        ({"budget": {"artifact_kib": 9, "formats": ["int3"]}}, "write weights/activations"),
        ({"budget": {"artifact_kib": 9}, "weights": "float32", "activations": "float32"}, "budget"),
        ({"relative": True}, "relative is about max_drop"),
    ],
)
def test_what_does_not_go_together_is_a_sentence(settings, said):
    with pytest.raises(SettingsError, match=said):
        QuantizeStage(**settings)


# -- cuts -------------------------------------------------------------------------------------


def test_on_a_trained_net_the_ratios_disturb_less_than_one_for_all(trained, tmp_path):
    task = context_of(trained, tmp_path).task
    job = SimpleNamespace(task=task, candidate=trained)
    table = cuts_of(trained, job, 64)
    before = count_macs(trained.module, trained.example)
    found = choose_cuts(table, trained, job, 64, "macs", 0.6)
    assert found.cost["macs"] <= 0.6 * before
    batches = [head(task.validation, 64).inputs]
    for ratio in np.arange(0.05, 0.95, 0.05):
        small = trained.fork().module
        try:
            prune_channels(small, trained.example, ChannelPruning(ratio=float(ratio)))
        except (NoEffect, AlreadySo):
            continue
        if count_macs(small, trained.example) <= 0.6 * before:
            break
    uniform = relative_error(outputs_of(trained.module, batches), outputs_of(small, batches))
    made = PruneStage(ratios=dict(found.ratios)).run(trained, context_of(trained, tmp_path))
    chosen = relative_error(outputs_of(trained.module, batches), outputs_of(made.module, batches))
    assert chosen < uniform
    assert count_macs(made.module, made.example) == found.cost["macs"]
    with pytest.raises(AlreadySo, match="already"):
        choose_cuts(table, trained, job, 64, "parameters", 1e9)
    with pytest.raises(StageError, match="no choice of ratios keeps it"):
        choose_cuts(table, trained, job, 64, "parameters", 2)


def test_of_ratios_the_last_that_matches_counts_and_others_keep_all(trained, tmp_path):
    context = context_of(trained, tmp_path)
    width = trained.module.layers[0].out_features
    made = PruneStage(ratios={"layers.*": 0.5, "layers.0": 0.25}).run(trained, context)
    assert made.module.layers[0].out_features == round(0.75 * width)
    assert made.module.layers[1].out_features == round(0.5 * trained.module.layers[1].out_features)
    only = PruneStage(ratios={"layers.1": 0.5}).run(trained, context)
    assert only.module.layers[0].out_features == width
    assert "0.5 to 0.5 of the channels of each layer that are named was requested" in only.notes[-1]
    with pytest.raises(SelectorError, match="ratios: the pattern 'nothing' matches no layer"):
        PruneStage(ratios={"nothing": 0.5}).run(trained, context)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ratios": {"a": 0.5}, "ratio": 0.3}, "give one of ratio, ratios and goal"),
        ({"ratios": {"a": 0.5}, "goal": {"macs": 0.5}}, "give one of ratio, ratios and goal"),
        ({"ratios": {"a": 0.0}}, "none is above 0"),
        ({"ratios": {}}, "none is above 0"),
        ({"ratios": {"a": 1.0}}, "less than 1"),
        ({"ratios": {"a": 0.5}, "granularity": "weights"}, "channels or heads"),
        ({"ratios": {"a": 0.5}, "scope": "global"}, "leave `scope` and `of` out"),
    ],
)
def test_ratios_that_cannot_be_meant_are_a_sentence(settings, said):
    with pytest.raises(SettingsError, match=said):
        PruneStage(**settings)


def test_what_identifies_a_stage_without_them_is_what_it_was():
    assert "ratios" not in PruneStage().model_dump()
    assert "ratio" not in PruneStage(ratios={"a": 0.5}).model_dump()
    assert not {"budget", "relative"} & set(QuantizeStage().model_dump())
