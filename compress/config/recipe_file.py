"""Recipe files: plain data with the line of every key, so that errors can point, and settings.

Nothing here runs code or knows what a stage is; ``compress.config.recipe_text`` reads the text.
"""

from __future__ import annotations

import copy
import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails

from compress.config.block_names import block_names, named_blocks
from compress.config.clauses import clause
from compress.config.known_keys import known_keys, nearest
from compress.config.recipe_text import Path, dotted, plain_data, plain_value, text_of_file
from compress.errors import RecipeError
from compress.quoting import clipped, shown

__all__ = [
    "Document",
    "RecipePath",
    "beside_recipe",
    "located",
    "parse",
    "parse_file",
    "sentence",
    "with_settings",
]

_SCHEMA = "see `compresskit schema` for the known ones"
_IN_PACKAGE = "package:"
_MOST_OF_A_NAME, _LONGEST_INDEX = 200, 8
_LONGEST_FILE_NAME = 255
_MOST_DOTS = 8  # in the label of a block that --set names


def beside_recipe(path: FilePath, info: ValidationInfo) -> FilePath:
    """A path that a recipe gives, from the current folder; as it is where no file was read."""
    if any(len(os.fsencode(part)) > _LONGEST_FILE_NAME for part in path.parts):
        raise ValueError(f"no file has a name of over {_LONGEST_FILE_NAME} bytes")
    folder = (info.context or {}).get("folder")
    inside = str(path).startswith(_IN_PACKAGE)
    return path if folder is None or inside else FilePath(folder) / path


#: A path in a recipe, relative to the recipe's own folder; or ``package:NAME/...``, which
#: :func:`located` finds.
RecipePath = Annotated[FilePath, AfterValidator(beside_recipe)]


def located(path: FilePath) -> FilePath:
    """Where a path of a recipe leads: ``package:NAME/rest`` is inside an installed package.

    The package is found, and never imported: a recipe runs no code.

    Raises:
        RecipeError: there is no such package.
    """
    text = str(path)
    if not text.startswith(_IN_PACKAGE):
        return path
    name, _, rest = text.removeprefix(_IN_PACKAGE).partition("/")
    if not name.isidentifier():
        raise RecipeError(
            f"{clipped(text, _MOST_OF_A_NAME)}: {shown(name)} is no name of a package; write "
            "package:NAME/FOLDER."
        )
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # of what runs now, __main__, nothing is known
        spec = None
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise RecipeError(
            f"{text}: there is no package {name!r} here; install what brings it (pip install "
            f"{name.replace('_', '-')}, by its usual name), or give the folder itself."
        )
    return FilePath(places[0]) / rest


@dataclass(frozen=True)
class Document:
    """A parsed file: its plain data, its name for messages, and the line of each path."""

    data: dict[str, Any]
    name: str
    lines: Mapping[Path, int]
    settings: Mapping[Path, str] = field(default_factory=dict)

    def at(self, path: Path) -> str:
        """``file:line: stages[1].ratio`` for messages; the line of the nearest known ancestor.

        What ``--set`` has put there is named instead of a line.
        """
        known = path
        while known and known not in self.lines and known not in self.settings:
            known = known[:-1]
        line = f":{self.lines[known]}" if known in self.lines else ""
        place = self.settings.get(known, f"{self.name}{line}")
        return f"{place}: {dotted(path)}" if path else place


def parse(text: str, name: str) -> Document:
    """Read YAML safely.

    Raises:
        RecipeError: not YAML, not a mapping, too large, a repeated key, or several values to
            choose from.
    """
    name = clipped(name, _MOST_OF_A_NAME)
    data, lines = plain_data(text, name)
    if not isinstance(data, dict):
        raise RecipeError(f"{name}: a recipe is a mapping of keys; got {type(data).__name__}.")
    document = Document(data, name, lines)
    _refuse_choices(document, data, ())
    return document


def parse_file(file: str | FilePath) -> Document:
    """Read a recipe file safely.

    Raises:
        RecipeError: no such file, no text, or none of what :func:`parse` reads.
    """
    return parse(text_of_file(FilePath(file)), str(file))


def with_settings(document: Document, settings: Sequence[str]) -> Document:
    """The document with ``--set stages.1.epochs=3`` applied, or ``--set stages.prune.ratio=0.4``.

    Raises:
        RecipeError: a setting that is not ``path=value``, or a path that leads nowhere, or to
            several places.
    """
    data = copy.deepcopy(document.data)
    places = dict(document.settings)
    for setting in settings:
        option = f"--set {clipped(setting)}"
        path, equals, value = setting.partition("=")
        if not equals or not path:
            raise RecipeError(f"{option}: give it as path=value, as in stages.prune.ratio=0.4.")
        place = _assign(data, path.split("."), plain_value(value, option), option)
        places[place] = option
    lines = {path: line for path, line in document.lines.items() if not _below(path, places)}
    return Document(data, document.name, lines, places)


