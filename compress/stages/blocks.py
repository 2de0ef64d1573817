"""The stages of a recipe file, and the code that it may refer to."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from compress.config.own_settings import validation_context
from compress.config.recipe_file import Document, sentence
from compress.config.references import CodeReferences, is_reference
from compress.errors import CompressError, RecipeError, in_words
from compress.quoting import shown
from compress.stages import Stage
from compress.stages.own import FunctionStage

__all__ = ["check_references", "check_stages", "stages_of"]

#: Keys whose value may be a reference to code.
_MAY_REFER = frozenset({"task", "name", "arch", "kind", "callable", "importance"})


def check_stages(given: Any) -> Any:
    """The stages of a recipe, seen to be objects; for pydantic.

    Raises:
        ValueError: they are no list, or one of them is no stage.
    """
    others = [one for one in given if not isinstance(one, Stage)] if _is_list(given) else []
    problem = (
        ""
        if _is_list(given)
        else f"is a list of stages, such as [PruneStage()]; got {shown(given)}"
    )
    if others:
        called = f"{others[0].__name__}()" if isinstance(others[0], type) else "PruneStage()"
        problem = f"each is an object such as {called}; got {shown(others[0])}"
    if isinstance(next(iter(others), None), dict):
        problem += " (Recipe.loads reads blocks of a file)"
    if problem:
        raise ValueError(problem)
    return given


def _is_list(given: object) -> bool:
    return isinstance(given, (list, tuple))


def check_references(document: Document, references: CodeReferences) -> None:
    """Refuse unnamed code up front, so that nothing is run before a recipe turns out to need it.

    Raises:
        CodeReferenceError: a reference into a module that was not allowed.
    """
    _check_below(document, document.data, (), references)


def stages_of(
    document: Document,
    kinds: Mapping[str, type[Stage]],
    references: CodeReferences,
    folder: Path,
) -> list[Stage]:
    """The stages that a recipe file lists.

    Args:
        document: the file.
        kinds: the stages that have names.
        references: the code that may be followed to others.
        folder: what paths in the file are relative to.

    Raises:
        RecipeError: a block that is no stage; the message says where.
        CodeReferenceError: code that is not there.
    """
    if "stages" not in document.data:
        raise RecipeError(_missing(document))
    blocks = document.data["stages"]
    if not isinstance(blocks, list):
        raise RecipeError(f"{document.at(('stages',))}: stages must be a list of blocks.")
    return [_stage(document, i, block, kinds, references, folder) for i, block in enumerate(blocks)]


def _missing(document: Document) -> str:
    """Of a recipe without stages: the key that was meant, where there is one."""
    near = difflib.get_close_matches("stages", document.data, n=1, cutoff=0.7)
    if near:
        return f"{document.at((near[0],))}: unknown key; did you mean 'stages'."
    return f"{document.name}: the key 'stages' is missing."


def _stage(
    document: Document,
    index: int,
    block: Any,
    kinds: Mapping[str, type[Stage]],
    references: CodeReferences,
    folder: Path,
) -> Stage:
    path = ("stages", index)
    if not isinstance(block, dict) or not isinstance(block.get("kind"), str):
        raise RecipeError(
            f"{document.at(path)}: a stage is a mapping with a `kind` ({', '.join(kinds)})."
        )
    kind = block["kind"]
    stage = kinds.get(kind) or _foreign(document, path, kind, kinds, references)
    named_by_class = is_reference(kind) and stage is not FunctionStage
    fields = {k: v for k, v in block.items() if k != "kind"} if named_by_class else block
    try:
        made = stage.model_validate(fields, context=validation_context(folder, references))
    except ValidationError as error:
        raise RecipeError(sentence(document, error, path, stage)) from error
    except CompressError:
        raise
    except Exception as error:  # of the user's own stage
        raise RecipeError(f"{document.at(path)}: {kind} failed with {in_words(error)}.") from error
    return made


def _foreign(
    document: Document,
    path: tuple[str | int, ...],
    kind: str,
    kinds: Mapping[str, type[Stage]],
    references: CodeReferences,
) -> type[Stage]:
    where = document.at((*path, "kind"))
    if not is_reference(kind):
        raise RecipeError(
            f"{where}: there is no stage {shown(kind)}; known are {', '.join(kinds)}, and a stage "
            "of your own is written module:name."
        )
    found = references.resolve(kind, where)
    if not isinstance(found, type):
        return FunctionStage
    if not issubclass(found, Stage):
        raise RecipeError(f"{where}: {kind!r} is not a subclass of compress.Stage.")
    return found


def _check_below(
    document: Document, value: Any, path: tuple[str | int, ...], references: CodeReferences
) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _check_below(document, item, (*path, key), references)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_below(document, item, (*path, index), references)
    elif isinstance(value, str) and path[-1] in _MAY_REFER and is_reference(value):
        references.check(value, document.at(path))
