"""Ties: one tensor under several names, kept by whatever saves, loads, copies and counts."""

import copy
import hashlib
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from compress.candidate import Architecture, Candidate, count_parameters, load_weights
from compress.errors import CheckpointError

pytestmark = pytest.mark.fast


class Head(nn.Module):
    """An output layer that is tied to the embedding."""

    names = ("embed.weight", "head.weight")

    def __init__(self, tied=True):
        super().__init__()
        self.embed, self.mid = nn.Embedding(20, 16), nn.Linear(16, 16)
        self.head = nn.Linear(16, 20, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.mid(self.embed(x)).mean(1))


class Three(Head):
    """Two layers that are tied to one embedding."""

    names = ("embed.weight", "head.weight", "other.weight")

    def __init__(self):
        super().__init__()
        self.other = nn.Linear(16, 20)
        self.other.weight = self.embed.weight

    def forward(self, x):
        return super().forward(x) + self.other(self.embed(x).amax(1))


class Twice(nn.Module):
    """One convolution under two names."""

    names = ("first.weight", "second.weight")

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.first = nn.Conv1d(16, 16, 3, padding=1)
        self.second = self.first

    def forward(self, x):
        return self.second(self.first(self.embed(x).transpose(1, 2)).relu()).mean(2)


class Offset(nn.Module):
    def __init__(self, offset, *, persistent):
        super().__init__()
        self.register_buffer("offset", offset, persistent=persistent)

    def forward(self, x):
        return x + self.offset


class Buffer(nn.Module):
    """One buffer of two modules."""

    names = ("one.offset", "two.offset")

    def __init__(self, persistent=True):
        super().__init__()
        offset = torch.arange(16.0)
        self.embed = nn.Embedding(20, 16)
        self.one = Offset(offset, persistent=persistent)
        self.two = Offset(offset, persistent=persistent)

    def forward(self, x):
        return self.two(self.one(self.embed(x)).relu()).mean(1)


def temporary():
    return Buffer(persistent=False)


NETS = [Head, Three, Twice, Buffer, temporary]
TOKENS = torch.arange(24).reshape(4, 6) % 20


def candidate(build):
    return Candidate.of(build(), TOKENS)


def objects(module, names):
    held = dict(module.named_parameters(remove_duplicate=False))
    held |= dict(module.named_buffers(remove_duplicate=False))
    return {id(held[name]) for name in names}


def reload(folder, build):
    return Candidate.load(folder, TOKENS, lambda _: build())


def edit(folder, **changes):
    file = folder / "candidate.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def make_old(folder, module):
    """A candidate as it was saved before ties were."""
    file = folder / "candidate.json"
    new = {"lists", "ties", "temporary"}
    stored = {k: v for k, v in json.loads(file.read_text()).items() if k not in new}
    file.write_text(json.dumps(stored))
    tensors = {k: v.clone() for k, v in module.state_dict().items()}
    save_file(tensors, folder / "weights.safetensors")


@pytest.mark.parametrize("build", NETS)
def test_what_is_tied_is_the_same_once_saved_and_loaded(build, tmp_path):
    start = candidate(build)
    names = start.module.names
    with torch.no_grad():
        for tensor in (*start.module.parameters(), *start.module.buffers()):
            tensor += 1
    start.save(tmp_path)
    loaded = reload(tmp_path, build)
    assert len(objects(loaded.module, names)) == 1
    assert loaded.fingerprint == start.fingerprint
    assert count_parameters(loaded.module) == count_parameters(start.module)
    assert torch.equal(loaded.module(TOKENS), start.module(TOKENS))
    loaded.validate()


@pytest.mark.parametrize("build", NETS)
def test_what_is_tied_is_stored_once_under_its_first_name(build, tmp_path):
    start = candidate(build)
    start.save(tmp_path)
    stored = load_file(tmp_path / "weights.safetensors")
    first, *others = start.module.names
    assert first in stored
    assert not {*others} & stored.keys()
    assert [*start.module.names] in json.loads((tmp_path / "candidate.json").read_text())["ties"]


@pytest.mark.parametrize("build", NETS)
def test_copies_keep_ties(build):
    start = candidate(build)
    for module in (start.module, start.fork().module, copy.deepcopy(start.module)):
        assert len(objects(module, module.names)) == 1


def test_a_tied_parameter_is_counted_once():
    assert count_parameters(Head())[0] == 20 * 16 + 16 * 16 + 16
    assert count_parameters(Head(tied=False))[0] == 2 * 20 * 16 + 16 * 16 + 16


