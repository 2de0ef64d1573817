"""SparseGPT against optimal brain surgery, column by column, in numpy; and on every kind of net."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from compress import Candidate, PruneStage, QuantizeStage, Recipe
from compress.errors import SettingsError, StageError
from compress.modules.inputs import forward
from compress.pruning.layer_inputs import call_counts, input_products, unfolded
from compress.pruning.sparse_gpt import Choice, compensated, prune_layers
from compress.pruning.sparsity import outputs_first, verify_zeros
from compress.quantization.fakequant import channel_axis, fake_quantized_copy
from compress.stage import formats_of
from compress.testing.nets import NETS
from compress.testing.stage_contract import bench_context
from compress.testing.structures import STRUCTURES
from tests.covering import covering

KINDS = ("resnet", "dscnn", "attention", "unet", "crnn", "dcgan")


def correlated(rows, inputs, seed=0):
    draw = np.random.default_rng(seed)
    few = draw.normal(size=(rows, inputs // 3)) @ draw.normal(size=(inputs // 3, inputs))
    return few + 0.3 * draw.normal(size=(rows, inputs))


def surgery(weight, x, choose):
    """Columns in order; each is removed by the inverse of the Hessian of what is left."""
    weight, inputs = weight.copy(), weight.shape[1]
    hessian = 2 * x.T @ x
    hessian += 0.01 * np.diag(hessian).mean() * np.eye(inputs)
    left = [np.linalg.inv(hessian[j:, j:]) for j in range(inputs)]
    mask = np.ones_like(weight, dtype=bool)
    for j in range(inputs):
        choose(weight, mask, j, np.array([inverse[0, 0] for inverse in left]))
        gone = np.where(mask[:, j], 0, weight[:, j])
        weight[:, j:] -= np.outer(gone / left[j][0, 0], left[j][0])
        weight[~mask[:, j], j] = 0
    return weight, mask


def of_blocks(ratio, width):
    def choose(weight, mask, j, diagonal):
        if j % width == 0:
            own = weight[:, j : j + width]
            scores = own**2 / diagonal[j : j + width]
            order = np.argsort(scores, axis=None)[: round(ratio * own.size)]
            chosen = np.ones(own.size, dtype=bool)
            chosen[order] = False
            mask[:, j : j + width] = chosen.reshape(own.shape)

    return choose


def of_pattern(n, m):
    def choose(weight, mask, j, diagonal):
        if j % m == 0 and j + m <= weight.shape[1]:
            scores = weight[:, j : j + m] ** 2 / diagonal[j : j + m]
            for row, own in zip(mask, scores, strict=True):
                row[j + np.argsort(own)[: m - n]] = False

    return choose


CHOICES = {
    "one block": (Choice(0.5), of_blocks(0.5, 128)),
    "blocks": (Choice(0.5, columns=4), of_blocks(0.5, 4)),
    "2:4": (Choice(0.5, (2, 4)), of_pattern(2, 4)),
    "1:4 in blocks": (Choice(0.5, (1, 4), columns=8), of_pattern(1, 4)),
    "2:5 with a rest": (Choice(0.5, (2, 5)), of_pattern(2, 5)),
}


@pytest.mark.parametrize("name", CHOICES)
def test_it_is_optimal_brain_surgery_column_by_column(name):
    choice, choose = CHOICES[name]
    x, weight = correlated(40, 12), np.random.default_rng(1).normal(size=(6, 12))
    expected, mask = surgery(weight, x, choose)
    found, kept = compensated(
        torch.tensor(weight)[None],
        torch.tensor(2 * x.T @ x)[None],
        choice,
        torch.zeros(1, 6, 12, dtype=torch.bool),
    )
    assert (kept[0].numpy() == mask).all()
    assert found[0].numpy() == pytest.approx(expected, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("choice", [Choice(0.5, columns=4), Choice(0.0, (2, 4))], ids=str)
def test_what_is_zero_stays_zero_and_counts_among_what_goes(choice):
    x, weight = correlated(40, 12), torch.randn(1, 6, 12, dtype=torch.float64)
    zeros = torch.rand(weight.shape) < 0.3
    weight[zeros] = 0
    found, kept = compensated(weight, torch.tensor(x.T @ x)[None], choice, zeros)
    assert not kept[zeros].any()
    assert not found[~kept].any()
    if choice.n_of_m is None:
        assert int((~kept).sum()) == pytest.approx(36, abs=4)


def layer_error(layer, pruned, x):
    with torch.no_grad():
        return float((layer(x) - pruned(x)).square().mean())


LAYERS = {
    "linear": lambda: nn.Linear(24, 16),
    "grouped": lambda: nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2),
    "depthwise": lambda: nn.Conv2d(4, 4, 5, padding=2, groups=4),
    "dilated": lambda: nn.Conv2d(4, 8, 3, dilation=2, padding="same", padding_mode="reflect"),
    "transposed": lambda: nn.ConvTranspose2d(
        4, 8, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2
    ),
    "transposed, cut": lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, padding=4),
    "volume": lambda: nn.Conv3d(2, 4, 2),
}
SHAPES = {1: (4, 11), 2: (4, 9, 8), 3: (2, 5, 4, 5)}


def inputs_for(layer, samples=16):
    if isinstance(layer, nn.Linear):
        return torch.tensor(correlated(samples * 4, 24), dtype=torch.float32)
    shape = SHAPES[len(layer.kernel_size)]
    x = torch.randn(samples, 1, *shape[1:]) + 0.3 * torch.randn(samples, *shape)
    return x + x.roll(1, -1) + x.roll(2, -1) + x.roll(1, -2)


@pytest.mark.parametrize("name", LAYERS)
def test_rows_of_inputs_times_rows_of_weights_are_the_outputs(name):
    layer = LAYERS[name]()
    layer.bias = None
    x, groups = inputs_for(layer, 3), getattr(layer, "groups", 1)
    rows = outputs_first(layer.weight, channel_axis(layer), groups).flatten(1)
    rows = rows.view(groups, len(rows) // groups, -1)
    found = (unfolded(layer, x) @ rows.mT).movedim(0, 1).flatten(1)
    expected = layer(x)
    if not isinstance(layer, nn.Linear):
        expected = expected.movedim(1, -1).flatten(0, -2)
    assert torch.allclose(found, expected, atol=1e-4)


def on(samples, start, folder):
    """A context whose data are these samples."""
    data = TensorDataset(samples, torch.zeros(len(samples), dtype=torch.long))
    context = bench_context(start, folder)
    return replace(context, task=replace(context.task, train=data, validation=data, test=data))


@pytest.mark.parametrize(("name", "granularity"), covering(LAYERS, ["weights", "2:4"], each=1))
def test_outputs_suffer_less_than_by_magnitude(granularity, name, tmp_path):
    torch.manual_seed(0)  # greedy as it is, it may lose on as few weights as these
    layer = LAYERS[name]()
    x = inputs_for(layer)
    start = Candidate.of(nn.Sequential(layer).eval(), x)
    context = on(x, start, tmp_path)
    by_size, solved = (
        PruneStage(granularity=granularity, importance=one).run(start, context)
        for one in ("l2", "sparsegpt")
    )
    assert not solved.notes
    zeros = [int((one.module[0].weight == 0).sum()) for one in (by_size, solved)]
    assert zeros[0] == zeros[1]
    errors = [layer_error(layer, one.module, x) for one in (by_size, solved)]
    assert errors[1] < 0.95 * errors[0]


def pruned(net, layers, x):
    """What was left to magnitude; the net is pruned in place."""

    def weight(name):
        return net.get_submodule(name).weight.detach().clone()

    def by_size(name):
        return weight(name).abs() > weight(name).abs().median()

    return prune_layers(net, layers, [x], Choice(0.5), weight, by_size).layers


def test_a_layer_sees_what_the_layers_before_it_give_once_they_are_pruned():
    net = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 6)).eval()
    x, before = torch.tensor(correlated(40, 12), dtype=torch.float32), net[2].weight.clone()
    assert pruned(net, ["2", "0"], x) == {}
    with torch.no_grad():
        hidden = net[1](net[0](x)).double().numpy()
    expected, mask = surgery(before.detach().double().numpy(), hidden, of_blocks(0.5, 128))
    assert ((net[2].weight != 0).numpy() == mask).all()
    assert net[2].weight.detach().numpy() == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_calls_are_counted_in_order_and_a_layer_that_is_called_twice_is_seen_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.later, self.first, self.never = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, x):
            return self.later(self.later(input=self.first(x)))

    net, x = Twice().eval(), torch.randn(5, 4)
    assert call_counts(net, ["later", "first", "never"], x) == {"first": 1, "later": 2}
    found = input_products(net, "later", [x], once=False)[0]
    with torch.no_grad():
        rows = torch.cat([net.first(x), net.later(net.first(x))])
    assert torch.allclose(found, (rows.mT @ rows).double(), atol=1e-5)
    assert pruned(net, ["later", "first", "never"], x) == {
        "inference does not call them": ["never"]
    }
    assert int((net.never.weight == 0).sum()) == 8


def test_shared_weights_and_layers_of_many_inputs_go_by_magnitude(monkeypatch):
    net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)).eval()
    net[1].weight = net[0].weight
    shared = pruned(net, ["0", "1", "2"], torch.randn(9, 6))
    assert shared == {"their weights are shared": ["0", "1"]}
    monkeypatch.setattr("compress.pruning.sparse_gpt.MOST_INPUTS", 5)
    wide = pruned(nn.Sequential(nn.Linear(6, 4)), ["0"], torch.randn(9, 6))
    assert wide == {"they have more than 5 inputs": ["0"]}


def test_a_layer_that_meets_zeros_alone_is_ranked_by_size():
    net = nn.Sequential(nn.Linear(6, 4)).eval()
    before = net[0].weight.detach().clone()
    assert pruned(net, ["0"], torch.zeros(3, 6)) == {}
    kept = net[0].weight != 0
    assert torch.equal(net[0].weight[kept], before[kept])
    assert before[kept].abs().min() > before[~kept].abs().max()


def test_inputs_that_are_not_finite_are_told_with_the_layer():
    net = nn.Sequential(nn.Linear(6, 4)).eval()
    with pytest.raises(StageError, match="layer '0' has inputs that are not finite, and"):
        pruned(net, ["0"], torch.full((3, 6), float("nan")))
    with pytest.raises(StageError, match="importance sparsegpt needs samples"):
        prune_layers(net, ["0"], [], Choice(0.5), lambda _: None, lambda _: None)


def zero_share(candidate):
    weights = [p for _, p in candidate.module.named_parameters() if p.dim() > 1]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def disturbed(start, after, context):
    """The error of the outputs, as the candidates compute."""
    batch = context.task.test[:64][0] if hasattr(context.task.test, "tensors") else start.example
    nets = [fake_quantized_copy(one.module, formats_of(one)) for one in (start, after)]
    with torch.no_grad():
        one, other = (forward(net.eval(), batch) for net in nets)
    return float((one - other).square().mean())


@pytest.mark.parametrize(("net", "granularity"), covering(KINDS, ["weights", "2:4"], each=1))
def test_every_net_gets_its_zeros_by_the_recipe(net, granularity, tmp_path):
    case = NETS[net] if net in NETS else STRUCTURES[net]
    start = Candidate.of(case.build() if net in NETS else case.make(), case.example())
    context = on(case.example(16), start, tmp_path)
    line = f"{{kind: prune, granularity: '{granularity}', importance: sparsegpt}}"
    (stage,) = Recipe.loads(f"name: a\nstages:\n  - {line}\n").stages
    made = stage.run(start, context)
    plain = PruneStage(granularity=granularity).run(start, context)
    assert zero_share(made) == pytest.approx(zero_share(plain), abs=0.005)
    assert disturbed(start, made, context) < disturbed(start, plain, context)
    assert made.invariants == plain.invariants
    quantized = QuantizeStage().run(made, context)
    more = PruneStage(granularity="weights", importance="sparsegpt", ratio=0.7)
    twice = more.run(quantized, context)
    assert zero_share(twice) > zero_share(made)
    verify_zeros(made.module, twice.module, made.invariants)


def test_after_quantize_the_weights_as_computed_are_made_up_for(start, context):
    quantized = QuantizeStage(weights="int4").run(start, context)
    by_size, solved = (
        PruneStage(granularity="weights", importance=one).run(quantized, context)
        for one in ("l2", "sparsegpt")
    )
    assert zero_share(solved) == pytest.approx(zero_share(by_size), abs=0.005)
    assert disturbed(quantized, solved, context) < 0.7 * disturbed(quantized, by_size, context)


def test_it_goes_through_one_layer_at_a_time():
    said = "importance sparsegpt goes through one layer at a time, and goes with scope: local"
    with pytest.raises(SettingsError, match=said):
        PruneStage(granularity="weights", importance="sparsegpt", scope="global")
