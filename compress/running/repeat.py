"""Repeat: one recipe with several seeds, each a run folder of its own below one folder.

::

    OUT/seed-0/ OUT/seed-1/ ...   run folders, as :mod:`.folder` says
    OUT/repeat.json               what they say together, see :mod:`compress.report.repeat.summary`

What a seed's run has finished is found again by that run, as in any run folder: so a repetition
that was killed is resumed, and one with more seeds begins with those that are there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from compress.environment import process_count
from compress.errors import (
    CompressError,
    ProcessError,
    RecipeError,
    RecordError,
    StageError,
    StorageError,
)
from compress.record import RECORD_NAME, Record
from compress.report.repeat.facts import FEWEST_SEEDS, REPEAT_NAME
from compress.report.repeat.summary import is_repeat, seed_folder

__all__ = ["check_single", "failure", "prepare", "run_seeds", "seeds_of"]

_MOST_SEEDS = 1000


def seeds_of(first: int, count: int) -> range:
    """``count`` seeds from ``first`` on.

    Raises:
        RecipeError: fewer than two, or more than anybody waits for.
    """
    if count > _MOST_SEEDS:
        raise RecipeError(f"--repeat is at most {_MOST_SEEDS:,}; got {count:,}.")
    if count < FEWEST_SEEDS:
        raise RecipeError(
            f"--repeat is the number of seeds to run with, {FEWEST_SEEDS} or more; got {count}."
        )
    return range(first, first + count)


def prepare(folder: Path, *, fresh: bool) -> None:
    """See that a repeated run may go to ``folder``; ``fresh`` removes the result of an earlier one.

    Raises:
        RecordError: it is a file, or holds a single run, which stays as it is.
    """
    if folder.is_file():
        raise RecordError(f"{folder}: this is a file; give a folder.")
    if (folder / RECORD_NAME).exists() or (folder / "stages").exists():
        raise RecordError(
            f"{folder}: this folder holds a single run, and --repeat makes a run folder for each "
            "seed; give another --out."
        )
    if fresh:
        (folder / REPEAT_NAME).unlink(missing_ok=True)


def check_single(folder: Path) -> None:
    """See that a single run may go to ``folder``.

    Raises:
        RecordError: it holds a repeated run, which stays as it is.
    """
    if is_repeat(folder) and not (folder / RECORD_NAME).exists():
        raise RecordError(
            f"{folder}: this folder holds a repeated run; add --repeat N to continue it, or give "
            "another --out."
        )


def run_seeds(
    execute: Callable[[int, Path], Record], folder: Path, seeds: Sequence[int]
) -> tuple[list[Record], dict[int, CompressError]]:
    """Run each seed after the other.

    A stage or measurement that fails with one seed may well do with the next, which is run. What no
    seed can help (a wrong recipe, missing data, a full disk) ends it all, and so does any failure
    where several processes run the recipe together.

    Args:
        execute: runs the recipe with a seed in a run folder.
        folder: each seed's run folder lies in it.
        seeds: in order.

    Returns:
        The records of the runs that finished, and what the others failed with, by seed.

    Raises:
        CompressError: what no seed can help.
    """
    records, failed = [], {}
    for seed in seeds:
        try:
            records.append(execute(seed, seed_folder(folder, seed)))
        except CompressError as error:
            if process_count() > 1 or not _may_pass(error):
                raise
            failed[seed] = error
    return records, failed


def _may_pass(error: CompressError) -> bool:
    """Whether another seed may not fail so: what failed is a stage, or its measurement."""
    elsewhere = isinstance(error, (StorageError, ProcessError)) or error.exit_code != 1
    return error.index is not None and not elsewhere


def failure(failed: Mapping[int, CompressError], finished: int, folder: Path) -> StageError:
    """What to raise when all seeds were tried and some failed: the first of these, what is kept.

    ``finished`` is how many did not fail.
    """
    seed, error = next(iter(failed.items()))
    at_start = error.index is None or error.index < 0
    place = f"{error.label}" if at_start else f"stages[{error.index}] ({error.label})"
    others = list(failed)[1:]
    also = f" (so did {'seeds' if len(others) > 1 else 'seed'} {', '.join(map(str, others))})"
    kept = f"; what finished is kept in {folder}" if finished else ""
    return StageError(
        f"seed {seed} failed in {place}{also if others else ''}: {str(error).rstrip('.')}{kept}, "
        "and the same command resumes from there."
    )
