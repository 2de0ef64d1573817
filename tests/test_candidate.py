import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compress.candidate import Architecture, Candidate, count_parameters, load_weights
from compress.errors import CheckpointError, ContractViolation, DataError, StorageError
from compress.pruning.channels import ChannelPruning, prune_channels
from compress.pruning.invariants import KeepZeros
from compress.quantization.numerics import LayerFormat, Numerics, QuantRule
from compress.testing.nets import NETS
from compress.zoo import build

pytestmark = pytest.mark.fast


def candidate(name="resnet"):
    case = NETS[name]
    made = Candidate.of(case.build(), case.example())
    options = {**case.options, "classes": case.classes}
    return replace(made, architecture=Architecture(arch=name, options=options))


def rebuild(architecture):
    return build(architecture.arch, architecture.options)


@pytest.mark.parametrize("name", NETS)
def test_a_pruned_candidate_is_the_same_once_saved_and_loaded(name, tmp_path):
    start = candidate(name)
    cut = start.fork()
    prune_channels(cut.module, cut.example, ChannelPruning(ratio=0.5))
    rule = QuantRule(format=LayerFormat(weights="int8", activations="int8"))
    first = next(n for n, _ in cut.module.named_parameters() if n.endswith("weight"))
    cut = replace(
        cut, numerics=Numerics((rule,)), invariants=(KeepZeros(tensors=(first,)),), notes=("a",)
    )
    cut.save(tmp_path)
    loaded = Candidate.load(tmp_path, start.example, rebuild)
    assert loaded.fingerprint == cut.fingerprint
    assert (loaded.numerics, loaded.invariants, loaded.notes) == (
        cut.numerics,
        cut.invariants,
        cut.notes,
    )
    assert torch.equal(loaded.module(start.example), cut.module(start.example))
    loaded.validate()


def test_the_fingerprint_ignores_the_order_of_the_state_dict():
    start = candidate("mlp")
    other = start.fork()
    for layer in other.module.modules():
        if isinstance(layer, nn.Linear):
            layer._parameters = dict(reversed(list(layer._parameters.items())))
    assert list(other.module.state_dict()) != list(start.module.state_dict())
    assert other.fingerprint == start.fingerprint


@pytest.mark.parametrize("change", ["weight", "numerics", "invariants", "architecture"])
def test_the_fingerprint_moves_with_everything_that_counts(change):
    start = candidate("mlp")
    other = start.fork()
    if change == "weight":
        with torch.no_grad():
            next(other.module.parameters()).view(-1)[0] += 1
    elif change == "numerics":
        other = replace(other, numerics=Numerics((QuantRule(format=LayerFormat(weights="int8")),)))
    elif change == "invariants":
        other = replace(other, invariants=(KeepZeros(tensors=("x",)),))
    else:
        other = replace(other, architecture=None)
    assert other.fingerprint != start.fingerprint


def test_a_candidate_owns_a_plain_copy_of_what_it_is_made_from():
    module = nn.Linear(2, 2).double().requires_grad_(False)
    made = Candidate.of(module, torch.ones(2, 2))
    made.validate()
    assert made.module is not module
    assert module.weight.dtype == torch.float64


def _hooked():
    module = nn.Linear(2, 2)
    module.register_forward_hook(lambda *_: None)
    return module.eval()


def _parametrized():
    return nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)).eval()


class Named(nn.Linear):
    def forward(self, x):
        return x, "x"


def _infinite():
    module = nn.Linear(2, 2).eval()
    nn.init.constant_(module.bias, float("inf"))
    return module


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (_hooked(), "has hooks; a candidate's module is plain"),
        (_parametrized(), "has parametrizations"),
        (nn.Linear(2, 2), "is in training mode"),
        (nn.Linear(2, 2).eval().requires_grad_(False), "'weight' is frozen"),
        (nn.Linear(2, 2).eval().half(), r"'weight' is torch\.float16"),
        (Named(2, 2).eval(), r"the model returns a str \(1\); return a tensor, or a tuple"),
        (_infinite(), "outputs on the example are not finite"),
    ],
)
def test_a_module_that_stages_cannot_count_on_is_refused(module, message):
    with pytest.raises(ContractViolation, match=message):
        Candidate(module, torch.ones(2, 2)).validate()


def test_parameters_are_counted_with_and_without_zeros():
    module = nn.Linear(3, 2)
    nn.init.zeros_(module.bias)
    assert count_parameters(module) == (8, 6)


