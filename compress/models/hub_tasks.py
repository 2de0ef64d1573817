"""What models from Hugging Face folders are used for, in the hub's words.

A table of tasks: what goes into a model, and which classes of transformers and of
``optimum.onnxruntime`` are for one. Which task a folder is for, by the class that it names, is
optimum's to say (extra ``transformers``). The only file that imports optimum.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, Literal, get_args

from compress.backends.onnx.quiet import quiet
from compress.errors import MissingExtra, RecipeError
from compress.io.files import named

__all__ = ["HUB_TASKS", "HubTask", "HubTaskFacts", "task_of"]

#: What a model is used for, in the hub's words.
HubTask = Literal[
    "feature-extraction",
    "text-classification",
    "token-classification",
    "fill-mask",
    "text-generation",
    "image-classification",
    "audio-classification",
]


@dataclass(frozen=True)
class HubTaskFacts:
    """One task: what its models take, the class that builds them, and what opens their files.

    ``modality`` is text, image or audio, and ``takes`` the model's input. ``auto_class`` and
    ``mapping`` (the classes of each family) are names in transformers, ``opened_by`` one in
    ``optimum.onnxruntime``. ``for_each_token``: whether there are logits for every token.
    """

    modality: str
    takes: str
    auto_class: str
    mapping: str
    opened_by: str
    for_each_token: bool = False


def _of(
    modality: str, takes: str, classes: str, mapping: str, *, for_each_token: bool = False
) -> HubTaskFacts:
    return HubTaskFacts(
        modality,
        takes,
        f"AutoModel{classes}",
        f"MODEL_{mapping}MAPPING",
        f"ORTModel{classes}",
        for_each_token,
    )


HUB_TASKS: dict[HubTask, HubTaskFacts] = {
    "feature-extraction": HubTaskFacts(
        "text", "input_ids", "AutoModel", "MODEL_MAPPING", "ORTModelForFeatureExtraction"
    ),
    "text-classification": _of(
        "text", "input_ids", "ForSequenceClassification", "FOR_SEQUENCE_CLASSIFICATION_"
    ),
    "token-classification": _of(
        "text",
        "input_ids",
        "ForTokenClassification",
        "FOR_TOKEN_CLASSIFICATION_",
        for_each_token=True,
    ),
    "fill-mask": _of("text", "input_ids", "ForMaskedLM", "FOR_MASKED_LM_", for_each_token=True),
    "text-generation": _of(
        "text", "input_ids", "ForCausalLM", "FOR_CAUSAL_LM_", for_each_token=True
    ),
    "image-classification": _of(
        "image", "pixel_values", "ForImageClassification", "FOR_IMAGE_CLASSIFICATION_"
    ),
    "audio-classification": _of(
        "audio", "input_values", "ForAudioClassification", "FOR_AUDIO_CLASSIFICATION_"
    ),
}


def task_of(architectures: object, library: Any, where: str) -> HubTask:
    """The task that a folder is for, by the class that its configuration names.

    Args:
        architectures: the value of that key in ``config.json``.
        library: transformers.
        where: begins sentences.

    Raises:
        RecipeError: no class, one that transformers does not have, or one of another task.
        MissingExtra: optimum is not installed.
    """
    names = architectures if isinstance(architectures, list) else []
    found = getattr(library, names[0], None) if names and isinstance(names[0], str) else None
    say = f"say which with `task`: {', '.join(get_args(HubTask))}"
    if not isinstance(found, type):
        given = f"names {named(str(names[0]))}, which transformers lacks" if names else "names none"
        raise RecipeError(
            f"{where}what the model is for is not known, since its configuration {given} as the "
            f"class of the model (architectures); {say}."
        )
    try:
        task = _tasks_manager().infer_task_from_model(found)
    except ValueError:  # no task, or several names of the class for it
        task = _of_class(found, library)
    if task not in get_args(HubTask):
        use = f"is for {task}" if task else "is for no one task that optimum knows"
        raise RecipeError(f"{where}its class {found.__name__} {use}; {say}.")
    known: HubTask = task
    return known


def _of_class(found: type, library: Any) -> HubTask | None:
    """The one task that transformers itself has the class for."""
    settings = getattr(found, "config_class", None)
    fits: list[HubTask] = []
    for task, facts in HUB_TASKS.items():
        classes = getattr(library, facts.mapping).get(settings, ())
        if found in (classes if isinstance(classes, (tuple, list)) else (classes,)):
            fits.append(task)
    return fits[0] if len(fits) == 1 else None


def _tasks_manager() -> Any:
    for package in ("optimum", "requests"):  # which optimum's registry imports, and does not name
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(
                f"finding the task of a Hugging Face folder needs {package}, which is not "
                "installed: pip install 'compresskit[transformers]', or say the task."
            )
    with quiet():
        from optimum.exporters.tasks import TasksManager

    return TasksManager
