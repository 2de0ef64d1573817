"""Energy, from the sensors that a machine has; nothing is estimated without one."""

from __future__ import annotations

import math
import time

from compress.measure.ondevice import machine

__all__ = ["EnergyMeter"]

_INA = ("ina209", "ina219", "ina220", "ina226", "ina230", "ina231", "ina238", "ina3221")


class EnergyMeter:
    """The energy that the machine has taken since the meter was made, from a sensor that it has.

    Intel's and AMD's running average power limit (packages, and memory where it is apart), or the
    INA power monitors of boards: the rail that feeds the board, if one is named so, or the only
    one. Without such a sensor ``source`` is empty; nothing is guessed from a model of the CPU.
    """

    def __init__(self) -> None:
        self._zones = _rapl()
        self._factors: list[str] = []
        self.source = ", ".join(
            ["RAPL", *(machine.read_file(f"{zone}/name") for zone in self._zones)]
        )
        if not self._zones:
            self.source, self._factors = _rail()
        self._uj = 0.0
        self._last: dict[str, int] = {}
        self._at, self._uw = time.monotonic(), 0.0
        self.read()
        self._uj = 0.0

    def read(self) -> float:
        """Microjoules so far; between two calls, a sensor of power is taken to have moved evenly.

        A counter that starts again from 0 has its range added. A sensor that stops giving numbers
        is no ``source`` any more: nothing is reported from then on.
        """
        try:
            for zone in self._zones:
                count = int(machine.read_file(f"{zone}/energy_uj"))
                gone = count - self._last.get(zone, count)
                self._last[zone] = count
                self._uj += (
                    gone
                    if gone >= 0
                    else gone + int(machine.read_file(f"{zone}/max_energy_range_uj"))
                )
            if self._factors:
                now, uw = (
                    time.monotonic(),
                    math.prod(int(machine.read_file(path)) for path in self._factors),
                )
                self._uj += (uw + self._uw) / 2 * (now - self._at)
                self._at, self._uw = now, uw
        except ValueError:
            self.source = ""
        return self._uj


def _rapl() -> list[str]:
    """Folders of the zones to add up; those that only root may read are left out.

    Cores and graphics are parts of their package, and the whole platform (psys) has it all again.
    """
    zones = map(str, sorted(machine.SYS.glob("class/powercap/intel-rapl:*")))
    return [
        zone
        for zone in zones
        if machine.read_file(f"{zone}/name").startswith(("package", "dram"))
        and machine.read_file(f"{zone}/energy_uj").isdigit()
    ]


def _rail() -> tuple[str, list[str]]:
    """Name and files of the rail to look at, whose product is in microwatt; empty if none is."""
    rails: dict[str, list[str]] = {}
    for monitor in sorted(machine.SYS.glob("class/hwmon/hwmon*")):
        name = machine.read_file(f"{monitor}/name")
        for number in range(1, 4) if name in _INA else ():
            label = machine.read_file(f"{monitor}/in{number}_label") or f"{monitor.name}/{number}"
            power = [f"{monitor}/power{number}_input"]
            amperes = [f"{monitor}/in{number}_input", f"{monitor}/curr{number}_input"]
            files = next(
                (f for f in (power, amperes) if all(machine.read_file(p).isdigit() for p in f)),
                None,
            )
            if files:
                rails[f"{name} {label}"] = files
    feeds = [name for name in rails if name.endswith("_IN")]
    chosen = feeds if len(feeds) == 1 else list(rails)
    return (chosen[0], rails[chosen[0]]) if len(chosen) == 1 else ("", [])
