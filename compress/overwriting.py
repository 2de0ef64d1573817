"""What this tool wrote, and so may replace: every output is looked at before any work is done.

An output may take the place of nothing, of an empty file, or of what is recognizably an earlier
output of the same kind. Anything else is somebody's, and stays as it is.
"""

from __future__ import annotations

import json
import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from compress.errors import RecipeError, RecordError
from compress.io.atomic import is_stream
from compress.layer_facts import LAYERS_NAME, is_sensitivity
from compress.record import RECORD_NAME

__all__ = [
    "BUNDLE",
    "CASCADE",
    "CASCADE_NAME",
    "CHANGES",
    "CHANGES_MARK",
    "COMPARISON_MARK",
    "COMPARISON_NAME",
    "HUB_EXPORT",
    "HUB_EXPORT_NAME",
    "PROGRAM",
    "RAW",
    "RESULT",
    "SCHEMA",
    "FileKind",
    "check_cascade_folder",
    "check_hub_folder",
    "check_layers",
    "check_models",
    "check_output",
    "check_report",
    "check_run_folder",
    "is_run_folder",
]

REPEAT_NAME = "repeat.json"
COMPARISON_NAME = "comparison.md"
#: Invisible where Markdown is shown.
COMPARISON_MARK = "<!-- compresskit: runs over seeds, compared -->"

CHANGES_MARK = "<!-- compresskit: changes between two runs -->"

#: What an exported folder says of itself, and which file says it.
HUB_EXPORT, HUB_EXPORT_NAME = "compresskit-hf-export", "compresskit.json"

#: What the folder of a cascade says of itself, and which file says it.
CASCADE: Literal["compresskit-cascade"] = "compresskit-cascade"
CASCADE_NAME = "cascade.json"

_MOST_RESULT_BYTES = 1 << 30
_MOST_MANIFEST_BYTES = 1 << 26
_RAW_BEGINS = (b'{"schema": 1, "kind": "session"', b'{"kind": "session"')
_PAGE_MARK = b'<p class="eyebrow">compresskit report'
_CSV_BEGINS = b"run,target,row,stage,"
_REPORT = re.compile(
    r"report\.html|table\.(csv|md)|(pareto|stages|controls)[^/]*\.(png|svg)|repeat\.(json|html|md)"
    r"|comparison\.md|contact-sheet\.png"
)
_LAYERS = re.compile(r"layers(-dark)?\.(png|svg)|sensitivity\.json")
_TEXTS = (".html", ".csv", ".json")  # of a report, which tell whose they are
_SEED = re.compile(r"seed-\d+")
# What systems put into any folder, and this tool while it works there.
_NOTHING = re.compile(r"\.DS_Store|\.directory|Thumbs\.db|desktop\.ini|\.lock|\..+\.part")


@dataclass(frozen=True)
class FileKind:
    """One kind of file that this tool writes on request.

    ``is_ours`` looks at a file that is there, and may raise what reading raises.
    """

    what: str
    suffixes: tuple[str, ...]
    is_ours: Callable[[Path], bool]


