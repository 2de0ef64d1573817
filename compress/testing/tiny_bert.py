"""A tiny BERT in a folder of its own, with random weights and a tokenizer of a few words.

For tests and trial runs of all that takes a Hugging Face folder, where there is no real model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

__all__ = ["WORDS", "write_lines", "write_model", "write_tokenizer"]

_TEXT = (
    "a the of or that is used for small large animal plant stone water fire person who makes "
    "moves eats red green old new house tool to in with from very kind act state"
)
#: What the tokenizer knows; the first has the id 4.
WORDS = tuple(_TEXT.split())
_MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
}
# Fresh weights are so small that all layers but the first hardly matter.
_GAIN = 4.0


def write_model(folder: Path, seed: int = 0) -> None:
    """The model and its tokenizer, in the layout of sentence-transformers: mean, length 1."""
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(BertConfig(vocab_size=len(_MARKS) + len(WORDS), **_SIZES))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(_GAIN)
    model.save_pretrained(folder)
    write_tokenizer(folder, WORDS)
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": place, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (kind, path) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modes = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))


def write_tokenizer(folder: Path, words: Sequence[str]) -> None:
    """``tokenizer.json`` of whole words, in BERT's manner."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    folder.mkdir(parents=True, exist_ok=True)
    ids = {word: place for place, word in enumerate((*_MARKS, *words))}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    marks = [(mark, ids[mark]) for mark in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, marks)
    tokenizer.save(str(folder / "tokenizer.json"))


def write_lines(path: Path, count: int, seed: int = 0) -> None:
    """A text file of ``count`` different lines of 3 to 12 known words."""
    random = torch.Generator().manual_seed(seed)
    lines: dict[str, None] = {}
    while len(lines) < count:
        length = int(torch.randint(3, 13, (1,), generator=random))
        chosen = torch.randint(len(WORDS), (length,), generator=random).tolist()
        lines[" ".join(WORDS[place] for place in chosen)] = None
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
