"""Folders of models from strangers: configurations, indices, links, tokenizers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from compress.errors import CheckpointError, DataError, RecipeError
from compress.models.huggingface import (
    build_hub_model,
    load_folder,
    read_architecture,
    tokenizer_digest,
)
from compress.tasks.tokens import tokenize

pytestmark = pytest.mark.fast

CONFIG = {
    "model_type": "bert",
    "vocab_size": 10,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 32,
}

# -- configurations ---------------------------------------------------------------------------

FORGED = [
    ({"num_hidden_layers": 10**9}, "num_hidden_layers: 1000000000, which is more than 1,000"),
    ({"num_hidden_layers": 10**400}, "num_hidden_layers: 1000.*which is more than 1,000"),
    ({"num_hidden_layers": 0}, "num_hidden_layers: 0, which must be at least 1"),
    ({"num_hidden_layers": -3}, "num_hidden_layers: -3, which must be at least 1"),
    ({"num_hidden_layers": "12"}, "field 'num_hidden_layers': .*int"),
    ({"num_hidden_layers": None}, "field 'num_hidden_layers'"),
    ({"num_hidden_layers": [1]}, "field 'num_hidden_layers'"),
    ({"num_hidden_layers": True}, "num_hidden_layers: True, which must be at least 1"),
    ({"hidden_size": 10**9}, r"its weights would take over [\d.,]+ GiB"),
    ({"hidden_size": 10**30}, "hidden_size: 1000.* which is beyond any size"),
    ({"hidden_size": 2**40}, "(would take over|would be larger than any memory)"),
    ({"hidden_size": 0}, "hidden_size: 0, which must be at least 1"),
    ({"hidden_size": -16}, "hidden_size: -16, which must be at least 1"),
    ({"hidden_size": 1.5}, "field 'hidden_size'"),
    ({"hidden_size": float("nan")}, "hidden_size: nan, which is no finite number"),
    ({"vocab_size": 10**12}, r"its weights would take over [\d.,]+ GiB"),
    ({"vocab_size": 0}, "vocab_size: 0, which must be at least 1"),
    ({"vocab_size": "ten"}, "field 'vocab_size'"),
    ({"num_attention_heads": 0}, "num_attention_heads: 0, which must be at least 1"),
    ({"num_attention_heads": 10**9}, "not a multiple of the number of attention heads"),
    ({"intermediate_size": 10**12}, r"its weights would take over [\d.,]+ GiB"),
    ({"type_vocab_size": -1}, "negative dimension -1"),
    ({"num_labels": 10**9}, "num_labels: 1000000000, which is more than 1,000,000"),
    ({"layer_norm_eps": float("inf")}, "layer_norm_eps: inf, which is no finite number"),
    ({"layer_norm_eps": "small"}, "field 'layer_norm_eps'"),
    ({"hidden_act": "evil"}, "it knows no 'evil'"),
    ({"hidden_dropout_prob": 7.0}, "dropout probability has to be between 0 and 1"),
    ({"id2label": [1]}, "cannot be built"),
    ({"pad_token_id": 10**6}, "Padding_idx must be within num_embeddings"),
    ({"model_type": ["bert"]}, "it does not say its model_type"),
    ({"model_type": "x\ny"}, r"knows no model type 'x\\\\ny'"),
    ({"inner": {"num_layers": 10**9}}, r"inner\.num_layers: 1000000000, which is more than 1,000"),
]


@pytest.mark.parametrize(("change", "words"), FORGED, ids=lambda value: str(value)[:40])
def test_a_forged_configuration_is_one_sentence(change, words, tmp_path, refused):
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | change))

    def build():
        return build_hub_model(read_architecture(tmp_path).options)

    refused(build, RecipeError, words)


@pytest.mark.parametrize(
    "change",
    [
        {"attn_implementation": "somebody/kernels"},
        {"_attn_implementation": "somebody/kernels"},
        {"experts_implementation": "somebody/kernels"},
        {"auto_map": {"AutoModel": "evil.Model"}},
        {"return_dict": False},
        {"output_hidden_states": True},
        {"dtype": "nonsense"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_is_no_structure_is_left_out(change, tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | change))
    options = read_architecture(tmp_path).options
    for given in (options, options | {"config": CONFIG | change}):
        encoder = build_hub_model(given)
        assert encoder(input_ids=torch.tensor([[1, 2]])).shape == (1, 16)


@pytest.mark.parametrize(
    "change",
    [
        {"task": "translation"},
        {"pooling": "most"},
        {"pooling": ["mean"]},
        {"normalize": 3},
        {"config": CONFIG | {"quantization_config": {"bits": 4}}},
    ],
    ids=str,
)
def test_forged_options_of_a_saved_candidate_are_one_sentence(change, refused):
    pytest.importorskip("transformers")
    options = {"config": CONFIG, "task": "feature-extraction", "pooling": "mean"}
    options |= {"normalize": False} | change
    refused(lambda: build_hub_model(options), RecipeError, "no quantized weights; got")


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        ([3], "it is no list of modules; say `pooling` and `normalize`"),
        ([{"type": "x.Pooling", "path": "../1_Pooling"}], "'../1_Pooling', which is outside"),
        ([{"type": "x.Pooling", "path": "/etc"}], "'/etc', which is outside of the folder"),
        ([{"type": "x.Pooling", "path": "a\0"}], r"'a\\\\x00', which is outside of the folder"),
        ([{"type": "x.Dense\x1b"}], r"a module Dense\\x1b, which is not known here"),
        ([{"type": "x.Pooling", "path": "gone"}], "there is no such file, and modules.json names"),
    ],
    ids=str,
)
def test_forged_modules_are_one_sentence(modules, words, tmp_path, refused):
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    refused(lambda: read_architecture(tmp_path), RecipeError, words)


# -- weights ----------------------------------------------------------------------------------


@pytest.fixture
def copy(hub, tmp_path):
    return Path(shutil.copytree(hub, tmp_path / "tiny-bert"))


def load(folder):
    encoder = build_hub_model(read_architecture(folder).options)
    load_folder(encoder, folder)
    return encoder


def split(folder, change=lambda places: places, content=None):
    """The weights in two files and an index, as large models have them."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, own in parts.items():
        save_file({name: tensors[name] for name in own}, folder / file)
    places = {name: file for file, own in parts.items() for name in own}
    index = {"metadata": {}, "weight_map": change(places)} if content is None else content
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_weights_in_several_files_are_those_of_one(copy, hub):
    split(copy)
    one, other = load(hub).state_dict(), load(copy).state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


