"""Texts as token ids: how lines become a data set that an encoder takes.

Owns tokenizing by a folder's own tokenizer (extra ``transformers``, which brings tokenizers), the
padding to one length, and how texts are divided. Knows nothing of where texts come from.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from compress.config.fields import Whole
from compress.config.recipe_file import located
from compress.errors import DataError, MissingExtra
from compress.io.files import named, read_bounded, read_json, size_words
from compress.measure.similarity import similarity_spearman
from compress.models.huggingface import tokenizer_digest
from compress.preprocessing import TextPreprocessing
from compress.task import Task
from compress.tasks.arrays import ArrayDataset
from compress.training.labels import Labels

__all__ = ["TextLength", "TokenDataset", "Vocabulary", "text_task", "tokenize", "vocabulary_of"]

_Ids = np.ndarray[Any, np.dtype[np.int32]]

_CHUNK = 1024
_MOST_BYTES = 4 << 30
_MOST_TOKENIZER_BYTES = 64 << 20
_PADDING = -1
_SPLIT_SEED = 0
# What padding, and the end of a text, are called by tokenizers that do not say.
_PAD_TOKENS = ("[PAD]", "<pad>")
_END_TOKENS = ("<|endoftext|>", "</s>", "<eos>", "[SEP]")


#: Tokens of a text, with its special ones.
TextLength = Annotated[Whole, Field(ge=1, le=65_536)]


class TokenDataset(ArrayDataset):
    """Samples ``{input_ids, attention_mask}``, padded to one length; labels where there are any.

    Args:
        ids: ``(n, length)``, int32, with -1 behind the end of a text.
        pad_id: what stands there in ``input_ids``.
        labels: ``(n,)``, or by the name of the output that they are for.
    """

    def __init__(self, ids: Tensor, pad_id: int, labels: Labels | None = None) -> None:
        super().__init__(ids, labels)
        self.pad_id = pad_id

    @cached_property
    def lengths(self) -> Tensor:
        """Tokens of each text, ``(n,)``."""
        return (self.inputs != _PADDING).sum(1)

    def __getitem__(self, index: int, /) -> Any:
        """One sample: its tokens, or ``(tokens, label)``."""
        return self._fed(super().__getitem__(index))

    def __getitems__(self, indices: Sequence[int], /) -> Any:
        """One collated batch: tokens, or ``(tokens, labels)``."""
        return self._fed(super().__getitems__(indices))

    def subset(self, indices: Sequence[int]) -> TokenDataset:
        """A data set of these samples, in this order, with its own memory."""
        part = super().subset(indices)
        return TokenDataset(part.inputs, self.pad_id, part.labels)

    def without_labels(self) -> TokenDataset:
        """The tokens alone, sharing memory."""
        return TokenDataset(self.inputs, self.pad_id)

    def _fed(self, sample: Tensor | tuple[Tensor, Labels]) -> Any:
        if isinstance(sample, tuple):
            return self._fed(sample[0]), sample[1]
        is_text = sample != _PADDING
        ids = torch.where(is_text, sample, self.pad_id)
        return {"input_ids": ids.long(), "attention_mask": is_text.long()}


def tokenize(texts: Sequence[str], folder: Path, max_length: int) -> TokenDataset:
    """The texts as ids, cut and padded to ``max_length`` tokens, special ones included.

    Args:
        texts: of any length.
        folder: has ``tokenizer.json``, and perhaps ``tokenizer_config.json``.
        max_length: of every sample.

    Raises:
        DataError: no such tokenizer, a damaged one, or texts of which it leaves nothing.
        MissingExtra: tokenizers is not installed.
    """
    tokenizer = _load(folder)
    if max_length <= tokenizer.num_special_tokens_to_add(False):
        raise DataError(f"max_length {max_length} leaves no room for a text between its marks.")
    if (size := len(texts) * max_length * np.dtype(np.int32).itemsize) > _MOST_BYTES:
        raise DataError(
            f"{len(texts):,} texts of {max_length:,} tokens would take {size_words(size)} of "
            f"memory; the limit is {size_words(_MOST_BYTES)}: give a smaller max_length."
        )
    tokenizer.enable_truncation(max_length)
    pad_id = _pad_id(tokenizer, folder)
    tokenizer.no_padding()
    ids = np.full((len(texts), max_length), _PADDING, dtype=np.int32)
    for start in range(0, len(texts), _CHUNK):
        _encode(tokenizer, texts[start : start + _CHUNK], ids[start : start + _CHUNK], folder)
    return TokenDataset(torch.from_numpy(ids), pad_id)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A folder's tokenizer, for texts of any length.

    ``tokens`` are the names of all ids, none where some ids have no name, and ``end`` the id that
    stands between texts.
    """

    folder: Path
    tokenizer: Any
    tokens: tuple[str, ...]
    end: int

    def encode(self, texts: Sequence[str]) -> list[_Ids]:
        """The ids of each text with the tokenizer's own marks, less one of its end.

        Raises:
            DataError: a tokenizer that fails on a text.
        """
        found: list[_Ids] = []
        with _one_sentence(self.folder / "tokenizer.json"):
            for start in range(0, len(texts), _CHUNK):
                for encoding in self.tokenizer.encode_batch(list(texts[start : start + _CHUNK])):
                    ids = encoding.ids
                    own = ids[:-1] if ids and ids[-1] == self.end else ids
                    found.append(np.array(own, dtype=np.int32))
        return found


