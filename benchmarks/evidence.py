"""Write docs/evidence.md from the results that are kept: claims with bounds, and complete runs."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from compress.record import Record
from compress.report import markdown

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "evidence.md"

HEAD = """# Evidence

The results of the scripts in `benchmarks/`, and of complete runs of `recipes/`; raw samples and
records are in `benchmarks/results/`. Repeat any of them with its command. Times are only ever
compared with times of the same session, and intervals are of 95 %. This page is made of those files
by `python benchmarks/evidence.py`.
"""


def page(results: Path) -> str:
    """The page, of all results in the folder."""
    own = {path.stem: path for path in sorted(results.glob("*.json"))}
    # A folder with a record is a run of a recipe; any other has the results beside one peer.
    beside = [path for path in sorted(results.glob("*/*.json")) if not _is_of_a_run(path)]
    peers = {f"peers/{path.parent.name}/{path.stem}": path for path in beside}
    kept = {name: json.loads(path.read_text()) for name, path in (own | peers).items()}
    records = [Record.load(path) for path in sorted(results.glob("*/record.json"))]
    lines = [line for name in kept for line in section(name, kept[name])]
    return "\n".join([HEAD, *lines, *(line for record in records for line in run(record))])


def section(name: str, result: Mapping[str, Any]) -> Iterator[str]:
    """The lines about one script's result."""
    docstring = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text())) or name
    yield f"## {docstring.splitlines()[0].rstrip('.').replace('``', '`')}\n"
    yield f"`{_command(name, result)}`, {_where(result['environment'])}.\n"
    if "table" in result:
        is_markdown = result["table"].startswith("|")
        yield f"{result['table']}\n" if is_markdown else f"```\n{result['table']}\n```\n"
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


def run(record: Record) -> Iterator[str]:
    """The lines about one run of a recipe: its table on every target."""
    yield f"## {record.recipe['description'].rstrip('.')}\n"
    yield f"`compresskit run recipes/{record.name}.yaml`, {_where(record.environment)}.\n"
    for target in record.targets:
        yield markdown(record, target).rstrip() + "\n"


def _is_of_a_run(path: Path) -> bool:
    return (path.parent / "record.json").is_file()


def _command(name: str, result: Mapping[str, Any]) -> str:
    return str(result["command"]) if name.startswith("peers/") else f"python benchmarks/{name}.py"


def _where(environment: Mapping[str, Any]) -> str:
    packages = environment["packages"]
    targets = list(environment.get("targets", {}).values())
    isa = environment.get("isa") or (targets[0]["device"]["isa"] if targets else [])
    cpu = f"{environment['cpu']} ({', '.join(isa)})" if isa else environment["cpu"]
    return (
        f"{environment['date'][:10]}, {cpu}, onnxruntime "
        f"{packages['onnxruntime']}, torch {packages['torch']}"
    )


def _bound(claim: Mapping[str, Any]) -> str:
    if claim["value"] == claim["bound"]:
        return f"= {_number(claim['bound'])}"
    below = claim["value"] < claim["bound"]
    return f"{'≤' if below == claim['holds'] else '≥'} {_number(claim['bound'])}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    PAGE.write_text(page(HERE / "results"))
