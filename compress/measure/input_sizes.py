"""Sizes: what inputs are drawn with where a file leaves their sizes open.

::

    each file by itself      is run once, in a process of its own: with what is given for it, what
                             it fixes, and the first of several guesses with which it runs
    where files differ       with the sizes of another one, until all have the same, if they can

What was guessed is printed, and files that ran with other sizes are not compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from compress.errors import MeasurementError, RecipeError
from compress.formatting import sanitize
from compress.measure.arrays import on_disk
from compress.measure.runtime_errors import is_about_inputs, readable_error
from compress.measure.target import Array, Shapes, Target

if TYPE_CHECKING:
    from compress.measure.ondevice.answers import FitAnswer, TensorFacts

__all__ = ["Fit", "Fits", "Given", "alike", "fits", "unlike", "words"]


_MOST_NAMED, _MOST_CHARACTERS = 3, 60


@dataclass(frozen=True)
class Given:
    """What is given for inputs that are drawn.

    Args:
        shapes: sizes by the name of an input, or a single one by that of an axis.
        values: whole inputs by their name, as one run takes them.
    """

    shapes: Shapes = field(default_factory=dict)
    values: Mapping[str, Array] = field(default_factory=dict)


@runtime_checkable
class Fits(Protocol):
    """A target that can say whether, and with which sizes, a file runs."""

    def fit(self, model: Path, settings: Mapping[str, object], /) -> FitAnswer:
        """The answer to the worker's ``fit`` job.

        Raises:
            MeasurementError: the file cannot be opened, or what is given for it does not fit.
        """
        ...


@dataclass(frozen=True)
class Fit:
    """How a file runs: ``inputs`` are as the worker reports them.

    ``guessed`` has the axes of inputs whose size was not given; ``source`` is the file whose
    sizes it has taken over. ``error`` says why it does not run.
    """

    model: Path
    inputs: Sequence[TensorFacts]
    shapes: Shapes
    guessed: Mapping[str, Sequence[int]]
    error: str | None = None
    source: Path | None = None

    @classmethod
    def of(cls, model: Path, answer: FitAnswer) -> Fit:
        """From an answer of the worker."""
        shapes = {name: tuple(sizes) for name, sizes in answer["shapes"].items()}
        guessed, failed = answer["guessed"], answer["failed"]
        error = None
        # Of anything else, whoever measures it knows as much, or more.
        if failed and is_about_inputs(failed):
            does = readable_error(failed).rstrip(".")
            error = f"{does}; {_attempts_text(answer['inputs'], shapes, len(answer['tried']))}"
        return cls(model, answer["inputs"], shapes, guessed, error)

    @property
    def is_open(self) -> bool:
        """Whether the file leaves any size open."""
        return any(None in port["shape"] for port in self.inputs)

    def notes(self, given: Given) -> list[str]:
        """What a reader should know of its inputs."""
        found = []
        if self.guessed:
            guess = {name: self.shapes[name] for name in self.guessed}
            found.append(
                f"it leaves sizes open, and these are guesses: {words(guess)}; "
                f"{_options(guess)} gives others"
            )
        if self.source:
            found.append(f"it leaves sizes open, and was given those of {self.source.name}")
        texts = {port["name"] for port in self.inputs if "string" in port["type"]}
        known = {*given.values, *texts}
        if scalars := [n for n, sizes in self.shapes.items() if not sizes and n not in known]:
            found.append(
                f"its scalar {_listed(scalars)} was 1, which may decide what it computes; --inputs "
                "FILE.npz gives another"
            )
        if absent := [port["name"] for port in self.inputs if port["name"] not in self.shapes]:
            found.append(f"its optional {_listed(absent)} was left out")
        return found


def _attempts_text(inputs: Sequence[TensorFacts], shapes: Shapes, count: int) -> str:
    if not shapes:
        return "it was given no inputs."
    more = f", and then {count - 1} other guess{'es'[: 2 * (count > 2)]}" if count > 1 else ""
    open_ = {port["name"]: _declared(port) for port in inputs if None in port["shape"]}
    which = _listed([f"{name} {shape}" for name, shape in open_.items()])
    by_size = f" give the sizes of {which} with {_options(open_)}, or" if open_ else ""
    return f"it was given {words(shapes)}{more}:{by_size} give it inputs with --inputs FILE.npz."


def _declared(port: TensorFacts) -> str:
    sizes = zip(port["shape"], port["axes"], strict=True)
    return f"[{', '.join(name or '?' if size is None else str(size) for size, name in sizes)}]"


def _options(names: Iterable[str]) -> str:
    return " ".join(
        f"--shape {sanitize(n, _MOST_CHARACTERS)}=SIZES" for n in [*names][:_MOST_NAMED]
    )


def _listed(names: Sequence[str]) -> str:
    # A file's names may hold anything.
    shown = ", ".join(sanitize(name, _MOST_CHARACTERS) for name in names[:_MOST_NAMED])
    return shown + (", …" if len(names) > _MOST_NAMED else "")


def words(shapes: Shapes) -> str:
    """Inputs and their sizes, as in ``x 1x512, sr scalar``."""
    if not shapes:
        return "no inputs"
    return _listed([f"{name} {'x'.join(map(str, s)) or 'scalar'}" for name, s in shapes.items()])


# -- several files ----------------------------------------------------------------------------


def alike(one: Shapes, other: Shapes) -> bool:
    """Whether two files were given inputs of the same sizes, in whatever order of axes.

    An input that only one of them has is no difference if the other has one of its sizes.
    """
    if any(_plain(one[name]) != _plain(other[name]) for name in one.keys() & other.keys()):
        return False
    mine, theirs = ({_plain(sizes) for sizes in each.values() if sizes} for each in (one, other))
    return (mine <= theirs or theirs <= mine) and bool(mine) == bool(theirs)


def unlike(own: Shapes, name: str, other: Shapes, some_open: bool) -> str:
    """Why a file is not compared with the one called ``name``, and what would do."""
    differ = [each for each in own if each in other and _plain(own[each]) != _plain(other[each])]
    mine, its = ({each: shapes[each] for each in differ or shapes} for shapes in (own, other))
    do = "--shape sets the open ones" if some_open else "the files fix these sizes"
    return f"it is not compared: it ran with {words(mine)}, and {name} with {words(its)}; {do}"


def _plain(sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(size for size in sizes if size != 1))


def fits(models: Sequence[Path], target: Target, given: Given) -> dict[Path, Fit]:
    """How each file runs, with the same sizes for all where that can be.

    Those are left out that cannot be opened, or for which something is given that does not fit: who
    measures them hears of it. So are all of a target that cannot say.

    Raises:
        RecipeError: something is given for inputs that none of the files has.
    """
    if not isinstance(target, Fits):
        return {}
    with on_disk(given.values) as values:

        def fit(model: Path, shapes: Shapes) -> Fit | None:
            settings = {"shapes": shapes, "values": values}
            try:
                return Fit.of(model, target.fit(model, settings))
            except MeasurementError:
                return None

        alone = {model: fit(model, given.shapes) for model in dict.fromkeys(models)}
        opened = {model: found for model, found in alone.items() if found is not None}
        _check_names(given, opened.values())
        return _as_alike_as_can_be(opened, given, fit)


def _as_alike_as_can_be(
    alone: Mapping[Path, Fit], given: Given, fit: Callable[[Path, Shapes], Fit | None]
) -> dict[Path, Fit]:
    """With the sizes of the file whose sizes most can take, the first one of several."""
    best, most = dict(alone), 0
    for source in (each for each in alone.values() if each.error is None):
        found = {model: _like(source, own, given, fit) for model, own in alone.items()}
        count = sum(not each.error and alike(each.shapes, source.shapes) for each in found.values())
        if count > most:
            best, most = found, count
        if count == len(alone):
            break
    return best


def _like(source: Fit, own: Fit, given: Given, fit: Callable[[Path, Shapes], Fit | None]) -> Fit:
    if own.error is None and alike(own.shapes, source.shapes):
        return own
    shapes = _taken_over(own, source, given)
    if all(own.shapes[name] == sizes for name, sizes in shapes.items()):
        return own
    again = fit(own.model, {**shapes, **given.shapes})
    return own if again is None or again.error else replace(again, source=source.model)


def _taken_over(own: Fit, source: Fit, given: Given) -> Shapes:
    """Sizes of another file's inputs that fit: of the same name, or else of as many axes."""
    names = {port["name"] for port in own.inputs}
    others = [sizes for name, sizes in source.shapes.items() if name not in names]
    found: dict[str, tuple[int, ...]] = {}
    for port in own.inputs:
        name = port["name"]
        candidates = [source.shapes[name]] if name in source.shapes else others
        sizes = next((each for each in candidates if _fits(port, each, given)), None)
        if sizes is not None and name not in given.shapes and name not in given.values:
            found[name] = sizes
            candidates.remove(sizes)
    return found


