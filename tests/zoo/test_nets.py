"""Every built-in architecture is whole: it trains, is cut, and is exported, by the usual tools."""

from __future__ import annotations

import copy

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
import torch_pruning

from compress.testing.nets import NETS
from compress.zoo import ARCHITECTURES

each_net = pytest.mark.parametrize("case", NETS.values(), ids=list(NETS))


# With outputs by name: tests/zoo/test_named_outputs.py.
NAMED_OUTPUTS = {"detector", "multi-head"}


def test_there_is_a_case_for_every_architecture():
    assert set(NETS) | NAMED_OUTPUTS == set(ARCHITECTURES)


@each_net
def test_a_case_is_drawn_from_its_seed_and_leaves_the_global_generator_alone(case):
    before = torch.get_rng_state()
    one, again, other = case.build(1), case.build(1), case.build(2)
    tasks = [case.make_task(seed) for seed in (1, 1, 2)]
    assert torch.equal(case.example(4), case.example(4))
    assert torch.equal(before, torch.get_rng_state())
    same = one.state_dict().items()
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in same)
    assert any(not torch.equal(value, other.state_dict()[key]) for key, value in same)
    assert torch.equal(tasks[0].train.inputs, tasks[1].train.inputs)
    assert not torch.equal(tasks[0].train.inputs, tasks[2].train.inputs)


@each_net
def test_outputs_have_a_logit_for_every_class(case):
    outputs = case.build()(case.example(3))
    assert outputs.shape == (3, case.classes, *case.positions)


@each_net
def test_the_example_looks_like_the_task(case):
    task = case.make_task()
    for split in (task.train, task.validation, task.test):
        assert split.inputs.shape[1:] == case.example().shape[1:]
        assert set(split.labels.unique().tolist()) == set(range(case.classes))


def accuracy(net, split) -> float:
    with torch.no_grad():
        return float((net.eval()(split.inputs).argmax(1) == split.labels).float().mean())


@each_net
def test_a_net_learns_its_task(case):
    net, task = case.build(), case.make_task()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    random = torch.Generator().manual_seed(0)
    for _ in range(5):
        net.train()
        for chosen in torch.randperm(len(task.train), generator=random).split(32):
            inputs, labels = task.train.__getitems__(chosen)
            optimizer.zero_grad()
            F.cross_entropy(net(inputs), labels).backward()
            optimizer.step()
    counts = torch.bincount(task.test.labels.flatten())
    commonest = float(counts.max() / counts.sum())
    assert accuracy(net, task.test) > commonest + 0.5 * (1 - commonest)


def exported(net, example) -> bytes:
    program = torch.onnx.export(net, (example,), dynamo=True, verbose=False)
    return program.model_proto.SerializeToString()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@each_net
def test_an_exported_net_computes_the_same(case):
    net, example = case.build(), case.example(8)
    session = onnxruntime.InferenceSession(exported(net, example[:1]))
    name = session.get_inputs()[0].name
    given = [session.run(None, {name: one.unsqueeze(0).numpy()})[0] for one in example]
    with torch.no_grad():
        assert np.abs(np.concatenate(given) - net(example).numpy()).max() < 1e-4


def heads(net) -> dict[torch.nn.Module, int]:
    return {
        layer: block.num_heads
        for block in net.modules()
        if hasattr(block, "num_heads")
        for layer in (block.query, block.key, block.value)
    }


@pytest.mark.parametrize("round_to", [None, 8])
@each_net
def test_a_net_can_be_cut_to_half_its_channels(case, round_to):
    net, example = case.build(), case.example()
    before, shape = copy.deepcopy(net), net(example).shape
    pruner = torch_pruning.pruner.BasePruner(
        net,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        round_to=round_to,
        ignored_layers=[net.head],
        in_channel_groups={},
        out_channel_groups={},
        num_heads=heads(net),
    )
    pruner.step()
    assert net(example).shape == shape
    assert [name for name, _ in net.named_modules()] == [name for name, _ in before.named_modules()]
    wide = {
        name: (layer.weight.shape[0], old.weight.shape[0])
        for (name, layer), old in zip(net.named_modules(), before.modules(), strict=True)
        if isinstance(layer, (torch.nn.Linear, torch.nn.modules.conv._ConvNd)) and name != "head"
    }
    if round_to is None:
        assert all(2 * now == old for now, old in wide.values()), wide
    else:
        assert all(now == old == 8 or now < old for now, old in wide.values()), wide
        assert all(now % round_to == 0 for now, _ in wide.values()), wide