def test_the_fingerprint_knows_ties_and_only_them():
    tied = candidate(Head)
    untied = tied.fork()
    untied.module.head.weight = nn.Parameter(tied.module.head.weight.detach().clone())
    assert untied.fingerprint != tied.fingerprint
    # As it was before there were ties, so that folders of earlier runs are valid.
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(untied.module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.numpy().tobytes())
    structure = {
        "embed": {"num_embeddings": 20, "embedding_dim": 16},
        "mid": {"in_features": 16, "out_features": 16},
        "head": {"in_features": 16, "out_features": 20},
    }
    facts = {"schema": 1, "architecture": None, "structure": structure}
    facts |= {"numerics": [], "invariants": []}
    digest.update(json.dumps(facts, sort_keys=True).encode())
    assert untied.fingerprint == digest.hexdigest()


def test_the_fingerprint_does_not_mind_in_which_order_names_are_met():
    tied, other = candidate(Head), candidate(Head)
    other.module.load_state_dict(tied.module.state_dict())
    other.module._modules = dict(reversed(other.module._modules.items()))
    assert other.fingerprint == tied.fingerprint


def test_a_tie_that_a_stage_made_is_restored(tmp_path):
    start = Candidate.of(Head(tied=False), TOKENS)
    start.module.head.weight = start.module.embed.weight
    start.save(tmp_path)
    loaded = reload(tmp_path, lambda: Head(tied=False))
    assert loaded.module.head.weight is loaded.module.embed.weight
    assert loaded.fingerprint == start.fingerprint
    assert torch.equal(loaded.module(TOKENS), start.module(TOKENS))


def test_a_tie_of_another_width_is_restored(tmp_path):
    start = candidate(Head)
    module = start.module
    with torch.no_grad():
        narrow = nn.Parameter(module.embed.weight[:, :8])
        module.embed.weight, module.head.weight = narrow, narrow
        module.mid.weight = nn.Parameter(module.mid.weight[:8, :8])
        module.mid.bias = nn.Parameter(module.mid.bias[:8])
    module.embed.embedding_dim = module.head.in_features = 8
    module.mid.in_features = module.mid.out_features = 8
    start.save(tmp_path)
    loaded = reload(tmp_path, Head)
    assert loaded.module.head.weight is loaded.module.embed.weight
    assert loaded.module.embed.weight.shape == (20, 8)
    assert torch.equal(loaded.module(TOKENS), module(TOKENS))


def test_the_ties_of_a_module_in_another_type_are_kept():
    made = Candidate.of(Head().double(), TOKENS)
    assert made.module.head.weight is made.module.embed.weight


def test_buffers_may_come_untied_as_they_do_on_another_device(tmp_path):
    start = candidate(Buffer)
    tied = start.fingerprint
    start.module.two.offset = start.module.two.offset.clone()
    assert start.fingerprint == tied
    start.save(tmp_path)
    loaded = reload(tmp_path, Buffer)
    assert loaded.fingerprint == tied
    assert torch.equal(loaded.module(TOKENS), start.module(TOKENS))


def test_a_parameter_that_is_a_buffer_too_is_two_tensors(tmp_path):
    def build():
        module = Head()
        module.register_buffer("copy", module.mid.bias)
        return module

    start = candidate(build)
    start.save(tmp_path)
    loaded = reload(tmp_path, build)
    assert loaded.fingerprint == start.fingerprint
    assert torch.equal(loaded.module.copy, start.module.copy)


@pytest.mark.parametrize("build", NETS)
def test_an_old_file_keeps_the_ties_of_the_module_that_is_built(build, tmp_path):
    start = candidate(build)
    start.save(tmp_path)
    make_old(tmp_path, start.module)
    loaded = reload(tmp_path, build)
    assert len(objects(loaded.module, loaded.module.names)) == 1
    assert loaded.fingerprint == start.fingerprint
    assert torch.equal(loaded.module(TOKENS), start.module(TOKENS))


def test_an_old_file_with_tensors_that_differ_is_loaded_as_it_is(tmp_path):
    start = Candidate.of(Head(tied=False), TOKENS)
    start.save(tmp_path)
    make_old(tmp_path, start.module)
    loaded = reload(tmp_path, Head)
    assert loaded.module.head.weight is not loaded.module.embed.weight
    assert loaded.fingerprint == start.fingerprint


