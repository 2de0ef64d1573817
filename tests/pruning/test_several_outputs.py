"""Cuts of nets that return more than a tensor: every output stays what it was."""

import copy

import pytest
import torch

from compress.errors import StageError
from compress.modules.inputs import forward
from compress.modules.outputs import as_outputs, by_name
from compress.pruning.channels import ChannelPruning, prune_channels
from compress.pruning.search import Search
from compress.testing.cuts import agrees, distinct, swaps
from compress.testing.several_outputs import SEVERAL, Heads

pytestmark = pytest.mark.fast


def doubled(inputs):
    return (
        {k: v.double() for k, v in inputs.items()} if isinstance(inputs, dict) else inputs.double()
    )


def shapes(net, inputs):
    return {name: tuple(o.shape) for name, o in by_name(forward(net, inputs)).items()}


@pytest.mark.parametrize("name", SEVERAL)
def test_a_cut_is_right_in_all_outputs_and_a_wrong_one_is_caught(name):
    torch.manual_seed(0)
    case = SEVERAL[name]
    net, inputs = distinct(case.build().eval()), doubled(case.inputs(3))
    search = Search(net, inputs, ChannelPruning(ratio=0.5), net)
    found = search.run()
    assert found.removed
    cut = copy.deepcopy(net)
    found.apply(cut)
    assert shapes(cut, inputs) == shapes(net, inputs)
    assert agrees(net, cut, inputs)
    # Of a layer that no output rests on, nothing is seen from outside.
    outputs = by_name(forward(net, inputs)).values()
    sum(output.sum() for output in outputs if output.requires_grad).backward()
    seen = {path for path, parameter in net.named_parameters() if parameter.grad is not None}
    for axis, swap in list(swaps(found).items())[:4]:
        assert search.disproof(found, swap) is not None, axis
        wrong = copy.deepcopy(cut)
        swap(wrong)
        if axis.parameter in seen:
            assert not agrees(net, wrong, inputs), axis


def test_the_layers_of_all_outputs_are_those_of_the_model():
    net = SEVERAL["dict"].build().eval()
    widths = prune_channels(net, SEVERAL["dict"].inputs(3), ChannelPruning(ratio=0.5)).widths
    kinds = {width.layer: (width.is_output, width.before, width.after) for width in widths}
    assert kinds["box"] == (True, 4, 4)
    assert kinds["score"] == (True, 3, 3)
    assert kinds["first"] == (False, 16, 8)
    assert kinds["second"] == (False, 12, 6)


@pytest.mark.parametrize("name", ["extra in training", "segmentation"])
def test_a_head_that_only_training_uses_is_cut_along(name):
    case = SEVERAL[name]
    net, inputs = case.build().eval(), case.inputs(3)
    more = by_name(as_outputs(copy.deepcopy(net).train()(inputs)))
    prune_channels(net, inputs, ChannelPruning(ratio=0.5))
    given = by_name(as_outputs(net.train()(inputs)))
    assert {n: o.shape for n, o in given.items()} == {n: o.shape for n, o in more.items()}
    assert len(given) > len(case.names)
    sum(output.sum() for output in given.values()).backward()


def test_features_that_are_an_output_stay_whole():
    case = SEVERAL["data class"]
    net, inputs = case.build().eval(), case.inputs(3)
    before = shapes(net, inputs)
    widths = prune_channels(net, inputs, ChannelPruning(ratio=0.5)).widths
    kept = {width.layer: width.after for width in widths}
    assert kept["second"] == 12
    assert kept["first"] == 8
    assert shapes(net, inputs) == before


def test_what_is_no_tensor_is_one_sentence():
    net = Heads(lambda m: {"scores": m.scores, "count": len(m.x)}).eval()
    with pytest.raises(StageError, match=r"prune: .* the model returns an int \(count\)"):
        prune_channels(net, torch.randn(3, 6), ChannelPruning(ratio=0.5))
