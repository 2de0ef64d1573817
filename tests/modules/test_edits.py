"""Edits: modules that stand in for others, in a candidate and in its file."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from compress.candidate import Candidate
from compress.errors import CheckpointError, SettingsError
from compress.modules.edits import (
    Factorize,
    FactorizedEmbedding,
    Skip,
    SkippedBlock,
    apply_edits,
    put,
    put_for_now,
    renumbered,
    with_edit,
)

pytestmark = pytest.mark.fast


class Words(nn.Module):
    """Ids to scores through two blocks, which are called in different ways."""

    def __init__(self, tuples=False):
        super().__init__()
        self.words = nn.Embedding(12, 6, padding_idx=0)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(6, 6), nn.ReLU()) for _ in range(2)])
        self.head = nn.Linear(6, 3)

    def forward(self, ids):
        x = self.words(ids)
        for block in self.blocks:
            x = block(input=x)
        return self.head(x).mean(1)


EXAMPLE = torch.arange(8).view(2, 4)
EDITS = (Skip(path="blocks.1"), Factorize(path="words", rank=2))


def start():
    torch.manual_seed(0)
    return Candidate.of(Words(), EXAMPLE)


def edited():
    own = start().fork()
    apply_edits(own.module, EDITS, "here", CheckpointError)
    for parameter in own.module.parameters():
        nn.init.normal_(parameter)
    return replace(own, edits=EDITS)


def test_a_skipped_block_gives_its_first_tensor_back():
    x, other = torch.ones(2), torch.zeros(3)
    assert SkippedBlock(as_tuple=False)(None, x, other) is x
    assert SkippedBlock(as_tuple=False)(mask=None, hidden=x, other=other) is x
    assert SkippedBlock(as_tuple=True)(other, hidden=x) == (other,)
    with pytest.raises(TypeError, match="without a tensor"):
        SkippedBlock(as_tuple=False)(1)


def test_a_factorized_embedding_has_the_sizes_of_what_it_stands_for():
    made = FactorizedEmbedding(nn.Embedding(12, 6, padding_idx=3), 2)
    assert (made.num_embeddings, made.embedding_dim, made.padding_idx) == (12, 6, 3)
    assert [tuple(p.shape) for p in made.parameters()] == [(12, 2), (6, 2)]
    assert made(EXAMPLE).shape == (2, 4, 6)
    again = FactorizedEmbedding(made, 1)
    assert (again.num_embeddings, again.embedding_dim, again.padding_idx) == (12, 6, 3)


def test_an_edited_candidate_is_the_same_once_saved_and_loaded(tmp_path):
    made = edited()
    made.validate()
    made.save(tmp_path)
    assert json.loads((tmp_path / "candidate.json").read_text())["edits"] == [
        {"kind": "skip", "path": "blocks.1", "as_tuple": False},
        {"kind": "factorize", "path": "words", "rank": 2},
    ]
    loaded = Candidate.load(tmp_path, EXAMPLE, lambda _: Words())
    assert (loaded.edits, loaded.fingerprint) == (EDITS, made.fingerprint)
    assert torch.equal(loaded.module(EXAMPLE), made.module(EXAMPLE))
    assert not [name for name in load_file(tmp_path / "weights.safetensors") if "blocks.1" in name]
    # A module passed in as an object: what is built is that of a row before, edited already.
    again = Candidate.load(tmp_path, EXAMPLE, lambda _: made.fork().module)
    assert again.fingerprint == made.fingerprint


def test_a_cut_of_what_was_edited_loads_into_either(tmp_path):
    made = edited()
    words = made.module.words
    words.factor.weight = nn.Parameter(words.factor.weight[:, :1].detach())
    words.project.weight = nn.Parameter(words.project.weight[:, :1].detach())
    words.factor.embedding_dim = words.project.in_features = 1
    made.save(tmp_path)
    for build in (Words, lambda: edited().module, lambda: made.fork().module):
        loaded = Candidate.load(tmp_path, EXAMPLE, lambda _, build=build: build())
        assert loaded.fingerprint == made.fingerprint


def test_edits_are_part_of_the_fingerprint_and_files_without_them_are_as_before(tmp_path):
    plain = start()
    assert replace(plain, edits=EDITS).fingerprint != plain.fingerprint
    plain.save(tmp_path)
    assert "edits" not in json.loads((tmp_path / "candidate.json").read_text())
    assert Candidate.load(tmp_path, EXAMPLE, lambda _: Words()).edits == ()


FORGED = {
    "no list": ({"skip": "blocks.1"}, r"not a saved candidate \('edits|not a saved candidate"),
    "an unknown kind": ([{"kind": "run", "path": "head"}], "not a saved candidate"),
    "more keys": ([{"kind": "skip", "path": "head", "code": "x"}], "not a saved candidate"),
    "an unknown path": (
        [{"kind": "skip", "path": "no\nne"}],
        r"edits 'no\\nne', which this arch",
    ),
    "no path": ([{"kind": "skip", "path": ""}], "not a saved candidate"),
    "an attribute": ([{"kind": "skip", "path": "words.weight"}], r"edits 'words\.weight', which"),
    "a dunder": ([{"kind": "skip", "path": "__class__"}], "edits '__class__', which"),
    "below what is gone": (
        [{"kind": "skip", "path": "blocks.1"}, {"kind": "skip", "path": "blocks.1.0"}],
        r"edits 'blocks\.1\.0', which",
    ),
    "a linear layer": (
        [{"kind": "factorize", "path": "head", "rank": 1}],
        "'head' two factors, and it is a Linear, no embedding",
    ),
    "a huge rank": ([{"kind": "factorize", "path": "words", "rank": 10**9}], "not a saved cand"),
    "a large rank": (
        [{"kind": "factorize", "path": "words", "rank": 7}],
        r"two factors, of rank 7, and it is 12 x 6; a rank is at most the smaller of both\.$",
    ),
    "no rank": ([{"kind": "factorize", "path": "words", "rank": 0}], "not a saved candidate"),
    "a text": ([{"kind": "factorize", "path": "words", "rank": "2"}], "not a saved candidate"),
    "too many": ([{"kind": "skip", "path": "head"}] * 10_001, "not a saved candidate"),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_edits_are_one_sentence(name, tmp_path):
    edits, words = FORGED[name]
    start().save(tmp_path)
    file = tmp_path / "candidate.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"edits": edits}))
    with pytest.raises(CheckpointError, match=words) as error:
        Candidate.load(tmp_path, EXAMPLE, lambda _: Words())
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_edits_that_leave_out_what_the_file_has_weights_of_are_refused(tmp_path):
    start().save(tmp_path)
    file = tmp_path / "candidate.json"
    edits = [{"kind": "skip", "path": "blocks.1"}]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"edits": edits}))
    with pytest.raises(CheckpointError, match="is of another architecture"):
        Candidate.load(tmp_path, EXAMPLE, lambda _: Words())


def test_a_later_edit_takes_the_place_of_those_at_and_below_its_path():
    inner = Factorize(path="blocks.1.words", rank=3)
    edits = with_edit((*EDITS, inner), Factorize(path="words", rank=1))
    assert edits == (Skip(path="blocks.1"), inner, Factorize(path="words", rank=1))
    assert with_edit((inner, EDITS[1]), Skip(path="blocks.1")) == (EDITS[1], Skip(path="blocks.1"))


def test_edits_go_with_blocks_that_close_ranks():
    edits = (*EDITS, Factorize(path="blocks.2.words", rank=3), Skip(path="blocks.0"))
    assert renumbered(edits, "blocks", {"1": "0", "2": "1"}) == (
        Skip(path="blocks.0"),
        EDITS[1],
        Factorize(path="blocks.1.words", rank=3),
    )


def test_what_is_put_for_now_goes_away_even_after_an_error():
    net = Words().eval()
    before = net.blocks[1]
    skipped = SkippedBlock(as_tuple=False)
    with pytest.raises(KeyError), put_for_now(net, "blocks.1", skipped):
        raise KeyError([net.blocks[1] is skipped])
    with put_for_now(net, "blocks.1", skipped) as there:
        assert (net.blocks[1], there) == (skipped, before)
    assert net.blocks[1] is before
    assert not any(layer.training for layer in net.modules())
    put(net, "words", FactorizedEmbedding(net.words, 1))
    assert not net.words.training


def test_a_wrong_edit_in_python_is_a_sentence():
    with pytest.raises(SettingsError, match="Factorize: rank"):
        Factorize(path="words", rank=0)
