"""``compresskit cascade`` of a run that makes images: which frames are for the teacher."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from compress.cascade.frame_cascade import FrameCascade, Samples, frames_text, write_frames
from compress.cascade.frames import Expectation, Looked, Net, curve_of, facts_of, look_at
from compress.cascade.threshold import Wanted, threshold_of_share
from compress.cli.filtering import DeployedFilter, middle_of, pictures_of
from compress.cli.json_output import others_to_stderr, print_json
from compress.cli.pairs import make_pairs
from compress.config.references import CodeReferences
from compress.errors import DataError, RecipeError, RecordError
from compress.io.files import named
from compress.notebook.record import Record
from compress.overwriting import CASCADE_NAME, check_cascade_folder
from compress.pareto import readings, recommend
from compress.preprocessing import Control
from compress.recipe import Recipe
from compress.tasks.image_to_image import plan_of
from compress.tasks.pairs.making import PairsPlan

Array = np.ndarray[Any, Any]

# What is for models that answer with a class.
_OF_CLASSES = ("larger", "drop", "accuracy", "scores", "quick", "strict")
# The teacher answers each of them here.
_MOST_PICTURES = 500
_FEW = 5  # photographs


def cascade_frames(
    arguments: argparse.Namespace, wanted: Wanted, recipe: Recipe, folder: Path
) -> int:
    """Run the command on a run of the task ``image-to-image``.

    Args:
        arguments: of the command.
        wanted: what the threshold is chosen for.
        recipe: of the run.
        folder: of the run.

    Raises:
        RecipeError: options that are for models that answer with a class.
        DataError: no pictures, or a teacher that failed.
        RecordError: no such row, or one whose file is gone or takes other images.
        StorageError: the disk refused.
    """
    _check(arguments)
    out = Path(arguments.out) if arguments.out is not None else folder / "cascade"
    check_cascade_folder(out, "--out")
    record = Record.load(folder, imports=arguments.imports)
    row = "advised" if arguments.row is None else arguments.row
    path = record.artifact(row, target=arguments.target)
    net, plan = DeployedFilter(path), _plan(recipe, arguments)
    if net.size != plan.of.size:
        raise RecordError(
            f"{named(path)} takes images of {net.size} pixels, and the run's task has "
            f"{plan.of.size}; run the recipe again."
        )
    pictures = {given: _pictures(given) for given in arguments.against}
    with others_to_stderr(arguments):
        make_pairs(plan, _note)
        validation, test = (_frames(net, plan, part) for part in ("validation", "test"))
        foreign = {name: _on_pictures(net, plan, name, paths) for name, paths in pictures.items()}
    found = FrameCascade(
        **_row_facts(record, arguments),
        **_frame_facts(validation.looked, test.looked, foreign, wanted),
        run=record.name,
        teacher=plan.teacher.name,
        teacher_s=plan.teacher_s,
        controls=[asdict(Control(name, *ends)) for name, ends in plan.controls.items()],
        notes=list(_notes(validation.looked)),
    )
    found = write_frames(found, path, test, out)
    if arguments.as_json:
        facts = {"command": "cascade", "status": "done", "error": None}
        print_json({**facts, "folder": str(out), **asdict(found)})
        return 0
    print(frames_text(found), end="")
    print(f"cascade: {out / CASCADE_NAME}")
    print(f"run it: python {out / 'run.py'}")
    return 0


def _plan(recipe: Recipe, arguments: argparse.Namespace) -> PairsPlan:
    assert recipe.task is not None
    plan = plan_of(recipe.task, CodeReferences.of(arguments.imports))
    assert plan is not None
    return plan


def _frame_facts(
    validation: Looked, test: Looked, foreign: Mapping[str, Looked], wanted: Wanted
) -> dict[str, Any]:
    """What is chosen on validation frames, and what it does on all."""
    assert wanted.share is not None
    threshold = threshold_of_share(validation.agreement_db, wanted.share)
    expected = Expectation.of(validation)
    return {
        "wanted": wanted.words,
        "threshold": float(threshold) if np.isfinite(threshold) else None,
        "at_zero_db": expected.at_zero_db,
        "for_each_db": expected.for_each_db,
        "validation": facts_of("validation", validation, threshold, expected),
        "test": facts_of("test", test, threshold, expected),
        "curve": curve_of(test),
        "foreign": [
            facts_of(name, looked, threshold, expected) for name, looked in foreign.items()
        ],
    }


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what is said of models that answer with a class.

    Raises:
        RecipeError: something is.
    """
    # A row 0 is one that was given.
    absent: tuple[Any, ...] = (None, False)
    given = [name for name in _OF_CLASSES if not any(getattr(arguments, name) is a for a in absent)]
    if given:
        raise RecipeError(
            f"--{given[0].removesuffix('s')}: it is for models that answer with a class; a run "
            "that makes images goes back to its teacher by how far the net agrees with itself, and "
            "takes --share, --row, --target and --against."
        )


