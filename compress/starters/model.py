"""The user's net: found in its file, made, and filled with its weights."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from compress.config.clauses import clauses
from compress.config.own_parts import OwnPart
from compress.config.recipe_text import dotted
from compress.config.references import CodeReferences, is_reference
from compress.errors import CheckpointError, CodeReferenceError, RecipeError, in_words
from compress.io.files import named
from compress.models.build import build_module
from compress.models.settings import HubSettings, ModelSettings, build_model
from compress.starters.code import reference_of
from compress.starters.data import relative
from compress.zoo import ARCHITECTURES

__all__ = ["OwnModel", "model_of"]

_FORMS = (
    "--model is net.py:Net for a class or a function of yours, a folder of Hugging Face, or a "
    f"built-in net ({', '.join(ARCHITECTURES)})"
)
# What nets call the number of their classes, where they ask for it.
_CLASSES = ("num_classes", "classes", "n_classes", "num_labels", "nb_classes", "out_features")


@dataclass(frozen=True)
class OwnModel:
    """The model of a recipe.

    Args:
        arch: a built-in name or ``module:name``; empty for a folder of Hugging Face.
        folder: of Hugging Face.
        weights: a file, from the current folder.
        options: further keys.
        imports: modules that the recipe needs.
    """

    arch: str = ""
    folder: Path | None = None
    weights: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    imports: tuple[str, ...] = ()

    @property
    def is_own(self) -> bool:
        """Whether it is code of the user's, which knows its own sizes."""
        return bool(self.imports)

    @property
    def is_trained(self) -> bool:
        """Whether it comes with weights."""
        return self.folder is not None or self.weights is not None

    def block(self, beside: Path) -> dict[str, Any]:
        """The recipe's block, with paths as they are from the folder of the recipe."""
        if self.folder is not None:
            return {"hf": relative(self.folder, beside), "task": "auto"}
        given = {} if self.weights is None else {"weights": relative(self.weights, beside)}
        return {"arch": self.arch, **self.options, **given}

    def build(self) -> nn.Module:
        """The module with its weights.

        Raises:
            RecipeError: it cannot be made.
            CheckpointError: the weights cannot be read, or do not fit.
        """
        references = CodeReferences.of(self.imports)
        settings: ModelSettings | HubSettings
        try:
            if self.folder is not None:
                settings = HubSettings(hf=self.folder, task="auto")
            else:
                settings = ModelSettings(arch=self.arch, weights=self.weights, **self.options)
        except ValidationError as error:
            place, text = next(iter(clauses(error)))
            raise RecipeError(f"{dotted(place) or 'model'}: {text}.") from error
        try:
            return build_model(settings, lambda arch: build_module(arch, references), seed=0)
        except CheckpointError as error:
            if not (self.is_own and "do not fit" in str(error)):
                raise
            file, _, name = self.arch.partition(":")
            raise CheckpointError(
                f"{str(error).removesuffix('.')}; if it was trained with other arguments, write a "
                f"function that makes it, such as `def make(): return {name}(width=12)`, and give "
                f"{file.replace('.', '/')}.py:make."
            ) from error


def model_of(given: str, weights: Path | None, classes: int) -> OwnModel:
    """The model that ``--model`` and ``--weights`` are.

    Args:
        given: as typed.
        weights: a file of weights.
        classes: of the data; 0 where that is not known.

    Raises:
        RecipeError: that is no model, or it needs options that nothing says.
        CodeReferenceError: code that is not there, or fails when it is imported.
    """
    if given in ARCHITECTURES:
        return OwnModel(given, weights=weights)
    folder = Path(given)
    if (folder / "config.json").is_file():
        if weights is not None:
            raise RecipeError(f"--weights {weights}: the folder {named(given)} has its own.")
        return OwnModel(folder=folder)
    reference = reference_of(given)
    if reference is None:
        raise RecipeError(f"--model {named(given)}: {_FORMS}.")
    if not is_reference(reference):
        reference = f"{reference}:{_only_class(reference, given)}"
    module = reference.partition(":")[0]
    part = OwnPart.named(
        reference, CodeReferences.of((module,)), f"--model {named(given)}", ModelSettings.role
    )
    return OwnModel(reference, None, weights, _needed(part, given, classes), (module,))


def _only_class(module: str, given: str) -> str:
    """The net of a file that was given without its name."""
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise CodeReferenceError(
            f"--model {named(given)}: importing it failed with {in_words(error)}."
        ) from error
    own = [
        name
        for name, one in vars(found).items()
        if inspect.isclass(one) and issubclass(one, nn.Module) and one.__module__ == module
    ]
    if len(own) != 1:
        there = f"it has {', '.join(own)}" if own else "it has no class below torch.nn.Module"
        name = own[-1] if own else "make"
        raise CodeReferenceError(
            f"--model {named(given)}: say what makes the net, such as {given}:{name}; {there}."
        )
    return own[0]


def _needed(part: OwnPart, given: str, classes: int) -> dict[str, Any]:
    """The options without a default, of which only the number of classes is known."""
    needed = [key.name for key in part.keys.values() if key.is_required]
    known = {name: classes for name in needed if classes and name in _CLASSES}
    if others := [name for name in needed if name not in known]:
        file = given.partition(":")[0]
        name = part.reference.partition(":")[2]
        raise RecipeError(
            f"--model {named(given)}: {name} needs {', '.join(others)}, which nothing says; write "
            f"a function that makes it, such as `def make(): return {name}({others[0]}=...)`, and "
            f"give {file}:make."
        )
    return known
