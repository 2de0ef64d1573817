"""Single weights ranked by their inputs and gradients, against the papers' definitions in numpy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from compress import Candidate, PruneStage, QuantizeStage
from compress.distillation.teachers import frozen_teacher
from compress.errors import SettingsError
from compress.pruning.sparsity import per_output_masks
from compress.pruning.weight_scores import snip_scores, wanda_scores
from compress.testing.nets import NETS
from compress.testing.stage_contract import bench_context
from compress.testing.structures import STRUCTURES


def unfolded(layer, x):
    """What each place of a kernel's channel meets over the whole input, without padding."""
    return np.sqrt((x.numpy() ** 2).sum((0, 2, 3)))


def test_wanda_is_size_times_the_norm_of_the_input():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).eval()
    batches = [torch.randn(6, 5), torch.randn(2, 5)]
    found = wanda_scores(net, ["0", "2"], batches)
    x = torch.cat(batches)
    norms = np.linalg.norm(x.numpy(), axis=0)
    assert found["0.weight"].numpy() == pytest.approx(
        np.abs(net[0].weight.detach().numpy()) * norms, rel=1e-5
    )
    with torch.no_grad():
        hidden = np.linalg.norm(torch.relu(net[0](x)).numpy(), axis=0)
    assert found["2.weight"].numpy() == pytest.approx(
        np.abs(net[2].weight.detach().numpy()) * hidden, rel=1e-5
    )


def test_an_input_that_is_given_by_name_counts_alike():
    class ByName(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x):
            return self.layer(input=x)

    net, x = ByName(), torch.randn(5, 3)
    found = wanda_scores(net, ["layer"], [x])["layer.weight"]
    wanted = net.layer.weight.detach().abs() * x.norm(dim=0)
    torch.testing.assert_close(found, wanted)


def test_wanda_of_tokens_counts_every_token():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(5, 4)).eval(), torch.randn(2, 7, 5)
    norms = np.linalg.norm(x.numpy().reshape(-1, 5), axis=0)
    expected = np.abs(net[0].weight.detach().numpy()) * norms
    assert wanda_scores(net, ["0"], [x])["0.weight"].numpy() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_wanda_of_convolutions_goes_by_the_norm_of_the_channel(groups):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 8, 3, groups=groups, bias=False)
    x = torch.randn(3, 4, 6, 6)
    norms = unfolded(layer, x)
    found = wanda_scores(nn.Sequential(layer).eval(), ["0"], [x])["0.weight"].numpy()
    own = np.abs(layer.weight.detach().numpy())
    inputs, outputs = 4 // groups, 8 // groups
    for out in range(8):
        for channel in range(inputs):
            norm = norms[(out // outputs) * inputs + channel]
            assert found[out, channel] == pytest.approx(own[out, channel] * norm, rel=1e-5)


def test_wanda_of_a_transposed_convolution_has_its_inputs_first():
    torch.manual_seed(0)
    layer, x = nn.ConvTranspose2d(4, 6, 2, bias=False), torch.randn(3, 4, 5, 5)
    found = wanda_scores(nn.Sequential(layer).eval(), ["0"], [x])["0.weight"].numpy()
    expected = np.abs(layer.weight.detach().numpy()) * unfolded(layer, x)[:, None, None, None]
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "layer", [nn.Linear(10, 4), nn.Conv2d(5, 4, 2), nn.ConvTranspose2d(4, 3, 5)]
)
def test_each_output_loses_the_same_share(layer):
    net = nn.Sequential(layer)
    score = layer.weight.detach().abs()
    mask = per_output_masks(net, {"0.weight": score}, 0.3)["0.weight"]
    rows, scores = mask, score
    if isinstance(layer, nn.ConvTranspose2d):
        rows, scores = mask.movedim(1, 0), score.movedim(1, 0)
    rows, scores = rows.flatten(1), scores.flatten(1)
    assert {int(row.sum()) for row in rows} == {rows.shape[1] - round(0.3 * rows.shape[1])}
    for row, own in zip(rows, scores, strict=True):
        assert own[row].min() >= own[~row].max()


def test_snip_is_the_size_of_weight_times_gradient():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)).eval(), torch.randn(8, 5)
    found = snip_scores(net, ["0", "2"], [net(x).square().mean()])
    for name in ("0.weight", "2.weight"):
        weight = net.get_parameter(name)
        (gradient,) = torch.autograd.grad(net(x).square().mean(), weight)
        assert torch.allclose(found[name], (weight * gradient).abs())


