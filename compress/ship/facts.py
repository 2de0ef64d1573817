"""What ``model.json`` says: the model, what goes in and out, what was measured, its origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import onnxruntime

from compress import __version__
from compress.environment import environment
from compress.measure.quantities import quantities_of
from compress.outputs import CLASS_KINDS, OutputKind
from compress.preprocessing import ArrayPreprocessing
from compress.record import Accuracy, Measurement, Record, Row
from compress.report.provenance import device_name, reference
from compress.ship.model_file import ModelFile, Port
from compress.ship.request import Choice
from compress.ship.samples import Samples
from compress.ship_folder import KIND
from compress.task import Task
from compress.tasks.detection import MeanAveragePrecision

__all__ = ["Lowered", "facts_of", "metadata_of", "names_of", "output_rules"]

_MOST_CLASSES = 1_000  # in the file itself: a vocabulary may be larger than a net
# Of a detector: what is shown, where the metric looks at more.
_LEAST_SCORE, _MOST_OVERLAP, _MOST_BOXES = 0.25, 0.5, 100


@dataclass(frozen=True)
class Lowered:
    """The file that is shipped.

    Args:
        path: of it, before it says what it is.
        was_measured: whether it is the one that the record is about.
        warnings: of its lowering, where it is another.
    """

    path: Path
    was_measured: bool
    warnings: tuple[str, ...] = ()


def names_of(task: Task, found: Measurement) -> tuple[str, ...]:
    """The names that the model has for a file's outputs, in the file's order."""
    return tuple(found.artifact.outputs) or task.ships[:1] or ("output",)


def facts_of(
    choice: Choice, task: Task, lowered: Lowered, model: ModelFile, samples: Samples
) -> dict[str, Any]:
    """The content of ``model.json``, less the names and checksums of its files."""
    form = task.preprocessing or ArrayPreprocessing()
    measured = choice.found.artifact
    return {
        "schema": 1,
        "kind": KIND,
        "name": choice.record.name,
        "task": task.name,
        "model": {
            "open": model.is_open,
            "batch": model.batch,
            "was_measured": lowered.was_measured,
            "measured": {
                "path": measured.path,
                "sha256": measured.sha256,
                "bytes": measured.bytes,
            },
            "warnings": list(lowered.warnings),
        },
        "inputs": [_port(port) for port in model.inputs],
        "outputs": _outputs(task, names_of(task, choice.found), model.outputs, samples),
        "classes": list(task.classes),
        "preprocessing": form.to_json(),
        "decision": _decision(task),
        "measured": _measured(choice.record, choice.row, choice.found),
        "provenance": _provenance(choice),
        "samples": {
            "count": samples.count,
            "of": samples.total,
            "rule": samples.rule,
            "on": samples.on,
            "expected_from": f"onnxruntime {onnxruntime.__version__} on {environment()['cpu']}",
        },
    }


def metadata_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What of that goes into the ONNX file itself, each as a text or as JSON."""
    provenance, metric = facts["provenance"], facts["measured"].get("metric") or {}
    plain = ("name", "in_file", "kind")
    names = facts["classes"] if len(facts["classes"]) <= _MOST_CLASSES else []
    form = {key: v for key, v in facts["preprocessing"].items() if key != "characters"}
    return {
        "version": __version__,
        "recipe": provenance["recipe"],
        "row": provenance["row"],
        "stage": provenance["stage"],
        "fingerprint": provenance["fingerprint"],
        "classes": names,
        "outputs": [{key: output[key] for key in plain} for output in facts["outputs"]],
        "preprocessing": form,
        "metric": metric.get("name", ""),
        "value": metric.get("value"),
        "measured_sha256": facts["model"]["measured"]["sha256"],
        "was_measured": facts["model"]["was_measured"],
    }


def output_rules(facts: Mapping[str, Any]) -> list[str]:
    """How the answer is made of each output, as sentences."""
    found = []
    detector = facts["decision"].get("detector")
    for output in facts["outputs"]:
        if detector and output["name"] in (detector["boxes"], detector["scores"]):
            continue
        rule = _RULES[output["kind"]]
        if "range" in output:
            rule = "an image with pixels from {:g} to {:g}, cut off at these".format(
                *output["range"]
            )
        found.append(f"{output['name']}: {rule}.")
    if detector:
        found.append(
            f"boxes: those with a probability of {detector['least_score']} or more; of boxes of "
            f"one class that overlap by more than {detector['most_overlap']} (intersection over "
            "union) the likeliest."
        )
    return found


