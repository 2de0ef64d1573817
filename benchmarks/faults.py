"""What happens to a run whose files are damaged, that is killed, or that another run disturbs?

A finished run of a small recipe is the start of every trial. A trial flips one bit of one of its
files, deletes a file, or exchanges two; then the same command is given again. In half of the
trials the store is intact, in the others there is none, so that what is damaged has to be made
again. A trial is ``healed`` where files and numbers are those of the start again, ``named`` where
the command says what is wrong, and ``silent`` otherwise.

Other trials kill an unfinished run at random moments (SIGKILL, SIGTERM), and give the command
again; or start two processes at once, in one run folder, or in two that share a store.

    python benchmarks/faults.py            # about 25 min; resumes where it was stopped
    python benchmarks/faults.py --smoke    # one flip and one deletion
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claims import Claim, at_least, at_most, script_parser, write
from trials import add, known

from compress.artifact import file_sha256

RECIPE = """\
schema: 1
name: faults
task: digits
model: {arch: dscnn, width: 8}
stages:
  - {kind: train, epochs: 2}
  - {kind: quantize}
  - {kind: prune, ratio: 0.3, finetune: {epochs: 1}}
"""
SMOKE_COUNTS = {"flip": 1, "delete": 1}
COUNTS = {
    "flip": 100,
    "delete": 20,
    "swap": 10,
    "SIGKILL": 20,
    "SIGTERM": 5,
    "folder": 2,
    "store": 2,
}
FAULTS = ("flip", "delete", "swap")
SIGNALS = ("SIGKILL", "SIGTERM")
LONGEST_S, ORPHAN_S = 300, 5
Trial = dict[str, Any]


@dataclass(frozen=True)
class Ground:
    """Where trials take place: a finished run, its store, and room for copies."""

    root: Path
    whole_s: float

    @property
    def good(self) -> Path:
        """The finished run."""
        return self.root / "good"

    @property
    def store(self) -> Path:
        """That it was made with."""
        return self.root / "store"


def command(recipe: Path, out: Path) -> list[str]:
    """What is repeated."""
    program = [sys.executable, "-m", "compress", "run", str(recipe)]
    return [*program, "--quick", "--out", str(out)]


def start(root: Path, out: Path, store: str) -> subprocess.Popen[str]:
    """The command in a process group of its own."""
    return subprocess.Popen(
        command(root / "r.yaml", out),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "COMPRESSKIT_CACHE": store},
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code and all that it said."""
    said, _ = process.communicate(timeout=LONGEST_S)
    return process.returncode, said


def prepared(root: Path) -> Ground:
    """A finished run."""
    (root / "r.yaml").write_text(RECIPE)
    began_s = time.perf_counter()
    code, said = finish(start(root, root / "good", str(root / "store")))
    if code != 0:
        raise SystemExit(f"the run that all trials begin with failed: {said[-500:]}")
    return Ground(root, time.perf_counter() - began_s)


def files_of(folder: Path) -> list[Path]:
    """All of a run's files, in order, less the lock, which holds nothing."""
    found = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return [path for path in found if not path.name.startswith(".")]


def outcome_of(folder: Path) -> dict[str, Any]:
    """What must be the same again: models, candidates, and all numbers that do not move."""
    record = json.loads((folder / "record.json").read_text())
    rows = [
        [row["fingerprint"], row["macs"], m["accuracy"]["value"], m["artifact"]["sha256"]]
        for row in record["rows"]
        for m in row["measurements"]
    ]
    kept = [
        path
        for path in files_of(folder)
        if path.name.startswith("model") or path.parent.name == "candidate"
    ]
    return {
        "status": record["status"],
        "rows": rows,
        "files": {str(path): file_sha256(folder / path) for path in kept},
    }


def damage(folder: Path, kind: str, draw: random.Random) -> list[Path]:
    """Do one fault; the files that are other ones now."""
    files = files_of(folder)
    first = draw.choice(files)
    path = folder / first
    if kind == "delete":
        path.unlink()
        return [first]
    if kind == "swap":
        others = [f for f in files if (folder / f).read_bytes() != path.read_bytes()]
        second = draw.choice(others)
        kept = path.read_bytes()
        path.write_bytes((folder / second).read_bytes())
        (folder / second).write_bytes(kept)
        return [first, second]
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    return [first]