@pytest.mark.parametrize(
    ("ties", "message"),
    [
        (
            [["embed.weight", "evil.weight"]],
            r"json: it ties 'embed.weight' \(a .*\) to 'evil.weight' \(no tensor of the model\);",
        ),
        ([["evil.weight", "embed.weight"]], r"it ties 'evil.weight' \(no tensor of the model\)"),
        ([["evil.one", "evil.two"]], r"it ties 'evil.one' \(no tensor of the model\)"),
        (
            [["embed.weight", "head.weight", "mid.weight"]],
            r"to 'mid.weight' \(a parameter of \(16, 16\) in torch.float32\); load it into",
        ),
        (
            [["embed.weight", "head.weight"], ["mid.bias", "steps"]],
            r"it ties 'mid.bias' \(a parameter of \(16,\) .* to 'steps' \(a buffer of \(16,\)",
        ),
        (
            [["embed.weight", "head.weight"], ["steps", "count"]],
            r"in torch.float32\) to 'count' \(a buffer of \(16,\) in torch.int64\)",
        ),
        (
            [["embed.weight", "head.weight"], ["head.weight", "embed.weight"]],
            r"it ties 'head.weight' \(tied already\)",
        ),
        ([["embed.weight", "embed.weight"]], r"to 'embed.weight' \(tied already\)"),
        (
            [],
            r"it holds 'embed.weight' and 'head.weight' as two tensors, the model as one; load it",
        ),
        ([["mid.weight"], []], "it holds 'embed.weight' and 'head.weight' as two tensors"),
        ([["head.weight", "spare"]], "it holds 'embed.weight' and 'head.weight' as two tensors"),
        ("embed.weight", "not a saved candidate"),
        ([["embed.weight", 7]], "not a saved candidate"),
        ({"embed.weight": "head.weight"}, "not a saved candidate"),
    ],
)
def test_ties_of_a_strangers_file_are_refused(ties, message, tmp_path):
    def build():
        module = Head()
        module.spare = nn.Parameter(torch.zeros(20, 16))
        module.register_buffer("steps", torch.zeros(16))
        module.register_buffer("count", torch.zeros(16, dtype=torch.int64))
        return module

    candidate(build).save(tmp_path)
    edit(tmp_path, ties=ties)
    with pytest.raises(CheckpointError, match=message):
        reload(tmp_path, build)


def test_a_file_that_is_untied_is_not_of_a_module_that_is_tied(tmp_path):
    Candidate.of(Head(tied=False), TOKENS).save(tmp_path)
    with pytest.raises(CheckpointError, match=r"'embed.weight' and 'head.weight' as two "):
        reload(tmp_path, Head)


def test_a_parameter_cannot_be_left_out_as_a_buffer_of_a_run(tmp_path):
    candidate(Head).save(tmp_path)
    edit(tmp_path, temporary=["mid.weight"])
    with pytest.raises(CheckpointError, match=r"do not fit the saved structure: missing mid\.wei"):
        reload(tmp_path, Head)


@pytest.mark.parametrize("names", [("embed.weight",), ("head.weight",), Head.names])
def test_weights_need_one_name_of_what_is_tied(names, tmp_path):
    source, path = Head(), tmp_path / "w.safetensors"
    tensors = {k: v.clone() for k, v in source.state_dict().items()}
    save_file({k: v for k, v in tensors.items() if k in names or k not in Head.names}, path)
    target = Head()
    load_weights(target, path)
    assert target.head.weight is target.embed.weight
    assert torch.equal(target(TOKENS), source(TOKENS))


def test_weights_of_a_saved_candidate_are_weights(tmp_path):
    start = candidate(Three)
    start.save(tmp_path)
    target = Three()
    load_weights(target, tmp_path / "weights.safetensors")
    assert torch.equal(target(TOKENS), start.module(TOKENS))


def test_weights_are_strict_about_all_else(tmp_path):
    path = tmp_path / "w.safetensors"
    tensors = {k: v.clone() for k, v in Head(tied=False).state_dict().items()}
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"'embed.weight' and 'head.weight' differ, and are"):
        load_weights(Head(), path)
    load_weights(Head(tied=False), path)
    save_file({k: v for k, v in tensors.items() if k not in Head.names}, path)
    with pytest.raises(CheckpointError, match=r"missing embed\.weight, head\.weight"):
        load_weights(Head(), path)
    save_file({k: v for k, v in tensors.items() if k != "head.weight"}, path)
    with pytest.raises(CheckpointError, match=r"missing head\.weight"):
        load_weights(Head(tied=False), path)
    save_file({**tensors, "head.weight": torch.zeros(20, 8)}, path)
    with pytest.raises(CheckpointError, match=r"'head.weight' differ"):
        load_weights(Head(), path)


def test_the_architecture_of_a_tied_module_builds_it_tied(tmp_path):
    start = replace(candidate(Head), architecture=Architecture(arch="user:Head"))
    start.save(tmp_path)
    built = []

    def build(architecture):
        built.append(architecture.arch)
        return Head()

    loaded = Candidate.load(tmp_path, TOKENS, build)
    assert built == ["user:Head"]
    assert loaded.module.head.weight is loaded.module.embed.weight