INDICES = [
    (lambda places: [places], "it has no weight_map of the names of tensors to those of files"),
    (lambda places: dict.fromkeys(places, 3), "it has no weight_map"),
    (lambda places: {}, "it names 0 files, and 1 to 1,000 are taken"),
    (lambda places: {n: f"{i}.safetensors" for i, n in enumerate(range(1500))}, "it names 1,500"),
    (lambda places: dict.fromkeys(places, "pytorch_model.bin"), "it names 'pytorch_model.bin'"),
    (lambda places: dict.fromkeys(places, "x.safetensors.pkl"), "only .safetensors files are open"),
    (lambda places: dict.fromkeys(places, "../a.safetensors"), "which is another folder's"),
    (lambda places: dict.fromkeys(places, "/etc/a.safetensors"), "which is another folder's"),
    (lambda places: dict.fromkeys(places, "sub/a.safetensors"), "which is another folder's"),
    (lambda places: dict.fromkeys(places, "..\\a.safetensors"), "which is another folder's"),
    (lambda places: dict.fromkeys(places, "a\0.safetensors"), "which is another folder's"),
    (lambda places: dict.fromkeys(places, "c.safetensors"), "there is no such file"),
    (lambda places: dict.fromkeys(places, "a.safetensors"), "is in it, and it is not"),
    (lambda places: {n: f for n, f in places.items() if f[0] == "a"}, r"model\.safetensors lacks"),
]


@pytest.mark.parametrize(("change", "words"), INDICES, ids=range(len(INDICES)))
def test_a_forged_index_is_one_sentence(change, words, copy, refused, monkeypatch):
    monkeypatch.setattr(torch, "load", None)
    split(copy, change)
    refused(lambda: load(copy), CheckpointError, words)


@pytest.mark.parametrize("content", [[], 3, {}, {"weight_map": None}], ids=str)
def test_an_index_of_another_kind_is_one_sentence(content, copy, refused):
    split(copy, content=content)
    refused(lambda: load(copy), CheckpointError, "it has no weight_map")


