"""Families of models: what docs/transformers.md says of each is so; and batches of each kind."""

import json
import re
from pathlib import Path

import onnx
import pytest
import torch
from torch.nn import functional as F

from compress.artifact import Lowering
from compress.backends.onnx import lower
from compress.candidate import Candidate
from compress.errors import DataError, RecipeError
from compress.models.huggingface import build_hub_model, load_folder, read_architecture
from compress.modules.inputs import forward

DOCS = Path(__file__).parents[2] / "docs" / "transformers.md"
_WIDTH, _WORDS, _PLACES = 32, 48, 32
# What configurations call their sizes.
TINY = {
    **dict.fromkeys(("hidden_size", "dim", "d_model", "n_embd", "emb_dim"), _WIDTH),
    **dict.fromkeys(("embedding_size", "true_hidden_size"), _WIDTH),
    **dict.fromkeys(("num_hidden_layers", "n_layers", "n_layer", "num_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head", "num_heads"), 4),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "ffn_dim", "d_inner"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), _PLACES),
    **dict.fromkeys(("head_dim", "d_head"), 8),
    **dict.fromkeys(("word_embed_proj_dim", "intra_bottleneck_size"), _WIDTH),
    **dict.fromkeys(("num_key_value_heads", "num_local_experts", "type_vocab_size"), 2),
    **dict(zip(("pad_token_id", "bos_token_id", "eos_token_id"), range(3), strict=True)),
    "attention_window": 8,
    "vocab_size": _WORDS,
}
SPECIAL = {"esm": {"mask_token_id": 1}, "funnel": {"block_sizes": [1, 1], "d_model": _WIDTH}}


def families(row):
    """The model types of a row of the table."""
    (line,) = [line for line in DOCS.read_text().splitlines() if line.startswith(f"| {row}")]
    return re.findall(r"`([\w-]+)`", line)


LOWERED = families("lowered, and compared")
RUN = families("built and run |")
LEAKY = families("built and run, and padding")
NOT_LOWERED = families("built and run, and not lowered")
REFUSED = families("not supported with")


def write_config(folder, kind, **changes):
    from transformers import AutoConfig

    whole = AutoConfig.for_model(kind).to_dict()
    values = {key: value for key, value in TINY.items() if key in whole}
    values |= SPECIAL.get(kind, {}) | changes
    AutoConfig.for_model(kind, **values).save_pretrained(folder)


def encoder_of(folder, kind, task="feature-extraction", **changes):
    write_config(folder, kind, **changes)
    torch.manual_seed(0)
    return build_hub_model(read_architecture(folder, task).options)


def batch(*names):
    ids = torch.randint(3, 30, (4, 9), generator=torch.Generator().manual_seed(0))
    mask, kinds = torch.ones_like(ids), torch.zeros_like(ids)
    mask[1, 6:], ids[1, 6:], kinds[:, 4:] = 0, 0, 1
    whole = {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}
    return {name: whole[name] for name in names or ("input_ids", "attention_mask")}


def lowered_inputs(encoder, example, path):
    candidate = Candidate.of(encoder, example)
    candidate.validate()
    artifact = lower(candidate, Lowering(), calibration=[example], check=example, path=path)
    assert artifact.parity.max_error < 1e-4
    return {value.name for value in onnx.load(path).graph.input}


@pytest.mark.parametrize("kind", LOWERED)
def test_families_that_are_lowered(kind, tmp_path):
    encoder = encoder_of(tmp_path, kind)
    inputs = lowered_inputs(encoder, batch(), tmp_path / "model.onnx")
    assert inputs == {"input_ids", "attention_mask"}


@torch.no_grad()
@pytest.mark.parametrize("kind", [*LOWERED, *RUN, *LEAKY, *NOT_LOWERED])
def test_families_that_run(kind, tmp_path):
    encoder = encoder_of(tmp_path, kind)
    short = batch()
    outputs = forward(encoder, short)
    assert outputs.shape == (4, _WIDTH)
    padded = forward(encoder, {name: F.pad(tensor, (0, 4)) for name, tensor in short.items()})
    assert torch.allclose(outputs, padded, atol=1e-4) == (kind not in LEAKY)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["bert", "distilbert", "gpt2"])
def test_without_a_mask_nothing_is_padding(kind, tmp_path):
    encoder, ids = encoder_of(tmp_path, kind), batch()["input_ids"]
    full = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    assert torch.equal(forward(encoder, full), forward(encoder, {"input_ids": ids}))
    assert torch.equal(forward(encoder, full), forward(encoder, ids))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_token_types_are_passed_on(kind, tmp_path):
    encoder = encoder_of(tmp_path, kind)
    three = batch("input_ids", "attention_mask", "token_type_ids")
    hidden = encoder.model(**three).last_hidden_state
    weights = three["attention_mask"].float()[:, :, None]
    outputs = forward(encoder, three)
    assert torch.allclose(outputs, (hidden * weights).sum(1) / weights.sum(1), atol=1e-6)
    assert not torch.allclose(outputs, forward(encoder, batch()), atol=1e-4)
    three["token_type_ids"].zero_()
    assert torch.equal(forward(encoder, three), forward(encoder, batch()))


