"""Channels ranked by what they hold on average, against the definition in numpy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from compress import Candidate, PruneStage, QuantizeStage, Recipe
from compress.errors import StageError
from compress.pruning.activations import by_activation, mean_activations
from compress.pruning.channels import ChannelPruning
from compress.pruning.importance import CRITERIA, score_pool
from compress.pruning.search import Search
from compress.pruning.widths import pools_of
from compress.testing.nets import NETS
from compress.testing.stage_contract import bench_context
from compress.testing.structures import STRUCTURES

PLAIN = CRITERIA["group-l2"].scores


def scores_of(net, batches, channels):
    """The scores of the only pool with so many channels."""
    search = Search(net, batches[0], ChannelPruning(ratio=0.5), net)
    ids = search.planner.plan().ids
    (pool,) = [pool for pool in pools_of(ids) if len(pool.classes) == channels]
    criterion, unread = by_activation(CRITERIA["activation"], net, batches, PLAIN)
    return np.array(score_pool(net, ids, pool, criterion)), unread


def relative(values):
    return values / values.mean()


def test_it_is_the_mean_absolute_output_of_the_layer_over_all_batches():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    batches = [torch.randn(7, 4), torch.randn(2, 4)]
    found, unread = scores_of(net, batches, 6)
    x = torch.cat(batches).numpy()
    weight, bias = net[0].weight.detach().numpy(), net[0].bias.detach().numpy()
    assert found == pytest.approx(relative(np.abs(x @ weight.T + bias).mean(0)), rel=1e-4)
    assert not unread


@pytest.mark.parametrize("affine", [True, False])
def test_where_a_batch_norm_scales_a_channel_it_is_read_behind_it(affine):
    norm = nn.BatchNorm2d(5, affine=affine)
    net = nn.Sequential(nn.Conv2d(2, 5, 3), norm, nn.ReLU(), nn.Conv2d(5, 3, 1))
    nn.init.uniform_(norm.running_var, 0.1, 2.0)
    if affine:
        nn.init.uniform_(norm.weight, 0.1, 2.0)
    x = torch.randn(4, 2, 6, 6)
    found, _ = scores_of(net.eval(), [x], 5)
    with torch.no_grad():
        values = net[1](net[0](x)).numpy()
    assert found == pytest.approx(relative(np.abs(values).mean((0, 2, 3))), rel=1e-4)


def test_channels_that_go_together_have_the_mean_of_all_layers_that_give_them():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 6), nn.Linear(4, 6)
            self.last = nn.Linear(6, 3)

        def forward(self, x):
            return self.last(self.one(x) + self.two(x))

    net, x = Sum().eval(), torch.randn(9, 4)
    found, _ = scores_of(net, [x], 6)
    with torch.no_grad():
        means = [net.one(x).abs().mean(0).numpy(), net.two(x).abs().mean(0).numpy()]
    assert found == pytest.approx(relative((means[0] + means[1]) / 2), rel=1e-4)


def test_a_convolution_without_samples_and_a_transposed_one_have_their_channels_found():
    net = nn.Sequential(nn.ConvTranspose2d(4, 6, 2, groups=2), nn.Conv2d(6, 2, 1)).eval()
    found = mean_activations(net, [torch.randn(4, 5, 5)])
    assert {name: tuple(mean.shape) for name, mean in found.items()} == {"0": (6,), "1": (2,)}


@pytest.mark.parametrize("net", ["resnet", "dscnn", "attention", "unet"])
def test_it_ranks_every_net_before_and_after_quantize(net, tmp_path):
    case = NETS[net]
    start = Candidate.of(case.build(), case.example())
    context = replace(bench_context(start, tmp_path), task=case.make_task())
    text = "name: a\nstages:\n  - {kind: prune, ratio: 0.25, importance: activation}\n"
    (stage,) = Recipe.loads(text).stages
    once = stage.run(start, context)
    by_size = PruneStage(ratio=0.25).run(start, context)
    assert once.fingerprint != by_size.fingerprint
    twice = stage.run(QuantizeStage().run(once, context), context)
    sizes = [sum(p.numel() for p in one.module.parameters()) for one in (start, once, twice)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3


class Reader(nn.Module):
    """Tokens to a recurrent layer to an answer."""

    def __init__(self, layer, width):
        super().__init__()
        self.embed, self.layer, self.head = nn.Embedding(9, 4), layer, nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.layer(self.embed(x))[0])


def test_the_state_of_a_recurrent_layer_and_an_embedding_are_read():
    net = Reader(nn.LSTM(4, 6, batch_first=True, bidirectional=True), 12).eval()
    x = torch.randint(9, (5, 7))
    with torch.no_grad():
        embedded = net.embed(x)
        states = net.layer(embedded)[0].abs().mean((0, 1)).numpy()
    found, unread = scores_of(net, [x], 4)
    assert found == pytest.approx(relative(embedded.abs().mean((0, 1)).numpy()), rel=1e-4)
    found, unread = scores_of(net, [x], 6)  # the directions have one width, and go together
    assert found == pytest.approx(relative(states[:6] + states[6:]), rel=1e-4)
    assert not unread


class OwnProduct(nn.Module):
    """A parameter that the model multiplies with by itself."""

    def __init__(self):
        super().__init__()
        self.own, self.head = nn.Parameter(torch.randn(4, 6)), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(torch.relu(x @ self.own))


def test_channels_that_no_layer_gives_go_by_size_and_the_row_says_so(tmp_path):
    x = torch.randn(16, 4)
    start = Candidate.of(OwnProduct().eval(), x[:2])
    context = bench_context(start, tmp_path)
    rows = TensorDataset(x, torch.zeros(16, dtype=torch.long))
    context = replace(context, task=replace(context.task, train=rows, validation=rows, test=rows))
    (note,) = PruneStage(ratio=0.5, importance="activation").run(start, context).notes
    assert "'own' went by group-l2: no layer gives their channels" in note


def test_it_ranks_a_recurrent_net(tmp_path):
    structure = STRUCTURES["crnn"]
    start = Candidate.of(structure.make(), structure.example())
    context = bench_context(start, tmp_path)
    rows = TensorDataset(structure.example(16), torch.zeros(16, dtype=torch.long))
    context = replace(context, task=replace(context.task, train=rows, validation=rows, test=rows))
    (note,) = PruneStage(ratio=0.5, importance="activation").run(start, context).notes
    assert "group-l2" not in note


def test_without_samples_there_is_nothing_to_read():
    with pytest.raises(StageError, match="importance activation needs samples to read activ"):
        mean_activations(nn.Linear(2, 2), [])


def test_a_dry_run_reads_nothing(start, context):
    stage = PruneStage(ratio=0.5, importance="activation")
    assert stage.rehearse(start, replace(context, task=None)).module is not None
