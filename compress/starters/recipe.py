"""The recipe for a user's model and data, as text with a reason beside each choice."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.errors import DataError, RecipeError
from compress.starters.data import IMAGE_FOLDER, data_of, training_samples
from compress.starters.images import (
    ImageForm,
    LabeledFiles,
    check_size,
    form_for,
    is_guessing,
    labeled_files,
)
from compress.starters.model import OwnModel, model_of

__all__ = ["Starter", "starter_for"]

_FEW_TEST_IMAGES = 100
_BUILT_IN = "resnet"
_FORMS_NAMED = 3

# The usual batch and epochs, or for few samples smaller batches and more epochs: a net of its own
# learns little in fewer steps than these, of which `plan` warns below 50.
_BATCHES = (128, 64, 32, 16)
_STEPS_AN_EPOCH = 8
_TRAIN, _TRAIN_STEPS = 20, 400
_FINETUNE, _FINETUNE_STEPS = 5, 100


@dataclass(frozen=True)
class Starter:
    """A recipe, and what there is to say of it.

    Args:
        text: YAML.
        imports: modules that it needs (``--import``).
        notes: sentences: what was found, and what to look at.
    """

    text: str
    imports: tuple[str, ...]
    notes: tuple[str, ...]


def starter_for(
    recipe: Path, data: str, model: str | None, weights: Path | None, size: int | None
) -> Starter:
    """The recipe for these.

    Args:
        recipe: where it will be, since its paths are relative to it.
        data: as typed after ``--data``.
        model: as typed after ``--model``; ``None`` for a built-in net, to be trained.
        weights: a file.
        size: of images; ``None`` finds it.

    Raises:
        CompressError: data, model or weights that are none, or do not go together.
    """
    if size is not None:
        check_size(size)
    own = data_of(data)
    images = labeled_files(own.path) if own.task == IMAGE_FOLDER and own.path else None
    if images is None and size is not None:
        raise RecipeError(f"--size {size}: it is for a folder of images; {data} is {own.task}.")
    net = model_of(model or _BUILT_IN, weights, len(images.classes) if images else 0)
    if images is not None and not images.labels and not net.is_trained:
        raise DataError(
            f"--data {data}: these images have no labels, and a net without weights learns nothing "
            "from them: give a folder for each class (the folder around this one, if it is one of "
            "them), or a trained net with --model and --weights."
        )
    options, notes = dict[str, Any](), list[str]()
    if net.is_own or net.weights is not None:
        module = net.build()  # weights that do not fit are found here
        if images is not None:
            forms = form_for(module, images, size, is_trained=net.is_trained)
            options, notes = forms[0].options, [_note(forms, images)]
    elif images is not None:
        options = {} if size is None else {"size": size}
    if images is not None:
        notes += _few(images)
        samples: int | None = images.training
    else:
        samples, said = training_samples(own)
        notes += said
    has_labels = images is None or bool(images.labels)
    text = _text(recipe, own.block(recipe.parent, options), net, samples, has_labels=has_labels)
    return Starter(
        text, (*own.imports, *(i for i in net.imports if i not in own.imports)), (*notes,)
    )


def _note(forms: Sequence[ImageForm], images: LabeledFiles) -> str:
    best, classes = forms[0], len(images.classes)
    named = f"{', '.join(images.classes[:4])}{', ...' if classes > 4 else ''}"
    if classes and best.outputs and best.outputs != classes:
        return (
            f"the net scores {best.outputs} classes, and there are {classes} folders ({named}), "
            "which stand for the first of them: give it a head of as many, or name all that it "
            "scores, in its order, as `classes: [...]` of the task"
        )
    told = "write the size, mean and std that it was trained with"
    if best.right is None:
        return f"the net runs on images of {best.words}; if these are others, {told}"
    count = len(images.labels)
    said = f"the net gets {best.right} of {count} images right at {best.words}"
    if best.order:
        said += (
            f" with its classes in the order {', '.join(best.order[:4])}"
            f"{', ...' if classes > 4 else ''}, which is not that of the folders and stands in the "
            "recipe as `classes`"
        )
    if is_guessing(best.right, images):
        return (
            f"{said}, hardly more than by guessing: if its classes are in another order than "
            f"{named}, write that order as `classes: [...]` of the task; and {told}"
        )
    if len(forms) == 1:
        return f"{said}; if these are others, {told}"
    same = [form.words for form in forms[1:] if form.right == best.right]
    near = [f"{form.right} at {form.words}" for form in forms if form.right != best.right]
    said += ", the form taken"
    if same:
        said += f", and as many at {_some(same)}"
    if near:
        said += f"; other sizes do about as well ({_some(near)})"
    return f"{said}: {told}"


def _some(words: Sequence[str]) -> str:
    more = "; ..." if len(words) > _FORMS_NAMED else ""
    return f"{'; '.join(words[:_FORMS_NAMED])}{more}"


def _few(images: LabeledFiles) -> list[str]:
    if images.test >= _FEW_TEST_IMAGES:
        return []
    said = (
        f"the test has {images.test} image{'s' * (images.test != 1)}, on which accuracies are "
        "known only roughly; more images narrow their intervals"
    )
    return [said]


def _text(
    recipe: Path, task: Mapping[str, Any], net: OwnModel, samples: int | None, *, has_labels: bool
) -> str:
    name = recipe.stem if recipe.stem != "recipe" else (_stem(net.arch) or "mine")
    model = net.block(recipe.parent)
    lines = [
        "# Written by `compresskit new` for your model and data; every key: `compresskit explain`.",
        "schema: 1",
        f"name: {_name(name)}",
        f"task: {_flow(task)}",
        f"model: {_flow(model)}",
        "budget: {accuracy_drop: 0.02}     # also: latency_p50_ms, artifact_kib",
        "stages:                           # any order, any number of times",
    ]
    finetune = _training(samples, _FINETUNE, _FINETUNE_STEPS)
    if not net.is_trained:
        train = _training(samples, _TRAIN, _TRAIN_STEPS)
        lines.append(f"  - {{kind: train, {train}}}       # the model has no weights yet")
    elif has_labels:
        lines.append(f"  # - {{kind: train, {finetune}}}      # train it further on these data")
    finetune += ", learning_rate: 0.0005"
    lines += [
        "  - {kind: prune, ratio: 0.3, round_to: 8,",
        f"     finetune: {{{finetune}}}}}",
        "  - {kind: quantize, weights: int8, activations: int8}",
    ]
    return "\n".join(lines) + "\n"


def _training(samples: int | None, epochs: int, steps: int) -> str:
    """The keys of a training of so many epochs, or of more where these are few steps."""
    if not samples:
        return f"epochs: {epochs}"
    fits = [size for size in _BATCHES if samples >= size * _STEPS_AN_EPOCH]
    batch = fits[0] if fits else _BATCHES[-1]
    least = math.ceil(steps / math.ceil(samples / batch))
    size = f", batch_size: {batch}" if batch != _BATCHES[0] else ""
    return f"epochs: {max(epochs, least)}{size}"


def _stem(arch: str) -> str:
    """``net`` of ``my.net:Net``: runs of it are kept under the name of its file."""
    return arch.partition(":")[0].rpartition(".")[2]


def _name(text: str) -> str:
    kept = "".join(
        one if one.isascii() and (one.isalnum() or one in "._-") else "-" for one in text
    )
    return kept.lstrip("._-").lower()[:100] or "mine"


def _flow(value: Any) -> str:
    """A value in YAML, on one line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_flow(one)}' for key, one in value.items())}}}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, str) and not _is_plain(value):
        return json.dumps(value, ensure_ascii=False)
    return value if isinstance(value, str) else json.dumps(value)


def _is_plain(text: str) -> bool:
    # Of other texts YAML may make numbers, flags or mappings.
    rest = text.replace("/", "").replace(".", "").replace("-", "").replace("_", "").replace(":", "")
    spelled = rest.isascii() and rest.isalnum() and not rest.isdigit() and text[0] not in "-.:"
    return (
        spelled and ": " not in text and text.lower() not in ("null", "true", "false", "yes", "no")
    )