def _row_facts(record: Record, arguments: argparse.Namespace) -> dict[str, Any]:
    """What the record says of the row that is meant."""
    target = arguments.target or record.targets[0]
    index = recommend(record, target).index if arguments.row is None else arguments.row
    row = next(one for one in record.rows if one.index == index)
    # As the table has it: beside the baseline, where the machine was faster at times.
    latency = readings(record, target)[index].get("latency_p50_s")
    return {
        "target": target,
        "row": index,
        "stage": row.stage,
        "net_s": None if latency is None else latency.value,
    }


def _notes(validation: Looked) -> Iterator[str]:
    photographs = len(np.unique(validation.photographs))
    if photographs < _FEW:
        yield (
            f"validation has {photographs} photograph{'s' * (photographs != 1)}, so that threshold "
            "and expectation may be of what is peculiar to them; more photographs make both surer"
        )
    if np.ptp(validation.agreement_db) == 0:
        yield "the net agrees with itself alike on all validation frames"


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _frames(net: Net, plan: PairsPlan, part: str) -> Samples:
    images, made, controls = plan.arrays(part)
    photographs = np.array(plan.photographs(part))
    return Samples(images, look_at(net, images, made, controls, photographs))


def _pictures(given: str) -> list[Path]:
    """The pictures of ``--against``: one, or those of a folder.

    Raises:
        DataError: there are none, or more than a teacher should be asked for.
    """
    found = pictures_of(Path(given), "--against ")
    if len(found) > _MOST_PICTURES:
        raise DataError(
            f"--against {named(given)}: {len(found):,} pictures, and the teacher would be asked "
            f"for each; give at most {_MOST_PICTURES}."
        )
    return found


def _on_pictures(net: DeployedFilter, plan: PairsPlan, given: str, paths: list[Path]) -> Looked:
    """The middles of pictures, at the highest value of every control.

    Raises:
        DataError: none can be read, or a teacher that failed.
    """
    values = {name: high for name, (_, high) in plan.controls.items()}
    images, made, unreadable = [], [], []
    for place, path in enumerate(paths, start=1):
        try:
            pixels = middle_of(path, net.size, f"--against {named(given)}: ")
        except DataError as error:
            unreadable.append(error)
            continue
        images.append(pixels.transpose(2, 0, 1))
        made.append(plan.teacher(pixels, values).transpose(2, 0, 1))
        _note(f"--against {named(given)}: {place} of {len(paths)}")
    if unreadable and not images:
        raise unreadable[0]
    if unreadable:
        _note(
            f"--against {named(given)}: {len(unreadable)} of {len(paths)} pictures cannot be read, "
            f"and are left out; the first: {unreadable[0]}"
        )
    controls = {name: np.full(len(images), value) for name, value in values.items()}
    return look_at(net, np.stack(images), np.stack(made), controls, np.arange(len(images)))