_PIXEL_METRICS = ("psnr", "ssim")
_RULES: Mapping[OutputKind | None, str] = {
    "class-scores": "logits of classes; the probabilities are their softmax over axis 1, and the "
    "answer is the largest",
    "independent-logits": "logits of a yes or no each; the probability is the sigmoid, and the "
    "answer is yes above 0.5",
    "values": "numbers as they are",
    "image": "an image in the range of the labels",
    "tokens": "logits of the next token at each place; the answer is what follows the last token",
    None: "numbers; nothing in the run says what they mean",
}


def _port(port: Port) -> dict[str, Any]:
    return {"name": port.name, "type": port.type, "shape": list(port.shape)}


def _outputs(
    task: Task, names: Sequence[str], ports: Sequence[Port], samples: Samples
) -> list[dict[str, Any]]:
    found = []
    for name, port in zip(names, ports, strict=True):
        kind = samples.kinds.get(name)
        facts = {**_port(port), "name": name, "in_file": port.name, "kind": kind}
        if task.built_in_metric(name, is_only=len(names) == 1) in _PIXEL_METRICS:
            facts["range"] = [0.0, 1.0]  # as these metrics have it
        found.append({**facts, "classes": list(_classes(task, kind, port))})
    return found


def _classes(task: Task, kind: OutputKind | None, port: Port) -> Sequence[str]:
    """The names of an output's classes, where it is one of them for each."""
    width = port.shape[1] if len(port.shape) > 1 else 1
    if kind not in CLASS_KINDS and kind != "independent-logits":
        return ()
    if kind == "independent-logits" and width == 1 and len(task.classes) == 2:
        return task.classes[1:]  # of a yes or no, the yes
    return task.classes if len(task.classes) == width else ()


def _decision(task: Task) -> dict[str, Any]:
    metric = task.metric
    if not isinstance(metric, MeanAveragePrecision):
        return {}
    return {
        "detector": {
            "boxes": metric.boxes,
            "scores": metric.scores,
            "height": metric.height,
            "width": metric.width,
            "classes": list(task.classes),
            "least_score": _LEAST_SCORE,
            "most_overlap": _MOST_OVERLAP,
            "most": _MOST_BOXES,
        }
    }


def _measured(record: Record, row: Row, found: Measurement) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "target": found.target,
        "device": device_name(record, found.target),
        "runtime": found.runtime,
        "metric": _accuracy(record.task.metric, found.accuracy, record.task.higher_is_better),
        "scored_against": reference(record) or "labels",
        "metrics": [
            _accuracy(name, found.metrics[name], better)
            for name, better in record.task.metrics.items()
            if name in found.metrics
        ],
        "quantities": {},
        "warnings": list(found.warnings),
    }
    for quantity in quantities_of(record.task)[1:]:
        estimate = quantity.read(row, found)
        if estimate is not None:
            facts["quantities"][quantity.name] = {
                "value": estimate.value,
                "interval": [estimate.lo, estimate.hi],
                "unit": quantity.unit.suffix,
            }
    return facts


def _accuracy(name: str, found: Accuracy | None, higher_is_better: bool) -> dict[str, Any] | None:
    if found is None:
        return None
    facts = {"name": name, "higher_is_better": higher_is_better, "value": found.value}
    return {**facts, "ci95": list(found.ci95), "n": found.n, "versus": found.versus_baseline}


def _provenance(choice: Choice) -> dict[str, Any]:
    record, row = choice.record, choice.row
    return {
        "compresskit": __version__,
        "recipe": record.name,
        "seed": record.seed,
        "row": row.index,
        "stage": row.stage,
        "target": choice.found.target,
        "fingerprint": row.fingerprint,
        "advised_row": choice.advised,
        "run_status": record.status,
        "run_date": record.environment.get("date"),
        "shipped": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "lineage": [
            {"row": one.index, "stage": one.stage, "kind": one.kind, "fingerprint": one.fingerprint}
            for one in record.rows[: row.index + 1]
        ],
        "notes": list(row.notes),
    }
