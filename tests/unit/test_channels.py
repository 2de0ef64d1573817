import copy
from fnmatch import fnmatch

import pytest
import torch
from torch import nn

from compress.algorithms.channels import choose_channels, cut_channels, output_layers
from compress.candidate import count_parameters
from compress.errors import NoEffect, StageError
from compress.testing.nets import NETS

IMPORTANCES = ["l1", "l2", "group-l2", "taylor", "bn-scale", "random"]


def losses(module, case):
    return [module(case.example(8)).pow(2).mean()]


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("importance", ["group-l2", "taylor"])
def test_every_net_is_cut_and_gives_outputs_of_the_same_shape(name, importance):
    case = NETS[name]
    module, example = case.build(), case.example()
    shape = module(example).shape
    before = count_parameters(module)[0]
    choice = choose_channels(
        module, example, ratio=0.5, importance=importance, losses=losses(module, case)
    )
    cut_channels(module, example, choice)
    assert module(example).shape == shape
    assert count_parameters(module)[0] < 0.8 * before
    assert not module.training


@pytest.mark.parametrize("importance", IMPORTANCES)
@pytest.mark.parametrize("scope", ["local", "global"])
def test_choosing_leaves_the_module_as_it_was(importance, scope):
    case = NETS["resnet"]
    module = case.build()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight)  # equal scales cannot be ranked
    before = copy.deepcopy(module.state_dict())
    choice = choose_channels(
        module,
        case.example(),
        ratio=0.5,
        importance=importance,
        scope=scope,
        losses=losses(module, case),
    )
    assert choice
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_the_channels_with_the_smallest_norms_go():
    module = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3)).eval()
    with torch.no_grad():
        module[0].weight.copy_(torch.arange(1.0, 9.0).view(8, 1, 1, 1).expand_as(module[0].weight))
    example = torch.randn(2, 1, 8, 8)
    choice = choose_channels(module, example, ratio=0.5, importance="l1")
    assert [(name, indices) for name, _, indices in choice] == [("0", [0, 1, 2, 3])]


@pytest.mark.parametrize(
    ("width", "ratio", "round_to", "kept"),
    [(32, 0.3, 8, 24), (16, 0.3, 8, 8), (64, 0.3, 8, 48), (32, 0.3, 1, 22), (8, 0.9, 8, 8)],
)
def test_widths_are_rounded_to_the_nearest_multiple(width, ratio, round_to, kept):
    module = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 40), nn.Linear(40, 2))
    example = torch.randn(2, 4)
    choice = choose_channels(module.eval(), example, ratio=ratio, round_to=round_to)
    cut_channels(module, example, choice)
    assert module[0].out_features == kept


def test_a_global_ranking_rounds_too():
    case = NETS["resnet"]
    module, example = case.build(), case.example()
    choice = choose_channels(module, example, ratio=0.4, round_to=8, scope="global")
    cut_channels(module, example, choice)
    hidden = [m.out_channels for m in module.modules() if isinstance(m, nn.Conv2d)]
    assert all(width % 8 == 0 for width in hidden)


def test_ignored_layers_keep_their_channels():
    case = NETS["mlp"]
    module, example = case.build(), case.example()
    first = next(n for n, m in module.named_modules() if isinstance(m, nn.Linear))
    width = module.get_submodule(first).out_features
    choice = choose_channels(module, example, ratio=0.5, ignore=[first])
    cut_channels(module, example, choice)
    assert module.get_submodule(first).out_features == width


@pytest.mark.parametrize("name", NETS)
def test_output_layers_are_found(name):
    case = NETS[name]
    module = case.build()
    found = output_layers(module, case.example())
    widths = {
        getattr(module.get_submodule(f), "out_features", None)
        or module.get_submodule(f).out_channels
        for f in found
    }
    assert widths == {case.classes}


def test_a_ratio_too_small_for_the_rounding_has_no_effect():
    case = NETS["dscnn"]
    with pytest.raises(NoEffect, match=r"a ratio of 0\.01 with round_to 8 removes no channel"):
        choose_channels(case.build(), case.example(), ratio=0.01, round_to=8)


def test_taylor_without_data_is_an_error():
    case = NETS["mlp"]
    with pytest.raises(StageError, match="importance taylor needs training batches"):
        choose_channels(case.build(), case.example(), ratio=0.5, importance="taylor")


class FixedSize(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8 * 64, 3)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).reshape(-1, 8 * 64))


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8, 3)

    def forward(self, x):
        raise ValueError("only on Tuesdays")


def test_a_size_written_into_the_forward_is_explained():
    module, example = FixedSize().eval(), torch.randn(2, 1, 8, 8)
    choice = [("conv", True, [0, 1, 2])]
    with pytest.raises(StageError, match="prune: "):
        cut_channels(module, example, choice)


def test_a_model_that_cannot_be_traced_is_explained():
    with pytest.raises(StageError, match=r"cannot be traced .*ValueError: only on Tuesdays"):
        choose_channels(Branching().eval(), torch.randn(2, 1, 8, 8), ratio=0.5)


def test_torch_pruning_default_dicts_do_not_leak_between_calls():
    import torch_pruning as tp

    case = NETS["dscnn"]
    before = [len(d) for d in tp.pruner.BasePruner.__init__.__defaults__ if isinstance(d, dict)]
    choose_channels(case.build(), case.example(), ratio=0.5)
    after = [len(d) for d in tp.pruner.BasePruner.__init__.__defaults__ if isinstance(d, dict)]
    assert after == before


@pytest.mark.parametrize("name", ["attention", "causal-lm"])
@pytest.mark.parametrize("importance", ["l1", "group-l2", "taylor"])
def test_whole_heads_are_chosen_and_nothing_else(importance, name):
    case = NETS[name]
    module, example = case.build(), case.example()
    units = module.blocks[0].expand.out_features
    settings = {"importance": importance, "losses": losses(module, case)}
    choice = choose_channels(module, example, ratio=0.5, unit="heads", **settings)
    cut_channels(module, example, choice, unit="heads")
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
    choice = choose_channels(module, example, ratio=0.25, ignore=[*ignored, "tokens"])
    cut_channels(module, example, choice)
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
        choice = choose_channels(module, example, ratio=0.5, unit="heads")
        cut_channels(module, example, choice, unit="heads")
        assert torch.allclose(module(example), before, atol=1e-5)


def test_one_head_always_stays():
    case = NETS["attention"]
    module, example = case.build(), case.example()
    choice = choose_channels(module, example, ratio=0.99, unit="heads")
    cut_channels(module, example, choice, unit="heads")
    assert [block.attention.num_heads for block in module.blocks] == [1, 1]


def test_without_heads_to_cut_there_is_no_effect():
    case = NETS["resnet"]
    with pytest.raises(NoEffect, match="no attention whose heads could be told apart"):
        choose_channels(case.build(), case.example(), ratio=0.5, unit="heads")
    case = NETS["attention"]
    with pytest.raises(NoEffect, match=r"a ratio of 0\.1 removes no head from any block"):
        choose_channels(case.build(), case.example(), ratio=0.1, unit="heads")