@pytest.mark.parametrize("name", ["a.safetensors", "model.safetensors"])
def test_a_link_out_of_the_folder_is_one_sentence(name, copy, tmp_path, refused):
    if name == "a.safetensors":
        split(copy)
    (copy / name).rename(tmp_path / "private.safetensors")
    (copy / name).symlink_to(tmp_path / "private.safetensors")
    refused(lambda: load(copy), CheckpointError, r"it is a link to .*, outside of the folder; put")


def test_links_within_the_folder_and_into_the_hubs_cache_are_followed(copy, tmp_path):
    (copy / "model.safetensors").rename(copy / "kept")
    (copy / "model.safetensors").symlink_to("kept")
    load(copy)
    blobs = tmp_path / "models--somebody--tiny" / "blobs"
    blobs.mkdir(parents=True)
    shutil.copy(copy / "kept", blobs / "3f2a")
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors").symlink_to(blobs / "3f2a")
    load(copy)


NAME = "encoder.layer.0.output.dense.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.int(), f"'{NAME}' is int32, and the model has float32, which it cannot"),
        (lambda w: w.bool(), f"'{NAME}' is bool, and the model has float32"),
        (lambda w: w.to(torch.float8_e4m3fn), f"'{NAME}' is float8_e4m3fn, and the model"),
        (lambda w: w * torch.nan, "holds values that are not finite"),
        (lambda w: w.double() * 1e300, "holds values that are not finite"),
        (lambda w: w[:, :-1].contiguous(), "its weights cannot be loaded into this model"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "bert."])
def test_tensors_that_are_not_the_models_are_refused(change, words, prefix, copy, refused):
    tensors = load_file(copy / "model.safetensors")
    tensors[NAME] = change(tensors[NAME])
    tensors = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    refused(lambda: load(copy), CheckpointError, words.replace("'encoder", f"'{prefix}encoder"))


# -- tokenizers -------------------------------------------------------------------------------


def edited(path, change):
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


TOKENIZERS = [
    (lambda facts: [facts], "not a readable tokenizer"),
    (lambda facts: {}, "not a readable tokenizer"),
    (lambda facts: facts | {"model": {"type": "Evil"}}, "not a readable tokenizer"),
    (lambda facts: facts | {"model": 3}, "not a readable tokenizer"),
    (lambda facts: facts | {"normalizer": {"type": "x\ny"}}, "not a readable tokenizer"),
    (lambda facts: facts | {"pre_tokenizer": 9}, "not a readable tokenizer"),
    (
        lambda facts: facts | {"model": facts["model"] | {"vocab": {"a": 0}}},
        "not a readable tokenizer",
    ),
    (
        lambda facts: facts | {"model": facts["model"] | {"vocab": {"[UNK]": 2**31}}},
        "not a readable tokenizer",
    ),
    (
        lambda facts: facts | {"model": facts["model"] | {"vocab": {"[UNK]": -1}}},
        "not a readable tokenizer",
    ),
    (
        lambda facts: (
            facts
            | {
                "pre_tokenizer": {
                    "type": "Split",
                    "pattern": {"Regex": "(("},
                    "behavior": "Removed",
                }
            }
        ),
        "not a readable tokenizer",
    ),
]


@pytest.mark.parametrize(("change", "words"), TOKENIZERS, ids=range(len(TOKENIZERS)))
def test_a_forged_tokenizer_is_one_sentence(change, words, copy, refused):
    edited(copy / "tokenizer.json", change)
    refused(lambda: tokenize(["zebra crossing"], copy, 8), DataError, words)


def test_texts_of_more_tokens_than_memory_are_refused(copy, refused):
    words = r"2 texts of 1,000,000,000 tokens would take 7\.5 GiB of memory"
    refused(lambda: tokenize(["a", "b"], copy, 10**9), DataError, words)


def test_a_tokenizer_that_is_none_has_no_digest(copy, refused):
    (copy / "tokenizer.json").write_text("[1]")
    refused(lambda: tokenizer_digest(copy), RecipeError, "it holds no tokenizer")


def test_settings_of_a_tokenizer_that_are_none_are_left_out(copy):
    (copy / "tokenizer_config.json").write_text("[1]")
    assert tokenize(["a"], copy, 8).pad_id == 0
