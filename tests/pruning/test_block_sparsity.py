"""Zeros in whole blocks: which go, by numpy; what is kept of them by files and by later stages."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from compress import Candidate, PruneStage, QuantizeStage, Recipe, TrainStage
from compress.errors import AlreadySo, NoEffect, SettingsError
from compress.pruning.block_sparsity import block_masks
from compress.pruning.sparsity import verify_zeros
from compress.testing.nets import NETS
from compress.testing.stage_contract import bench_context
from compress.testing.structures import STRUCTURES
from tests.covering import covering


def blocks_of(matrix, rows, columns):
    """By the place of its corner, every whole block of a matrix."""
    down, across = matrix.shape[0] // rows, matrix.shape[1] // columns
    return {
        (i, j): matrix[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
        for i in range(down)
        for j in range(across)
    }


@pytest.mark.parametrize("shape", [(4, 1), (1, 4), (2, 2), (3, 4)])
def test_the_blocks_of_the_smallest_norm_go_and_a_rest_stays(shape):
    net = nn.Sequential(nn.Linear(10, 9))
    weight = net[0].weight.detach()
    found = block_masks(net, {"0.weight": weight}, shape, 0.5, "local", by_size=True)
    mask, blocks = found.masks["0.weight"].numpy(), blocks_of(weight.numpy(), *shape)
    norms = {place: np.linalg.norm(block) for place, block in blocks.items()}
    gone = sorted(norms, key=norms.get)[: round(0.5 * len(norms))]
    expected = np.ones_like(mask)
    for place in gone:
        blocks_of(expected, *shape)[place][:] = False
    assert (mask == expected).all()
    rest = 90 - len(blocks) * shape[0] * shape[1]
    assert found.rest == ({"0.weight": rest} if rest else {})


def test_other_scores_are_summed():
    net = nn.Sequential(nn.Linear(4, 2))
    scores = torch.tensor([[4.0, 0, 1, 1], [0, 0, 1, 3]])
    by_sum = block_masks(net, {"0.weight": scores}, (2, 2), 0.5, "local", by_size=False)
    assert by_sum.masks["0.weight"][0].tolist() == [False, False, True, True]
    by_norm = block_masks(net, {"0.weight": scores}, (2, 2), 0.5, "local", by_size=True)
    assert by_norm.masks["0.weight"][0].tolist() == [True, True, False, False]


def test_global_compares_the_blocks_of_all_layers():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    weights = {"0.weight": torch.full((4, 4), 0.1), "1.weight": torch.ones(4, 4)}
    found = block_masks(net, weights, (2, 2), 0.5, "global", by_size=True)
    assert not found.masks["0.weight"].any()
    assert found.masks["1.weight"].all()


def test_a_transposed_convolution_has_its_outputs_first():
    net = nn.Sequential(nn.ConvTranspose2d(4, 6, 2, groups=2, bias=False))
    weight = net[0].weight.detach()
    mask = block_masks(net, {"0.weight": weight}, (3, 1), 0.5, "local", by_size=True).masks
    rows = torch.cat([half.movedim(1, 0) for half in mask["0.weight"].split(2)]).flatten(1)
    assert all(block.all() or not block.any() for block in blocks_of(rows.numpy(), 3, 1).values())
    assert int((~rows).sum()) == rows.numel() // 2


def zero_share(candidate):
    weights = [p for _, p in candidate.module.named_parameters() if p.dim() > 1]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def context_of(start, case, folder):
    return replace(bench_context(start, folder), task=case.make_task())


@pytest.mark.parametrize(
    ("net", "importance"),
    covering(["resnet", "dscnn", "attention", "unet"], ["l2", "wanda", "snip"], each=1),
)
def test_every_net_gets_zero_blocks_by_the_recipe(net, importance, tmp_path):
    case = NETS[net]
    start = Candidate.of(case.build(), case.example())
    context = context_of(start, case, tmp_path)
    line = f"{{kind: prune, granularity: 4x1, importance: {importance}}}"
    (stage,) = Recipe.loads(f"name: a\nstages:\n  - {line}\n").stages
    made = stage.run(start, context)
    assert 0.45 < zero_share(made) < 0.51
    (zeros,) = made.invariants
    assert zeros.block == (4, 1)
    for name in zeros.tensors:
        weight = made.module.get_parameter(name).detach().flatten(1).numpy()
        parts = blocks_of(weight == 0, 4, 1).values()
        assert all(part.all() or not part.any() for part in parts)
    again = PruneStage(granularity="4x1", importance=importance, ratio=0.7)
    more = again.run(QuantizeStage().run(made, context), context)
    assert zero_share(more) > zero_share(made) + 0.1
    verify_zeros(made.module, more.module, made.invariants)


def test_zero_blocks_of_a_recurrent_net_are_in_its_other_layers(tmp_path):
    structure = STRUCTURES["crnn"]
    start = Candidate.of(structure.make(), structure.example())
    made = PruneStage(granularity="2x2").run(start, bench_context(start, tmp_path))
    assert 0.05 < zero_share(made) < 0.2


def test_what_is_in_no_whole_block_is_counted_in_the_row(start, context):
    made = PruneStage(granularity="5x1").run(start, context)
    (note,) = made.notes
    rest = sum(
        (p.shape[0] % 5) * p.shape[1] for _, p in made.module.named_parameters() if p.dim() > 1
    )
    assert note.startswith(f"prune: {rest:,} weights are in no whole block of 5x1, and stay: in ")


def test_a_block_that_fits_nowhere_is_an_error(start, context):
    with pytest.raises(NoEffect, match=r"no layer has 64 outputs and 64 inputs for a block of 64x"):
        PruneStage(granularity="64x64").run(start, context)


def test_the_same_again_says_so(start, context):
    stage = PruneStage(granularity="4x1")
    made = stage.run(start, context)
    with pytest.raises(AlreadySo, match="already zero"):
        stage.run(made, context)


def test_blocks_are_kept_through_training_and_files(start, context, tmp_path):
    made = PruneStage(granularity="2x4").run(start, context)
    trained = TrainStage(epochs=1).run(made, context)
    assert trained.invariants == made.invariants
    verify_zeros(made.module, trained.module, made.invariants)
    trained.save(tmp_path / "saved")
    loaded = Candidate.load(tmp_path / "saved", start.example, lambda _: start.fork().module)
    assert loaded.fingerprint == trained.fingerprint
    assert loaded.invariants[0].block == (2, 4)


def test_a_later_cut_keeps_the_zeros_and_says_that_they_fill_no_blocks(start, context):
    made = PruneStage(granularity="2x2").run(start, context)
    cut = PruneStage(ratio=0.5).run(made, context)
    assert {one.pattern for one in cut.invariants} == {"unstructured"}
    names = {name for one in cut.invariants for name in one.tensors}
    assert names == set(made.invariants[0].tensors)
    assert any("stay, and fill no blocks any more" in note for note in cut.notes)
    zero, of = (
        sum(int((one.module.get_parameter(n) == 0).sum()) for n in names) for one in (cut, made)
    )
    assert 0 < zero < of
    trained = TrainStage(epochs=1).run(cut, context)
    verify_zeros(cut.module, trained.module, cut.invariants)


def test_a_cut_elsewhere_leaves_blocks_as_they_are(start, context):
    layers = [name.rpartition(".")[0] for name, p in start.module.named_parameters() if p.dim() > 1]
    first = PruneStage(granularity="2x2", ignore=tuple(layers[1:])).run(start, context)
    cut = PruneStage(ratio=0.5, ignore=(layers[0],)).run(first, context)
    assert cut.invariants == first.invariants


def test_what_chooses_single_weights_chooses_no_blocks():
    said = "importance sparsegpt chooses single weights; blocks go by magnitude, wanda or snip"
    with pytest.raises(SettingsError, match=said):
        PruneStage(granularity="4x1", importance="sparsegpt")
    assert (
        "in blocks of 4x1 by wanda" in PruneStage(granularity="4x1", importance="wanda").explain()
    )
