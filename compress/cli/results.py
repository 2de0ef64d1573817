"""What commands did, as plain data for ``--json``: names, files, rows with their key numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compress.pareto import FRONT_OBJECTIVES, Reading, front_facts, readings, recommend
from compress.record import RECORD_NAME, Measurement, Record, Row
from compress.report import Comparison
from compress.report.comparison import ComparedGroup
from compress.running.forecast import Forecast
from compress.ship_folder import SHIP, shipped_of

__all__ = ["comparison_result", "plan_result", "repeat_result", "run_result"]

Result = dict[str, object]


def run_result(record: Record, folder: Path, report: Path) -> Result:
    """One run: where it is kept, and of every target its rows and the one to ship."""
    return {
        "command": "run",
        "name": record.name,
        "status": record.status,
        "error": record.error,
        "folder": str(folder),
        "record": str(folder / RECORD_NAME),
        "report": str(report),
        "ship": str(folder / SHIP) if shipped_of(record, folder) is not None else None,
        "task": record.task.name,
        "metric": record.task.metric,
        "seed": record.seed,
        "targets": [_target(record, target, folder) for target in record.targets],
    }


def _target(record: Record, target: str, folder: Path) -> Result:
    advice, facts = recommend(record, target), front_facts(record, target)
    read = readings(record, target)
    return {
        "name": target,
        "advised_row": advice.index,
        "advice": advice.reasons,
        "meets_budget": advice.meets_budget if record.budget is not None else None,
        "missed": list(advice.missed),
        "rows": [
            {
                **_row(row, row.on(target), folder),
                **_latency(read.get(row.index, {}).get("latency_p50_s")),
                "is_baseline": row.index == record.baseline,
                "on_front": row.index in facts.front,
            }
            for row in record.rows
        ],
    }


def _row(row: Row, found: Measurement | None, folder: Path) -> Result:
    facts: Result = {
        "row": row.index,
        "stage": row.stage,
        "kind": row.kind,
        "parameters": row.parameters,
    }
    if found is None:
        return facts
    path = folder / found.artifact.path
    facts |= {
        "file": str(path) if path.is_file() else None,
        "bytes": found.artifact.bytes,
        "int8_mac_fraction": found.artifact.int8_mac_fraction,
    }
    if found.accuracy is not None:
        facts |= {"score": found.accuracy.value, "score_ci95": list(found.accuracy.ci95)}
    if found.serving is not None:
        facts["serving"] = found.serving.model_dump(mode="json")
    if found.slices:
        facts["slices"] = {name: one.model_dump(mode="json") for name, one in found.slices.items()}
    if found.speedup is not None:
        facts |= {"speedup": found.speedup.value, "speedup_ci95": list(found.speedup.ci95)}
    if found.memory is not None:
        facts["model_peak_bytes"] = found.memory.model_peak_bytes
    return facts


def _latency(found: Reading | None) -> Result:
    """The latency as the tables have it, beside the baseline's, and as it was timed."""
    if found is None:
        return {}
    return {"p50_s": found.value, "p50_timed_s": found.timed.value if found.timed else found.value}


def repeat_result(name: str, folder: Path, records: Sequence[Record]) -> Result:
    """A recipe with several seeds: where each is kept."""
    return {
        "command": "run",
        "name": name,
        "status": "done",
        "error": None,
        "folder": str(folder),
        "report": str(folder / "repeat.html"),
        "summary": str(folder / "repeat.json"),
        "seeds": [record.seed for record in records],
        "folders": [str(folder / f"seed-{record.seed}") for record in records],
    }


def plan_result(name: str, plan: Forecast) -> Result:
    """What a run would cost: seconds and bytes."""
    return {
        "command": "plan",
        "name": name,
        "status": "done",
        "error": None,
        "mode": plan.mode,
        "seeds": plan.seeds,
        "seconds": plan.seconds,
        "measuring_s": plan.measuring_s,
        "memory_bytes": plan.memory_bytes,
        "disk_bytes": plan.disk_bytes,
        "notes": list(plan.notes),
        "stages": [
            {
                "row": stage.index,
                "stage": stage.label,
                "does": stage.sentence,
                "parameters": stage.parameters,
                "seconds": stage.seconds,
            }
            for stage in plan.stages
        ],
    }


def comparison_result(found: Comparison, folders: Sequence[str], written: Sequence[Path]) -> Result:
    """Several runs side by side: what differs, and who wins under each budget."""
    runs = zip(found.names, folders, found.records, strict=True)
    return {
        "command": "report",
        "status": "done",
        "error": None,
        "report": str(written[0]),
        "files": list(map(str, written)),
        "runs": [
            {"name": name, "folder": folder, "recipe": record.name, "status": record.status}
            for name, folder, record in runs
        ],
        "differences": {each.key: list(each.values) for each in found.differences},
        "groups": [_group(each) for each in found.groups],
        "notes": list(found.notes),
    }


def _group(each: ComparedGroup) -> Result:
    return {
        "heading": each.group.heading,
        "runs": [member.name for member in each.group.members],
        "winners": [
            {
                "budget": winner.budget.model_dump(exclude_none=True) if winner.budget else None,
                "of_runs": [each.group.members[place].name for place in winner.asked_by],
                "runs": [each.group.members[place].name for place in winner.entry.places],
                "row": winner.entry.row.index,
                "stage": winner.entry.row.stage,
                "meets_budget": winner.meets_budget,
                "sentence": winner.sentence,
                **{name: winner.entry.readings[name].value for name in FRONT_OBJECTIVES},
            }
            for winner in each.winners
        ],
    }
