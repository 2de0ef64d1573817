"""What tells runs apart: the keys in which their recipes differ, and short names made of these.

Keys are paths as ``--set`` takes them, ``stages.prune.ratio``. From records alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compress.config.block_names import block_names
from compress.formatting import sanitize
from compress.record import Record
from compress.report.provenance import device_id, device_name, target_environment

__all__ = ["ABSENT", "Difference", "differences", "short_names"]

#: What stands in place of a value that a run does not have.
ABSENT = "-"

_NAME, _CELL = 24, 40
_KEYS_IN_NAME = 2
_DOTS_OF_A_STAGE = 2  # in stages.prune.ratio
#: With more differing keys than these, no two of them say what a run is.
_ALIKE = 8
_IS_NO_SETTING = ("schema", "name", "description")


@dataclass(frozen=True)
class Difference:
    """One key with the value of each run as text; :data:`ABSENT` where a run has none.

    ``is_setting``: whether it is a key of the recipe that changes what is computed.
    """

    key: str
    values: tuple[str, ...]
    is_setting: bool = True


class _Nothing:
    """A key that is not there; of an entry that is not there itself, ``asked`` is false."""

    def __init__(self, *, asked: bool) -> None:
        self.asked = asked


_MISSING, _OUT = _Nothing(asked=True), _Nothing(asked=False)


def differences(records: Sequence[Record]) -> list[Difference]:
    """The keys in which the recipes of ``records`` differ, then what else differs between runs."""
    recipes: list[Any] = [record.recipe for record in records]
    found = [
        Difference(key, tuple(map(_shown, values)), key not in _IS_NO_SETTING)
        for key, values in _differing(recipes, "")
    ]
    wanted = [each for each in found if each.key not in ("schema", "description")]
    return [*wanted, *_of_environments(records)]


def _differing(values: Sequence[Any], key: str) -> Iterator[tuple[str, Sequence[Any]]]:
    """Every path below ``key`` at which the values are not the same."""
    asked = [value for value in values if value is not _OUT]
    there = [value for value in asked if not isinstance(value, _Nothing)]
    if not there or (len(there) == len(asked) and _same(there)):
        return
    parts = [_parts(value) for value in there]
    if any(part is None for part in parts):
        yield key, values
        return
    names = [list(part) for part in parts if part is not None]
    is_list = isinstance(there[0], list)
    is_missing = len(there) < len(asked)
    if is_list and (is_missing or not _same(names)):
        yield key, values
    inside: list[tuple[str, Sequence[Any]]] = []
    for name in dict.fromkeys(each for own in names for each in own):
        below = [_below(value, name, is_list) for value in values]
        inside += _differing(below, f"{key}.{name}" if key else name)
    if is_missing and not is_list and not inside:
        yield key, values
    yield from inside


def _same(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)


def _parts(value: Any) -> Mapping[str, Any] | None:
    """What a value is made of, by name; ``None`` for one that is a whole."""
    if isinstance(value, dict):
        return {str(name): part for name, part in value.items()}
    names = block_names(value) if isinstance(value, list) and value else None
    return dict(zip(names, value, strict=True)) if names else None


def _below(value: Any, name: str, is_list: bool) -> Any:
    # An entry that a list lacks is said once, by the list: not by each of its keys.
    parts = None if isinstance(value, _Nothing) else _parts(value)
    return _OUT if parts is None else parts.get(name, _OUT if is_list else _MISSING)


def _shown(value: Any) -> str:
    if isinstance(value, _Nothing):
        return ABSENT
    if isinstance(value, list) and value and (names := block_names(value)):
        return sanitize(", ".join(names), _CELL)
    if value in ([], {}):
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (dict, list)):
        return sanitize(json.dumps(value).replace('"', ""), _CELL)
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return _cut(sanitize(value, 4 * _CELL)) or "''"


def _cut(text: str) -> str:
    """``text`` in a cell's length; of a path the end says more than the start."""
    return f"…{text[1 - _CELL :]}" if "/" in text and len(text) > _CELL else sanitize(text, _CELL)


# -- what is not in the recipe ----------------------------------------------------------------


def _of_environments(records: Sequence[Record]) -> Iterator[Difference]:
    facts = [_environment(record) for record in records]
    for name in dict.fromkeys(name for own in facts for name in own):
        values = tuple(sanitize(own.get(name, ABSENT), _CELL) for own in facts)
        if not _same(values):
            yield Difference(name, values, is_setting=False)