def _fits(port: TensorFacts, sizes: Sequence[int], given: Given) -> bool:
    if len(sizes) != len(port["shape"]):
        return False
    known = [given.shapes.get(name, (None,))[0] for name in port["axes"]]
    wanted = [
        size if fixed is None else fixed for fixed, size in zip(port["shape"], known, strict=True)
    ]
    return all(want in (None, size) for want, size in zip(wanted, sizes, strict=True))


def _check_names(given: Given, found: Iterable[Fit]) -> None:
    ports = [port for each in found for port in each.inputs]
    inputs = {port["name"]: None for port in ports}
    axes = {name: None for port in ports for name in port["axes"] if name}
    for name, sizes in given.shapes.items() if ports else ():
        if name not in inputs and (name not in axes or len(sizes) != 1):
            what = "an input" if name in axes else "an input or an open axis"
            there = f"inputs {_listed([*inputs])}" + (
                f" and axes {_listed([*axes])}" if axes else ""
            )
            asked = f"--shape {name}={'x'.join(map(str, sizes))}"
            raise RecipeError(f"{asked}: no file has {what} of that name; there are {there}.")
    for name in given.values if ports else ():
        if name not in inputs:
            raise RecipeError(
                f"--inputs: no file has an input {name!r}; there are {_listed([*inputs])}."
            )
