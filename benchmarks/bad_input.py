"""What does the command line make of invalid input: recipes, files, folders and options?

Each case is a process of its own: what it says, its exit code, how long it takes, and the most
memory that it has. ``unexpected`` is what nobody foresaw, a traceback or a signal. The tests try
some thousands more within one process (``tests/bounds``, ``tests/strangers``).

    python benchmarks/bad_input.py            # about 4 min
    python benchmarks/bad_input.py --smoke    # three cases
"""

from __future__ import annotations

import json
import os
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claims import at_least, at_most, script_parser, write

RECIPE = """\
schema: 1
name: odd
task: {name: digits, limit: 64}
model: {arch: dscnn, width: 8}
stages: [{kind: train, epochs: 1}]
"""
LONGEST_S, MOST_MB = 10, 1000
SETTINGS = (
    *("x=[1", "x==*a", "=1", "seed=18446744073709551616", "stages.².epochs=1"),
    *("stages.0.epochs=true", "stages.0.epochs=1:30:00", "stages.0.learning_rate=.inf"),
    *("model.width=1000000", "model.blocks=1000000000", "targets.0.threads=100000000"),
    *("stages.0.batch_size=1e9", "task.limit=-1", "budget.accuracy_drop=nan", "stages=3"),
)
RECIPES = {
    "alias": f"{RECIPE}me: &a [*a]\n",
    "bomb": RECIPE
    + "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "key": f"{RECIPE}? [a, b]\n: 1\n",
    "tag": f"{RECIPE}x: !!python/object/apply:os.system ['true']\n",
    "deep": f"{RECIPE}x: {'[' * 5000}{']' * 5000}\n",
    "number": f"{RECIPE}seed: {'9' * 100_000}\n",
    "twice": f"{RECIPE}name: other\n",
    "nul": f"{RECIPE}x: \0\n",
    "documents": f"{RECIPE}---\n{RECIPE}",
    "empty": "",
    "words": "just words\n",
    "stage": RECIPE.replace("kind: train", "kind: os:system"),
    "task": RECIPE.replace("{name: digits, limit: 64}", "no-such-task"),
    "text": RECIPE.replace("{name: digits, limit: 64}", "{name: text, path: /dev/zero}"),
    "images": RECIPE.replace("{name: digits, limit: 64}", "{name: image-folder, folder: .}"),
    "selector": RECIPE.replace("]\n", ", {kind: prune, ratio: 0.3, ignore: [no.such]}]\n"),
}


@dataclass(frozen=True)
class Case:
    """One command, and which exit codes are right."""

    name: str
    words: tuple[str, ...]
    codes: tuple[int, ...] = (2,)


def prepared(folder: Path) -> None:
    """Everything that the cases name."""
    (folder / "r.yaml").write_text(RECIPE)
    for name, text in RECIPES.items():
        (folder / f"{name}.yaml").write_text(text)
    (folder / "utf16.yaml").write_bytes(RECIPE.encode("utf-16"))
    os.mkfifo(folder / "pipe")
    (folder / "dir").mkdir()
    (folder / "not.pt").write_bytes(b"\x80\x04\x95\x10cos\nsystem\n(S'true'\ntR.")
    header = json.dumps({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}})
    packed = struct.pack("<Q", len(header)) + header.encode()
    (folder / "huge.safetensors").write_bytes(packed)
    (folder / "length.safetensors").write_bytes(struct.pack("<Q", 2**63) + b"{}")
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "text.onnx").write_text("not a model\n" * 100)
    (folder / "noise.onnx").write_bytes(bytes(range(256)) * 64)
    with (folder / "sparse.onnx").open("wb") as stream:
        stream.truncate(5 << 30)
    record = {"schema": 1, "name": "x", "rows": [{"index": float("nan")}]}
    for name, text in {"nan": json.dumps(record), "list": "[1]", "cut": '{"schema": 1'}.items():
        (folder / f"run-{name}").mkdir()
        (folder / f"run-{name}" / "record.json").write_text(text)
    (folder / "result.json").write_text('{"schema": 1e999}')
    (folder / "mine").mkdir()
    (folder / "mine" / "notes.txt").write_text("mine")