def sentence(
    document: Document, error: ValidationError, prefix: Path, model: type[BaseModel]
) -> str:
    """The first problem that pydantic found, as one sentence with place, value and remedy."""
    first = _first(error)
    # pydantic puts names of union members into the location; only real keys help a reader.
    missing = first["loc"][-1:] if first["type"] == "missing" else ()
    keys = {*_all_keys(document.data), *missing}
    path = prefix + tuple(p for p in first["loc"] if isinstance(p, int) or p in keys)
    where = document.at(path)
    if first["type"] == "extra_forbidden":
        known = known_keys(model, first["loc"][:-1])
        meant = nearest(str(first["loc"][-1]), known) if known else _SCHEMA
        return f"{where}: unknown key; {meant}."
    if first["type"] == "missing":
        return f"{document.at(path[:-1])}: the key {path[-1]!r} is missing."
    return f"{where}: {clause(first)}."


def _first(error: ValidationError) -> ErrorDetails:
    """The first problem; of a key that is missing the misspelled one, where there is one there."""
    problems = error.errors()
    if problems[0]["type"] != "missing":
        return problems[0]
    block = problems[0]["loc"][:-1]
    unknown = (one for one in problems if one["type"] == "extra_forbidden")
    return next((one for one in unknown if one["loc"][:-1] == block), problems[0])


def _below(path: Path, places: Mapping[Path, str]) -> bool:
    return any(path[:length] in places for length in range(1, len(path) + 1))


def _refuse_choices(document: Document, value: Any, path: Path) -> None:
    if isinstance(value, dict):
        if set(value) == {"choose"}:
            raise RecipeError(
                f"{document.at(path)}: this is a sweep value and a run takes one value; replace it "
                f"by one of {shown(value['choose'])}."
            )
        for key, item in value.items():
            _refuse_choices(document, item, (*path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _refuse_choices(document, item, (*path, i))


def _assign(data: Any, parts: Sequence[str], value: Any, option: str) -> Path:
    """Put the value into its place in ``data``; that place."""
    place: Path = ()
    while len(parts) > (taken := _of_one_name(data, parts)):
        data, key = _step(data, ".".join(parts[:taken]), place, option)
        place, parts = (*place, key), parts[taken:]
    last = ".".join(parts)
    if isinstance(data, list):
        index = _index(data, last, place, option)
        data[index] = value
        return (*place, index)
    if not isinstance(data, dict):
        raise RecipeError(f"{option}: {shown(last)} is not inside a mapping or a list.")
    if not last:
        raise RecipeError(f"{option}: the path ends in a dot; name the key behind it.")
    data[last] = value
    return (*place, last)


def _of_one_name(data: Any, parts: Sequence[str]) -> int:
    """How many parts of a path are one name: labels may have dots."""
    names = (block_names(data) if isinstance(data, list) else None) or ()
    lengths = range(2, min(len(parts), _MOST_DOTS) + 1)
    return next((n for n in lengths if ".".join(parts[:n]) in names), 1)


def _step(data: Any, part: str, place: Path, option: str) -> tuple[Any, str | int]:
    """What lies at ``part`` of ``data``, and its key or index."""
    if isinstance(data, list):
        index = _index(data, part, place, option)
        return data[index], index
    if isinstance(data, dict) and part in data:
        return data[part], part
    known = list(data) if isinstance(data, dict) else []
    raise RecipeError(f"{option}: there is no {shown(part)}; {nearest(part, known)}.")


def _index(data: Sequence[Any], part: str, place: Path, option: str) -> int:
    """The index of a list's entry, by its number or by its name."""
    # Digits of other alphabets are digits to Python, and not all of them numbers.
    if part.isascii() and part.isdigit():
        if len(part) < _LONGEST_INDEX and int(part) < len(data):
            return int(part)
    elif part and (names := block_names(data)):
        found = named_blocks(data, part)
        if len(found) == 1:
            return found[0]
        if found:
            raise RecipeError(_ambiguous(names, part, found, place, option))
        if part[0].isalpha() and part.isascii():
            raise RecipeError(f"{option}: there is no {shown(part)}; {nearest(part, names)}.")
    raise RecipeError(
        f"{option}: {shown(part)} is not an index; the list has {len(data)} entries, counted "
        "from 0."
    )


def _ambiguous(
    names: Sequence[str], part: str, found: Sequence[int], place: Path, option: str
) -> str:
    own = [names[index] for index in found]
    if own[0] == part:  # the first of its kind has no number, and is not told from the kind
        own[0] = f"{part}-1"
    places = ", ".join(".".join(map(str, (*place, index))) for index in found)
    return (
        f"{option}: {shown(part)} may be {len(found)} entries of the list; write "
        f"{' or '.join(own)}, or their places, {places}."
    )


def _all_keys(data: Any) -> set[str]:
    if isinstance(data, dict):
        return set(data).union(*(_all_keys(v) for v in data.values()))
    if isinstance(data, list):
        return set().union(*(_all_keys(v) for v in data))
    return set()