def _environment(record: Record) -> dict[str, str]:
    """What a run was done with; dates and loads differ always, and say nothing."""
    found = record.environment
    packages = found.get("packages")
    versions = packages if isinstance(packages, Mapping) else {}
    names = {name: device_name(record, name) for name in record.targets}
    return {
        "status": record.status,
        "measured rows": str(sum(bool(row.measurements) for row in record.rows)),
        **{f"device of {name}": _device(record, name) for name in names},
        **{f"mode on {name}": str(_mode(record, name)) for name in names},
        **{f"version of {name}": str(version) for name, version in versions.items()},
        "version of python": str(found.get("python", ABSENT)),
    }


def _device(record: Record, target: str) -> str:
    known = device_id(record, target)
    return f"{f'{known[:6]}, ' if known else ''}{device_name(record, target)}"


def _mode(record: Record, target: str) -> object:
    return target_environment(record, target).get("mode") or record.environment.get("mode", ABSENT)


# -- names ------------------------------------------------------------------------------------


def short_names(records: Sequence[Record], folders: Sequence[str] = ()) -> list[str]:
    """A name for each run, all different: what tells it from the others, as in ``ratio 0.4``.

    Where the recipes are equal, or too different for that, it is the recipe's name or the
    folder's.

    Args:
        records: the runs.
        folders: the names of their folders, if they are known.
    """
    shown = _by_settings(records) or _by_recipe(records, folders)
    return _told_apart(shown, folders)


def _by_settings(records: Sequence[Record]) -> list[str] | None:
    """Names of one key or two that tell the recipes apart; ``None`` where these do not."""
    found = [each for each in differences(records) if each.is_setting]
    if not 0 < len(found) <= _ALIKE:
        return None
    wanted = len(set(zip(*(each.values for each in found), strict=True)))
    chosen: list[Difference] = []
    while _distinct(chosen) < wanted:
        if len(chosen) == _KEYS_IN_NAME:
            return None
        left = [each for each in found if each not in chosen]
        chosen.append(max(left, key=lambda each: _worth([*chosen, each], each)))
    chosen.sort(key=found.index)
    keys = _leaves([each.key for each in chosen], [each.key for each in found])
    names = [
        ", ".join(f"{key} {each.values[run]}" for key, each in zip(keys, chosen, strict=True))
        for run in range(len(records))
    ]
    return names if max(map(len, names)) <= _NAME else None


def _distinct(chosen: Sequence[Difference]) -> int:
    return len(set(zip(*(each.values for each in chosen), strict=True))) if chosen else 0


def _worth(chosen: Sequence[Difference], last: Difference) -> tuple[int, bool, bool]:
    """How well keys tell runs apart; values that every run has, and numbers, say more."""
    is_whole = ABSENT not in last.values
    return _distinct(chosen), is_whole, all(_is_number(value) for value in last.values)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace("-", "").replace("e", "").isdigit()


def _leaves(keys: Sequence[str], among: Sequence[str]) -> list[str]:
    """The last part of each key, or the last two of a block in a stage, and where two end alike."""
    ends = [each.rpartition(".")[2] for each in among]
    short = []
    for key in keys:
        leaf = key.rpartition(".")[2]
        is_clear = ends.count(leaf) == 1 and key.count(".") <= _DOTS_OF_A_STAGE
        short.append(leaf if is_clear else ".".join(key.split(".")[-2:]))
    return short


def _by_recipe(records: Sequence[Record], folders: Sequence[str]) -> list[str]:
    names = [sanitize(record.name, _NAME) for record in records]
    if len(set(names)) < len(names) and len(set(folders)) == len(names):
        return [sanitize(folder, _NAME) for folder in folders]
    return names


def _told_apart(names: Sequence[str], folders: Sequence[str]) -> list[str]:
    """The names with the folder's, or a number, behind those that several have."""
    made: list[str] = []
    for place, name in enumerate(names):
        alike = [folders[k] for k, other in enumerate(names) if other == name and folders]
        is_clear = len(set(alike)) == len(alike) > 1
        wanted = f"{name}, {sanitize(folders[place], 12)}" if is_clear else name
        number, own = 2, wanted
        while own in made:
            ending = f" ({number})"
            own, number = f"{sanitize(wanted, _NAME + 14 - len(ending))}{ending}", number + 1
        made.append(own)
    return made