@pytest.mark.parametrize(
    "names", [["input_ids"], ["token_type_ids", "attention_mask", "input_ids"]]
)
def test_a_file_has_the_inputs_of_the_batch(names, tmp_path):
    encoder = encoder_of(tmp_path, "bert")
    assert lowered_inputs(encoder, batch(*names), tmp_path / "model.onnx") == set(names)


@pytest.mark.parametrize("kind", ["gpt2", "distilbert"])
def test_classifiers_give_their_logits(kind, tmp_path):
    encoder = encoder_of(tmp_path, kind, "text-classification", num_labels=5)
    with torch.no_grad():
        outputs = forward(encoder, batch())
        assert torch.equal(outputs, encoder.model(**batch()).logits)
    assert outputs.shape == (4, 5)


def test_a_pooler_that_a_model_insists_on_is_left_out_too(tmp_path):
    from transformers import AutoModel

    write_config(tmp_path, "squeezebert")
    architecture = read_architecture(tmp_path)
    encoder = build_hub_model(architecture.options)
    AutoModel.from_config(encoder.model.config).save_pretrained(tmp_path)
    load_folder(encoder, tmp_path)
    encoder(**batch()).pow(2).sum().backward()
    assert not [name for name, p in encoder.named_parameters() if p.grad is None]


@pytest.mark.parametrize("kind", REFUSED)
def test_families_that_are_refused(kind, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    said = (
        rf"^{re.escape(str(tmp_path))}: the model type '{kind}' (takes|has) [\w ,-]*, and only an "
        r"encoder or a decoder of texts is taken from a folder; (say `task: [\w-]+`, or )?give "
        r"another kind of model as "
        r"`arch: module:name`\.$"
    )
    with pytest.raises(RecipeError, match=said):
        read_architecture(tmp_path)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("vit", "takes pixel_values in place of token ids"),
        ("wav2vec2", "takes input_values in place of token ids"),
        ("clip", "takes image input beside token ids"),
        ("t5", "has an encoder and a decoder"),
        ("fnet", "takes no attention_mask"),
        ("trocr", "has no class for feature-extraction in transformers"),
    ],
)
def test_the_reason_is_given(kind, said, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(RecipeError, match=f"the model type '{kind}' {said}, and only"):
        read_architecture(tmp_path)


def test_a_family_without_classifiers_is_refused_as_one(tmp_path):
    write_config(tmp_path, "splinter")
    with pytest.raises(RecipeError, match="'splinter' has no class for text-classification in"):
        read_architecture(tmp_path, "text-classification")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("dpr", r"a model of type dpr gives no last_hidden_state; wrap it in a module that"),
        ("bros", r"type bros cannot run on a batch of input_ids, attention_mask: .*specify bbox\."),
    ],
)
def test_models_that_need_more_than_tokens_say_so_when_they_run(kind, said, tmp_path):
    encoder = encoder_of(tmp_path, kind)
    with pytest.raises(DataError, match=said):
        forward(encoder, batch())


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        (
            "distilbert",
            {"token_type_ids": torch.zeros(4, 9, dtype=torch.long)},
            r"holds token_type_ids, of which a model of type distilbert knows nothing; it takes",
        ),
        (
            "bert",
            {"attention_mask": torch.ones(4, 8)},
            r"attention_mask is of shape \(4, 8\); it must be that of input_ids, \(4, 9\)\.",
        ),
        (
            "bert",
            {"input_ids": torch.rand(4, 9)},
            r"the batch is float32 of shape \(4, 9\); a model of type bert takes ids of tokens",
        ),
        ("bert", {"input_ids": torch.ones(4, 9, 2).long()}, r"is int64 of shape \(4, 9, 2\); a"),
        (
            "bert",
            {"input_ids": torch.arange(45, 81).reshape(4, 9)},
            r"input_ids go from 45 to 80, which is beyond a model of type bert with vocab_size 48;",
        ),
        (
            "bert",
            {"token_type_ids": torch.full((4, 9), 2)},
            r"token_type_ids go from 2 to 2, which is beyond .* with type_vocab_size 2; make",
        ),
    ],
)
def test_batches_that_are_refused(kind, changes, said, tmp_path):
    encoder = encoder_of(tmp_path, kind)
    with pytest.raises(DataError, match=said):
        forward(encoder, batch() | changes)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "roberta"])
def test_texts_that_are_too_long_are_refused(kind, tmp_path):
    encoder = encoder_of(tmp_path, kind)
    said = (
        rf"type {kind} with max_position_embeddings 32 does not take texts of 33 tokens; give "
        "shorter ones, by a smaller max_length, say"
    )
    with pytest.raises(DataError, match=said):
        forward(encoder, torch.ones(2, 33, dtype=torch.long) + 2)


def test_what_is_no_fault_of_the_batch_is_passed_on(tmp_path, monkeypatch):
    encoder = encoder_of(tmp_path, "bert")

    def exhausted(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(encoder.model.encoder, "forward", exhausted)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        forward(encoder, batch())