def vocabulary_of(folder: Path) -> Vocabulary:
    """The tokenizer of a folder, with what it calls the end of a text.

    Args:
        folder: has ``tokenizer.json``, and perhaps ``tokenizer_config.json``.

    Raises:
        DataError: no such tokenizer, a damaged one, or one without an end of texts.
        MissingExtra: tokenizers is not installed.
    """
    tokenizer = _load(folder)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = tokenizer.get_vocab()
    names = (*_named_token(folder / "tokenizer_config.json", "eos_token"), *_END_TOKENS)
    end = next((ids[name] for name in names if name in ids), None)
    if end is None:
        raise DataError(
            f"{named(folder)}: its tokenizer has no token for the end of a text, which stands "
            "between texts; name one as eos_token in tokenizer_config.json."
        )
    tokens = tuple(sorted(ids, key=lambda name: int(ids[name])))
    is_whole = [ids[name] for name in tokens] == list(range(len(tokens)))
    return Vocabulary(folder, tokenizer, tokens if is_whole else (), int(end))


def _encode(tokenizer: Any, texts: Sequence[str], ids: _Ids, folder: Path) -> None:
    """Write the ids of some texts into the rows of ``ids``."""
    with _one_sentence(folder / "tokenizer.json"):
        for row, encoding in zip(ids, tokenizer.encode_batch(list(texts)), strict=True):
            row[: len(encoding.ids)] = encoding.ids


def text_task(
    name: str,
    texts: Sequence[str],
    *,
    tokenizer: Path,
    max_length: int,
    held_out: tuple[int, int],
    labels: Sequence[int] | None = None,
    classes: tuple[str, ...] = (),
) -> Task:
    """A task of texts, in an order drawn once and for all, so that any first part is a sample.

    Without labels the metric is how well similarities agree with those of the baseline; with
    labels it is accuracy.

    Args:
        name: of the task.
        texts: all of them.
        tokenizer: folder of the tokenizer, as in a recipe.
        max_length: of every sample, in tokens.
        held_out: how many are for testing and for validation.
        labels: a class for each text.
        classes: their names.

    Raises:
        DataError: too few texts, or no tokenizer.
    """
    test, validation = held_out
    if len(texts) <= test + validation:
        raise DataError(
            f"task {name!r}: {len(texts)} texts are too few to hold {test} out for testing and "
            f"{validation} for validation; give more texts, or hold out fewer."
        )
    folder = located(tokenizer)
    tokens = tokenize(texts, folder, max_length)
    if labels is not None:
        tokens = TokenDataset(tokens.inputs, tokens.pad_id, torch.tensor(labels))
    order = np.random.RandomState(_SPLIT_SEED).permutation(len(texts)).tolist()
    first, second = test, test + validation
    return Task(
        name=name,
        train=tokens.subset(order[second:]),
        validation=tokens.subset(order[first:second]),
        test=tokens.subset(order[:first]),
        metric=similarity_spearman if labels is None else "accuracy",
        higher_is_better=True,
        outputs="values" if labels is None else "class-scores",
        classes=classes,
        tokenizer=tokenizer_digest(folder),
        preprocessing=TextPreprocessing(folder, max_length, tokens.pad_id),
    )


def _load(folder: Path) -> Any:
    path = folder / "tokenizer.json"
    if importlib.util.find_spec("tokenizers") is None:
        raise MissingExtra(
            "texts need tokenizers, which is not installed: pip install "
            "'compresskit[transformers]'."
        )
    if not os.path.lexists(path):
        raise DataError(
            f"{named(folder)}: there is no tokenizer.json in it; AutoTokenizer of transformers "
            "makes one of older files when it saves them."
        )
    import tokenizers

    content = read_bounded(path, _MOST_TOKENIZER_BYTES, DataError)
    with _one_sentence(path):
        return tokenizers.Tokenizer.from_buffer(content)


@contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    """Whatever a tokenizer of a stranger makes the library raise is of the file."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # plain exceptions, and panics, which are none
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{named(path)}: not a readable tokenizer ({named(reason)}).") from error


def _pad_id(tokenizer: Any, folder: Path) -> int:
    if tokenizer.padding is not None:
        return int(tokenizer.padding["pad_id"])
    candidates = [*_named_token(folder / "tokenizer_config.json", "pad_token"), *_PAD_TOKENS]
    known = (tokenizer.token_to_id(token) for token in candidates)
    return next((int(place) for place in known if place is not None), 0)


def _named_token(path: Path, key: str) -> Iterator[str]:
    if not os.path.lexists(path):
        return
    content = read_json(path, _MOST_TOKENIZER_BYTES, DataError)
    given = content.get(key) if isinstance(content, dict) else None
    token = given.get("content") if isinstance(given, dict) else given
    if isinstance(token, str):
        yield token
