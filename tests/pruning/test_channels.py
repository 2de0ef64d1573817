import copy
import math
from fnmatch import fnmatch

import pytest
import torch
from torch import nn

from compress.candidate import count_parameters
from compress.errors import NoEffect, StageError
from compress.pruning.channels import ChannelPruning, prune_channels
from compress.testing.nets import NETS

IMPORTANCES = ["l1", "l2", "group-l2", "taylor", "bn-scale", "random"]


def losses(module, case):
    return [module(case.example(8)).pow(2).mean()]


def widths(pruned):
    return {width.layer: width.after for width in pruned.widths}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("importance", ["group-l2", "taylor"])
def test_every_net_is_cut_and_gives_outputs_of_the_same_shape(name, importance):
    case = NETS[name]
    module, example = case.build(), case.example()
    shape = module(example).shape
    before = count_parameters(module)[0]
    asked = ChannelPruning(ratio=0.5, importance=importance)
    pruned = prune_channels(module, example, asked, losses=losses(module, case))
    assert module(example).shape == shape
    assert count_parameters(module)[0] < 0.8 * before
    assert not module.training
    for width in pruned.widths:
        assert width.after == (width.before if width.is_output else width.before // 2)


@pytest.mark.parametrize("importance", IMPORTANCES)
@pytest.mark.parametrize("scope", ["local", "global"])
def test_ranking_another_module_leaves_that_one_as_it_was(importance, scope):
    case = NETS["resnet"]
    module = case.build()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight)  # equal scales cannot be ranked
    ranked = copy.deepcopy(module)
    before = copy.deepcopy(ranked.state_dict())
    asked = ChannelPruning(ratio=0.5, importance=importance, scope=scope)
    prune_channels(module, case.example(), asked, ranked=ranked, losses=losses(ranked, case))
    assert all(torch.equal(v, before[k]) for k, v in ranked.state_dict().items())


def test_the_channels_with_the_smallest_norms_go():
    module = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3)).eval()
    with torch.no_grad():
        module[0].weight.copy_(torch.arange(1.0, 9.0).view(8, 1, 1, 1).expand_as(module[0].weight))
    prune_channels(module, torch.randn(2, 1, 8, 8), ChannelPruning(ratio=0.5, importance="l1"))
    assert module[0].weight[:, 0, 0, 0].tolist() == [5.0, 6.0, 7.0, 8.0]


@pytest.mark.parametrize(
    ("width", "ratio", "round_to", "kept"),
    [
        (32, 0.3, 8, 24),
        (16, 0.3, 8, 8),
        (64, 0.3, 8, 48),
        (32, 0.3, 1, 22),
        (10, 0.3, 8, 8),
        (16, 0.25, 8, 16),  # 12 is as near to 8 as to 16: the smaller cut
        (20, 0.3, 8, 16),
    ],
)
def test_widths_are_rounded_to_the_nearest_multiple(width, ratio, round_to, kept):
    module = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 40), nn.Linear(40, 2))
    pruned = prune_channels(
        module.eval(), torch.randn(2, 4), ChannelPruning(ratio=ratio, round_to=round_to)
    )
    assert module[0].out_features == widths(pruned)["0"] == kept


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.4, 0.7])
@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("name", ["resnet", "mobilenet-v2", "unet"])
def test_a_global_ranking_removes_the_share_of_all_channels_that_was_asked(name, ratio, round_to):
    case = NETS[name]
    module, example = case.build(), case.example()
    asked = ChannelPruning(ratio=ratio, round_to=round_to, scope="global")
    pruned = prune_channels(module, example, asked)
    able = [width for width in pruned.widths if not width.is_output]
    lost = sum(width.before - width.after for width in able)
    total = sum(width.before for width in able)
    largest_step = round_to * max(len(able) // 2, 1)
    assert abs(lost - ratio * total) <= largest_step
    assert all(w.after % round_to == 0 for w in able if w.after < w.before)
    assert all(w.after >= max(1, math.floor(0.1 * w.before)) for w in able)


def test_ignored_layers_keep_their_channels():
    case = NETS["mlp"]
    module, example = case.build(), case.example()
    first = next(n for n, m in module.named_modules() if isinstance(m, nn.Linear))
    width = module.get_submodule(first).out_features
    pruned = prune_channels(module, example, ChannelPruning(ratio=0.5, ignore=[first]))
    assert module.get_submodule(first).out_features == width
    (note,) = [w for w in pruned.widths if w.layer == first]
    assert note.is_output
    assert note.reason == f"{first!r} is to be ignored"


@pytest.mark.parametrize("name", NETS)
def test_output_layers_are_found(name):
    case = NETS[name]
    pruned = prune_channels(case.build(), case.example(), ChannelPruning(ratio=0.5))
    pixels = 4 if name == "mobile-unet" else 1  # of each place of its head's map
    assert {w.before for w in pruned.widths if w.is_output} == {pixels * case.classes}


def test_a_ratio_too_small_for_the_rounding_has_no_effect():
    case = NETS["dscnn"]
    asked = ChannelPruning(ratio=0.01, round_to=8)
    with pytest.raises(NoEffect, match=r"a ratio of 0\.01 with round_to 8 removes no channel"):
        prune_channels(case.build(), case.example(), asked)


def test_taylor_without_data_is_an_error():
    case = NETS["mlp"]
    asked = ChannelPruning(ratio=0.5, importance="taylor")
    with pytest.raises(StageError, match="importance taylor needs training batches"):
        prune_channels(case.build(), case.example(), asked)


def test_bn_scale_without_batch_norms_says_what_would_do():
    case = NETS["mlp"]
    asked = ChannelPruning(ratio=0.5, importance="bn-scale")
    with pytest.raises(NoEffect, match=r"no batch norm scales them.*group-l2 needs no batch norms"):
        prune_channels(case.build(), case.example(), asked)


class FixedSize(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8 * 64, 3)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).reshape(-1, 8 * 64))


