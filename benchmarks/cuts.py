"""Are channels cut where they belong, as many as were requested, on nets of many structures?

Sixty small nets written after public designs, each at four ratios and two roundings. A cell is
``nearest`` where every layer has the width that is nearest to what was asked of those that its
structure allows, ``partly`` where some layers stay uncut for a reason that is given, and ``whole``
where all do. Every cut is then checked from outside: its numbers are looked up in the uncut net,
everything else there is set to zero, and the outputs must be equal (norms scale only, in both); of
nets that write a norm over channels by hand that says nothing, and the proof alone counts. Two
surviving channels are swapped in one place of each cut, which the proof must catch. Last, a net of
ResNet-50's shape is pruned, and the time of the proof printed beside that of all.

    python benchmarks/cuts.py            # about 10 min
    python benchmarks/cuts.py --smoke
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from claims import at_least, at_most, script_parser, write
from torch import Tensor, nn
from torch.nn import functional as F

from compress.errors import CompressError
from compress.pruning import search as searching
from compress.pruning.channels import ChannelPruning
from compress.pruning.search import Found, Search
from compress.testing.cuts import agrees, distinct, swaps
from compress.testing.nets import NETS
from compress.testing.structures import STRUCTURES

RATIOS, ROUNDINGS = (0.1, 0.3, 0.5, 0.9), (1, 8)
SMOKE = ("resnet-basic", "vit-fused", "conv-bilstm", "channel-order-table")
# Their forward writes a norm over channels out in operators, whose statistics a cut changes.
NORMS_BY_HAND = ("convnext-hand-norm", "llama")
SWAPS = 3


def cell(name: str, ratio: float, round_to: int) -> dict[str, Any]:
    """What became of one structure at one setting."""
    structure = STRUCTURES[name]
    net = distinct(structure.make())
    inputs = structure.example()
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    start = time.perf_counter()
    try:
        search = Search(net, inputs, ChannelPruning(ratio=ratio, round_to=round_to), net)
        found = search.run()
    except CompressError as error:
        return {"outcome": "refused", "why": str(error)}
    except Exception as error:  # a traceback is what this script counts
        return {"outcome": "traceback", "why": f"{type(error).__name__}: {error}"}
    seconds = time.perf_counter() - start
    able = [width for width in found.widths if not width.is_output]
    lost = sum(width.before - width.after for width in able)
    facts = {
        "outcome": outcome(found),
        "asked": ratio,
        "done": lost / max(1, sum(width.before for width in able)),
        "widths": {w.layer: [w.before, w.after] for w in able},
        "reasons": sorted({w.reason for w in able if w.reason}),
        "seconds": seconds,
    }
    if found.removed:
        facts |= checked(name, net, inputs, search, found)
    return facts


def outcome(found: Found) -> str:
    """Whether every layer came as near as it can, some stayed uncut, or all did."""
    able = [width for width in found.widths if not width.is_output]
    if not found.removed:
        return "whole" if any(width.reason for width in able) else "nearest"
    return "partly" if any(w.reason and w.after == w.before for w in able) else "nearest"


def checked(
    name: str, net: nn.Module, inputs: Tensor, search: Search, found: Found
) -> dict[str, Any]:
    """The check from outside, and the swaps that the proof did not catch."""
    cut = copy.deepcopy(net)
    found.apply(cut)
    right: bool | None = None
    if name not in NORMS_BY_HAND:
        try:
            right = agrees(net, cut, inputs)
        except ValueError:
            right = False
    tampered = swaps(found)
    chosen = random.Random(name).sample(sorted(tampered, key=str), min(SWAPS, len(tampered)))
    missed = [str(axis) for axis in chosen if search.disproof(found, tampered[axis]) is None]
    return {"right": right, "swaps": len(chosen), "missed": missed}


class Bottleneck(nn.Module):
    """A block of a ResNet-50."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = 4 * width
        self.reduce = nn.Conv2d(before, width, 1, bias=False)
        self.conv = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.expand = nn.Conv2d(width, after, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in (width, width, after))
        self.shortcut = None
        if stride > 1 or before != after:
            conv = nn.Conv2d(before, after, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, before, h, w)`` to ``(n, 4 * width, h', w')``."""
        y = F.relu(self.norms[0](self.reduce(x)))
        y = self.norms[2](self.expand(F.relu(self.norms[1](self.conv(y)))))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


def resnet50() -> nn.Module:
    """A net of ResNet-50's shape, with random weights."""
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers, width = [*stem, nn.MaxPool2d(3, 2, 1)], 64
    for number, (inner, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for place in range(count):
            layers.append(Bottleneck(width, inner, 2 if place == 0 and number > 0 else 1))
            width = 4 * inner
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1000)
    ).eval()


