"""Folders: what is built from one, what is refused, and what is never done."""

import importlib.util
import json
import socket

import pytest
import torch
from torch.nn import functional as F

from compress.candidate import Architecture, Candidate
from compress.config.references import CodeReferences
from compress.errors import CheckpointError, MissingExtra, RecipeError
from compress.models.build import build_module
from compress.models.huggingface import (
    build_hub_model,
    load_folder,
    read_architecture,
    tokenizer_digest,
)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def encoder_of(folder, **settings):
    encoder = build_hub_model(read_architecture(folder, **settings).options)
    load_folder(encoder, folder)
    return encoder


def batch(length=7):
    ids = torch.randint(4, 30, (3, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 4:], ids[1, 4:] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def test_a_folder_gives_what_transformers_and_sentence_transformers_make_of_it(bert):
    from transformers import BertModel

    model = BertModel.from_pretrained(bert).eval()
    inputs = batch()
    hidden = model(**inputs).last_hidden_state
    weights = inputs["attention_mask"].float()[:, :, None]
    mean = (hidden * weights).sum(1) / weights.sum(1)
    ours = encoder_of(bert)(**inputs)
    assert torch.allclose(ours, F.normalize(mean, dim=1), atol=1e-5)
    assert torch.allclose(encoder_of(bert, normalize=False)(**inputs), mean, atol=1e-5)
    assert torch.allclose(encoder_of(bert, pooling="cls")(**inputs), hidden[:, 0], atol=1e-5)
    assert torch.allclose(encoder_of(bert, pooling="none")(**inputs), hidden, atol=1e-5)


@torch.no_grad()
def test_padding_changes_nothing(bert):
    encoder, short = encoder_of(bert), batch(5)
    padded = {name: F.pad(tensor, (0, 6)) for name, tensor in short.items()}
    assert torch.allclose(encoder(**short), encoder(**padded), atol=1e-5)


@torch.no_grad()
def test_a_classifier_gives_its_logits(bert):
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(bert, num_labels=5).eval()
    model.save_pretrained(bert)
    encoder = encoder_of(bert, task="text-classification")
    assert torch.allclose(encoder(**batch()), model(**batch()).logits, atol=1e-5)


def test_what_is_built_needs_the_folder_no_more(bert, tmp_path):
    architecture = read_architecture(bert)
    start = Candidate.of(encoder_of(bert), batch())
    start = Candidate(start.module, start.example, architecture)
    start.validate()
    start.save(tmp_path / "saved")
    (bert / "config.json").unlink()

    def build(stored):
        return build_module(stored, CodeReferences())

    assert Candidate.load(tmp_path / "saved", batch(), build).fingerprint == start.fingerprint


def test_no_weight_is_dead(bert):
    encoder = encoder_of(bert)
    encoder(**batch()).pow(2).sum().backward()
    dead = [name for name, p in encoder.named_parameters() if p.grad is None]
    assert not dead


def test_the_global_generator_and_the_network_are_left_alone(bert, monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    encoder_of(bert)


def test_code_of_a_folder_is_not_run(bert, tmp_path):
    marker = tmp_path / "ran"
    (bert / "evil.py").write_text(
        f"open({str(marker)!r}, 'w')\nclass Model: pass\nConfig = Model\n"
    )
    auto_map = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    edit(bert / "config.json", auto_map=auto_map)
    encoder_of(bert)
    assert not marker.exists()


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_become_float32(stored, bert):
    from transformers import BertModel

    half = BertModel.from_pretrained(bert).to(stored)
    half.save_pretrained(bert)
    kept, own = half.state_dict(), encoder_of(bert).model.state_dict()
    assert {tensor.dtype for tensor in own.values()} == {torch.float32}
    assert all(torch.equal(tensor, kept[name].float()) for name, tensor in own.items())


def test_pickled_weights_are_not_opened(bert):
    (bert / "model.safetensors").rename(bert / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"there is no model\.safetensors in it, .*pickled"):
        encoder_of(bert)


def test_damaged_weights_are_one_sentence(bert):
    (bert / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match=r"tiny-bert/model\.safetensors: not a reada"):
        encoder_of(bert)


def test_weights_that_are_missing_are_named(bert):
    changes = {"num_hidden_layers": 5}
    with pytest.raises(CheckpointError, match=r"lacks encoder\.layer\.3\..* and \d+ more"):
        encoder_of(bert, changes=changes)


def test_weights_of_another_shape_are_refused(bert):
    with pytest.raises(CheckpointError, match=r"cannot be loaded into .*`pretrained: false`"):
        encoder_of(bert, changes={"intermediate_size": 64})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": None}, r"config\.json: it does not say its model_type"),
        (
            {"model_type": "nonsense"},
            r"tiny-bert: transformers [\d.]+ knows no model type 'nonsense'; give another kind of",
        ),
        (
            {"model_type": "nonsense", "auto_map": {"AutoModel": "its.Model"}},
            r"knows no model type 'nonsense', and the folder's own code is not run; give",
        ),
        ({"quantization_config": {"bits": 4}}, r"its weights are quantized already"),
        ({"num_attention_heads": 5}, r"model type 'bert' cannot be built .*hidden size"),
    ],
)
def test_configurations_that_are_refused(bert, changes, said):
    edit(bert / "config.json", **changes)
    with pytest.raises(RecipeError, match=said):
        encoder_of(bert)


def test_a_change_must_be_of_a_key_that_is_there(bert):
    with pytest.raises(RecipeError, match="it has no key 'num_layers' to change"):
        read_architecture(bert, changes={"num_layers": 2})


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("config.json", None, r"config\.json: there is no such file, and a folder of a model"),
        ("config.json", "{", r"config\.json: not readable as JSON"),
        ("1_Pooling/config.json", '{"pooling_mode_max_tokens": true}', r"only pooling by the mean"),
        ("modules.json", '[{"type": "x.Dense"}]', r"a module Dense, which is not known here"),
    ],
)
def test_files_that_are_refused(bert, name, text, said):
    (bert / name).unlink()
    if text is not None:
        (bert / name).write_text(text)
    with pytest.raises(RecipeError, match=said):
        read_architecture(bert)


def test_arch_huggingface_points_to_hf():
    with pytest.raises(RecipeError, match="made from a folder: write `hf: FOLDER` in place of"):
        build_module(Architecture(arch="huggingface"), CodeReferences())


def test_without_transformers_the_extra_is_named(bert, monkeypatch):
    options = read_architecture(bert).options
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "transformers" else found(name)
    )
    with pytest.raises(MissingExtra, match=r"pip install 'compresskit\[transformers\]'"):
        build_hub_model(options)


def test_tokenizers_are_told_apart_by_what_decides_about_ids(bert, other_words, tmp_path):
    assert tokenizer_digest(bert) != tokenizer_digest(other_words)
    assert tokenizer_digest(tmp_path) is None
    before = tokenizer_digest(bert)
    edit(bert / "tokenizer.json", truncation={"max_length": 8}, padding=None)
    assert tokenizer_digest(bert) == before
    (bert / "tokenizer.json").write_text("[]")
    with pytest.raises(RecipeError, match="it holds no tokenizer"):
        tokenizer_digest(bert)