class Raising(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8, 3)

    def forward(self, x):
        raise ValueError("only on Tuesdays")


class Drawing(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.hidden(x) + torch.rand(1))


def test_a_size_written_into_the_forward_is_explained():
    with pytest.raises(NoEffect, match=r"left uncut: a size is written into the code.*view"):
        prune_channels(FixedSize().eval(), torch.randn(2, 1, 8, 8), ChannelPruning(ratio=0.5))


def test_a_model_that_does_not_run_is_explained():
    with pytest.raises(StageError, match=r"does not run .*ValueError: only on Tuesdays"):
        prune_channels(Raising().eval(), torch.randn(2, 1, 8, 8), ChannelPruning(ratio=0.5))


def test_a_model_that_draws_random_numbers_cannot_be_proved():
    with pytest.raises(StageError, match="draws random numbers in inference"):
        prune_channels(Drawing().eval(), torch.randn(2, 4), ChannelPruning(ratio=0.5))


@pytest.mark.parametrize("name", ["attention", "causal-lm"])
@pytest.mark.parametrize("importance", ["l1", "group-l2", "taylor"])
def test_whole_heads_are_chosen_and_nothing_else(importance, name):
    case = NETS[name]
    module, example = case.build(), case.example()
    units = module.blocks[0].expand.out_features
    asked = ChannelPruning(ratio=0.5, unit="heads", importance=importance)
    prune_channels(module, example, asked, losses=losses(module, case))
    for block in module.blocks:
        assert block.attention.num_heads == 1
        assert block.attention.query.out_features == 16
        assert block.attention.project.in_features == 16
        assert block.expand.out_features == units
    assert module(example).shape == (2, case.classes, *case.positions)


def test_units_of_a_language_model_go_where_attention_and_width_are_kept():
    case = NETS["causal-lm"]
    module, example = case.build(), case.example()
    kept = ["blocks.*.attention.*", "blocks.*.contract"]
    names = [n for n, m in module.named_modules() if isinstance(m, nn.Linear)]
    ignored = [n for n in names if any(fnmatch(n, pattern) for pattern in kept)]
    prune_channels(module, example, ChannelPruning(ratio=0.25, ignore=[*ignored, "tokens"]))
    for block in module.blocks:
        assert block.expand.out_features == block.contract.in_features == 96
        assert block.attention.query.out_features == block.contract.out_features == 32


def test_the_heads_with_the_smallest_norms_go():
    case = NETS["attention"]
    module, example = case.build(), case.example()
    with torch.no_grad():
        for block in module.blocks:
            for layer in (block.attention.query, block.attention.key, block.attention.value):
                layer.weight[:16] = layer.bias[:16] = 0
            block.attention.project.weight[:, :16] = 0
        before = module(example)
        prune_channels(module, example, ChannelPruning(ratio=0.5, unit="heads"))
        assert torch.allclose(module(example), before, atol=1e-5)


def test_one_head_always_stays():
    case = NETS["attention"]
    module, example = case.build(), case.example()
    prune_channels(module, example, ChannelPruning(ratio=0.99, unit="heads"))
    assert [block.attention.num_heads for block in module.blocks] == [1, 1]


def test_without_heads_to_cut_there_is_no_effect():
    case = NETS["resnet"]
    asked = ChannelPruning(ratio=0.5, unit="heads")
    with pytest.raises(NoEffect, match="no attention whose heads can be removed"):
        prune_channels(case.build(), case.example(), asked)
    case = NETS["attention"]
    asked = ChannelPruning(ratio=0.1, unit="heads")
    with pytest.raises(NoEffect, match=r"a ratio of 0\.1 removes no head from any block; raise it"):
        prune_channels(case.build(), case.example(), asked)


def test_where_heads_cannot_go_alone_more_of_a_ratio_is_not_advised():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
            self.head = nn.Linear(16, 4)

        def forward(self, x):
            return self.head((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))

    asked = ChannelPruning(ratio=0.9, unit="heads")
    with pytest.raises(NoEffect, match="no block has heads that can be removed by themselves"):
        prune_channels(Net().eval(), torch.randn(2, 5, 16), asked)


def test_a_whole_module_may_be_ignored():
    case = NETS["resnet"]
    module = case.build()
    asked = ChannelPruning(ratio=0.5, ignore=["stem", "blocks"])
    with pytest.raises(NoEffect, match=r"no channel .* can be removed.*ignore less"):
        prune_channels(module, case.example(), asked)