def sparsity(candidate):
    weights = [p for name, p in candidate.module.named_parameters() if p.dim() > 1]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


@pytest.mark.parametrize("granularity", ["weights", "2:4"])
@pytest.mark.parametrize("importance", ["wanda", "snip"])
@pytest.mark.parametrize("net", NETS)
def test_every_net_gets_its_zeros_by_the_recipe(net, importance, granularity, tmp_path):
    case = NETS[net]
    start = Candidate.of(case.build(), case.example())
    context = bench_context(start, tmp_path)
    context = context if net == "resnet" else _of(case, context)
    stage = PruneStage(ratio=0.5, granularity=granularity, importance=importance)
    made = stage.run(start, context)
    assert 0.3 < sparsity(made) < 0.55
    by_size = PruneStage(ratio=0.5, granularity=granularity).run(start, context)
    assert made.fingerprint != by_size.fingerprint
    quantized = QuantizeStage().run(made, context)
    if granularity == "weights":
        more = PruneStage(ratio=0.7, granularity=granularity, importance=importance)
        assert sparsity(more.run(quantized, context)) > sparsity(made)


def _of(case, context):
    teacher = frozen_teacher(case.build(), case.example())
    return replace(context, task=case.make_task(), teacher=teacher)


@pytest.mark.parametrize("name", ["crnn", "conv-bilstm", "torch-attention", "dcgan"])
def test_layers_that_inference_does_not_call_go_by_magnitude(name, tmp_path):
    structure = STRUCTURES[name]
    start = Candidate.of(structure.make(), structure.example())
    context = bench_context(start, tmp_path)
    rows = torch.utils.data.TensorDataset(structure.example(16), torch.zeros(16, dtype=torch.long))
    context = replace(context, task=replace(context.task, train=rows, validation=rows, test=rows))
    stage = PruneStage(ratio=0.5, granularity="weights", importance="wanda")
    assert sparsity(stage.run(start, context)) > 0.05


@pytest.mark.parametrize("granularity", ["weights", "2x2"])
def test_of_a_layer_that_inference_does_not_call_the_smallest_go(granularity, tmp_path):
    structure = STRUCTURES["torch-attention"]
    start = Candidate.of(structure.make(), structure.example())
    context = bench_context(start, tmp_path)
    rows = torch.utils.data.TensorDataset(structure.example(16), torch.zeros(16, dtype=torch.long))
    context = replace(context, task=replace(context.task, train=rows, validation=rows, test=rows))
    made = PruneStage(granularity=granularity, importance="wanda").run(start, context)
    before, after = (
        one.module.get_parameter("attn.out_proj.weight").detach() for one in (start, made)
    )
    gone, left = before[after == 0].abs(), before[after != 0].abs()
    assert gone.mean() < 0.7 * left.mean()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"importance": "wanda"}, "importance wanda is for single weights: granularity: weights"),
        ({"importance": "snip", "granularity": "heads"}, "importance snip is for single weights"),
        (
            {"importance": "wanda", "granularity": "weights", "scope": "global"},
            "importance wanda ranks within each output, and goes with scope: local",
        ),
        (
            {"importance": "taylor", "granularity": "weights"},
            (
                "importance taylor is for channels; weights go by magnitude, wanda, snip, "
                "sparsegpt or movement"
            ),
        ),
    ],
)
def test_what_does_not_go_together_is_refused(settings, said):
    with pytest.raises(SettingsError, match=said):
        PruneStage(**settings)


def test_a_dry_run_takes_no_data(tmp_path):
    case = NETS["mlp"]
    start = Candidate.of(case.build(), case.example())
    stage = PruneStage(granularity="weights", importance="wanda")
    made = stage.rehearse(start, bench_context(start, tmp_path))
    assert sparsity(made) == pytest.approx(0.5, abs=0.02)
