"""What ``compresskit`` says by itself: the first commands, by example."""

from __future__ import annotations

import argparse

__all__ = ["run"]

_GUIDE = """\
compresskit distills, quantizes and prunes a model in any order, and shows what each step
gained on your device.

First:
  compresskit new                          write a commented recipe, recipe.yaml
  compresskit plan recipe.yaml             check it, and forecast what it costs
  compresskit run recipe.yaml --quick      run it; the report is in runs/NAME/report.html

Then:
  compresskit run recipe.yaml --set stages.prune.ratio=0.4 --out runs/more
  compresskit report runs/NAME runs/more   what differs, one table, who wins
  compresskit ship runs/NAME --row 3       write a row as a folder to ship; the best one is there
  compresskit bench a.onnx b.onnx          measure any ONNX files side by side
  compresskit doctor                       what this machine can do

All commands: compresskit --help. Options of one: compresskit run --help.
TAB completes commands, recipes and runs after: eval "$(compresskit completion bash)"
"""


def run(_: argparse.Namespace) -> int:
    """Print the guide."""
    print(_GUIDE, end="")
    return 0
