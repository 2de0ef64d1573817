"""What each layer takes more or less in one file than in another, by the runtime's own profile.

Each file is profiled as a whole, in fresh processes that take turns. So a layer's time is what it
takes among its neighbors in the file, with the conversions that the graph has for it; alone in its
format it would have more of these.
"""

from __future__ import annotations

import base64
import random
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compress.errors import MeasurementError
from compress.measure.modes import PLANS
from compress.measure.profile.graph import modules_of, noted, read_graph
from compress.measure.profile.parts import (
    ROOT,
    UNNAMED,
    ProfiledModel,
    mean_interval,
    profiled_model,
)
from compress.measure.profile.profiler import PROCESSES, Answer, Profiles
from compress.measure.target import Mode, Target

__all__ = ["LayerTimes", "SecondsWon", "layer_times"]


@dataclass(frozen=True)
class SecondsWon:
    """Of one inference: below 0 where a layer takes longer, with the 95 % interval of processes."""

    seconds: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class LayerTimes:
    """Of one file, against the first.

    Args:
        whole: seconds of one inference, the median over processes.
        won: by layer, paired by processes; a layer that the graph does not name is left out.
    """

    whole: float
    won: Mapping[str, SecondsWon]


def layer_times(
    models: Sequence[Path], layers: Collection[str], target: Target, mode: Mode, seed: int = 0
) -> list[LayerTimes]:
    """The times of layers in each of several files, the first of which is what they are won from.

    Args:
        models: files of one net, with the notes on modules that lowering leaves beside them.
        layers: by path; what runs inside of one counts as its time.
        target: where to.
        mode: how many processes.
        seed: of the order, and of the inputs.

    Raises:
        MeasurementError: the target cannot be given single jobs, a file does not run there, or
            nothing in the files names the layers.
    """
    if not isinstance(target, Profiles):
        raise MeasurementError(
            f"target {target.name!r} cannot be profiled from here, so that no layer has a time."
        )
    answers: list[list[Answer]] = [[] for _ in models]
    chance = random.Random(seed)
    for number in range(PROCESSES[mode]):
        settings = {**PLANS[mode].timing, "seed": seed, "graph": number == 0}
        for index in chance.sample(range(len(models)), len(models)):
            answers[index].append(target.work("profile", models[index], settings))
    profiled = [_profiled(path, own) for path, own in zip(models, answers, strict=True)]
    named = {step.module for model in profiled for step in model.steps} - {UNNAMED, ROOT}
    inside = {
        layer: {name for name in named if name == layer or name.startswith(f"{layer}.")}
        for layer in layers
    }
    inside = {layer: names for layer, names in inside.items() if names}
    if not inside:
        raise MeasurementError(
            f"target {target.name!r}: nothing in the files names the layers, so that no layer has "
            "a time."
        )
    return [_against(model, profiled[0], inside) for model in profiled]


def _profiled(path: Path, answers: Sequence[Answer]) -> ProfiledModel:
    running = read_graph(zlib.decompress(base64.b64decode(answers[0]["graph"])))
    source = read_graph(path.read_bytes())
    return profiled_model(answers, running, source, modules_of(source, noted(path)))


def _against(
    model: ProfiledModel, first: ProfiledModel, inside: Mapping[str, Collection[str]]
) -> LayerTimes:
    won = {}
    for layer, names in inside.items():
        own, other = (
            each.seconds(lambda step, names=names: step.module in names)  # type: ignore[misc]
            for each in (model, first)
        )
        mean, low, high = mean_interval(other - own)
        won[layer] = SecondsWon(mean, (low, high))
    return LayerTimes(float(np.median(model.run_s)), won)
