"""How long does ``compresskit --help`` take, against ``python -c pass``?

Pairs of fresh processes in random order, with the same interpreter; the ratio of wall times.

    python benchmarks/startup.py            # about 20 s
    python benchmarks/startup.py --smoke
"""

from __future__ import annotations

import random
import subprocess
import sys
import time

import numpy as np
from claims import at_most, script_parser, write

from compress.measure.stats import paired_ratio

HELP = [sys.executable, "-m", "compress", "--help"]
PASS = [sys.executable, "-c", "pass"]
BOUND = 4.0


def seconds(command: list[str]) -> float:
    """Wall time of one process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def pair(order: random.Random) -> tuple[float, float]:
    """Both commands once, in random order: (help, pass)."""
    commands = [HELP, PASS]
    order.shuffle(commands)
    times = {command[1]: seconds(command) for command in commands}
    return times[HELP[1]], times[PASS[1]]


def main() -> None:
    """Time the pairs and write the result."""
    arguments = script_parser(__doc__).parse_args()
    order = random.Random(0)
    pair(order)  # fills the disk cache
    pairs = [pair(order) for _ in range(5 if arguments.smoke else 60)]
    helped, passed = (np.array(column) for column in zip(*pairs, strict=True))
    ratio = paired_ratio(helped, passed)
    claim = at_most(
        "help", "time of `compresskit --help` over `python -c pass`", ratio.value, BOUND, ratio.ci95
    )
    write(
        "startup",
        {"help_s": helped.tolist(), "pass_s": passed.tolist()},
        [claim],
        arguments.results,
    )


if __name__ == "__main__":
    main()
