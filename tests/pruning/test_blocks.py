"""Blocks: which may go, in which order they go, and what is left of the candidate."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

from compress import Candidate, PruneStage, QuantizeStage, Recipe, ReplayTarget
from compress.candidate import Architecture, count_parameters
from compress.errors import NoEffect, SettingsError, StageError
from compress.measure.local import LocalTarget
from compress.modules.edits import Skip, SkippedBlock
from compress.modules.inputs import forward
from compress.pruning.blocks import BlockOrder, find_blocks
from compress.pruning.channels import ChannelPruning, prune_channels
from compress.pruning.invariants import KeepZeros
from compress.quantization.sensitivity import outputs_of
from compress.running.encoding import encode
from compress.stages import DistillStage
from compress.stages.edited import edited
from compress.testing.nets import NETS
from compress.testing.stage_contract import ParameterCounter, bench_context
from compress.zoo import build

DEEPER = {"resnet": {"blocks": 2}, "mobilenet-v2": {"depth": 6}, "attention": {"depth": 4}}
BLOCKS = {"granularity": "blocks"}


def candidate(name, seed=0):
    case = NETS[name]
    options = {**case.options, "classes": case.classes, **DEEPER.get(name, {})}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = Candidate.of(build(name, options).eval(), case.example())
    return replace(made, architecture=Architecture(arch=name, options=options))


def context_of(start, folder, name):
    return replace(bench_context(start, folder), task=NETS[name].make_task())


def rebuild(architecture):
    return build(architecture.arch, architecture.options)


def skipped(made):
    return [edit.path for edit in made.edits]


class Part(nn.Module):
    """Adds a part of its own to what it takes."""

    def __init__(self, gain, width=4):
        super().__init__()
        self.linear = nn.Linear(width, width, bias=False)
        self.gain = gain
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(width).flip(0) * gain)

    def forward(self, x, mask=None):
        return x + self.linear(x)


class Pair(Part):
    def forward(self, x, mask=None):
        return super().forward(x), x


class One(Part):
    def forward(self, x, mask=None):
        return (super().forward(x),)


class Row(nn.Module):
    """Blocks in a list, called by keyword, with what each of them needs."""

    def __init__(self, *blocks, reads=None):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(4, 3)
        self.reads = reads

    def forward(self, x):
        for place, block in enumerate(self.blocks):
            if place == self.reads:
                x = x * block.gain
            given = block(mask=None, x=x)
            x = given[0] if isinstance(given, tuple) else given
        return self.head(x)


X = torch.linspace(-1, 1, 24).view(6, 4) ** 3


def order_of(net, x=X):
    net.eval()
    return BlockOrder(net, find_blocks(net, x), lambda one: lambda: outputs_of(one, [x]))


@pytest.mark.fast
def test_blocks_go_by_what_the_outputs_miss_and_are_ranked_anew_each_time():
    net = Row(Part(0.5), Part(0.01), Part(0.2), Part(-0.19))
    first = [(skip.path, error) for skip, error in order_of(net).first(3)]
    assert first[0][0] == "blocks.1"
    # The third and fourth nearly cancel: once one is gone the other has to go.
    assert {path for path, _ in first[1:]} == {"blocks.2", "blocks.3"}
    assert first[0][1] < first[1][1]
    assert first[2][1] < first[1][1]
    assert isinstance(net.blocks[1], SkippedBlock)
    assert isinstance(net.blocks[0], Part)


@pytest.mark.fast
def test_one_block_of_a_row_stays():
    found = order_of(Row(Part(0.1), Part(0.2)))
    assert found.blocks.most == 1
    assert len(found.first(2)) == 1


@pytest.mark.fast
def test_tuples_of_one_are_blocks_and_longer_ones_are_not():
    blocks = find_blocks(Row(One(0.1), Part(0.1), Pair(0.1)).eval(), X)
    assert blocks.able == (Skip(path="blocks.0", as_tuple=True), Skip(path="blocks.1"))
    assert blocks.why_not == "'blocks.2' (it gives more than a tensor)"
    net = Row(One(0.1), Part(0.1)).eval()
    order_of(net).first(1)
    assert net(X).shape == (6, 3)


@pytest.mark.fast
def test_a_block_without_which_the_model_fails_stays_and_the_note_says_why():
    blocks = find_blocks(Row(Part(0.1), Part(0.2), Part(0.3), reads=1).eval(), X)
    assert [skip.path for skip in blocks.able] == ["blocks.0", "blocks.2"]
    assert "'blocks.1' (the model fails without it: AttributeError: 'SkippedBlock'" in (
        blocks.why_not
    )


@pytest.mark.fast
def test_what_is_ignored_never_called_shared_or_called_from_elsewhere_stays():
    blocks = find_blocks(Row(Part(0.1), Part(0.2)).eval(), X, ["blocks.0.linear"])
    assert blocks.why_not == "'blocks.0' (to be ignored)"

    class Odd(Row):
        def forward(self, x):
            return self.head(self.own[0](self.blocks[0](x)))

    net = Odd(Part(0.1), Part(0.2), Part(0.3))
    net.own = (net.blocks[1],)  # which torch is not told of
    blocks = find_blocks(net.eval(), X)
    assert [skip.path for skip in blocks.able] == ["blocks.0"]
    assert "'blocks.1' (the model calls it from somewhere else, too)" in blocks.why_not
    assert "'blocks.2' (inference does not call it)" in blocks.why_not

    shared = Row(Part(0.1), Part(0.2), Part(0.3))
    shared.blocks[2].linear.weight = shared.blocks[1].linear.weight
    blocks = find_blocks(shared.eval(), X)
    assert [skip.path for skip in blocks.able] == ["blocks.0"]
    assert "all of its weights are those of others" in blocks.why_not


@pytest.mark.fast
def test_outermost_blocks_count_and_a_block_that_is_alone_is_looked_into():
    inner = nn.Sequential(*(Part(0.1) for _ in range(3)))
    blocks = find_blocks(nn.Sequential(nn.Linear(4, 4), inner, nn.Linear(4, 2)).eval(), X)
    assert [skip.path for skip in blocks.able] == ["1.0", "1.1", "1.2"]
    two = nn.Sequential(inner, nn.Sequential(Part(0.1), Part(0.2)))
    assert [skip.path for skip in find_blocks(two.eval(), X).able] == ["0", "1"]


@pytest.mark.fast
def test_finding_leaves_the_net_as_it_was():
    start = candidate("attention")
    before = start.fingerprint
    find_blocks(start.module, start.example)
    start.validate()
    assert start.fingerprint == before


def _orders():
    """Blocks before and after int8, on each net; one of them on every run."""
    for name in (*DEEPER, "causal-lm"):
        for quantized in (False, True):
            more = (name, quantized) != ("attention", True)
            marks = [pytest.mark.exhaustive] if more else []
            yield pytest.param(name, quantized, marks=marks)


@pytest.mark.parametrize(("name", "quantized"), list(_orders()))
def test_blocks_go_before_and_after_a_quantize_and_ship(name, quantized, tmp_path):
    start = candidate(name)
    context = context_of(start, tmp_path, name)
    made = QuantizeStage().run(start, context) if quantized else start
    made = PruneStage(**BLOCKS).run(made, context)
    made.validate()
    assert made.edits
    assert count_parameters(made.module)[0] < count_parameters(start.module)[0]
    (note,) = made.notes
    assert all(f"'{path}' (" in note for path in skipped(made))
    assert forward(made.module, made.example).shape == start.module(start.example).shape
    made.save(tmp_path / "saved")
    loaded = Candidate.load(tmp_path / "saved", start.example, rebuild)
    assert loaded.fingerprint == made.fingerprint
    if not quantized:
        loaded = QuantizeStage().run(loaded, context)
    artifact = encode(loaded, context.task, LocalTarget(), tmp_path / "model.onnx")
    assert artifact.parity.agreement >= 0.9
    assert artifact.census.int8_mac_fraction > 0.5


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("resnet", marks=pytest.mark.exhaustive),
        pytest.param("mobilenet-v2", marks=pytest.mark.exhaustive),
        "attention",
    ],
)
def test_channels_of_what_is_left_are_cut_and_proved(name, tmp_path):
    start = candidate(name)
    context = context_of(start, tmp_path, name)
    made = PruneStage(**BLOCKS).run(start, context)
    cut = made.fork()
    prune_channels(cut.module, cut.example, ChannelPruning(ratio=0.5))
    assert count_parameters(cut.module)[0] < 0.6 * count_parameters(made.module)[0]
    # And the other way round, from widths that are not those of the architecture.
    narrow = PruneStage(ratio=0.5).run(start, context)
    both = PruneStage(**BLOCKS).run(narrow, context)
    both.save(tmp_path / "both")
    loaded = Candidate.load(tmp_path / "both", start.example, rebuild)
    assert loaded.fingerprint == both.fingerprint


def test_more_can_go_later_until_none_may(tmp_path):
    start = candidate("attention")
    context = context_of(start, tmp_path, "attention")
    one = PruneStage(**BLOCKS, ratio=0.25).run(start, context)
    two = PruneStage(**BLOCKS, ratio=0.9).run(one, context)
    assert len(skipped(one)) == 1
    assert skipped(two)[:1] == skipped(one)
    assert len(skipped(two)) == 3
    with pytest.raises(NoEffect, match=r"no block that can go \('blocks\.\d' \(it is the only"):
        PruneStage(**BLOCKS).run(two, context)


def test_a_share_that_is_no_block_says_which_one_would_be(tmp_path):
    start = candidate("attention")
    context = context_of(start, tmp_path, "attention")
    said = r"a ratio of 0\.1 of 4 blocks that can go is none; give a ratio above 0\.125\.$"
    with pytest.raises(NoEffect, match=said):
        PruneStage(**BLOCKS, ratio=0.1).run(start, context)
    with pytest.raises(NoEffect, match=r"no block that can go: a block stands beside others"):
        PruneStage(**BLOCKS).run(candidate("unet"), context_of(start, tmp_path, "unet"))


def test_of_many_blocks_fewer_samples_are_looked_at(tmp_path, monkeypatch):
    start = candidate("attention")
    context = context_of(start, tmp_path, "attention")
    asked = []
    monkeypatch.setattr(
        "compress.stages.remove_blocks.calibration_inputs",
        lambda task, samples: asked.append(samples) or [start.example],
    )
    stage = PruneStage(**BLOCKS, ratio=0.25)
    stage.run(start, context)
    monkeypatch.setattr("compress.stages.remove_blocks._MANY", 2)
    stage.run(start, context)
    stage.rehearse(start, context)
    assert asked == [256, 64]


def test_what_is_ignored_stays(tmp_path):
    start = candidate("attention")
    context = context_of(start, tmp_path, "attention")
    ignore = ("blocks.0", "blocks.2.attention")
    made = PruneStage(**BLOCKS, ratio=0.9, ignore=ignore).run(start, context)
    assert sorted(skipped(made)) == ["blocks.1", "blocks.3"]
    assert "'blocks.0', 'blocks.2' (to be ignored)" in made.notes[0]


def test_formats_and_zeros_of_what_is_gone_end_with_a_note(tmp_path):
    start = candidate("attention")
    context = context_of(start, tmp_path, "attention")
    made = QuantizeStage().run(start, context)
    stage = QuantizeStage(
        weights="int4", select=("blocks.*",), exclude=("blocks.1", "blocks.2.expand")
    )
    made = stage.run(made, context)
    made = QuantizeStage(select=("blocks.1", "head"), activations="dynamic").run(made, context)
    made = PruneStage(granularity="2:4").run(made, context)
    weights = len(made.invariants[0].tensors)
    after = PruneStage(**BLOCKS, ratio=0.9, ignore=("blocks.2",)).run(made, context)
    assert sorted(skipped(after)) == ["blocks.0", "blocks.1", "blocks.3"]
    assert [(rule.select, rule.exclude) for rule in after.numerics.rules] == [
        (("*",), ()),
        (("blocks.*",), ("blocks.2.expand",)),
        (("head",), ()),
    ]
    assert sum("formats for 'blocks.1' end here" in note for note in after.notes) == 2
    assert any(note.startswith("kept zeros of 'blocks.0.") for note in after.notes)
    (left,) = after.invariants
    assert left.pattern == "2:4"
    assert len(left.tensors) == weights - 18
    after.validate()


@pytest.mark.fast
def test_zeros_of_a_weight_that_is_tied_are_kept_under_its_other_name():
    net = nn.Sequential(Part(0.1), Part(0.2), nn.Linear(4, 4, bias=False)).eval()
    net[2].weight = net[0].linear.weight
    start = replace(Candidate.of(net, X), invariants=(KeepZeros(tensors=("0.linear.weight",)),))
    module = start.fork().module
    module[1], module[0] = SkippedBlock(as_tuple=False), SkippedBlock(as_tuple=False)
    made = edited(start, module, [Skip(path="0"), Skip(path="1")])
    assert made.invariants == (KeepZeros(tensors=("2.weight",)),)


@pytest.mark.fast
def test_an_edit_that_changes_outputs_or_nothing_is_refused():
    start = Candidate.of(nn.Sequential(Part(0.1), Part(0.2), nn.Linear(4, 3)), X)
    module = start.fork().module
    module[2] = SkippedBlock(as_tuple=False)
    with pytest.raises(StageError, match=r"outputs were output \(6, 3\) and are output \(6, 4\)"):
        edited(start, module, [Skip(path="2")])
    with pytest.raises(StageError, match="as many parameters are left"):
        edited(start, start.fork().module, [])


def test_of_original_still_counts_from_the_first_width_after_blocks_are_gone(tmp_path):
    start = candidate("resnet")
    context = context_of(start, tmp_path, "resnet")
    narrow = PruneStage(ratio=0.25).run(start, context)
    shallow = PruneStage(**BLOCKS).run(narrow, context)
    made = PruneStage(ratio=0.5, of="original").run(shallow, context)
    assert made.module.stem.out_channels == 8


def test_a_goal_takes_the_best_number_of_blocks_that_keeps_it(tmp_path):
    start = candidate("attention")
    context = context_of(start, tmp_path, "attention")
    made = PruneStage(**BLOCKS, goal={"parameters": 0.6}).run(start, context)
    assert len(skipped(made)) == 2
    said = made.notes[-1]
    assert "for the goal parameters 0.6" in said
    assert "the nearest that was found in the steps that structure" in said
    with pytest.raises(StageError, match=r"goal parameters 0\.01 is out of reach by cutting"):
        PruneStage(**BLOCKS, goal={"parameters": 0.01}).run(start, context)


def test_a_goal_of_time_is_measured(tmp_path):
    start = candidate("attention")
    counter = ParameterCounter(start)
    context = replace(context_of(start, tmp_path, "attention"), evaluator=counter)
    made = PruneStage(**BLOCKS, goal={"latency_p50": 0.8}).run(start, context)
    assert len(skipped(made)) == 1
    assert 2 <= counter.calls < 40


def test_a_student_of_some_layers_keeps_the_edits_of_those_under_their_new_names(tmp_path):
    start = candidate("attention")
    context = context_of(start, tmp_path, "attention")
    made = PruneStage(**BLOCKS, ratio=0.25).run(start, context)
    (gone,) = skipped(made)
    place = int(gone.removeprefix("blocks."))
    kept = [0, 1, 2, 3]
    kept.remove((place + 1) % 4)
    student = DistillStage(student={"layers": kept}, epochs=1).rehearse(made, context)
    assert skipped(student) == [f"blocks.{kept.index(place)}"]
    student.save(tmp_path / "saved")

    def build_blocks(architecture):
        net = rebuild(architecture)
        net.blocks = nn.Sequential(*(net.blocks[place] for place in architecture.blocks))
        return net

    loaded = Candidate.load(tmp_path / "saved", start.example, build_blocks)
    assert loaded.fingerprint == student.fingerprint
    other = DistillStage(student={"arch": "attention", "image_size": 12, "classes": 4}, epochs=1)
    assert other.rehearse(made, context).edits == ()


def test_training_after_it_trains_what_is_left(tmp_path):
    start = candidate("attention")
    context = context_of(start, tmp_path, "attention")
    stage = PruneStage(**BLOCKS, ratio=0.25, finetune={"epochs": 1, "batch_size": 64})
    made = stage.run(start, context)
    untrained = PruneStage(**BLOCKS, ratio=0.25).run(start, context)
    assert made.edits == untrained.edits
    assert not torch.equal(made.module.head.weight, untrained.module.head.weight)
    rehearsed = stage.rehearse(start, context)
    assert len(rehearsed.edits) == len(made.edits)
    assert rehearsed.notes[0].endswith("was tried on one batch, and a run may choose others")
    assert "blocks by the disturbance of the outputs, then train 1 epochs" in stage.explain()


@pytest.mark.exhaustive  # as tests/pruning/test_rows.py does
def test_a_run_of_an_object_that_is_resumed_is_the_run_that_was_not_interrupted(tmp_path):
    case = NETS["attention"]
    stages = [PruneStage(**BLOCKS), QuantizeStage(), PruneStage(ratio=0.25)]

    def run(folder):
        recipe = Recipe(name="shallow", stages=stages)
        settings = {"targets": [ReplayTarget()], "mode": "quick", "cache": "none", "report": False}
        start = Candidate.of(case.build(), case.example())
        return recipe.run(start, case.make_task(), workdir=folder, **settings)

    whole = run(tmp_path / "whole")
    run(tmp_path / "resumed")
    (last,) = (tmp_path / "resumed" / "stages").glob("03-*")
    shutil.rmtree(last)
    resumed = run(tmp_path / "resumed")
    assert [row.cached for row in resumed.rows] == [False, True, True, False]
    assert "blocks was requested" in resumed.rows[1].notes[0]
    for row, other in zip(whole.rows, resumed.rows, strict=True):
        assert (row.fingerprint, row.parameters) == (other.fingerprint, other.parameters)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scope": "global"}, "scope: global is for channels and weights, not blocks"),
        ({"importance": "taylor"}, "importance taylor is for channels; blocks go by the dist"),
        ({"importance": "wanda"}, "blocks go by the disturbance of the outputs: leave it out"),
        ({"round_to": 8}, "round_to is for granularity channels"),
        ({"of": "original"}, "of is for granularity channels"),
    ],
)
def test_settings_of_other_granularities_are_refused(settings, words):
    with pytest.raises(SettingsError, match=words):
        PruneStage(**BLOCKS, **settings)


def test_blocks_of_a_hub_folder_go_and_its_configuration_says_so(tmp_path):
    pytest.importorskip("transformers")
    from compress.models.hub_export import pruned_config
    from compress.models.huggingface import build_hub_model, load_folder, read_architecture
    from compress.testing.tiny_hub import inputs_like, write_family

    for family, as_tuple in (("bert", False), ("mpnet", True)):
        write_family(tmp_path / family, family)
        task = "text-classification" if family == "bert" else "feature-extraction"
        architecture = read_architecture(tmp_path / family, task=task)
        module = build_hub_model(architecture.options)
        load_folder(module, tmp_path / family)
        example = inputs_like(family, 3)
        start = replace(Candidate.of(module, example), architecture=architecture)
        blocks = find_blocks(start.fork().module, example)
        assert [skip.as_tuple for skip in blocks.able] == [as_tuple] * 2
        # Without data: a task of texts is another room's.
        made = PruneStage(**BLOCKS).rehearse(start, bench_context(start, tmp_path / "work"))
        made.save(tmp_path / "saved")
        loaded = Candidate.load(tmp_path / "saved", example, lambda a: build_hub_model(a.options))
        assert loaded.fingerprint == made.fingerprint
        assert pruned_config(loaded)["num_hidden_layers"] == 1
        assert json.loads((tmp_path / "saved/candidate.json").read_text())["edits"][0][
            "as_tuple"
        ] is (as_tuple)