def fault(ground: Ground, trial: Trial) -> dict[str, Any]:
    """Damage a copy of the run, repeat the command, and look at what is there then."""
    draw = random.Random(f"{trial['kind']}/{trial['number']}")
    out = ground.root / f"{trial['kind']}-{trial['number']}"
    shutil.copytree(ground.good, out)
    touched = damage(out, trial["kind"], draw)
    damaged = {path: content_of(out / path) for path in touched}
    store = str(ground.store) if trial["store"] else "none"
    code, said = finish(start(ground.root, out, store))
    still = [p for p in touched if content_of(out / p, len(damaged[p] or b"")) == damaged[p]]
    is_named = code != 0 or any(p.name in said or p.parent.name in said for p in touched)
    is_right = code == 0 and outcome_of(out) == outcome_of(ground.good)
    verdict = "healed" if is_right and not still else "named" if is_named else "silent"
    return {
        "files": [str(path) for path in touched],
        "verdict": verdict,
        "code": code,
        "is_named": is_named,
        "unexpected": "unexpected" in said,
    }


def content_of(path: Path, most: int | None = None) -> bytes | None:
    """Its bytes, or the first ``most`` (a log grows); ``None`` where there is no file."""
    return path.read_bytes()[:most] if path.is_file() else None


def killed(ground: Ground, trial: Trial) -> dict[str, Any]:
    """End an unfinished run at a random moment, and repeat the command."""
    draw = random.Random(f"{trial['kind']}/{trial['number']}")
    out = ground.root / f"{trial['kind']}-{trial['number']}"
    process = start(ground.root, out, "none")
    time.sleep(draw.uniform(0.1, 0.9) * ground.whole_s)
    began_s = time.perf_counter()
    own = [process.pid, *descendants(process.pid)]
    process.send_signal(getattr(signal, trial["kind"]))
    code, said = finish(process)
    left = [pid for pid in own if not is_gone(pid, began_s + ORPHAN_S)]
    record = out / "record.json"
    status = json.loads(record.read_text())["status"] if record.exists() else None
    rows = len(json.loads(record.read_text())["rows"]) if record.exists() else 0
    code_after, _ = finish(start(ground.root, out, "none"))
    return {
        "code": code,
        "last_line": (said.strip().splitlines() or [""])[-1][-200:],
        "status": status,
        "rows": rows,
        "orphans": len(left),
        "leftovers": [str(path) for path in out.rglob("*.part")],
        "is_right": code_after == 0 and outcome_of(out) == outcome_of(ground.good),
    }


