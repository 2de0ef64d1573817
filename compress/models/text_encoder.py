"""A model of texts that gives one tensor: which batches it takes, and how tokens are pooled.

Owns the keys of a batch of tokens and the messages about one that does not fit. Knows nothing of
folders, and no library but torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.errors import DataError

__all__ = ["Encoder", "Pooling"]

#: One vector of many: the mean over tokens that are no padding, the first token's, or none: all.
Pooling = Literal["mean", "cls", "none"]

_MASK = "attention_mask"
_TYPES = "token_type_ids"
# The key of a configuration that says how far the values go.
_RANGES = {"input_ids": "vocab_size", _TYPES: "type_vocab_size"}
# By how much RoBERTa's first position is beyond 0.
_OFFSET = 2
# What a model raises where it misses an input, or has no place for one.
_FAILURES = (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError)


class Encoder(nn.Module):
    """A transformer that gives one tensor: embeddings ``(n, width)``, or the logits of a head.

    Args:
        model: takes ``input_ids`` and ``attention_mask``, and perhaps ``token_type_ids``.
        pooling: of its last hidden state; ``None`` for a model that gives logits.
        normalize: scale embeddings to length 1.
        classes_first: give logits for each token as ``(n, classes, tokens)``, which is what losses
            and metrics of classes take, in place of ``(n, tokens, classes)``.
    """

    def __init__(
        self,
        model: nn.Module,
        pooling: Pooling | None,
        *,
        normalize: bool,
        classes_first: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling
        self.normalize = normalize
        self.classes_first = classes_first

    @property
    def input_names(self) -> tuple[str, ...]:
        """What a batch for the model may hold, in the order of transformers."""
        kinds = self._setting("type_vocab_size")
        in_pairs = isinstance(kinds, int) and kinds > 1 and self._takes(_TYPES)
        return ("input_ids", _MASK, _TYPES) if in_pairs else ("input_ids", _MASK)

    @property
    def output_name(self) -> str:
        """What transformers calls the output that is needed of the model."""
        return "logits" if self.pooling is None else "last_hidden_state"

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """What the model says about tokens.

        Args:
            input_ids: ``(n, length)``, whole numbers.
            attention_mask: 1 for all but padding; where it is missing, nothing is padding.
            token_type_ids: which text of a pair a token is of, for a model that takes it; where
                it is missing, all are of the first.

        Raises:
            DataError: no ids of tokens, or a batch that the model has no place for.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        batch = {"input_ids": input_ids, _MASK: mask}
        if token_type_ids is not None:
            batch[_TYPES] = token_type_ids
        self._check(batch)
        answer = self._output(batch)
        if self.pooling is None:
            return answer.movedim(-1, 1) if self.classes_first else answer
        pooled = _pooled(answer, mask, self.pooling)
        return F.normalize(pooled, dim=-1) if self.normalize else pooled

    def _output(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The tensor of the model's outputs that is needed."""
        try:
            answer = self.model(**batch)
        except _FAILURES as error:
            # An exporter has its own to say of such errors, and there the values are not known.
            problem = None if torch.compiler.is_exporting() else self._problem(batch, error)
            if problem is None:
                raise
            raise DataError(problem) from error
        wanted = self.output_name
        tensor = getattr(answer, wanted, None)
        if not isinstance(tensor, Tensor):
            raise DataError(
                f"{self._name} gives no {wanted}; wrap it in a module that returns one tensor, and "
                "give that as `arch: module:name`."
            )
        return tensor

    @property
    def _name(self) -> str:
        return f"a model of type {self._setting('model_type') or type(self.model).__name__}"

    def _setting(self, key: str) -> Any:
        return getattr(getattr(self.model, "config", None), key, None)

    def _takes(self, name: str) -> bool:
        return name in inspect.signature(self.model.forward).parameters

    def _check(self, batch: Mapping[str, Tensor]) -> None:
        """See that the batch is one of tokens, and that the model takes what comes with them."""
        ids = batch["input_ids"]
        if ids.dim() != 2 or ids.is_floating_point():
            raise DataError(
                f"the batch is {str(ids.dtype).removeprefix('torch.')} of shape "
                f"{tuple(ids.shape)}; {self._name} takes ids of tokens, whole numbers of shape "
                "(samples, tokens)."
            )
        if _TYPES in batch and not self._takes(_TYPES):
            raise DataError(
                f"the batch holds {_TYPES}, of which {self._name} knows nothing; it takes "
                f"input_ids and {_MASK}."
            )
        for name, tensor in batch.items():
            if tensor.shape != ids.shape:
                raise DataError(
                    f"the batch's {name} is of shape {tuple(tensor.shape)}; it must be that of "
                    f"input_ids, {tuple(ids.shape)}."
                )

    def _problem(self, batch: Mapping[str, Tensor], error: Exception) -> str | None:
        """What to say of a batch that a model failed on; ``None`` if that says it already."""
        # A GPU has no answer after such an error.
        for name in [name for name in _RANGES if name in batch and batch[name].is_cpu]:
            low, high = int(batch[name].min()), int(batch[name].max())
            size = self._setting(_RANGES[name])
            if isinstance(size, int) and size > 0 and not 0 <= low <= high < size:
                return (
                    f"{name} go from {low} to {high}, which is beyond {self._name} with "
                    f"{_RANGES[name]} {size}; make them by its own tokenizer."
                )
        length, places = batch["input_ids"].shape[1], self._setting("max_position_embeddings")
        if isinstance(places, int) and 0 < places < length + _OFFSET:
            return (
                f"{self._name} with max_position_embeddings {places} does not take texts of "
                f"{length} tokens; give shorter ones, by a smaller max_length, say."
            )
        if "memory" in str(error):
            return None
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
        return f"{self._name} cannot run on a batch of {', '.join(batch)}: {reason}."


def _pooled(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    if pooling == "none":
        return hidden
    if pooling == "cls":
        return hidden[:, 0]
    weights = mask.to(hidden.dtype).unsqueeze(-1)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1.0)
