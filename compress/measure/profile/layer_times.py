"""What each layer takes more or less in one file than in another, by the runtime's own profile.

A layer is its product, whatever the runtime fused with it, and what else is named after it. Each
file is profiled as a whole, in fresh processes that take turns. So a layer's time is what it
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
from typing import Any

import numpy as np

from compress.errors import MeasurementError
from compress.measure.input_sizes import Given, fits
from compress.measure.modes import PLANS
from compress.measure.profile.graph import modules_of, noted, read_graph
from compress.measure.profile.parts import Step, mean_interval, profiled_model
from compress.measure.profile.product_layers import layers_of_products
from compress.measure.profile.profiler import PROCESSES, Answer, Profiles
from compress.measure.target import Mode, Target

Seconds = np.ndarray[Any, np.dtype[np.float64]]

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
        won: by layer, paired by processes; left out where a layer's product is not found in both.
        seconds: of one inference, by layer of this file, the mean over processes.
    """

    whole: float
    won: Mapping[str, SecondsWon]
    seconds: Mapping[str, float]


def layer_times(
    models: Sequence[Path], layers: Collection[str], target: Target, mode: Mode, seed: int = 0
) -> list[LayerTimes]:
    """The times of layers in each of several files, the first of which is what they are won from.

    Args:
        models: files of one net, with the notes on modules that lowering leaves beside them.
        layers: by path.
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
    found = fits(models, target, Given())
    shapes = {path: found[path].shapes if path in found else {} for path in models}
    for number in range(PROCESSES[mode]):
        settings = {**PLANS[mode].timing, "seed": seed, "graph": number == 0, "values": {}}
        for index in chance.sample(range(len(models)), len(models)):
            path = models[index]
            answer = target.work("profile", path, {**settings, "shapes": shapes[path]})
            answers[index].append(answer)
    profiled = [_profiled(p, own, layers) for p, own in zip(models, answers, strict=True)]
    if not profiled[0]:
        raise MeasurementError(
            f"target {target.name!r}: nothing in the files names the layers, so that no layer has "
            "a time."
        )
    whole = [float(np.median([each["run_ns"] for each in own])) / 1e9 for own in answers]
    return [
        LayerTimes(
            seconds,
            _against(own, profiled[0]),
            {layer: float(np.mean(each)) for layer, each in own.items()},
        )
        for seconds, own in zip(whole, profiled, strict=True)
    ]


def _profiled(path: Path, answers: Sequence[Answer], layers: Collection[str]) -> dict[str, Seconds]:
    """Seconds of each layer in each process, of those whose product is found in the graph."""
    running = read_graph(zlib.decompress(base64.b64decode(answers[0]["graph"])))
    source = read_graph(path.read_bytes())
    modules = modules_of(source, noted(path))
    model = profiled_model(answers, running, source, modules)
    products = layers_of_products(running, source, modules, layers)

    def layer_of(step: Step) -> str | None:
        if step.node in products:
            return products[step.node]
        inside = (one for one in layers if f"{step.module}.".startswith(f"{one}."))
        return max(inside, key=len, default=None)

    owners = [layer_of(step) for step in model.steps]
    found: dict[str, Seconds] = {}
    for layer in set(products.values()):
        own = [s.seconds for s, owner in zip(model.steps, owners, strict=True) if owner == layer]
        found[layer] = np.sum(own, axis=0)
    return found


def _against(own: Mapping[str, Seconds], first: Mapping[str, Seconds]) -> dict[str, SecondsWon]:
    won = {}
    for layer in own:
        if layer in first:
            mean, low, high = mean_interval(first[layer] - own[layer])
            won[layer] = SecondsWon(mean, (low, high))
    return won