def test_weights_are_loaded_strictly(tmp_path):
    source, path = nn.Linear(3, 2), tmp_path / "w.safetensors"
    save_file(source.state_dict(), path)
    target = nn.Linear(3, 2)
    load_weights(target, path)
    assert torch.equal(target.weight, source.weight)
    with pytest.raises(CheckpointError, match=r"do not fit the model: shape weight is \(2, 3\)"):
        load_weights(nn.Linear(4, 2), path)
    with pytest.raises(CheckpointError, match=r"missing 0\.weight.*unexpected weight, bias|bias"):
        load_weights(nn.Sequential(nn.Linear(3, 2)), path)
    with pytest.raises(CheckpointError, match="there is no such file"):
        load_weights(target, tmp_path / "gone.safetensors")


@pytest.mark.parametrize("damage", ["truncate", "garbage", "pickle"])
def test_damaged_weights_and_pickles_with_code_are_refused(damage, tmp_path):
    path, said = tmp_path / "w.safetensors", "not a readable safetensors file, nor one of torch"
    save_file(nn.Linear(3, 2).state_dict(), path)
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:-8])
    elif damage == "garbage":
        path.write_bytes(b"\xff" * 64)
    else:
        torch.save(nn.Linear(3, 2), path)
        said = r"torch\.nn\.modules\.\S+\), which cannot be opened without running its code"
    with pytest.raises(CheckpointError, match=said):
        load_weights(nn.Linear(3, 2), path)


class Listing(nn.Module):
    """Sizes in a list, a buffer that is not persistent, and what it makes while it runs."""

    def __init__(self, width=6):
        super().__init__()
        self.sizes, self.names, self.seen = [width, width], ["a", "b"], []
        self.wide, self.narrow = nn.Linear(4, 2 * width), nn.Linear(width, 3)
        self.register_buffer("scale", torch.linspace(1, 2, width), persistent=False)
        self.register_buffer("turned", torch.ones(2, dtype=torch.complex128), persistent=False)

    def forward(self, x):
        one, other = self.wide(x).split(self.sizes, dim=1)
        self.seen, self.shape = [len(x)], list(x.shape)
        self.register_buffer("ones", torch.ones_like(one), persistent=False)
        return self.narrow((one * other + self.ones) * self.scale)


def cut_listing(module, kept=(0, 2, 5)):
    rows = torch.tensor(kept)
    both = torch.cat([rows, rows + 6])
    module.wide.weight = nn.Parameter(module.wide.weight.detach()[both])
    module.wide.bias = nn.Parameter(module.wide.bias.detach()[both])
    module.narrow.weight = nn.Parameter(module.narrow.weight.detach()[:, rows])
    module.wide.out_features, module.narrow.in_features = len(both), len(rows)
    module.sizes, module.scale = [len(rows), len(rows)], module.scale[rows]


def test_lists_of_integers_and_buffers_that_are_not_persistent_are_restored(tmp_path):
    start = Candidate.of(Listing(), torch.randn(2, 4))
    cut_listing(start.module)
    outputs = start.module(start.example)
    start.save(tmp_path)
    loaded = Candidate.load(tmp_path, start.example, lambda _: Listing())
    assert (loaded.module.sizes, type(loaded.module.sizes)) == ([3, 3], list)
    assert loaded.module.names == ["a", "b"]
    assert torch.equal(loaded.module.scale, start.module.scale)
    assert "scale" not in loaded.module.state_dict()
    assert not hasattr(loaded.module, "ones")
    assert not hasattr(loaded.module, "shape")
    assert torch.equal(loaded.module(start.example), outputs)
    assert loaded.fingerprint == start.fingerprint


def test_running_a_module_that_keeps_things_leaves_its_fingerprint_alone():
    start = Candidate.of(Listing(), torch.randn(2, 4))
    before = start.fingerprint
    start.validate()
    assert start.fingerprint == before


def test_files_without_lists_and_ties_load_as_before(tmp_path):
    start = Candidate.of(Listing(), torch.randn(2, 4))
    start.save(tmp_path)
    file = tmp_path / "candidate.json"
    new = {"lists", "ties", "temporary"}
    old = {k: v for k, v in json.loads(file.read_text()).items() if k not in new}
    file.write_text(json.dumps(old))
    save_file(start.module.state_dict(), tmp_path / "weights.safetensors")
    loaded = Candidate.load(tmp_path, start.example, lambda _: Listing())
    assert loaded.fingerprint == start.fingerprint
    assert torch.equal(loaded.module(start.example), start.module(start.example))


