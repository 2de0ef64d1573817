"""Which layer gets which format, so that the file keeps a size and the outputs move least.

The errors of layers are taken to add up, and so is what each saves of the file. Sums of errors are
what the program can compare; what the file really has is looked at, and the program is solved anew
with what it was off by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from compress.errors import StageError
from compress.integer_program import Limit, least_loss

__all__ = ["ByLayer", "ChosenFormats", "FormatChoice", "TimeLimit"]

_MOST_TRIES = 8

#: A number for each format and layer; a layer that cannot have a format is left out.
ByLayer = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class TimeLimit:
    """What the choice may take in time, as layers were timed in the file as a whole.

    Args:
        whole: seconds of the model as it is.
        won: seconds by format and layer; below 0 where a layer takes longer.
        most: seconds that are allowed.
    """

    whole: float
    won: ByLayer
    most: float


@dataclass(frozen=True)
class ChosenFormats:
    """What was chosen.

    Args:
        formats: by layer the name of its format; layers that stay as they are are left out.
        error: the sum of the layers' errors.
        file_bytes: of the file with these formats.
        seconds: that it is predicted to take; ``None`` where nothing was timed.
    """

    formats: Mapping[str, str]
    error: float
    file_bytes: int
    seconds: float | None = None


@dataclass(frozen=True)
class FormatChoice:
    """What there is to choose from.

    Args:
        errors: of the outputs where one layer alone has a format.
        stay: likewise, of layers as they are; those that are left out have none.
        saved: bytes, by the weights alone.
        file_bytes: of the file in which layers have these formats; it is asked a few times.
        where: begins the sentences of errors.
    """

    errors: ByLayer
    stay: Mapping[str, float]
    saved: ByLayer
    file_bytes: Callable[[Mapping[str, str]], int]
    where: str

    def within(self, most_bytes: float, time: TimeLimit | None = None) -> ChosenFormats:
        """The choice with the least sum of errors.

        Args:
            most_bytes: of the file; infinite for no limit.
            time: what it may take; ``None`` for no limit.

        Raises:
            StageError: nothing that may be chosen keeps the limits.
        """
        whole = self.file_bytes({})
        saved = self._measured(whole)
        layers = list(dict.fromkeys(name for each in self.errors.values() for name in each))
        options = {n: ["", *(f for f, own in self.errors.items() if n in own)] for n in layers}
        losses = [[self._error(n, f) for f in options[n]] for n in layers]
        costs = [[-saved[f][n] if f else 0.0 for f in options[n]] for n in layers]
        limits = [] if time is None else [_of_time(time, options)]
        room = most_bytes - whole
        for _ in range(_MOST_TRIES):
            of_bytes = [] if room == math.inf else [Limit(room, costs)]
            found = least_loss(losses, [*of_bytes, *limits])
            if found is None:
                break
            numbers = zip(layers, found, strict=True)
            chosen = {name: options[name][k] for name, k in numbers if k}
            size = self.file_bytes(chosen)
            if size <= most_bytes:
                error = sum(own[k] for own, k in zip(losses, found, strict=True))
                return ChosenFormats(chosen, error, size, _seconds(time, chosen))
            # What it was off by depends on the choice: some of it may come back in the next one.
            room -= max(1.0, size - most_bytes)
        return self._smallest(most_bytes, layers, saved, time)

    def _error(self, layer: str, format: str) -> float:
        return self.errors[format][layer] if format else self.stay.get(layer, 0.0)

    def _measured(self, whole: int) -> dict[str, dict[str, float]]:
        """What layers save, less an even share of what the graph grows by in each format."""
        found = {}
        for format, own in self.saved.items():
            really = whole - self.file_bytes(dict.fromkeys(own, format))
            grown = (sum(own.values()) - really) / max(1, len(own))
            found[format] = {name: saved - grown for name, saved in own.items()}
        return found

    def _smallest(
        self,
        most_bytes: float,
        layers: list[str],
        saved: Mapping[str, Mapping[str, float]],
        time: TimeLimit | None,
    ) -> ChosenFormats:
        """All layers in what saves most of them, where nothing else is small enough."""
        chosen = {}
        for name in layers:
            own = {format: each[name] for format, each in saved.items() if name in each}
            format = max(own, key=lambda one: own[one])
            if own[format] > 0:
                chosen[name] = format
        size = self.file_bytes(chosen)
        seconds = _seconds(time, chosen)
        late = time is not None and seconds is not None and seconds > time.most
        if size > most_bytes or late:
            slow = f" and {1e3 * seconds:.3g} ms" if late and seconds is not None else ""
            raise StageError(
                f"{self.where}: no choice of formats keeps it: with each layer in what saves most "
                f"the file has {size / 1024:.4g} KiB{slow}; allow more, choose from smaller or "
                "faster formats, or prune."
            )
        error = sum(self._error(name, chosen.get(name, "")) for name in layers)
        return ChosenFormats(chosen, error, size, seconds)


def _of_time(time: TimeLimit, options: Mapping[str, list[str]]) -> Limit:
    costs = [
        [-time.won.get(format, {}).get(name, 0.0) for format in own]
        for name, own in options.items()
    ]
    return Limit(time.most - time.whole, costs)


def _seconds(time: TimeLimit | None, chosen: Mapping[str, str]) -> float | None:
    if time is None:
        return None
    won = (time.won.get(format, {}).get(name, 0.0) for name, format in chosen.items())
    return time.whole - sum(won)
