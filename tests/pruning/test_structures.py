"""Structures after public designs: what is cut is right, as much as was asked, and reloads."""

import copy
import random

import pytest
import torch

from compress.candidate import Candidate, count_parameters
from compress.modules.inputs import forward
from compress.pruning.channels import ChannelPruning, prune_channels
from compress.pruning.search import Search
from compress.testing.cuts import agrees, distinct, swaps
from compress.testing.structures import STRUCTURES

SETTINGS = [(ratio, round_to) for ratio in (0.1, 0.3, 0.5, 0.9) for round_to in (1, 8)]
# benchmarks/cuts.py tries all of them; a sample that is always the same one is tried here.
SAMPLE = {name: random.Random(name).choice(SETTINGS) for name in STRUCTURES}
# Their forward writes a norm over channels out in operators, whose statistics a cut changes.
NORMS_BY_HAND = {"convnext-hand-norm", "llama"}
CANNOT_BE_CUT = {"eca-net", "channel-order-table"}


def searched(name, ratio, round_to):
    structure = STRUCTURES[name]
    net = distinct(structure.make())
    inputs = structure.example()
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    search = Search(net, inputs, ChannelPruning(ratio=ratio, round_to=round_to), net)
    return net, inputs, search, search.run()


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_cut_is_right_as_seen_from_outside_and_a_wrong_one_is_caught(name):
    net, inputs, search, found = searched(name, *SAMPLE[name])
    if not found.removed:
        assert all(width.before == width.after for width in found.widths)
        return
    cut = copy.deepcopy(net)
    found.apply(cut)
    assert forward(cut, inputs).shape == forward(net, inputs).shape
    if name not in NORMS_BY_HAND:
        assert agrees(net, cut, inputs)
    tampered = swaps(found)
    for axis in random.Random(name).sample(sorted(tampered, key=str), min(3, len(tampered))):
        assert search.disproof(found, tampered[axis]) is not None, axis


@pytest.mark.parametrize("name", STRUCTURES)
def test_widths_are_as_near_to_what_was_asked_as_a_half_of_a_step(name):
    structure = STRUCTURES[name]
    net = structure.make()
    if name in CANNOT_BE_CUT:
        found = Search(net, structure.example(), ChannelPruning(ratio=0.3), net).run()
        assert not found.removed
        assert all(width.reason for width in found.widths)
        return
    found = Search(net, structure.example(), ChannelPruning(ratio=0.3), net).run()
    steps = {}
    for pool in search_pools(found):
        for axis in pool.outputs:
            steps[axis.parameter] = max(steps.get(axis.parameter, 0), pool.members[axis])
    able = [width for width in found.widths if not width.is_output]
    assert any(width.after < width.before for width in able)
    for width in able:
        named = [step for parameter, step in steps.items() if parameter.startswith(width.layer)]
        if named and not width.reason:
            assert abs(0.7 * width.before - width.after) <= max(named) / 2 + 1e-9, width


def search_pools(found):
    from compress.pruning.widths import pools_of

    return pools_of(found.plan.ids)


@pytest.mark.parametrize("name", [name for name in STRUCTURES if name not in CANNOT_BE_CUT])
def test_a_cut_candidate_comes_back_from_disk_as_it_was(name, tmp_path):
    structure = STRUCTURES[name]
    start = Candidate.of(structure.make(), structure.example())
    cut = start.fork()
    prune_channels(cut.module, cut.example, ChannelPruning(ratio=0.5))
    cut.save(tmp_path)
    back = Candidate.load(tmp_path, structure.example(), lambda _: structure.make(seed=3))
    assert back.fingerprint == cut.fingerprint
    assert count_parameters(back.module) == count_parameters(cut.module)
    with torch.no_grad():
        outputs = [forward(c.module, structure.example()) for c in (cut, back)]
    assert torch.equal(*outputs)