def large(size: int) -> dict[str, float]:
    """Seconds of a prune of a large net, and of its proof alone."""
    torch.manual_seed(0)
    return timed_prune(resnet50(), torch.randn(2, 3, size, size))


def timed_prune(net: nn.Module, inputs: Tensor) -> dict[str, float]:
    """Seconds of a prune, and of its proofs alone."""
    parameters = sum(parameter.numel() for parameter in net.parameters())
    spent: list[float] = []
    prove = Search._try

    def timed(self: Search, *args: Any) -> Any:
        start = time.perf_counter()
        try:
            return prove(self, *args)
        finally:
            spent.append(time.perf_counter() - start)

    searching.Search._try = timed  # type: ignore[method-assign]
    try:
        start = time.perf_counter()
        found = Search(net, inputs, ChannelPruning(ratio=0.3), net).run()
        found.apply(net)
        whole = time.perf_counter() - start
    finally:
        searching.Search._try = prove  # type: ignore[method-assign]
    left = sum(parameter.numel() for parameter in net.parameters())
    return {"prune_s": whole, "proof_s": sum(spent), "before": parameters, "after": left}


def table(cells: Mapping[str, Mapping[str, Any]]) -> str:
    """A line for each structure: its worst outcome over all settings, and why."""
    lines = ["| structure | may stay whole | outcome | left whole because |", "|---|---|---|---|"]
    for name in dict.fromkeys(key.split("/")[0] for key in cells):
        own = [facts for key, facts in cells.items() if key.split("/")[0] == name]
        why = list(dict.fromkeys(r for facts in own for r in facts.get("reasons", ())))[:2]
        stays = "" if STRUCTURES[name].must_cut else "yes"
        lines.append(f"| {name} | {stays} | {worst(own)} | {'; '.join(why)} |")
    return "\n".join(lines)


def worst(cells: Sequence[Mapping[str, Any]]) -> str:
    """The worst outcome of several."""
    order = ("traceback", "refused", "whole", "partly", "nearest")
    return min((facts["outcome"] for facts in cells), key=order.index)


def main() -> int:
    """Run the matrix, print it, and keep it."""
    options = script_parser(__doc__, smoke="four structures at one setting").parse_args()
    names = SMOKE if options.smoke else tuple(STRUCTURES)
    settings = [(0.3, 8)] if options.smoke else [(r, k) for r in RATIOS for k in ROUNDINGS]
    cells = {f"{n}/{r}/{k}": cell(n, r, k) for n in names for r, k in settings}
    by_name = {n: [f for key, f in cells.items() if key.split("/")[0] == n] for n in names}
    nearest = sum(worst(own) == "nearest" for own in by_name.values())
    cut = sum(worst(own) in ("nearest", "partly") for own in by_name.values())
    wrong = [key for key, facts in cells.items() if facts.get("right") is False]
    failed = [k for k, f in cells.items() if f["outcome"] in ("traceback", "refused")]
    missed = [key for key, facts in cells.items() if facts.get("missed")]
    seconds = large(64 if options.smoke else 224)
    zoo = {name: timed_prune(case.build(), case.example()) for name, case in NETS.items()}
    slowest = max(times["proof_s"] for times in zoo.values())
    share = 0.5 if options.smoke else 48 / 60
    claims = [
        at_least(
            "nearest", "structures at the nearest widths throughout", nearest, share * len(names)
        ),
        at_least("cut", "structures that are cut, in part at least", cut, share * len(names)),
        at_most("wrong", "cuts that give other outputs", len(wrong), 0),
        at_most("failed", "settings that end in an error", len(failed), 0),
        at_most("missed", "swapped channels that the proof did not catch", len(missed), 0),
        at_most("proof-zoo", "seconds of the slowest proof on the zoo's small nets", slowest, 3),
        at_most("proof", "seconds of the proof on ResNet-50's shape", seconds["proof_s"], 10),
    ]
    raw = {"cells": cells, "large": seconds, "zoo": zoo}
    write("cuts", raw, claims, options.results, table(cells))
    print(f"ResNet-50's shape: prune {seconds['prune_s']:.1f} s, proof {seconds['proof_s']:.1f} s")
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    raise SystemExit(main())