def check_output(path: Path, kind: FileKind, option: str, inputs: Iterable[Path] = ()) -> Path:
    """See that ``path`` may be written as ``kind``, and return where to: links are followed.

    Args:
        path: as it was given. Pipes and devices, such as ``/dev/stdout``, are written to as such.
        kind: what is to be written.
        option: as on the command line, for sentences.
        inputs: files that are read, none of which an output may replace.

    Raises:
        RecipeError: it would replace something that this tool did not write as ``kind``, is a
            folder, or has a name of another kind of file.
    """
    place = f"{option} {path}"
    if is_stream(path):
        return path
    try:
        found = path.stat()
    except FileNotFoundError:
        found = None
    except (OSError, ValueError) as error:
        raise RecipeError(f"{place}: cannot be written there ({_reason(error)}).") from error
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise RecipeError(f"{place}: this is a folder; give a file for {kind.what}.")
    if path.suffix and path.suffix.lower() not in kind.suffixes:
        raise RecipeError(
            f"{place}: {kind.what} is no {path.suffix} file; give a name that ends in "
            f"{kind.suffixes[0]} (was the file name after {option} left out?)."
        )
    if found is not None:
        if any(_is_same(path, other) for other in inputs):
            raise RecipeError(f"{place}: this file is read by the same command; give another.")
        if found.st_size and not _recognized(path, kind):
            raise RecipeError(
                f"{place}: there is a file that is not {kind.what}, and it stays as it is; give "
                "another name."
            )
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def check_report(folder: Path, option: str = "--out", *, of_several: bool = False) -> None:
    """See that a report may be written into ``folder``.

    Args:
        folder: need not be there.
        option: as on the command line, for sentences.
        of_several: whether it is about several runs, and so belongs into the folder of none.

    Raises:
        RecipeError: a file of a report's name is there that this tool did not write.
    """
    names = _names_in(folder, option)
    if of_several and {RECORD_NAME, REPEAT_NAME} & set(names):
        raise RecipeError(
            f"{option} {folder}: this is the folder of a run, whose own report would be replaced; "
            "give another."
        )
    here = [name for name in names if _REPORT.fullmatch(name)]
    own = {RECORD_NAME, REPEAT_NAME, "report.html", COMPARISON_NAME} & set(names)
    is_own = any(_recognized(folder / name, _REPORT_FILE) for name in own) or (
        bool(here) and is_run_folder(folder)
    )
    for name in here:
        path = folder / name
        if path.is_dir() or (_size(path) and not (is_own and _recognized(path, _REPORT_FILE))):
            raise RecipeError(
                f"{path}: this is no part of a report that compresskit wrote, and it stays as it "
                f"is; move it away or rename it (a report would be written there)."
            )


def check_layers(folder: Path, option: str = "--out") -> None:
    """See that the figures of layers, and their numbers, may be written into ``folder``.

    Raises:
        RecipeError: a file of such a name is there that this tool did not write.
    """
    here = [name for name in _names_in(folder, option) if _LAYERS.fullmatch(name)]
    if here and not is_sensitivity(folder / LAYERS_NAME):
        raise RecipeError(
            f"{option} {folder}: there is a {sorted(here)[0]} that compresskit did not write, and "
            "it stays as it is; give another folder."
        )


def check_models(folder: Path, names: Iterable[str], option: str) -> None:
    """See that ONNX files of these names may be written into ``folder``.

    Raises:
        RecipeError: one of them is there and was not written by this tool.
    """
    there = set(_names_in(folder, option))
    for name in names:
        # Lowering notes beside each file which module its nodes came from.
        notes = FileKind("", (), lambda path: "modules" in _json(path))
        if name in there and not _recognized(folder / f"{name}.modules.json", notes):
            raise RecipeError(
                f"{option} {folder}: there is a {name} that compresskit did not write, and it "
                "stays as it is; give another folder."
            )


def check_hub_folder(folder: Path, option: str) -> None:
    """See that a folder in the form of the Hugging Face hub may be written at ``folder``.

    Raises:
        RecipeError: it holds what is not an earlier export, whole and alone.
    """
    _check_only_ours(folder, option, HUB_EXPORT_NAME, HUB_EXPORT)


def check_cascade_folder(folder: Path, option: str) -> None:
    """See that a cascade may be written at ``folder``.

    Raises:
        RecipeError: it holds what is not an earlier cascade, whole and alone.
    """
    _check_only_ours(folder, option, CASCADE_NAME, CASCADE)


def _check_only_ours(folder: Path, option: str, name: str, mark: str) -> None:
    there = {each for each in _names_in(folder, option) if not _NOTHING.fullmatch(each)}
    place = f"{option} {folder}".lstrip()
    if folder.is_symlink():
        raise RecipeError(f"{place}: this is a link; give the folder itself.")
    others = sorted(there - _exported(folder / name, mark))
    if others:
        raise RecipeError(
            f"{place}: it holds something that no export of compresskit wrote (such as "
            f"{others[0]}), and it stays as it is; give a new or an empty folder."
        )


def _exported(facts: Path, mark: str) -> set[str]:
    """The names in the folder that an export wrote, by what it noted."""
    kind = FileKind("", (), lambda path: _json(path).get("kind") == mark)
    if not _recognized(facts, kind):
        return set()
    files = _json(facts).get("files")
    names = files if isinstance(files, (list, dict)) else []
    return {facts.name, *(str(name).partition("/")[0] for name in names)}