def descendants(pid: int) -> list[int]:
    """Of a process, now; by ``/proc``."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def is_gone(pid: int, until_s: float) -> bool:
    """Whether a process has ended, once it had its time."""
    while time.perf_counter() < until_s:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def at_once(ground: Ground, trial: Trial) -> dict[str, Any]:
    """Two processes that begin together: in one run folder, or in two with one store."""
    place = ground.root / f"{trial['kind']}-{trial['number']}"
    is_one = trial["kind"] == "folder"
    outs = [place / ("one" if is_one else str(number)) for number in range(2)]
    store = "none" if is_one else str(place / "store")
    ends = [finish(one) for one in [start(ground.root, out, store) for out in outs]]
    codes = sorted(code for code, _ in ends)
    refusals = [said.strip().splitlines()[-1] for code, said in ends if code]
    return {
        "codes": codes,
        "refusals": refusals,
        "is_right": all(outcome_of(out) == outcome_of(ground.good) for out in outs)
        and (codes[0] == 0 and codes[1] in ((0, 2) if is_one else (0,))),
        "unexpected": any("unexpected" in said for _, said in ends),
    }


def plan(counts: Mapping[str, int]) -> Iterator[Trial]:
    """All trials."""
    for kind, count in counts.items():
        for number in range(count):
            more = {"store": number % 2 == 0} if kind in FAULTS else {}
            yield {"kind": kind, "number": number, **more}


def tried(ground: Ground, trial: Trial) -> dict[str, Any]:
    """One trial."""
    kind = trial["kind"]
    do = fault if kind in FAULTS else killed if kind in SIGNALS else at_once
    found = {**trial, **do(ground, trial)}
    shutil.rmtree(ground.root / f"{trial['kind']}-{trial['number']}", ignore_errors=True)
    print(json.dumps(found), flush=True)
    return found


def all_tried(ground: Ground, counts: Mapping[str, int], kept: Path) -> list[Trial]:
    """All trials, two at a time; those in the file ``kept`` are not done again."""
    done, lock = known(kept), threading.Lock()

    def one(trial: Trial) -> Trial:
        found = next((old for old in done if trial.items() <= old.items()), None)
        if found is None:
            found = tried(ground, trial)
            with lock:
                add(kept, found)
        return found

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, plan(counts)))


def claims_of(rows: list[Trial], counts: Mapping[str, int]) -> Iterator[Claim]:
    """What is to hold."""
    faults = [row for row in rows if row["kind"] in FAULTS]
    verdicts = Counter(row["verdict"] for row in faults)
    many = ", ".join(f"{count} {kind}s" for kind, count in counts.items() if kind in FAULTS)
    yield at_most("silent", f"of {many}: silently wrong", verdicts["silent"], 0)
    healed = sum(row["verdict"] == "healed" for row in faults) / len(faults)
    yield at_least(
        "healed", "the share of them that was healed; the others were named", healed, 0.9
    )
    ended = [row for row in rows if row["kind"] in SIGNALS]
    wrong = sum(not row["is_right"] for row in ended)
    yield at_most("ends", f"of {len(ended)} runs that were killed, not as whole after", wrong, 0)
    orphans = sum(row["orphans"] for row in ended)
    yield at_most("orphans", f"processes left {ORPHAN_S} s after these kills", orphans, 0)
    terms = [row for row in ended if row["kind"] == "SIGTERM"]
    said = sum(row["code"] == 1 and row["last_line"].startswith("compresskit: ") for row in terms)
    yield at_least("terms", "runs that SIGTERM ended with a sentence", said, len(terms))
    pairs = [row for row in rows if row["kind"] in ("folder", "store")]
    wrong = sum(not row["is_right"] for row in pairs)
    yield at_most("at-once", f"of {len(pairs)} pairs of runs at once, not as whole", wrong, 0)
    unexpected = sum(row.get("unexpected", False) for row in rows)
    yield at_most("unexpected", "errors that should not happen", unexpected, 0)


def table(rows: list[Trial]) -> str:
    """A line for each kind of fault."""
    lines = [f"{'fault':<10}{'store':<8}{'trials':>7}{'healed':>8}{'named':>7}{'silent':>8}"]
    for kind in FAULTS:
        for store in (True, False):
            own = [r["verdict"] for r in rows if r["kind"] == kind and r["store"] == store]
            count = Counter(own)
            counts = f"{count['healed']:>8}{count['named']:>7}{count['silent']:>8}"
            lines.append(f"{kind:<10}{'whole' if store else 'none':<8}{len(own):>7}{counts}")
    return "\n".join(lines)


def main() -> None:
    """Do all trials that are not done yet, and write the result."""
    arguments = script_parser(__doc__, smoke="one flip and one deletion").parse_args()
    counts = SMOKE_COUNTS if arguments.smoke else COUNTS
    arguments.results.mkdir(parents=True, exist_ok=True)
    kept = arguments.results / "faults.partial.jsonl"
    with tempfile.TemporaryDirectory(prefix="compresskit-faults-") as folder:
        ground = prepared(Path(folder))
        rows = all_tried(ground, counts, kept)
    raw = {"recipe": RECIPE, "rows": rows, "whole_s": ground.whole_s}
    write("faults", raw, list(claims_of(rows, counts)), arguments.results, table(rows))
    kept.unlink()


if __name__ == "__main__":
    main()
