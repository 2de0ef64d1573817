"""Models from Hugging Face folders, as modules that give one tensor.

Owns what a folder's files mean (configuration, weights, how tokens are pooled, which tokenizer it
was made for) and which families of models are taken; :mod:`.hub_folder` reads them. Folders are
local: nothing is requested from the hub, no code of a folder is run, and no pickled weights are
opened. The only file that imports transformers (extra ``transformers``).
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from compress.backends.onnx.quiet import quiet
from compress.candidate import Architecture
from compress.errors import CheckpointError, MissingExtra, RecipeError
from compress.io.files import named
from compress.io.weights import not_finite
from compress.models.hub_folder import (
    check_dtypes,
    has_weights,
    out_of_bounds,
    read_settings,
    read_tensors,
)
from compress.models.hub_tasks import HUB_TASKS, HubTask, task_of
from compress.models.sentence_modules import pooling_of
from compress.models.signal_classifier import AudioClassifier, ImageClassifier
from compress.models.text_encoder import Encoder, Pooling
from compress.zoo.memory import check_buildable

__all__ = [
    "ARCHITECTURE",
    "Encoder",
    "HubModel",
    "HubTask",
    "Pooling",
    "build_hub_model",
    "load_folder",
    "read_architecture",
    "tokenizer_digest",
]

#: The model of a folder, whose output is one tensor.
HubModel = Encoder | ImageClassifier | AudioClassifier

#: What ``Architecture.arch`` says of these models.
ARCHITECTURE = "huggingface"

# Keys of a configuration that say where it came from, or what other programs should do.
_NOT_STRUCTURE = {"architectures", "auto_map", "dtype", "torch_dtype", "transformers_version"}
_NOT_STRUCTURE |= {"attn_implementation", "experts_implementation", "return_dict"}
_NOT_STRUCTURE |= {"output_attentions", "output_hidden_states"}
# How many classes there are is kept as the names of all.
_CLASSES, _NAMES_OF_CLASSES = "num_labels", ("id2label", "label2id")
_MOST_NAMED = 3
_TAKEN = {"text": "an encoder or a decoder of texts", "image": "a classifier of images"}
_TAKEN |= {"audio": "a classifier of audio"}
_INSTEAD = "give another kind of model as `arch: module:name`"
# What of a tokenizer decides about ids; how it pads and truncates is the task's choice.
_DECIDES = ("added_tokens", "normalizer", "pre_tokenizer", "post_processor", "model")


def read_architecture(
    folder: Path,
    task: HubTask | Literal["auto"] = "feature-extraction",
    *,
    changes: Mapping[str, Any] | None = None,
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    classes_first: bool = False,
) -> Architecture:
    """How to build the model of a folder from nothing, with no need of the folder.

    Args:
        folder: has ``config.json``.
        task: what the model is used for; ``auto`` for what its class is for, as optimum has it.
        changes: keys of the configuration with other values, and ``num_labels``: so many classes in
            place of the named ones.
        pooling: where not given, what ``modules.json`` of sentence-transformers says, or the mean.
        normalize: where not given, what ``modules.json`` says, or not.
        classes_first: of a task with logits for each token, give them as ``(n, classes, tokens)``.

    Raises:
        RecipeError: no such folder, or one that holds no model that can be used.
        MissingExtra: transformers is not installed, or optimum, where it is asked for the task.
    """
    config = read_settings(folder / "config.json", "a folder of a model has one")
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise RecipeError(
            f"{folder / 'config.json'}: it does not say its model_type, as transformers has it; "
            f"{_INSTEAD}."
        )
    if config.get("quantization_config"):
        raise RecipeError(
            f"{folder}: its weights are quantized already, and cannot be trained or cut; give the "
            "float model."
        )
    unknown = [key for key in changes or {} if key not in config and key != _CLASSES]
    if unknown:
        raise RecipeError(f"{folder / 'config.json'}: it has no key {unknown[0]!r} to change.")
    if task == "auto":
        task = task_of(config.get("architectures"), _library(), f"{folder}: ")
    kept = _structural(config) | dict(changes or {})
    if _CLASSES in (changes or {}):
        kept = {key: value for key, value in kept.items() if key not in _NAMES_OF_CLASSES}
    _settings_of(kept, task, f"{folder}: ", has_code="auto_map" in config)
    options: dict[str, Any] = {"config": kept, "task": task}
    if task == "feature-extraction":
        found, unit = pooling_of(folder) if pooling is None else (pooling, False)
        options |= {"pooling": found, "normalize": unit if normalize is None else normalize}
    elif pooling is not None or normalize is not None:
        raise RecipeError("pooling and normalize are for task feature-extraction.")
    if classes_first and HUB_TASKS[task].for_each_token:
        options["classes_first"] = True
    return Architecture(arch=ARCHITECTURE, options=options)


def build_hub_model(options: Mapping[str, Any]) -> HubModel:
    """The model of :func:`read_architecture`'s options with fresh weights, in eval mode.

    Raises:
        RecipeError: options of something else, or a configuration that makes no model.
        MissingExtra: transformers is not installed.
    """
    config, task = options.get("config"), options.get("task", "feature-extraction")
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise RecipeError(
            f"the architecture {ARCHITECTURE!r} is made from a folder: write `hf: FOLDER` in place "
            "of arch."
        )
    _check_options(options)
    config = _structural(config)
    settings = _settings_of(config, task)
    if hasattr(settings, "use_cache"):
        settings.use_cache = False  # what a decoder keeps for tokens to come; none do
    if hasattr(settings, "apply_spec_augment"):
        settings.apply_spec_augment = False  # drawn from a generator that no seed of a run reaches

    def make() -> Any:
        # The plain form of attention: every operator of it can be exported, traced and cut.
        return getattr(_library(), HUB_TASKS[task].auto_class).from_config(
            settings, trust_remote_code=False, attn_implementation="eager"
        )

    try:
        with quiet():
            check_buildable(make, f"the model type {named(config['model_type'])!r}")
            model = make()
    except RecipeError:
        raise
    except Exception as error:  # whatever a class thinks of values that do not go together
        raise RecipeError(_not_built(config, task, error)) from error
    modality = HUB_TASKS[task].modality
    if modality != "text":
        kind = ImageClassifier if modality == "image" else AudioClassifier
        return kind(model).float().eval()
    if task != "feature-extraction":
        first = options.get("classes_first", False)
        return Encoder(model, None, normalize=False, classes_first=first).float().eval()
    if getattr(model, "pooler", None) is not None:
        # Pooled here; its weights would be dead. Only models that may be built without one ask
        # whether it is there.
        may_lack = "add_pooling_layer" in inspect.signature(type(model).__init__).parameters
        model.pooler = None if may_lack else nn.Identity()
    return Encoder(model, options["pooling"], normalize=options["normalize"]).float().eval()


def load_folder(encoder: HubModel, folder: Path) -> None:
    """Load the weights of a folder, all that the model has; more in the folder is left alone.

    Raises:
        CheckpointError: no safetensors, damaged ones, ones of another folder, or weights that are
            missing, do not fit or are not finite.
    """
    if not has_weights(folder):
        raise CheckpointError(
            f"{folder}: there is no model.safetensors in it, and other formats are not opened, "
            "since pickled weights can run code; save it with save_pretrained of transformers."
        )
    model: Any = encoder.model
    tensors, own = read_tensors(folder), model.state_dict()
    check_dtypes(folder, tensors, dict(model.named_parameters()))
    try:
        with quiet():
            # The folder itself is not shown to the library, which would follow whatever is in it.
            loaded, found = type(model).from_pretrained(
                None,
                state_dict=tensors,
                config=model.config,
                local_files_only=True,
                use_safetensors=True,
                attn_implementation="eager",
                dtype=torch.float32,
                output_loading_info=True,
            )
    except Exception as error:  # damaged files have as many errors as there are readers
        raise CheckpointError(
            f"{folder}: its weights cannot be loaded into this model ({_first_line(error)}); a "
            "student of another shape starts from `pretrained: false`."
        ) from error
    missing = sorted(name for name in found["missing_keys"] if name in own)
    if missing:
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        raise CheckpointError(
            f"{folder}: model.safetensors lacks {', '.join(missing[:_MOST_NAMED])}{more}; write "
            "`pretrained: false` to start from random weights."
        )
    state = loaded.state_dict()
    weights = {name: state[name] for name in own}
    if problem := not_finite(weights, dict(model.named_parameters())):
        raise CheckpointError(f"{named(folder)}: {problem}; give weights that are all finite.")
    model.load_state_dict(weights)


def tokenizer_digest(folder: Path) -> str | None:
    """What distinguishes tokenizers that give other ids; ``None`` where the folder has none.

    Raises:
        RecipeError: ``tokenizer.json`` cannot be read.
    """
    path = folder / "tokenizer.json"
    if not os.path.lexists(path):
        return None
    content = read_settings(path)
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: it holds no tokenizer.")
    decides = {key: content.get(key) for key in _DECIDES}
    try:
        text = json.dumps(decides, sort_keys=True)
    except RecursionError as error:
        raise RecipeError(f"{named(path)}: it is nested too deeply for a tokenizer.") from error
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _settings_of(
    config: Mapping[str, Any], task: HubTask, where: str = "", *, has_code: bool = False
) -> Any:
    """The library's form of a configuration; ``where`` begins sentences.

    Raises:
        RecipeError: it makes no model, or one of a family that is not taken.
    """
    transformers = _library()
    kind = config["model_type"]
    if bounds := out_of_bounds(config):
        raise RecipeError(f"{where}the configuration of a {named(kind)!r} model says {bounds}.")
    if kind not in transformers.CONFIG_MAPPING:
        code = ", and the folder's own code is not run" if has_code else ""
        raise RecipeError(
            f"{where}transformers {transformers.__version__} knows no model type "
            f"{named(kind)!r}{code}; {_INSTEAD}."
        )
    try:
        with quiet():
            values = {k: v for k, v in config.items() if k != "model_type"}
            settings = transformers.AutoConfig.for_model(kind, **values)
            settings.architectures = []  # given where a family has several classes
            problem = _why_not(settings, task)
    except Exception as error:  # whatever a class thinks of values that do not go together
        raise RecipeError(where + _not_built(config, task, error)) from error
    if problem is not None:
        raise RecipeError(
            f"{where}the model type {kind!r} {problem}, and only {_TAKEN[HUB_TASKS[task].modality]}"
            f" is taken from a folder{_for(task)}; {_other_task(settings, task)}{_INSTEAD}."
        )
    return settings


def _for(task: HubTask) -> str:
    return "" if task == "feature-extraction" else f" for {task}"


def _other_task(settings: Any, task: HubTask) -> str:
    """Which task of another modality the family would be taken for, in words."""
    modality = HUB_TASKS[task].modality
    for other, facts in HUB_TASKS.items():
        if facts.modality != modality and _why_not(settings, other) is None:
            return f"say `task: {other}`, or "
    return ""


def _structural(config: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in config.items() if k not in _NOT_STRUCTURE and not k.startswith("_")}


def _check_options(options: Mapping[str, Any]) -> None:
    """Hold options, which may come from a stranger's file, to what :func:`read_architecture` gives.

    Raises:
        RecipeError: one is missing or has another value.
    """
    task = options.get("task", "feature-extraction")
    pools = task == "feature-extraction"
    known = (
        task in get_args(HubTask)
        and (not pools or options.get("pooling") in get_args(Pooling))
        and (not pools or isinstance(options.get("normalize"), bool))
        and isinstance(options.get("classes_first", False), bool)
    )
    if not known or options["config"].get("quantization_config"):
        raise RecipeError(
            f"the architecture {ARCHITECTURE!r} has a task, how tokens are pooled and whether that "
            f"is normalized, and no quantized weights; got {named(sorted(map(str, options)))}."
        )


def _why_not(settings: Any, task: HubTask) -> str | None:
    """Why a family is not taken, if it is not; a task's input and its mask must be all it needs."""
    transformers = _library()
    facts = HUB_TASKS[task]
    classes = getattr(transformers, facts.mapping)
    if type(settings) not in classes:
        return f"has no class for {task} in transformers"
    found = classes[type(settings)]
    found = found[0] if isinstance(found, (tuple, list)) else found
    taken, main = inspect.signature(found.forward).parameters, found.main_input_name
    kinds = found.input_modalities
    kinds = [kinds] if isinstance(kinds, str) else kinds
    others = [kind for kind in kinds if kind != facts.modality]
    if settings.is_encoder_decoder:
        return "has an encoder and a decoder"
    expected = "token ids" if facts.modality == "text" else facts.takes
    if facts.takes not in taken:
        named = [name for name in ([main] if isinstance(main, str) else main) if name in taken]
        return f"takes {(named or ['other inputs'])[0]} in place of {expected}"
    if others:
        return f"takes {' and '.join(others)} input beside {expected}"
    if facts.modality == "text" and "attention_mask" not in taken:
        return "takes no attention_mask"
    if task == "text-generation" and getattr(settings, "is_decoder", None) is False:
        return "looks at later tokens too (is_decoder is false)" if _masked(settings) else None
    return None


def _masked(settings: Any) -> bool:
    """Whether a family is one of encoders, which fill in words that are left out."""
    return type(settings) in _library().MODEL_FOR_MASKED_LM_MAPPING


def _not_built(config: Mapping[str, Any], task: str, error: Exception) -> str:
    reason = _first_line(error)
    return f"the model type {config['model_type']!r} cannot be built for {task}: {reason}."


def _library() -> Any:
    if importlib.util.find_spec("transformers") is None:
        raise MissingExtra(
            "models from Hugging Face folders need transformers, which is not installed: "
            "pip install 'compresskit[transformers]'."
        )
    with quiet():
        import transformers

    return transformers


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = (lines or [type(error).__name__])[0]
    if text.endswith(":") and len(lines) > 1:
        text = f"{text} {lines[1]}"
    if isinstance(error, KeyError):
        text = f"it knows no {text}"
    return named(text[:200]).rstrip(".")