def check_run_folder(folder: Path) -> None:
    """See that a run, or a repeated run, may be kept in ``folder``.

    Raises:
        RecordError: it is a file, cannot be looked at, or holds something that is no run.
    """
    try:
        names = _names_in(folder)
    except RecipeError as error:
        raise RecordError(str(error)) from error
    others = [name for name in names if not _NOTHING.fullmatch(name)]
    if others and not is_run_folder(folder):
        raise RecordError(
            f"{folder}: this folder holds something that is no run (such as {sorted(others)[0]}), "
            "and nothing is written into it; give a new or an empty folder."
        )


def is_run_folder(folder: Path) -> bool:
    """Whether a run was begun in ``folder``, or a run over seeds."""
    kind = FileKind("", (), _is_record)
    if any(_recognized(folder / name, kind) for name in (RECORD_NAME, REPEAT_NAME)):
        return True
    # Killed before its first record, or with one that was damaged since.
    if (folder / "stages" / "00-input").is_dir():
        return True
    names = [name for name in _names(folder) if not _NOTHING.fullmatch(name)]
    seeds = [folder / name for name in names if _SEED.fullmatch(name)]
    if seeds and (len(seeds) == len(names) or any(map(is_run_folder, seeds))):
        return True
    return names == ["measurements"] and not _names(folder / "measurements")


# -- looking ----------------------------------------------------------------------------------


def _names_in(folder: Path, option: str = "") -> list[str]:
    place = f"{option} {folder}".lstrip()
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        given = "this is a file" if folder.is_file() else "a part of this path is a file"
        raise RecipeError(f"{place}: {given}; give a folder.") from None
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{place}: cannot be used ({_reason(error)}); give another folder."
        ) from error


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _recognized(path: Path, kind: FileKind) -> bool:
    try:
        return path.is_file() and kind.is_ours(path)
    except (OSError, ValueError, KeyError, RecursionError, MemoryError, zipfile.BadZipFile):
        return False


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a link that leads nowhere
        return 0


def _json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MOST_RESULT_BYTES:
        return {}
    content = json.loads(path.read_bytes())
    return content if isinstance(content, dict) else {}


def _is_result(path: Path) -> bool:
    content = _json(path)
    models = content.get("models")
    return content.get("schema") == 1 and isinstance(models, list) and bool(models)


def _is_schema(path: Path) -> bool:
    content = _json(path)
    return "json-schema.org" in str(content.get("$schema")) and "$defs" in content


def _is_raw(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(64).startswith(_RAW_BEGINS)


def _is_bundle(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        facts = archive.getinfo("MANIFEST.json")
        if facts.file_size > _MOST_MANIFEST_BYTES:
            return False
        return bool(json.loads(archive.read(facts)).get("kind") == "compresskit-bundle")


def _is_program(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return "compress/measure/ondevice/program.py" in archive.namelist()


def _is_record(path: Path) -> bool:
    content = _json(path)
    return content.get("schema") == 1 and {"recipe", "task"} <= content.keys()


def _is_report_file(path: Path) -> bool:
    if path.name in (RECORD_NAME, REPEAT_NAME):
        return _is_record(path)
    if path.name == COMPARISON_NAME:
        return COMPARISON_MARK.encode() in path.read_bytes()
    if path.suffix not in _TEXTS:
        return True  # pictures and Markdown tell nothing; what lies beside them does
    content = path.read_bytes()
    return content.startswith(_CSV_BEGINS) if path.suffix == ".csv" else _PAGE_MARK in content


#: What ``bench --json`` writes.
RESULT = FileKind("a result of bench", (".json",), _is_result)
#: What ``bench --raw`` adds to.
RAW = FileKind("raw samples of bench", (".jsonl",), _is_raw)
#: What ``bundle`` writes.
BUNDLE = FileKind("a bundle", (".zip", ".pyz"), _is_bundle)
#: What ``bundle`` writes beside it.
PROGRAM = FileKind("the program that measures bundles", (".pyz",), _is_program)
#: What ``schema --out`` writes.
SCHEMA = FileKind("a schema of recipes", (".json",), _is_schema)
#: What ``compare --out`` writes.
CHANGES = FileKind(
    "a comparison", (".md",), lambda path: CHANGES_MARK.encode() in path.read_bytes()
)
_REPORT_FILE = FileKind("a file of a report", (), _is_report_file)
