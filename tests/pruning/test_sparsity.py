import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from compress import PruneStage
from compress.candidate_files import check_invariants
from compress.errors import CheckpointError, InvariantBroken, SettingsError
from compress.pruning.invariants import KeepZeros
from compress.pruning.sparsity import (
    keep_zeros,
    magnitude_masks,
    n_of_m_masks,
    pattern_masks,
    verify_zeros,
    zero_tensors,
)

pytestmark = pytest.mark.fast


def layer():
    made = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([[0.1, -4.0, 0.3, 2.0], [-0.2, 5.0, 6.0, 7.0]]))
    return made


def test_the_smallest_weights_go_per_tensor():
    masks = magnitude_masks({"weight": layer().weight}, 0.5, "local")
    assert masks["weight"].tolist() == [[False, True, False, False], [False, True, True, True]]


def test_a_global_ratio_is_over_all_tensors():
    small, large = torch.full((4,), 0.1), torch.full((4,), 9.0)
    masks = magnitude_masks({"small": small, "large": large}, 0.5, "global")
    assert not masks["small"].any()
    assert masks["large"].all()


def test_a_larger_ratio_adds_to_an_earlier_one():
    weight = torch.randn(100)
    first = magnitude_masks({"w": weight}, 0.3, "local")["w"]
    second = magnitude_masks({"w": weight * first}, 0.6, "local")["w"]
    assert int(second.sum()) == 40
    assert bool((first | ~second).all())


def test_two_of_four_keeps_the_two_largest_of_each_four():
    mask = n_of_m_masks(
        {"w": torch.tensor([[1.0, -9, 3, 2, 5, 6, 0, 1], [1, 2, 3, 4, 8, 7, 6, 5]])}, 2, 4
    )
    assert mask["w"].int().tolist() == [[0, 1, 1, 0, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 0, 0]]


def test_a_last_group_that_is_short_is_kept():
    assert n_of_m_masks({"w": torch.ones(1, 6)}, 2, 4)["w"][0, 4:].all()


CONVOLUTIONS = {
    "linear": nn.Linear(8, 6),
    "conv1d": nn.Conv1d(8, 6, 3),
    "conv2d": nn.Conv2d(8, 6, (3, 2)),
    "grouped conv": nn.Conv2d(16, 6, 3, groups=2),
    "transposed 1d": nn.ConvTranspose1d(8, 6, 3),
    "transposed 2d": nn.ConvTranspose2d(8, 6, (3, 2)),
    "transposed 3d": nn.ConvTranspose3d(4, 3, 1),
    "grouped transposed": nn.ConvTranspose2d(16, 6, 3, groups=2),
    "depthwise transposed": nn.ConvTranspose1d(6, 6, 8, groups=6),
}


def inputs_of_each_output(layer):
    """For each output channel the weights that it depends on, in the order of memory."""
    channels = layer.weight.shape[1] if is_linear(layer) else layer.in_channels
    positions = [] if is_linear(layer) else [8] * (layer.weight.dim() - 2)
    outputs = layer(torch.ones(1, channels, *positions))[0]
    rows = []
    for output in outputs:
        (reads,) = torch.autograd.grad(output.sum(), layer.weight, retain_graph=True)
        rows.append(layer.weight.detach()[reads != 0])
    return torch.stack(rows)


def is_linear(layer):
    return isinstance(layer, nn.Linear)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (1, 2)])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_of_every_m_consecutive_inputs_of_any_layer_at_most_n_are_left(name, n, m):
    net = nn.Sequential(copy.deepcopy(CONVOLUTIONS[name]))
    before = inputs_of_each_output(net[0]).reshape(-1, m).abs()
    zero_tensors(net, pattern_masks(net, ["0.weight"], n, m))
    after = inputs_of_each_output(net[0]).reshape(-1, m)
    assert torch.equal((after != 0).sum(1), torch.full((len(after),), n))
    assert torch.equal(after.abs().sum(1), before.sort(1, descending=True).values[:, :n].sum(1))


def test_groups_of_inputs_end_where_those_of_a_transposed_convolution_do():
    weight = torch.rand(6, 2, 1) + 0.1
    masks = n_of_m_masks({"w": weight}, 1, 2, axes={"w": 1}, groups={"w": 2})
    # Three inputs for each output: one pair, and a last one that is kept.
    assert masks["w"].shape == weight.shape
    assert masks["w"][[2, 5]].all()
    assert masks["w"].sum() == 8


def test_zeros_are_put_back():
    module = layer()
    zero_tensors(module, magnitude_masks({"weight": module.weight}, 0.5, "local"))
    put_back = keep_zeros(module, [KeepZeros(tensors=("weight",))])
    before = module.weight.detach().clone()
    with torch.no_grad():
        module.weight.add_(1.0)
    put_back()
    assert torch.equal(module.weight == 0, before == 0)


def test_lost_zeros_are_found():
    before, after = layer(), layer()
    with torch.no_grad():
        before.weight[0, :2] = 0
    with pytest.raises(InvariantBroken, match=r"weight has to keep its zeros .*, and 2 of them"):
        verify_zeros(before, after, [KeepZeros(tensors=("weight",))])


def test_a_cut_tensor_may_not_gain_weights():
    before, after = layer(), nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        before.weight[:, :2] = 0
    with pytest.raises(InvariantBroken, match="2 of them are no longer zero"):
        verify_zeros(before, after, [KeepZeros(tensors=("weight",))])


def test_a_tensor_that_is_gone_breaks_its_invariant():
    with pytest.raises(
        InvariantBroken, match=r"head\.weight has to keep its zeros .* no longer exists"
    ):
        verify_zeros(layer(), layer(), [KeepZeros(tensors=("head.weight",))])


@pytest.mark.parametrize(("pattern", "multiple"), [("unstructured", 1), ("2:4", 4), ("1:8", 8)])
def test_a_pattern_says_which_widths_it_can_live_with(pattern, multiple):
    assert KeepZeros(pattern=pattern, tensors=("w",)).channel_multiple == multiple


@pytest.mark.parametrize(
    ("kind", "pattern", "found", "said"),
    [
        *(
            ("n_of_m", text, found, "granularity is channels")
            for text, found in {
                "2:4": (2, 4),
                "1:128": (1, 128),
                "4:2": None,
                "0:4": None,
                "2:99999": None,
            }.items()
        ),
        *(
            ("block", text, found, "blocks of 1 to 64 outputs by inputs")
            for text, found in {
                "4x1": (4, 1),
                "1x64": (1, 64),
                "64x64": (64, 64),
                **dict.fromkeys(("1x1", "65x1", "0x4", "4x", "04x1", "4X1", "4x1\n", "٤x1")),
            }.items()
        ),
    ],
)
def test_a_pattern_is_read_the_same_from_a_recipe_and_from_a_file(kind, pattern, found, said):
    zeros = KeepZeros(pattern=pattern, tensors=("weight",))
    assert getattr(zeros, kind) == found
    assert kind == "n_of_m" or zeros.channel_multiple == 1
    layer = nn.Linear(128, 8)
    if found is None:
        with pytest.raises(SettingsError, match=said):
            PruneStage(granularity=pattern)
        with pytest.raises(CheckpointError, match="declares zeros"):
            check_invariants([zeros], layer, Path("candidate.json"))
    else:
        assert PruneStage(granularity=pattern).granularity == pattern
        check_invariants([zeros], layer, Path("candidate.json"))
