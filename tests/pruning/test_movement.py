"""Movement pruning: three steps of SGD by hand in numpy, and on every kind of net."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from compress import Candidate, PruneStage, QuantizeStage, Recipe
from compress.errors import SettingsError
from compress.pruning.movement import Movement, highest, share_kept
from compress.pruning.sparsity import verify_zeros
from compress.testing.nets import NETS
from compress.testing.stage_contract import bench_context
from compress.testing.structures import STRUCTURES
from tests.covering import covering

FINETUNE = {"epochs": 2, "batch_size": 64}
KINDS = ("resnet", "dscnn", "attention", "unet", "crnn")
RATE, STEPS, FINAL = 0.1, 3, 0.5


def by_hand(weight, batches):
    """The masked weight and the scores after steps of SGD on the mean square of ``x W^T - y``."""
    scores, mask = np.zeros_like(weight), np.ones_like(weight)
    for step, (x, y) in enumerate(batches, start=1):
        outputs = x @ (weight * mask).T
        gradient = 2 * (outputs - y).T @ x / outputs.size
        scores -= gradient * weight
        weight = weight - RATE * gradient * mask
        share = FINAL + (1 - FINAL) * (1 - min(1, step / (STEPS / 2))) ** 3
        count = weight.size - round(weight.size * (1 - share))
        mask = np.zeros_like(weight)
        mask.flat[np.argsort(-scores, axis=None)[:count]] = 1
    return weight * mask, scores, mask


def test_three_steps_are_those_of_the_paper():
    torch.manual_seed(0)
    layer = nn.Linear(5, 4, bias=False).double()
    batches = [(torch.randn(6, 5).double(), torch.randn(6, 4).double()) for _ in range(STEPS)]
    start = layer.weight.detach().numpy().copy()
    expected, scores, mask = by_hand(start, [(x.numpy(), y.numpy()) for x, y in batches])

    movement = Movement(layer, ["weight"], lambda s, v: highest(s, v, "local"), FINAL)
    movement.begin(STEPS)
    optimizer = torch.optim.SGD(layer.parameters(), RATE)
    for x, y in batches:
        optimizer.zero_grad()
        nn.functional.mse_loss(layer(x), y).backward()
        movement.before_step()
        optimizer.step()
        movement.after_step()
    assert movement.get_buffer("score_0").numpy() == pytest.approx(scores)
    assert (movement.get_buffer("mask_0").numpy() == mask).all()
    assert layer.weight.detach().numpy() == pytest.approx(expected)
    assert int((layer.weight == 0).sum()) == 10


def test_the_share_falls_along_a_cubic_over_the_first_half():
    shares = [share_kept(progress, 0.2) for progress in (0, 0.25, 0.5, 0.75, 1)]
    assert shares == pytest.approx([1, 0.2 + 0.8 / 8, 0.2, 0.2, 0.2])


def test_global_compares_all_weights_and_local_each_tensor():
    scores = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0], [-4.0]])}
    local, everywhere = (highest(scores, 0.5, scope) for scope in ("local", "global"))
    assert local["a"].tolist() == [False, True]
    assert local["b"].tolist() == [[True], [False]]
    assert everywhere["a"].tolist() == [False, True]
    assert everywhere["b"].tolist() == [[True], [False]]
    assert highest(scores, 0.25, "global")["b"].tolist() == [[True], [False]]
    assert not highest(scores, 0.25, "global")["a"].any()


def test_what_is_hidden_can_come_back_and_what_was_zero_cannot():
    layer = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 1.0, 1.0, 0.0]]))
    movement = Movement(layer, ["weight"], lambda s, v: highest(s, v, "local"), 0.5)
    movement.begin(1)

    def step(*gradient):
        layer.weight.grad = torch.tensor([gradient])
        movement.before_step()
        movement.after_step()
        return (layer.weight != 0).squeeze().tolist()

    assert step(1.0, -1.0, -1.0, -9.0) == [False, True, True, False]
    assert step(-9.0, 1.5, -1.0, -9.0) == [True, False, True, False]
    assert step(float("nan"), 9.0, 9.0, 9.0) == [True, False, True, False]


def test_a_shared_weight_is_counted_once_and_one_without_gradients_goes_by_size():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    names = ["0.weight", "1.weight", "2.weight"]
    movement = Movement(net, names, lambda s, v: highest(s, v, "local"), 0.5)
    assert movement.names == ("0.weight", "2.weight")
    net[0](torch.randn(3, 4)).sum().backward()
    movement.before_step()
    size = net[2].weight.detach().abs().clone()
    movement.after_step()
    assert movement.without_gradients() == ["2.weight"]
    assert size[net[2].weight != 0].min() >= size[net[2].weight == 0].max()


def zero_share(candidate):
    weights = [p for _, p in candidate.module.named_parameters() if p.dim() > 1]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def context_of(name, folder):
    if name in NETS:
        case = NETS[name]
        start = Candidate.of(case.build(), case.example())
        return start, replace(bench_context(start, folder), task=case.make_task())
    structure = STRUCTURES[name]
    start = Candidate.of(structure.make(), structure.example())
    data = torch.utils.data.TensorDataset(structure.example(16), torch.zeros(16, dtype=torch.long))
    context = bench_context(start, folder)
    return start, replace(
        context, task=replace(context.task, train=data, validation=data, test=data)
    )


@pytest.mark.parametrize(("net", "granularity"), covering(KINDS, ["weights", "2:4"], each=1))
def test_every_net_learns_its_zeros_by_the_recipe(net, granularity, tmp_path):
    start, context = context_of(net, tmp_path)
    line = f"{{kind: prune, granularity: '{granularity}', importance: movement, finetune: F}}"
    text = f"name: a\nstages:\n  - {line}\n".replace("F}", "{epochs: 2, batch_size: 128}}")
    (stage,) = Recipe.loads(text).stages
    made = stage.run(start, context)
    plain = PruneStage(granularity=granularity, finetune=FINETUNE).run(start, context)
    assert zero_share(made) == pytest.approx(zero_share(plain), abs=0.005)
    assert made.invariants == plain.invariants
    assert made.fingerprint != plain.fingerprint
    quantized = QuantizeStage().run(made, context)
    more = PruneStage(ratio=0.7, granularity="weights", importance="movement", finetune=FINETUNE)
    twice = more.run(quantized, context)
    assert zero_share(twice) > zero_share(made)
    verify_zeros(made.module, twice.module, made.invariants)


def test_the_average_of_the_weights_has_the_zeros_too(start, context):
    stage = PruneStage(
        ratio=0.6,
        granularity="weights",
        scope="global",
        importance="movement",
        finetune={**FINETUNE, "ema": 0.9},
    )
    made = stage.run(start, context)
    assert zero_share(made) == pytest.approx(0.6, abs=0.01)
    assert made.fingerprint == stage.run(start, context).fingerprint


def test_of_many_zeros_training_chooses_as_well_as_size(start, context):
    finetune = {"epochs": 12, "batch_size": 32, "learning_rate": 5e-3}
    last = {}
    for importance in ("movement", "l1"):
        heard = []
        stage = PruneStage(
            ratio=0.9, granularity="weights", importance=importance, finetune=finetune
        )
        stage.run(start, replace(context, report=heard.append))
        last[importance] = heard[-1]["validation_loss"]
    assert last["movement"] < 1.1 * last["l1"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"granularity": "weights"}, "importance movement is learned in training: give finetune"),
        (
            {"granularity": "weights", "finetune": {"patience": 2}},
            "importance movement removes weights over the first half of the training; leave pat",
        ),
        ({"finetune": {}}, "importance movement is for single weights"),
        (
            {"granularity": "4x1", "finetune": {}},
            "importance movement chooses single weights; blocks go by magnitude, wanda or snip",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(settings, said):
    with pytest.raises(SettingsError, match=said):
        PruneStage(importance="movement", **settings)


def test_a_dry_run_trains_nothing(start, context):
    stage = PruneStage(granularity="weights", importance="movement", finetune=FINETUNE)
    assert zero_share(stage.rehearse(start, context)) == pytest.approx(0.5, abs=0.02)
