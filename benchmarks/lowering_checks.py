"""What do the checks of lowering cost?

The nets of the suite ``tiny`` are lowered in float32 and int8, and the time is taken that goes into
comparing the float graph with the module, and fused kernels with the operators that they stand for.

    python benchmarks/lowering_checks.py            # about 5 minutes
    python benchmarks/lowering_checks.py --smoke
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from claims import at_most, mean_interval, script_parser, write

import compress.backends.onnx.build as build
import compress.backends.onnx.float_graph as float_graph
from compress.artifact import Lowering
from compress.suite.building import SuiteModel, build_net
from compress.suite.nets import FORMATS, SUITES, Net

BOUND = 0.1
# Where each check is, and the float outputs that it is made with.
CHECKS = (
    (float_graph, "_outputs"),
    (build.LoweringJob, "wrong_kernels"),
    (build.LoweringJob, "float_outputs"),
)


class Watch:
    """Adds up the time that is spent in some functions."""

    def __init__(self) -> None:
        self.spent_s = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, timed."""

        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.spent_s += time.perf_counter() - start

        return timed


def overhead(net: Net, built: SuiteModel, format: str, watch: Watch) -> float:
    """Time of the checks over that of all else in one lowering."""
    candidate = replace(built.candidate, numerics=net.numerics(format))
    watch.spent_s, start = 0.0, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        build.lower(
            candidate,
            Lowering(avoid_saturation=True),
            calibration=[built.inputs],
            check=built.inputs,
            path=Path(folder) / "model.onnx",
        )
    return watch.spent_s / (time.perf_counter() - start - watch.spent_s)


def main() -> None:
    """Lower the nets and write the result."""
    arguments = script_parser(__doc__).parse_args()
    watch = Watch()
    for owner, name in CHECKS:
        setattr(owner, name, watch.around(getattr(owner, name)))
    nets = SUITES["tiny"].nets[: 1 if arguments.smoke else None]
    repeats = 2 if arguments.smoke else 7
    built = {net.name: build_net(net, None, 0) for net in nets}
    overhead(nets[0], built[nets[0].name], FORMATS[0], watch)  # loads the exporter
    rounds = [
        {f"{n.name} {f}": overhead(n, built[n.name], f, watch) for n in nets for f in FORMATS}
        for _ in range(repeats)
    ]
    means = [statistics.fmean(each.values()) for each in rounds]
    of_each = {name: [each[name] for each in rounds] for name in rounds[0]}
    largest = max(of_each, key=lambda name: statistics.fmean(of_each[name]))
    claims = []
    for id, statement, values in (
        ("mean", "time of the checks over that of the rest of lowering, suite tiny", means),
        ("largest", f"the same, of the net for which it is most ({largest})", of_each[largest]),
    ):
        value, interval = mean_interval(values)
        claims.append(at_most(id, statement, value, BOUND, interval))
    table = "\n".join(f"{statistics.fmean(v):7.1%}  {name}" for name, v in of_each.items())
    write("lowering_checks", {"rounds": rounds}, claims, arguments.results, table)


if __name__ == "__main__":
    main()