@pytest.mark.parametrize(
    "lists",
    [{"": {"names": [1, 2]}}, {"": {"evil": [1]}}, {"evil": {"sizes": [1]}}, {"": {"scale": [1]}}],
)
def test_a_strangers_lists_set_nothing_that_was_not_a_list_of_integers(lists, tmp_path):
    start = Candidate.of(Listing(), torch.randn(2, 4))
    start.save(tmp_path)
    file = tmp_path / "candidate.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"lists": lists}))
    loaded = Candidate.load(tmp_path, start.example, lambda _: Listing()).module
    assert not hasattr(loaded, "evil")
    assert (loaded.names, loaded.sizes) == (["a", "b"], [6, 6])
    assert torch.equal(loaded.scale, start.module.scale)


@pytest.mark.parametrize("lists", [{"": {"sizes": ["6", "x"]}}, {"": {"sizes": 6}}, [1]])
def test_lists_of_other_things_are_no_saved_candidate(lists, tmp_path):
    start = Candidate.of(Listing(), torch.randn(2, 4))
    start.save(tmp_path)
    file = tmp_path / "candidate.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"lists": lists}))
    with pytest.raises(CheckpointError, match="not a saved candidate"):
        Candidate.load(tmp_path, start.example, lambda _: Listing())


def test_the_weights_of_a_candidate_with_buffers_that_are_not_persistent_are_weights(tmp_path):
    start = Candidate.of(Listing(), torch.randn(2, 4))
    start.save(tmp_path)
    other = Listing()
    load_weights(other, tmp_path / "weights.safetensors")
    assert torch.equal(other.eval()(start.example), start.module(start.example))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: "{", "not readable as JSON"),
        (lambda d: json.dumps({}), "not a saved candidate"),
        (lambda d: json.dumps(d | {"structure": {}}), "is of another architecture"),
        (
            lambda d: json.dumps(
                d | {"structure": {k: v | {"evil": 1} for k, v in d["structure"].items()}}
            ),
            "evil is not part of this architecture",
        ),
        (lambda d: json.dumps(d | {"numerics": [{"format": {"weights": "int9"}}]}), "not a saved"),
    ],
)
def test_a_strangers_structure_file_cannot_add_anything(edit, message, tmp_path):
    start = candidate("mlp")
    start.save(tmp_path)
    file = tmp_path / "candidate.json"
    file.write_text(edit(json.loads(file.read_text())))
    with pytest.raises(CheckpointError, match=message):
        Candidate.load(tmp_path, start.example, rebuild)


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(StorageError, match=r"No space left on device.*earlier stages are"):
        candidate("mlp").save(tmp_path)


class Heads(nn.Module):
    """Two outputs by name."""

    def __init__(self):
        super().__init__()
        self.body, self.boxes, self.scores = nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(8, 3)

    def forward(self, x):
        trunk = self.body(x).relu()
        return {"boxes": self.boxes(trunk), "scores": self.scores(trunk)}


def heads(*outputs):
    torch.manual_seed(0)
    return replace(Candidate.of(Heads(), torch.randn(3, 4)), outputs=outputs)


def test_the_outputs_that_ship_are_saved_and_part_of_the_fingerprint(tmp_path):
    start = heads("scores")
    start.validate()
    start.save(tmp_path)
    loaded = Candidate.load(tmp_path, start.example, lambda _: Heads())
    assert loaded.outputs == start.fork().outputs == ("scores",)
    assert loaded.fingerprint == start.fingerprint != heads().fingerprint
    assert heads("boxes", "scores").fingerprint == heads("scores", "boxes").fingerprint
    given = start.module(start.example)
    assert list(loaded.shipped(given)) == ["scores"]
    assert list(heads("scores", "boxes").shipped(given)) == ["boxes", "scores"]
    assert list(heads().shipped(given)) == ["boxes", "scores"]


def test_a_candidate_that_ships_all_is_saved_as_before(tmp_path):
    heads().save(tmp_path)
    assert "outputs" not in json.loads((tmp_path / "candidate.json").read_text())


def test_only_outputs_of_the_model_can_ship():
    with pytest.raises(DataError, match=r"has no output 'boxs'; its outputs are boxes, scores\."):
        heads("boxs").validate()


def test_outputs_that_ship_are_finite():
    start = heads()
    start.module.boxes.bias.data.fill_(float("inf"))
    with pytest.raises(ContractViolation, match="outputs 'boxes' on the example are not finite"):
        start.validate()
    replace(start, outputs=("scores",)).validate()
