"""Fields: which parts of a sample are inputs and which is the label. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, field_validator, model_validator

from compress.config.fields import Name, Number, Whole
from compress.config.settings import Settings
from compress.quoting import shown

__all__ = ["ABSENT", "LABEL_KEYS", "Fields", "KeyPath", "at_path", "leaves", "steps_of"]

_LARGEST_PLACE = 1_000
_MOST_LEAVES = 20
_FORM = (
    "a key such as pixel_values, a place in a tuple such as 0, or a path such as meta.age or '0.1'"
)

#: A key, a place in a tuple, or several of these with points between them.
KeyPath = Annotated[Whole, Field(ge=0, le=_LARGEST_PLACE)] | Name

#: Under one of these the label of a dictionary is looked for.
LABEL_KEYS = frozenset({"label", "labels", "target", "targets"})
#: What :func:`at_path` gives of a path that leads nowhere.
ABSENT = object()


class Fields(Settings):
    """Which parts of a sample are the inputs and the label, and what is padded.

    A part is named by its key in a dictionary, by its place in a tuple, or by a path of these with
    points between them, such as ``meta.age`` or ``"0.1"``; a key that itself has a point in it is
    found as well.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: KeyPath | tuple[KeyPath, ...] | dict[Name, KeyPath] | None = None
    """The parts that are inputs, by the names of the parameters of the model's ``forward``:
    ``{image: 0, depth: 1}``. A list names each by its last key: ``[pixel_values]``. One key or
    place alone is an input without a name. Where not given, those that the sample has by itself."""
    label: KeyPath | dict[Name, KeyPath] | None = None
    """The part that is the label, or one for each output by its name: ``{boxes: 1, scores: 2}``; a
    sample may lack some of these. Where not given, that of a plain key (``label``, ``labels``,
    ``target``, ``targets``), if the sample has one."""
    padding: Number | dict[Name, Number] | None = None
    """Pads sequences of different lengths at their end, by a number for all inputs
    (``attention_mask`` and ``token_type_ids`` are padded by 0), or by a number for each that is
    padded: ``{input_ids: 0}``. Labels along the same axis are padded with no label."""
    length: Annotated[Whole, Field(ge=1, le=65_536)] | None = None
    """Length of all samples when they are padded: shorter ones are padded, longer ones cut. Where
    not given, that of the longest sample of all splits."""
    mask: Name | None = None
    """The name of an input to make, with 1 where a sequence is and 0 where padding is."""

    @field_validator("inputs", mode="before")
    @classmethod
    def _inputs_are_paths(cls, given: Any) -> Any:
        if given is None or _is_path(given):
            return given
        paths = given.values() if isinstance(given, Mapping) else given
        if not isinstance(given, (Mapping, list, tuple)) or not paths:
            raise ValueError(
                f"inputs are one part of a sample, a list of keys, or a part for each name; got "
                f"{shown(given)}"
            )
        for path in paths:
            _check_path(path)
        if not isinstance(given, Mapping):
            _check_names([_last(path) for path in given])
        return given

    @field_validator("label", mode="before")
    @classmethod
    def _label_is_a_path(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and not given:
            raise ValueError("label names no output; give a part for each: label: {OUTPUT: KEY}")
        for path in given.values() if isinstance(given, Mapping) else [given]:
            if path is not None or isinstance(given, Mapping):
                _check_path(path)
        return given

    @model_validator(mode="after")
    def _no_input_is_called_as_labels_are(self) -> Fields:
        paths = self.paths
        if isinstance(paths, dict) and (names := sorted(LABEL_KEYS & paths.keys())):
            raise ValueError(
                f"an input called {names[0]!r} would be taken for the label; give it another name: "
                f"inputs: {{NAME: {paths[names[0]]}}}"
            )
        return self

    @model_validator(mode="after")
    def _mask_has_a_name_of_its_own(self) -> Fields:
        paths = self.paths
        if self.mask is not None and self.inputs is not None and not isinstance(paths, dict):
            raise ValueError(
                "a mask is an input beside others, which then need names: inputs: {input_ids: ...}"
            )
        if isinstance(paths, dict) and self.mask in paths:
            raise ValueError(f"the mask {self.mask!r} is to be made, and is an input already")
        return self

    @property
    def paths(self) -> KeyPath | dict[str, KeyPath] | None:
        """The parts that are inputs, by name; one part alone; ``None`` where none are said."""
        if isinstance(self.inputs, tuple):
            return {str(_last(path)): path for path in self.inputs}
        return self.inputs

    @property
    def used(self) -> list[KeyPath]:
        """All parts that are named."""
        paths = self.paths
        named = list(paths.values()) if isinstance(paths, dict) else [paths]
        labels = self.label.values() if isinstance(self.label, dict) else [self.label]
        return [path for path in (*named, *labels) if path is not None]

    @property
    def pads(self) -> bool:
        """Whether sequences are padded."""
        return self.padding is not None or self.length is not None or self.mask is not None


def at_path(sample: Any, path: KeyPath) -> Any:
    """The part of a sample at a path, or :data:`ABSENT`."""
    if isinstance(sample, Mapping) and path in sample:
        return sample[path]
    for step in steps_of(path):
        if isinstance(sample, Mapping):
            sample = sample.get(step, ABSENT)
        elif isinstance(sample, (tuple, list)) and step.isdecimal() and int(step) < len(sample):
            sample = sample[int(step)]
        else:
            return ABSENT
    return sample


def steps_of(path: KeyPath) -> list[str]:
    """The keys and places of a path, in order."""
    return str(path).split(".")


def leaves(sample: Any, above: str = "") -> Iterator[str]:
    """The paths of the parts of a sample that are no dictionaries and no tuples; the first 20."""
    if isinstance(sample, Mapping):
        parts = [(str(name), part) for name, part in sample.items()]
    elif isinstance(sample, tuple):
        parts = [(str(place), part) for place, part in enumerate(sample)]
    else:
        yield above
        return
    for name, part in parts[:_MOST_LEAVES]:
        yield from leaves(part, f"{above}.{name}" if above else name)


def _is_path(given: Any) -> bool:
    is_place = isinstance(given, int) and not isinstance(given, bool)
    return isinstance(given, str) or is_place


def _check_path(given: Any) -> None:
    problem = "" if _is_path(given) else f"a part of a sample is {_FORM}; got {shown(given)}"
    if isinstance(given, float):
        problem = f"{given} is read as a number; a path is written in quotes: '{given}'"
    if problem:
        raise ValueError(problem)


def _check_names(names: list[str]) -> None:
    numbers = [name for name in names if name.isdecimal()]
    if numbers:
        raise ValueError(
            f"the part {numbers[0]} has no name; write inputs: {{NAME: {numbers[0]}}}, with the "
            "name of the parameter of forward that it is for"
        )
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(
            f"two inputs would be called {twice!r}; give each a name: inputs: {{NAME: KEY}}"
        )


def _last(path: KeyPath) -> str:
    return steps_of(path)[-1]
