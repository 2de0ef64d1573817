"""Write docs/evidence.md from the results that are kept: every number with its bound."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "evidence.md"

HEAD = """# Evidence

What the scripts in `benchmarks/` found, with their raw samples in `benchmarks/results/`; repeat any
of them with its command. Times are only ever compared with times of the same session, and intervals
are of 95 %. This page is made of those files by `python benchmarks/evidence.py`.
"""


def page(results: Path) -> str:
    """The page, of all results in the folder."""
    kept = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}
    return "\n".join([HEAD, *(line for name in kept for line in section(name, kept[name]))])


def section(name: str, result: Mapping[str, Any]) -> Iterator[str]:
    """The lines about one script's result."""
    docstring = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text())) or name
    where = result["environment"]
    yield f"## {docstring.splitlines()[0].rstrip('.').replace('``', '`')}\n"
    yield (
        f"`python benchmarks/{name}.py`, {where['date'][:10]}, {where['cpu']}, "
        f"onnxruntime {where['packages']['onnxruntime']}, torch {where['packages']['torch']}.\n"
    )
    if "table" in result:
        yield f"```\n{result['table']}\n```\n"
    yield "| what | value | 95 % interval | bound | holds |"
    yield "|---|---:|---:|---:|---|"
    for claim in result["claims"]:
        low_high = claim["ci95"]
        interval = f"{_number(low_high[0])} to {_number(low_high[1])}" if low_high else ""
        yield (
            f"| {claim['statement'].replace('|', '/')} | {_number(claim['value'])} | {interval} | "
            f"{_bound(claim)} | {'yes' if claim['holds'] else '**no**'} |"
        )
    yield ""


def _bound(claim: Mapping[str, Any]) -> str:
    below = claim["value"] <= claim["bound"]
    return f"{'≤' if below == claim['holds'] else '≥'} {_number(claim['bound'])}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    PAGE.write_text(page(HERE / "results"))
