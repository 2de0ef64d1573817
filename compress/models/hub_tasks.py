"""What models from Hugging Face folders are used for, in the hub's words.

A table of tasks: which classes of transformers and of ``optimum.onnxruntime`` are for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["HUB_TASKS", "HubTask", "HubTaskFacts"]

#: What a model is used for, in the hub's words.
HubTask = Literal["feature-extraction", "text-classification"]


@dataclass(frozen=True)
class HubTaskFacts:
    """One task: the class that builds its models, the classes of each family, and what opens them.

    ``auto_class`` and ``mapping`` are names in transformers, ``opened_by`` one in
    ``optimum.onnxruntime``.
    """

    auto_class: str
    mapping: str
    opened_by: str


HUB_TASKS: dict[HubTask, HubTaskFacts] = {
    "feature-extraction": HubTaskFacts(
        "AutoModel", "MODEL_MAPPING", "ORTModelForFeatureExtraction"
    ),
    "text-classification": HubTaskFacts(
        "AutoModelForSequenceClassification",
        "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
        "ORTModelForSequenceClassification",
    ),
}
