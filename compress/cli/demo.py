"""``compresskit demo``: an image filter of a run on pictures or a video, with frames a second."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compress.cli.filtering import (
    DeployedFilter,
    Steps,
    as_bytes,
    as_input,
    middle_of,
    pictures_of,
)
from compress.cli.video import filter_video, is_video
from compress.config.references import CodeReferences
from compress.effects.reading import write_sheet
from compress.errors import RecipeError
from compress.formatting import duration
from compress.io.files import named
from compress.measure.stats import bootstrap_mean
from compress.measure.temporal import STEPS, temporal_stability
from compress.notebook.record import Record
from compress.pareto import recommend
from compress.recipe import Recipe
from compress.tasks.image_to_image import TASK_NAME
from compress.tasks.pairs.teacher import ImageTeacher
from compress.text_table import Column, text_lines

Array = np.ndarray[Any, Any]

_SHEET = "sheet.png"
# Of the frames that a file says it has: lengths are rounded.
_MOST_LACKING = 0.95
# Rows of a contact sheet: more would be a picture that nothing shows.
_MOST_ROWS = 24


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    record = Record.load(arguments.run, imports=arguments.imports)
    row = "advised" if arguments.row is None else arguments.row
    net = DeployedFilter(record.artifact(row))
    recipe = Recipe.of_record(record, imports=arguments.imports)
    if recipe.task is None or recipe.task.name != TASK_NAME:
        raise RecipeError(
            f"{named(arguments.run)} is a run of no task {TASK_NAME}, which alone makes images."
        )
    options = recipe.task.options
    if arguments.frames < 1:
        raise RecipeError(f"--frames {arguments.frames}: give 1 or more.")
    if arguments.images is None:
        _print_followed(record, arguments.row)
        return 0
    controls = _controls(arguments.controls, options.get("controls") or {})
    references = CodeReferences.of(arguments.imports)
    given, out = Path(arguments.images), Path(arguments.out or Path(arguments.run) / "demo")
    _check_out(out)
    if is_video(given):
        if arguments.teacher:
            raise RecipeError("--teacher: a teacher is too slow for a video; give pictures.")
        if arguments.moving:
            raise RecipeError("--moving: how a video moves is not known; give pictures.")
        _filter_video(net, given, controls, out, arguments.frames)
        return 0
    teacher = options["teacher"].build(references) if arguments.teacher else None
    pictures = pictures_of(given, "demo: ")
    _filter(net, pictures, controls, teacher, out)
    if arguments.moving:
        _print_stability(net, pictures, controls, teacher)
    return 0


def _filter(
    net: DeployedFilter,
    pictures: list[Path],
    controls: Mapping[str, float],
    teacher: ImageTeacher | None,
    out: Path,
) -> None:
    steps, sheet, slow = Steps(), [], []
    net.warm_up(controls)
    for path in pictures:
        shown, made = net.on_file(path, controls, steps)
        row = [shown, made]
        if teacher is not None:
            begin = time.perf_counter()
            row.insert(1, teacher(shown, controls))
            slow.append(time.perf_counter() - begin)
        write_sheet(out / f"{path.name}.png", [[made]])
        sheet.append(row)
    write_sheet(out / _SHEET, sheet[:_MOST_ROWS])
    _print_rate(steps, "to read and scale", "to make bytes")
    if slow:
        taken, inference = float(np.median(slow)), steps.medians[1]
        print(f"the teacher takes {duration(taken)}, {taken / inference:,.0f} times the net's time")
    columns = "input, teacher, net" if slow else "input, net"
    print(f"{len(pictures)} images in {out}; {_SHEET} has {columns} side by side")


def _print_stability(
    net: DeployedFilter,
    pictures: Sequence[Path],
    controls: Mapping[str, float],
    teacher: ImageTeacher | None,
) -> None:
    """How steady net and teacher are where the pictures move by a pixel at a time."""

    def by_net(pixels: Array) -> Array:
        return as_bytes(net(as_input(pixels), controls))

    filters = {"net": by_net}
    if teacher is not None:
        filters["teacher"] = lambda pixels: teacher(pixels, controls)
    # Of a slow teacher one step, of both: they are to be compared.
    steps = STEPS if teacher is None else 1
    moving = [middle_of(path, net.size + steps) for path in pictures]
    said = []
    for name, one in filters.items():
        found = [temporal_stability(one, pixels, net.size) for pixels in moving]
        low, high = bootstrap_mean(found)
        said.append(f"{name} {np.mean(found):.2f} dB [{low:.2f}, {high:.2f}]")
    print(
        f"temporal stability, where a picture moves by a pixel, against the moved output: "
        f"{', '.join(said)} (mean over {len(pictures)} with its 95 % interval; 60 is the most)"
    )


def _filter_video(
    net: DeployedFilter, video: Path, controls: Mapping[str, float], out: Path, most: int
) -> None:
    net.warm_up(controls)
    place = out / f"{video.stem}.mp4"
    done = filter_video(net, video, controls, place, most)
    write_sheet(out / _SHEET, done.sheet)
    _print_rate(done.steps, "to decode and scale", "to encode")
    rest = ""
    if done.frames == most and done.of != most:
        rest = "; the video may have more (--frames)"
    elif done.frames < min(most, _MOST_LACKING * done.of):
        rest = f"; its file says that there are {done.of}: it was cut short"
    print(f"{done.frames} frames in {place} ({done.codec}), input and net side by side{rest}")


def _print_rate(steps: Steps, before: str, after: str) -> None:
    """Frames a second, and how long each step takes, in words for the first and the last."""
    first, inference, last = steps.medians
    total = first + inference + last
    print(
        f"{1 / total:.1f} frames a second with one thread, {duration(total)} each: "
        f"{duration(first)} {before}, {duration(inference)} in the net, {duration(last)} {after}"
    )


def _print_followed(record: Record, row: int | None) -> None:
    """A table of how a row follows each control on the test split, as its run has measured it.

    Raises:
        RecipeError: the net has no controls.
    """
    index = recommend(record, record.targets[0]).index if row is None else row
    found = next(one for one in record.rows if one.index == index).on(record.targets[0])
    if found is None or not found.controls:
        raise RecipeError(
            "the net has no controls to follow, or its run is of before these were measured; give "
            "an image or a folder, or run the recipe again."
        )
    for name, values in found.controls.items():
        columns = [
            Column(name, "", tuple(f"{one.value:g}" for one in values)),
            Column("net", "dB to teacher", tuple(f"{v.to_teacher.value:.2f}" for v in values)),
            Column("net", "dB to input", tuple(f"{v.to_input.value:.2f}" for v in values)),
            Column("teacher", "dB to input", tuple(f"{v.teacher_to_input:.2f}" for v in values)),
        ]
        print("\n".join(text_lines(columns)))


def _check_out(out: Path) -> None:
    """See that nothing that is no demo's lies where the images go.

    Raises:
        RecipeError: something does.
    """
    if out.exists() and not (out.is_dir() and ((out / _SHEET).is_file() or not any(out.iterdir()))):
        raise RecipeError(
            f"{named(out)} holds something else than images of a demo, which could be replaced; "
            "give another folder (--out)."
        )


def _controls(given: list[str], ranges: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """The controls, at the end of their ranges where they are not given.

    Raises:
        RecipeError: no control of the net, no number, or one beyond the range.
    """
    found = {name: high for name, (_, high) in ranges.items()}
    for one in given:
        name, _, value = one.partition("=")
        if name not in ranges:
            known = ", ".join(ranges) or "none"
            raise RecipeError(f"--control {named(name)}: the net's controls are {known}.")
        try:
            found[name] = float(value)
        except ValueError:
            raise RecipeError(f"--control {named(one)}: write NAME=NUMBER.") from None
        low, high = ranges[name]
        if not low <= found[name] <= high:
            raise RecipeError(
                f"--control {named(one)}: {name} is from {low:g} to {high:g}; got {found[name]:g}."
            )
    return found
