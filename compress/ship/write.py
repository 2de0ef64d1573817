"""Writing a shipped folder, whole, over nothing that this tool did not write."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compress.errors import CheckpointError, CompressError, LoweringError, StorageError
from compress.events import Notice
from compress.io.files import read_bounded
from compress.io.scratch import scratch
from compress.preprocessing import TextPreprocessing
from compress.record import Record
from compress.running.job import Job
from compress.ship.card import card
from compress.ship.facts import Lowered, facts_of, metadata_of, names_of
from compress.ship.lowered import lowered_again
from compress.ship.model_file import ModelFile, write_model
from compress.ship.request import PROGRAM, PROGRAM_FILES, Choice, ShipRequest, choose
from compress.ship.samples import take_samples
from compress.ship_folder import (
    FACTS,
    SHIP,
    Shipped,
    check_ship_folder,
    digest_of,
    replace_files,
    shipped_in,
    sweep_ship,
    unchanged_files,
)
from compress.task import Task

__all__ = ["ship_advised", "write_ship"]

_MODEL, _CARD, _SAMPLES, _TOKENIZER = "model.onnx", "README.md", "samples.npz", "tokenizer.json"
_MOST_TOKENIZER_BYTES = 64 << 20


def write_ship(
    record: Record,
    run: Path,
    job: Callable[[], Job],
    request: ShipRequest = ShipRequest(),  # noqa: B008 - frozen
) -> Shipped:
    """Write a row of a run as a folder that runs by itself; one that is there is left as it is.

    Args:
        record: of the run.
        run: its folder.
        job: gives what the run was of; called only where something has to be written.
        request: which row, for which target, where to.

    Raises:
        RecordError: nothing was measured, or the row or its file is not there.
        RecipeError: no such target, or something in the folder that this tool did not write.
        LoweringError: a batch that the row cannot have.
        DataError: a task without a test sample.
        CheckpointError: a tokenizer that cannot be copied.
        StorageError: the disk refused; what was there before can be shipped to again.
    """
    choice = choose(record, run, request)
    folder = run / SHIP if request.out is None else request.out
    option = "" if request.out is None else "--out"
    sweep_ship(folder)
    check_ship_folder(folder, option)
    if not unchanged_files(folder, choice.made_from):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with scratch(folder.parent) as draft:
                facts = _write(choice, job(), Path(draft))
                replace_files(Path(draft), folder, facts)
        except OSError as error:
            raise StorageError(
                f"{folder}: the row could not be shipped there ({error.strerror or error}); free "
                f"space or give another folder (compresskit ship {run} -o FOLDER)."
            ) from error
    found = shipped_in(folder)
    assert found is not None
    return found


def ship_advised(record: Record, job: Job) -> Shipped | None:
    """Ship the row that is advised into the folder of its run, at the run's end.

    What is wrong with shipping alone is a notice, and the run is as good as without.

    Raises:
        StorageError: the disk refused.
    """
    try:
        return write_ship(record, job.folder.root, lambda: job)
    except StorageError:
        raise
    except CompressError as error:
        job.emit_and_log(Notice(f"nothing is shipped: {error}"))
        return None


def _write(choice: Choice, job: Job, draft: Path) -> dict[str, Any]:
    """Write all files into ``draft``; returns what ``model.json`` says."""
    task = job.task
    lowered = _lowered(choice, job, draft)
    model = _opened(choice, lowered.path)
    implied = [kind for stage in job.stages for kind in stage.implied_outputs(job.references)]
    names = names_of(task, choice.found)
    if len(names) != len(model.outputs):
        raise LoweringError(
            f"{lowered.path}: it gives {len(model.outputs)} outputs, and the record names "
            f"{', '.join(names)}; run the recipe again."
        )
    samples = take_samples(task, model, names, implied, choice.request.samples)
    facts = facts_of(choice, task, lowered, model, samples)
    files = write_model(lowered.path, draft / _MODEL, metadata_of(facts))
    (draft / _SAMPLES).write_bytes(samples.content)
    (draft / _CARD).write_text(card(choice, facts), encoding="utf-8", errors="backslashreplace")
    for name in PROGRAM_FILES:
        shutil.copyfile(PROGRAM / name, draft / name)
    names_written = [*(file.name for file in files), _SAMPLES, _CARD, *PROGRAM_FILES]
    names_written += _tokenizer(task, draft)
    facts["made_from"] = choice.made_from
    digests = {name: digest_of(draft / name) for name in names_written}
    own = files[0].name
    facts["model"] = {"file": own, "sha256": digests[own], **facts["model"]}
    facts["files"] = digests
    (draft / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def _opened(choice: Choice, path: Path) -> ModelFile:
    """A file, run with as many samples at once as the record was scored with, where it is open."""
    return ModelFile(path, choice.found.sizes[0].batch if choice.found.sizes else 1)


def _lowered(choice: Choice, job: Job, draft: Path) -> Lowered:
    """The measured file, unless another batch was asked for than it has."""
    wanted = choice.request.batch
    if wanted is not None:
        measured = _opened(choice, choice.model)
        if wanted != ("any" if measured.is_open else measured.batch):
            made = lowered_again(choice, job, wanted, draft / "lowered" / _MODEL)
            return Lowered(made.path, was_measured=False, warnings=made.warnings)
    return Lowered(choice.model, was_measured=True)


def _tokenizer(task: Task, draft: Path) -> list[str]:
    """Copy the tokenizer of a task's texts, where it has one; returns the names of the files."""
    form = task.preprocessing
    if not isinstance(form, TextPreprocessing) or form.file is None:
        return []
    content = read_bounded(form.file, _MOST_TOKENIZER_BYTES, CheckpointError)
    (draft / _TOKENIZER).write_bytes(content)
    return [_TOKENIZER]
