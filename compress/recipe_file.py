"""Recipe files: YAML to plain data, with the line of every key, so that errors can point.

Nothing here runs code or knows what a stage is.
"""

from __future__ import annotations

import copy
import difflib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ValidationError, ValidationInfo

from compress.errors import RecipeError

__all__ = [
    "Document",
    "RecipePath",
    "beside_recipe",
    "located",
    "parse",
    "sentence",
    "with_settings",
]

_IN_PACKAGE = "package:"


def beside_recipe(path: FilePath, info: ValidationInfo) -> FilePath:
    """A path that a recipe gives, from the current folder; as it is where no file was read."""
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
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise RecipeError(
            f"{text}: there is no package {name!r} here; install what brings it (pip install "
            f"{name.replace('_', '-')}, by its usual name), or give the folder itself."
        )
    return FilePath(places[0]) / rest


_LARGEST_FILE_CHARACTERS = 1_000_000
_MOST_NODES = 20_000

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """A parsed file: its plain data, its name for messages, and the line of each path."""

    data: dict[str, Any]
    name: str
    lines: Mapping[Path, int]

    def at(self, path: Path) -> str:
        """``file:line: stages[1].ratio`` for messages; the line of the nearest known ancestor."""
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        line = f":{self.lines[known]}" if known in self.lines else ""
        return f"{self.name}{line}: {_dotted(path)}" if path else f"{self.name}{line}"


def parse(text: str, name: str) -> Document:
    """Read YAML safely.

    Raises:
        RecipeError: not YAML, not a mapping, too large, a repeated key, or a sweep value.
    """
    if len(text) > _LARGEST_FILE_CHARACTERS:
        raise RecipeError(f"{name}: the file is over {_LARGEST_FILE_CHARACTERS:,} characters.")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines = dict(_walk(node, (), name)) if node is not None else {}
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise RecipeError(f"{name}{line}: not valid YAML: {error.problem}.") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RecipeError(f"{name}: not valid YAML ({error}).") from error
    if not isinstance(data, dict):
        raise RecipeError(f"{name}: a recipe is a mapping of keys; got {type(data).__name__}.")
    document = Document(data, name, lines)
    _refuse_sweeps(document, data, ())
    return document


def with_settings(document: Document, settings: Sequence[str]) -> Document:
    """The document with ``--set stages.1.epochs=3`` applied.

    Raises:
        RecipeError: a setting that is not ``path=value``, or a path that leads nowhere.
    """
    data = copy.deepcopy(document.data)
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals or not path:
            raise RecipeError(f"--set {setting}: give it as path=value, as in stages.1.epochs=3.")
        _assign(data, path.split("."), yaml.safe_load(value), setting)
    return Document(data, document.name, document.lines)


def sentence(
    document: Document, error: ValidationError, prefix: Path, model: type[BaseModel]
) -> str:
    """The first problem that pydantic found, as one sentence with place, value and remedy."""
    first = error.errors()[0]
    # pydantic puts names of union members into the location; only real keys help a reader.
    missing = first["loc"][-1:] if first["type"] == "missing" else ()
    keys = {*_all_keys(document.data), *missing}
    path = prefix + tuple(p for p in first["loc"] if isinstance(p, int) or p in keys)
    where = document.at(path)
    if first["type"] == "extra_forbidden":
        return (
            f"{where}: unknown key; {_known_keys(str(first['loc'][-1]), model, len(first['loc']))}."
        )
    if first["type"] == "missing":
        return f"{document.at(path[:-1])}: the key {path[-1]!r} is missing."
    message = str(first["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    if message.startswith("should"):
        message = f"{message}; got {first['input']!r}"
    return f"{where}: {message}."


def _walk(node: yaml.Node, path: Path, name: str) -> Iterator[tuple[Path, int]]:
    """Every path with its line; refuses what a person cannot have meant."""
    pending = [(node, path)]
    count = 0
    while pending:
        node, path = pending.pop()
        count += 1
        if count > _MOST_NODES:
            raise RecipeError(f"{name}: the file unfolds to over {_MOST_NODES:,} values.")
        yield path, node.start_mark.line + 1
        if isinstance(node, yaml.SequenceNode):
            pending += [(item, (*path, i)) for i, item in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            for i, (key, value) in enumerate(node.value):
                if key.value in keys[:i]:
                    line = key.start_mark.line + 1
                    raise RecipeError(
                        f"{name}:{line}: {_dotted((*path, key.value))}: the key is given twice."
                    )
                pending.append((value, (*path, key.value)))


def _refuse_sweeps(document: Document, value: Any, path: Path) -> None:
    if isinstance(value, dict):
        if set(value) == {"choose"}:
            raise RecipeError(
                f"{document.at(path)}: this is a sweep value and a run takes one value; "
                f"`compresskit sweep` is for files with `choose`, or replace it by one of "
                f"{value['choose']}."
            )
        for key, item in value.items():
            _refuse_sweeps(document, item, (*path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _refuse_sweeps(document, item, (*path, i))


def _assign(data: Any, parts: Sequence[str], value: Any, setting: str) -> None:
    *parents, last = parts
    for part in parents:
        data = _step(data, part, setting)
    if isinstance(data, list):
        _step(data, last, setting)
        data[int(last)] = value
    elif isinstance(data, dict):
        data[last] = value
    else:
        raise RecipeError(f"--set {setting}: {last!r} is not inside a mapping or a list.")


def _step(data: Any, part: str, setting: str) -> Any:
    if isinstance(data, list):
        if not part.isdigit() or int(part) >= len(data):
            raise RecipeError(
                f"--set {setting}: {part!r} is not an index; the list has {len(data)} entries, "
                "counted from 0."
            )
        return data[int(part)]
    if isinstance(data, dict) and part in data:
        return data[part]
    known = list(data) if isinstance(data, dict) else []
    raise RecipeError(f"--set {setting}: there is no {part!r}; {_nearest(part, known)}.")


def _all_keys(data: Any) -> set[str]:
    if isinstance(data, dict):
        return set(data).union(*(_all_keys(v) for v in data.values()))
    if isinstance(data, list):
        return set().union(*(_all_keys(v) for v in data))
    return set()


def _known_keys(key: str, model: type[BaseModel], depth: int) -> str:
    # Only the block's own keys are known here; deeper blocks are named by their parent's schema.
    names = [f.alias or n for n, f in model.model_fields.items()] if depth == 1 else []
    return _nearest(key, names) if names else "see `compresskit schema` for the known ones"


def _nearest(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?".rstrip("?")
    return f"known are {', '.join(known)}" if known else "there is nothing to name here"


def _dotted(path: Path) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")
