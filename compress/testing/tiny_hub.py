"""Tiny folders in the form of the Hugging Face hub, of thirteen families, with random weights.

For tests and trial runs of what takes such folders: texts (embeddings, classes of texts, pairs and
tokens, words left out, the next token), images and audio. ``python -m compress.testing.tiny_hub
FAMILY FOLDER`` writes one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compress.testing.tiny_bert import WORDS, write_tokenizer

__all__ = ["TINY_FAMILIES", "inputs_like", "write_family"]

_WIDTH, _LAYERS, _HEADS, _UNITS, _TOKENS = 32, 2, 4, 48, 24
_CLASSES = 4
_PIXELS, _SOUND, _FRAMES, _BINS = 16, 800, 32, 16
_GAIN = 4.0  # fresh weights are so small that all layers but the first hardly matter
_ENCODER = {
    "hidden_size": _WIDTH,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "intermediate_size": _UNITS,
    "num_labels": _CLASSES,
}
_TEXT = {
    **_ENCODER,
    "vocab_size": len(WORDS) + 4,
    "pad_token_id": 0,
    "max_position_embeddings": _TOKENS + 2,  # which RoBERTa counts from 2 on
}
_DISTIL = {"dim": _WIDTH, "n_layers": _LAYERS, "n_heads": _HEADS, "hidden_dim": _UNITS}
_GPT = {"n_embd": _WIDTH, "n_layer": _LAYERS, "n_head": _HEADS, "n_positions": _TOKENS}
_MARKS = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
_CONVOLUTIONS: dict[str, Any] = {
    "conv_dim": (16, 16),
    "conv_stride": (5, 2),
    "conv_kernel": (10, 3),
}
_CONVOLUTIONS |= {"num_feat_extract_layers": 2, "classifier_proj_size": 16}
_CONVOLUTIONS |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
_SPECTRUM = {"max_length": _FRAMES, "num_mel_bins": _BINS, "patch_size": 8}
_SPECTRUM |= {"time_stride": 8, "frequency_stride": 8}

#: By family: what its class in transformers is called, its configuration, and the hub's task.
TINY_FAMILIES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "bert": ("BertForSequenceClassification", "bert", _TEXT, "text-classification"),
    "bert-tokens": ("BertForTokenClassification", "bert", _TEXT, "token-classification"),
    "distilbert": (
        "DistilBertForSequenceClassification",
        "distilbert",
        _TEXT | _DISTIL,
        "text-classification",
    ),
    "roberta": ("RobertaModel", "roberta", _TEXT | {"type_vocab_size": 1}, "feature-extraction"),
    "mpnet": ("MPNetModel", "mpnet", _TEXT, "feature-extraction"),
    "albert": ("AlbertForMaskedLM", "albert", _TEXT | {"embedding_size": 16}, "fill-mask"),
    "gpt2": ("GPT2LMHeadModel", "gpt2", _TEXT | _GPT | _MARKS, "text-generation"),
    "llama": (
        "LlamaForCausalLM",
        "llama",
        _TEXT | _MARKS | {"num_key_value_heads": _HEADS},
        "text-generation",
    ),
    "mobilebert": (
        "MobileBertForSequenceClassification",
        "mobilebert",
        _TEXT | {"embedding_size": 16, "true_hidden_size": 16, "intra_bottleneck_size": 16},
        "text-classification",
    ),
    "deit": (
        "DeiTForImageClassification",
        "deit",
        _ENCODER | {"image_size": _PIXELS, "patch_size": 4},
        "image-classification",
    ),
    "vit": (
        "ViTForImageClassification",
        "vit",
        _ENCODER | {"image_size": _PIXELS, "patch_size": 4},
        "image-classification",
    ),
    "wav2vec2": (
        "Wav2Vec2ForSequenceClassification",
        "wav2vec2",
        _ENCODER | _CONVOLUTIONS,
        "audio-classification",
    ),
    "ast": (
        "ASTForAudioClassification",
        "audio-spectrogram-transformer",
        _ENCODER | _SPECTRUM,
        "audio-classification",
    ),
}


def write_family(folder: Path, family: str, seed: int = 0) -> None:
    """The model of a family in ``folder``, with a tokenizer of a few words where it takes texts."""
    import transformers

    name, kind, values, _ = TINY_FAMILIES[family]
    config = transformers.AutoConfig.for_model(kind)
    # Some values are of no family's but a few, and a configuration would keep any.
    known = config.to_dict().keys() | config.attribute_map.keys() | {"num_labels"}
    settings = transformers.AutoConfig.for_model(
        kind, **{key: value for key, value in values.items() if key in known}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, name)(settings)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(_GAIN)
    model.save_pretrained(folder)
    if TINY_FAMILIES[family][3] not in ("image-classification", "audio-classification"):
        write_tokenizer(folder, WORDS)


def inputs_like(
    family: str, samples: int, seed: int = 0, *, length: int | None = None
) -> Tensor | dict[str, Tensor]:
    """Random inputs for a family; texts are of different lengths, padded to ``length``."""
    random = torch.Generator().manual_seed(seed)

    def images() -> Tensor:
        return torch.randn(samples, 3, _PIXELS, _PIXELS, generator=random)

    makers: dict[str, Callable[[], Tensor]] = {
        "deit": images,
        "vit": images,
        "wav2vec2": lambda: torch.randn(samples, length or _SOUND, generator=random),
        "ast": lambda: torch.randn(samples, _FRAMES, _BINS, generator=random),
    }
    if family in makers:
        return makers[family]()
    size = (samples, length or _TOKENS // 2)
    ids = torch.randint(4, len(WORDS) + 4, size, generator=random)
    ends = torch.randint(max(1, size[1] // 2), size[1] + 1, (samples, 1), generator=random)
    mask = (torch.arange(size[1]) < ends).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def _main() -> None:
    parser = argparse.ArgumentParser(description="Write a tiny model in the form of the hub.")
    parser.add_argument("family", choices=TINY_FAMILIES)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    write_family(arguments.folder, arguments.family)


if __name__ == "__main__":
    _main()
