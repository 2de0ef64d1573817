"""Embeddings as two factors: which, of what rank, and what is left of the candidate."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress import Candidate, PruneStage, QuantizeStage
from compress.candidate import count_parameters
from compress.errors import NoEffect, SettingsError
from compress.measure.local import LocalTarget
from compress.modules.edits import Factorize, FactorizedEmbedding
from compress.pruning.channels import ChannelPruning, prune_channels
from compress.pruning.factors import Factors, find_embeddings
from compress.quantization.fakequant import layers_with_formats
from compress.quantization.numerics import LayerFormat, Numerics, QuantRule
from compress.running.encoding import encode
from compress.task import Task
from compress.tasks.arrays import ArrayDataset
from compress.testing.stage_contract import ParameterCounter, bench_context

ROWS, COLUMNS = 1200, 16
EMBEDDINGS = {"granularity": "embeddings", "ratio": 0.6}


class Words(nn.Module):
    """Ids to scores, with an embedding of low rank and some noise."""

    def __init__(self, tied=False, reads=False):
        super().__init__()
        self.words = nn.Embedding(ROWS, COLUMNS, padding_idx=0)
        self.kinds = nn.Embedding(3, COLUMNS)
        self.body = nn.Linear(COLUMNS, COLUMNS)
        self.head = nn.Linear(COLUMNS, ROWS if tied else 4, bias=False)
        if tied:
            self.head.weight = self.words.weight
        self.reads = reads
        random = torch.Generator().manual_seed(0)
        with torch.no_grad():
            factors = [torch.randn(n, 4, generator=random) for n in (ROWS, COLUMNS)]
            noise = 0.1 * torch.randn(ROWS, COLUMNS, generator=random)
            self.words.weight.copy_(factors[0] @ factors[1].mT + noise)
            self.words.weight[0] = 0

    def forward(self, ids):
        looked_up = F.embedding(ids, self.words.weight) if self.reads else self.words(ids)
        x = looked_up + self.kinds(ids % 3)
        return self.head(F.relu(self.body(x)).mean(1))


def ids(count, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(ROWS, (count, 6), generator=random)


TASK = Task(
    name="words",
    train=ArrayDataset(ids(64), torch.arange(64) % 4),
    validation=ArrayDataset(ids(64, 1), torch.arange(64) % 4),
    test=ArrayDataset(ids(64, 2), torch.arange(64) % 4),
    classes=tuple("abcd"),
)


def start(**settings):
    torch.manual_seed(0)
    return Candidate.of(Words(**settings), ids(4))


def context_of(made, folder):
    return replace(bench_context(made, folder), task=TASK)


@pytest.mark.fast
def test_the_rank_is_the_largest_that_leaves_the_share():
    one = Factors.of(nn.Embedding(ROWS, COLUMNS))
    assert one.rank(0.6) == int(0.4 * ROWS * COLUMNS / (ROWS + COLUMNS)) == 6
    assert one.rank(0.6, 4) == 4
    assert one.rank(0.6, 8) == one.rank(0.99) == 0
    assert Factors.of(FactorizedEmbedding(nn.Embedding(ROWS, COLUMNS), 10)).rank(0.3) == 7


@pytest.mark.fast
def test_the_factors_are_those_of_the_truncated_decomposition():
    layer = start().module.words
    one, made = Factors.of(layer), FactorizedEmbedding(layer, 4)
    one.fill(made, layer)
    u, s, v = torch.linalg.svd(layer.weight.detach().double(), full_matrices=False)
    best = (u[:, :4] * s[:4] @ v[:4]).float()
    product = made.factor.weight @ made.project.weight.mT
    assert torch.allclose(product, best, atol=1e-4)
    assert one.kept(4) == pytest.approx(float(s[:4].square().sum() / s.square().sum()))
    assert one.kept(4) > 0.99
    assert not product[0].any()
    # Neither factor has all of the singular values.
    sizes = [p.detach().norm(dim=0) for p in made.parameters()]
    assert torch.allclose(*sizes, rtol=1e-3)
    whole = FactorizedEmbedding(layer, COLUMNS)
    one.fill(whole, layer)
    assert torch.allclose(whole(ids(4)), layer(ids(4)), atol=1e-4)


@pytest.mark.fast
def test_what_cannot_be_two_factors_is_named_with_the_reason():
    def why(made, ignored=()):
        found = find_embeddings(made.module, made.example, ignored)
        assert not found.able
        return found.why_not

    assert "'kinds' (fewer than 1,000 rows)" in why(start(tied=True))
    assert "'words' (tied to 'head.weight', which has no such factors)" in why(start(tied=True))
    assert "'words' (the model fails with two factors: AttributeError" in why(start(reads=True))
    assert "'words' (to be ignored)" in why(start(), ["words"])
    scaled = start()
    scaled.module.words.max_norm = 1.0
    assert "'words' (it scales its rows by max_norm)" in why(scaled)
    own = start()
    own.module.words.__class__ = type("Own", (nn.Embedding,), {})
    assert "'words' (it is of a class of its own)" in why(own)


def test_an_embedding_becomes_two_factors_that_can_be_saved_quantized_and_cut(tmp_path):
    first = start()
    context = context_of(first, tmp_path)
    made = PruneStage(**EMBEDDINGS).run(first, context)
    made.validate()
    assert made.edits == (Factorize(path="words", rank=6),)
    (note,) = made.notes
    assert "'words' 1,200 x 16 has rank 6, 0.38 of its parameters and 0.99" in note
    assert "what stays: 'kinds' (fewer than 1,000 rows)" in note
    assert torch.allclose(made.module(made.example), first.module(first.example), atol=0.2)
    made.save(tmp_path / "saved")
    loaded = Candidate.load(tmp_path / "saved", first.example, lambda _: Words())
    assert loaded.fingerprint == made.fingerprint
    assert loaded.module.words.padding_idx == 0

    cut = loaded.fork()
    prune_channels(cut.module, cut.example, ChannelPruning(ratio=0.5))
    words = cut.module.words
    assert (words.factor.embedding_dim, words.embedding_dim) == (3, 8)
    cut.save(tmp_path / "cut")
    again = Candidate.load(tmp_path / "cut", first.example, lambda _: Words())
    assert again.fingerprint == cut.fingerprint

    quantized = QuantizeStage().run(loaded, context)
    artifact = encode(quantized, TASK, LocalTarget(), tmp_path / "model.onnx")
    assert {"words.factor", "words.project"} < set(layers_with_formats(quantized.module))
    assert artifact.parity.agreement >= 0.9
    assert artifact.bytes < 1.5 * count_parameters(made.module)[0] + 8 * ROWS


def test_a_quantized_embedding_is_factorized_in_its_format(tmp_path):
    first = start()
    context = context_of(first, tmp_path)
    made = QuantizeStage(select=("words",), activations="float32").run(first, context)
    made = PruneStage(**EMBEDDINGS).run(made, context)
    formats = made.numerics.resolve(layers_with_formats(made.module))
    assert {n for n, f in formats.items() if f.weights == "int8"} == {
        "words.factor",
        "words.project",
    }
    made.validate()


def test_learned_clips_of_the_table_end_with_a_note(tmp_path):
    first = start()
    layers = layers_with_formats(first.module)
    whole = Numerics((QuantRule(format=LayerFormat(weights="int8")),))
    numerics = whole.with_clips({"words": (0.5,) * ROWS, "body": (0.5,) * COLUMNS}, layers)
    first = replace(first, numerics=numerics)
    made = PruneStage(**EMBEDDINGS).run(first, context_of(first, tmp_path))
    assert [rule.select for rule in made.numerics.clip_rules] == [("body",)]
    assert made.notes[1] == "learned clips of 'words' end here: their weights are gone"


def test_a_second_time_the_rank_becomes_smaller(tmp_path):
    first = start()
    context = context_of(first, tmp_path)
    made = PruneStage(**EMBEDDINGS).run(first, context)
    again = PruneStage(granularity="embeddings", ratio=0.3).run(made, context)
    assert again.edits == (Factorize(path="words", rank=4),)
    assert again.module.words.factor.embedding_dim == 4
    assert "'words' 1,200 x 16 has rank 4, 0.667 of its parameters" in again.notes[0]
    wider = PruneStage(ratio=0.5, of="original").run(made, context)
    assert wider.module.words.embedding_dim == 8


def test_no_effect_says_why(tmp_path):
    tied = start(tied=True)
    context = context_of(start(), tmp_path)
    with pytest.raises(NoEffect, match=r"no embedding that can be two factors \('words' \(tied"):
        PruneStage(**EMBEDDINGS).run(tied, context)
    said = r"no rank leaves 0\.01 of the parameters of an embedding; give a smaller ratio"
    with pytest.raises(NoEffect, match=said):
        PruneStage(granularity="embeddings", ratio=0.99).run(start(), context)
    with pytest.raises(NoEffect, match="no rank leaves"):
        PruneStage(**EMBEDDINGS, round_to=8).run(start(), context)
    made = PruneStage(**EMBEDDINGS, round_to=4).run(start(), context)
    assert made.edits[0].rank == 4


@pytest.mark.parametrize("goal", [{"parameters": 0.6}, {"artifact_kib": 48.0}])
def test_a_goal_finds_the_rank(goal, tmp_path):
    first = start()
    evaluator = ParameterCounter(first)
    context = replace(context_of(first, tmp_path), evaluator=evaluator)
    made = PruneStage(granularity="embeddings", goal=goal).run(first, context)
    limit = 0.6 * count_parameters(first.module)[0] if "parameters" in goal else 48 * 256
    left = count_parameters(made.module)[0]
    rank = made.module.words.factor.embedding_dim
    assert left <= limit < left + ROWS + COLUMNS + 4
    assert f"'words' 1,200 x 16 has rank {rank}" in made.notes[0]


def test_training_after_it_trains_both_factors(tmp_path):
    first = start()
    context = context_of(first, tmp_path)
    finetune = {"epochs": 1, "batch_size": 32}
    made = PruneStage(**EMBEDDINGS, finetune=finetune).run(first, context)
    plain = PruneStage(**EMBEDDINGS).run(first, context)
    for name in ("factor", "project"):
        one, other = (m.module.words.get_submodule(name).weight for m in (made, plain))
        assert not torch.equal(one, other)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scope": "global"}, "scope: global is for channels and weights, not embeddings"),
        ({"importance": "l2"}, "importance l2 is for channels; embeddings go by singular values"),
        ({"of": "original"}, "of is for granularity channels"),
        ({"goal": {"macs": 0.5}}, "a goal of embeddings is parameters or artifact_kib"),
        ({"goal": {"latency_p50": 0.5}}, "a goal of embeddings is parameters or artifact_kib"),
    ],
)
def test_settings_that_mean_nothing_for_embeddings_are_refused(settings, words):
    with pytest.raises(SettingsError, match=words):
        PruneStage(granularity="embeddings", **settings)