def cases() -> Iterator[Case]:
    """All of them."""
    plan = ("plan", "r.yaml")
    for setting in SETTINGS:
        yield Case(f"--set {setting}", (*plan, "--set", setting))
    for name in [*RECIPES, "utf16"]:
        yield Case(f"recipe {name}", ("plan", f"{name}.yaml"), (2, 1))
    for place in ("pipe", "dir", "/dev/zero", "no.yaml", "x" * 300, "noise.onnx"):
        yield Case(f"{place[:20]} as a recipe", ("plan", place))
    for file in ("pipe", "dir", "/dev/zero", "not.pt", "huge.safetensors", "length.safetensors"):
        yield Case(f"{file} as weights", (*plan, "--set", f"model.weights={file}"), (1, 2))
    for file in ("empty", "text", "noise", "sparse", "none"):
        yield Case(f"{file}.onnx", ("bench", "--quick", f"{file}.onnx"), (1, 2))
    for run in ("run-nan", "run-list", "run-cut", "mine", "pipe"):
        yield Case(f"report {run}", ("report", run), (2, 1))
    yield Case("merge", ("merge", "run-cut", "result.json"), (2, 1))
    yield Case("bundle", ("bundle", "run-nan"), (2, 1))
    yield Case("run in a folder of others", ("run", "r.yaml", "--quick", "--out", "mine"))
    yield Case("json over a model", ("bench", "--json", "text.onnx", "noise.onnx"))
    yield Case("new over a recipe", ("new", "r.yaml"))
    yield Case("a module that is not there", (*plan, "--import", "no_such_module"))
    yield Case("threads", ("bench", "--threads", "²", "text.onnx"))
    yield Case("repeat", ("run", "r.yaml", "--repeat", "1000000000"))
    yield Case("quick and strict", ("run", "r.yaml", "--quick", "--strict"))
    yield Case("a cache of others", ("run", "r.yaml", "--cache", "mine"))
    yield Case("an unknown cache", ("cache", "ls", "--cache", "nowhere://x"))
    yield Case("a size", ("cache", "prune", "--to", "-1"))


def tried(case: Case, folder: Path) -> dict[str, Any]:
    """One case: what it said at the end, its code, seconds and megabytes."""
    out = folder / ".said"
    began_s = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        os.chdir(folder)
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.execv(sys.executable, [sys.executable, "-m", "compress", *case.words])
    status, usage = waited(pid, began_s + 6 * LONGEST_S)
    said = out.read_text(errors="replace").strip().splitlines()
    return {
        "name": case.name,
        "code": os.waitstatus_to_exitcode(status),
        "is_right": os.waitstatus_to_exitcode(status) in case.codes,
        "unexpected": any("unexpected" in s or "Traceback" in s for s in said),
        "seconds": time.perf_counter() - began_s,
        "mb": usage.ru_maxrss * 1024 / 1e6,
        "said": (said or [""])[-1][:300],
    }


def waited(pid: int, until_s: float) -> tuple[int, Any]:
    """The end of a process; it is killed when its time is up."""
    while time.perf_counter() < until_s:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            return status, usage
        time.sleep(0.01)
    os.kill(pid, 9)
    return os.wait4(pid, 0)[1:]


def main() -> None:
    """Try all, and write the result."""
    arguments = script_parser(__doc__, smoke="three cases").parse_args()
    chosen = list(cases())[:3] if arguments.smoke else list(cases())
    with tempfile.TemporaryDirectory(prefix="compresskit-bad-") as name:
        folder = Path(name)
        os.environ["COMPRESSKIT_CACHE"] = str(folder / "cache")
        prepared(folder)
        normal = tried(Case("normal", ("plan", "r.yaml"), (0,)), folder)
        rows = [tried(case, folder) for case in chosen]
        is_kept = (folder / "mine" / "notes.txt").read_text() == "mine"
    for row in rows:
        print(f"{row['code']:>4} {row['seconds']:>5.1f} s {row['mb']:>6.0f} MB  {row['name']}")
        print(f"       {row['said']}")
    claims = [
        at_least("cases", "commands with bad input", len(rows), 60),
        at_most("unexpected", "of them unexpected", sum(row["unexpected"] for row in rows), 0),
        at_most(
            "codes",
            "exit codes that are not the documented one",
            sum(not row["is_right"] for row in rows),
            0,
        ),
        at_most(
            "seconds", "seconds of the slowest", max(row["seconds"] for row in rows), LONGEST_S
        ),
        at_most(
            "memory",
            "MB of the largest above those of a plan that is right",
            max(row["mb"] for row in rows) - normal["mb"],
            MOST_MB,
        ),
        at_least("kept", "files of the user's that are as they were", float(is_kept), 1),
    ]
    write("bad_input", {"normal": normal, "rows": rows}, claims, arguments.results)


if __name__ == "__main__":
    main()
