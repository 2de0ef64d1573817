"""Run the model beside this file: a picture, numbers or a text in, an answer out.

    python run.py photo.png                 an answer for each input
    python run.py photo.png --strength 0.7  of a model that has such a control
    python run.py inputs.npy --json         the same as JSON
    python run.py --check                   the score on samples.npz, beside the record's

It needs numpy and onnxruntime; what is done with inputs (reading.py) and outputs, model.json says.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import sys
import zlib
from typing import Any
from zipfile import BadZipFile

import numpy as np
import onnxruntime
import reading

HERE = os.path.dirname(os.path.abspath(__file__))
TOP, MOST_NUMBERS = 5, 4096
UNREADABLE = (OSError, ValueError, LookupError, EOFError, struct.error, zlib.error, BadZipFile)
ALIKE = 0.99  # of the variance of outputs, below which they are others


def main() -> int:
    """Answer each input, or check the samples; 1 where the check fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="a file, or a text")
    parser.add_argument("--check", action="store_true", help="score samples.npz")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "-o", "--out", default="answers", help="folder for images and masks (answers)"
    )
    with open(os.path.join(HERE, "model.json"), encoding="utf-8") as stream:
        model = json.load(stream)
    add_controls(parser, model["preprocessing"].get("controls", []))
    given = parser.parse_args()
    if given.check == bool(given.inputs):
        parser.error("give an INPUT, or --check")
    model["preprocessing"]["values"] = values_given(model["preprocessing"], given)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    path = os.path.join(HERE, model["model"]["file"])
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(path, options, providers=providers)
    if given.check:
        return check(model, session, given.json)
    found = [said for one in given.inputs for said in answered(one, model, session, given.out)]
    print(json.dumps(found, indent=1) if given.json else "\n".join(map(in_words, found)))
    return 0


def add_controls(parser: argparse.ArgumentParser, controls: list[dict[str, Any]]) -> None:
    """An option for each number that the model takes beside an image."""
    for one in controls:
        name = one["name"]
        names = [f"--{name}"] if name not in ("check", "json", "out", "help") else []
        about = f"{one['low']:g} to {one['high']:g} ({one['default']:g})"
        parser.add_argument(
            *names, f"--control-{name}", dest=f"control {name}", type=float, metavar="X", help=about
        )


def values_given(form: dict[str, Any], given: argparse.Namespace) -> dict[str, float]:
    """The controls as they were given, within their ranges, or as they are by themselves."""
    values = {}
    for one in form.get("controls", []):
        value = getattr(given, f"control {one['name']}")
        value = one["default"] if value is None else value
        if not one["low"] <= value <= one["high"]:
            sys.exit(
                f"--{one['name']} {value:g}: {one['name']} is from {one['low']:g} to "
                f"{one['high']:g}."
            )
        values[one["name"]] = value
    return values


def answered(given: str, model: Any, session: Any, out: str) -> list[dict[str, Any]]:
    """The answers for what one INPUT holds."""
    try:
        inputs, place = reading.read_inputs(given, model)
    except UNREADABLE as error:
        sys.exit(f"{given}: cannot be read ({error}).")
    outputs = predict(model, session, inputs)
    stem, found = os.path.splitext(os.path.basename(given))[0], []
    for sample in range(len(next(iter(outputs.values())))):
        known = {**place, "sample": sample, "path": os.path.join(out, f"{stem}-{sample}")}
        values = {name: array[sample] for name, array in outputs.items()}
        text = place["texts"][sample] if "texts" in place else given
        found.append({"input": text, **answers(model, values, known)})
    return found


def predict(model: dict[str, Any], session: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """The outputs for all samples, by name. A last batch is filled up with its last sample."""
    count, batch = len(next(iter(inputs.values()))), model["model"]["batch"]
    parts: list[list[Any]] = []
    for start in range(0, count, batch):
        rows = np.minimum(np.arange(start, start + batch), count - 1)
        found = session.run(None, {name: array[rows] for name, array in inputs.items()})
        parts.append([array[: count - start] for array in found])
    names = [output["name"] for output in model["outputs"]]
    return {name: np.concatenate(part) for name, part in zip(names, zip(*parts))}


# -- answers ----------------------------------------------------------------------------------


def answers(model: dict[str, Any], values: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """What each output of one sample says."""
    found: dict[str, Any] = {}
    detector = model["decision"].get("detector")
    for output in model["outputs"]:
        name, kind = output["name"], output["kind"]
        if detector and name in (detector["boxes"], detector["scores"]):
            continue
        names = output["classes"]
        if kind == "class-scores" and values[name].ndim == 3:
            found[name] = mask_of(values[name], names, model, known, name)
        elif kind == "class-scores":
            found[name] = classes_of(values[name], names, known)
        elif kind == "tokens":
            last = known["lengths"][known["sample"]] - 1 if "lengths" in known else -1
            found[name] = ranked(softmax(values[name])[:, last], names)
        elif kind == "independent-logits" and values[name].ndim <= 1:
            chances = 1 / (1 + np.exp(-values[name].reshape(-1).astype(float)))
            each = {named(names, i): round(float(p), 4) for i, p in enumerate(chances)}
            found[name] = {"yes": [key for key, p in each.items() if p > 0.5], "chances": each}
        elif kind == "image":
            found[name] = image_of(values[name], model["preprocessing"], known, output)
        else:
            found[name] = values_of(values[name], names, known["path"], name)
    if detector:
        found["boxes"] = boxes_of(detector, values, model, known)
    return found


def classes_of(scores: Any, names: list[str], known: dict[str, Any]) -> Any:
    """The likeliest classes; of scores (classes, places), the likeliest at each place."""
    chances = softmax(scores)
    if scores.ndim == 1:
        return ranked(chances, names)
    count = known["lengths"][known["sample"]] if "lengths" in known else scores.shape[1]
    return [named(names, i) for i in scores.reshape(len(scores), -1).argmax(0)[:count]]


def ranked(chances: Any, names: list[str]) -> list[dict[str, Any]]:
    """The classes of the highest chances."""
    order = np.argsort(-chances, kind="stable")[:TOP]
    return [{"class": named(names, i), "probability": round(float(chances[i]), 4)} for i in order]


def values_of(values: Any, names: list[str], path: str, name: str) -> Any:
    """Numbers, by name where each has one; many of them as a file."""
    if values.size > MOST_NUMBERS:
        return {"shape": list(values.shape), "files": saved(path, name, values, None)}
    numbers = [float(f"{float(value):.6g}") for value in values.reshape(-1)]
    return dict(zip(names, numbers)) if len(names) == len(numbers) else numbers


def mask_of(scores: Any, names: list[str], model: Any, known: Any, name: str) -> dict[str, Any]:
    """The class of each pixel, without what was filled around the image, as files; and shares."""
    mask = scores.argmax(0).astype(np.uint8 if len(scores) < 256 else np.int32)
    if "covered" in known:
        across, down = known["covered"]
        form, (rows, columns) = model["preprocessing"], mask.shape
        mask = mask[
            : round(rows * down / form["height"]), : round(columns * across / form["width"])
        ]
    counts = np.bincount(mask.reshape(-1), minlength=len(scores)) / max(1, mask.size)
    shares = {named(names, i): round(float(s), 4) for i, s in enumerate(counts) if s > 0}
    return {"shares": shares, "files": saved(known["path"], name, mask, mask.astype(np.uint8))}


def image_of(values: Any, form: Any, known: dict[str, Any], output: Any) -> dict[str, Any]:
    """The image as files; as a picture in its range, in that of inputs, or from least to most."""
    lowest, most = float(values.min()), float(values.max())
    if "range" in output:
        lowest, most = output["range"]
    elif form["kind"] == "image" and len(form["mean"]) == 1:
        lowest, most = (((v - form["mean"][0]) / form["std"][0]) for v in (0, form["highest"]))
    shown = np.clip(np.rint((values - lowest) / max(most - lowest, 1e-9) * 255), 0, 255)
    picture = shown.astype(np.uint8).transpose(1, 2, 0)
    return {"files": saved(known["path"], output["name"], values, picture)}


def saved(path: str, name: str, array: Any, picture: Any) -> list[str]:
    """An array as .npy, and where it has 1 or 3 channels as .png."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    path = f"{path}.{name}"
    np.save(path + ".npy", array)
    picture = picture[..., None] if picture is not None and picture.ndim == 2 else picture
    if picture is None or picture.shape[2] not in (1, 3):
        return [path + ".npy"]
    height, width, channels = picture.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), picture.reshape(height, -1)], 1)
    head = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    parts = (b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b"")
    with open(path + ".png", "wb") as stream:
        stream.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in parts:
            sum_ = struct.pack(">I", zlib.crc32(kind + data))
            stream.write(struct.pack(">I", len(data)) + kind + data + sum_)
    return [path + ".npy", path + ".png"]


def boxes_of(rule: Any, values: Any, model: Any, known: dict[str, Any]) -> list[dict[str, Any]]:
    """The boxes found, best first, in pixels of the image that was given, or of the input."""
    boxes, scores = values[rule["boxes"]].astype(float), values[rule["scores"]].astype(float)
    stride = max(1, round((rule["height"] * rule["width"] / len(boxes)) ** 0.5))
    columns = -(-rule["width"] // stride)
    place = np.arange(len(boxes))
    centers = stride * (np.stack([place % columns, place // columns], 1) + 0.5)
    corners = np.concatenate([centers - stride * boxes[:, :2], centers + stride * boxes[:, 2:]], 1)
    chances = 1 / (1 + np.exp(-scores))
    cells, kinds = np.nonzero(chances >= rule["least_score"])
    order = np.argsort(-chances[cells, kinds], kind="stable")[: 4 * rule["most"]]
    kept: list[tuple[int, int]] = []
    for cell, kind in zip(cells[order], kinds[order]):
        rivals = [corners[other] for other, same in kept if same == kind]
        if all(overlap(corners[cell], rival) <= rule["most_overlap"] for rival in rivals):
            kept.append((cell, kind))
    names, ratio = rule["classes"], np.ones(2)
    if "covered" in known and model["preprocessing"]["fit"] != "cover":
        ratio = np.array(known["size"]) / np.array(known["covered"])
    return [
        {
            "class": named(names, kind),
            "probability": round(float(chances[cell, kind]), 4),
            "box": [round(float(v), 1) for v in corners[cell] * np.tile(ratio, 2)],
        }
        for cell, kind in kept[: rule["most"]]
    ]


def overlap(a: Any, b: Any) -> float:
    """The intersection of two boxes over their union."""
    sides = np.maximum(0, np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]))
    both = float(sides.prod())
    either = float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - both
    return both / either if either > 0 else 0.0


def softmax(scores: Any) -> Any:
    """Scores, classes first, as probabilities."""
    powers = np.exp(scores.astype(float) - scores.max(0))
    return powers / powers.sum(0)


def named(names: list[str], place: int) -> str:
    """The name of a class, or its number."""
    return names[place] if place < len(names) else f"class {place}"


def in_words(answer: dict[str, Any]) -> str:
    """One answer as lines of text."""
    lines = [str(answer["input"])]
    for name, said in answer.items():
        if name == "input":
            continue
        label = "" if len(answer) == 2 else f"{name}: "
        if isinstance(said, list) and said and isinstance(said[0], dict):
            for one in said:
                box = f"  {one['box']}" if "box" in one else ""
                lines.append(f"  {label}{one['class']!s:24} {100 * one['probability']:6.2f} %{box}")
        else:
            lines.append(f"  {label}{json.dumps(said, ensure_ascii=False)}")
    return "\n".join("".join(c if c.isprintable() else " " for c in line) for line in lines)


# -- the check --------------------------------------------------------------------------------


def check(model: dict[str, Any], session: Any, as_json: bool) -> int:
    """Run samples.npz: are the outputs those of the record's file, and is the score its?"""
    with np.load(os.path.join(HERE, "samples.npz"), allow_pickle=False) as samples:
        arrays = {name: samples[name] for name in samples.files}
    inputs = {one["name"]: arrays[f"input/{one['name']}"] for one in model["inputs"]}
    outputs = predict(model, session, inputs)
    wanted = {name: arrays[f"output/{name}"] for name in outputs}
    known = model["measured"].get("metric") or {}
    here, then = (score(model, each, arrays) for each in (outputs, wanted))
    explained = min(explained_by(outputs[name], wanted[name]) for name in outputs)
    found = {
        "samples": len(next(iter(outputs.values()))),
        "of": model["samples"]["of"],
        "metric": known.get("name"),
        "here": here,
        "expected": then,
        "record": known.get("value"),
        "record_ci95": known.get("ci95"),
        "largest_difference": max(
            float(np.abs(outputs[n].astype(float) - wanted[n]).max(initial=0)) for n in outputs
        ),
        "r_squared": explained,
        "same_outputs": explained >= ALIKE,
    }
    print(json.dumps(found, indent=1) if as_json else check_words(found, model))
    return 0 if found["same_outputs"] else 1


def check_words(found: dict[str, Any], model: dict[str, Any]) -> str:
    """What the check found, in lines."""
    count, total, metric = found["samples"], found["of"], found["metric"]
    which = "the whole test split" if count == total else f"of {total} in the test split"
    lines = [f"{count} samples, {which}"]
    if found["here"] is not None:
        lines.append(f"{metric} here: {found['here']:.6g} (expected {found['expected']:.6g})")
    if found["record"] is not None:
        low, high = found["record_ci95"]
        lines.append(f"{metric} in the record: {found['record']:.6g} [{low:.6g}, {high:.6g}]")
    same = "as expected" if found["same_outputs"] else "NOT as expected: another runtime or device?"
    lines.append(f"outputs {same}, largest difference {found['largest_difference']:.3g}")
    return "\n".join([*lines, f"expected is what {model['samples']['expected_from']} gave"])


def explained_by(found: Any, wanted: Any) -> float:
    """How much of the variance of the wanted outputs is there: 1 of equal ones."""
    error = float(np.square(found.astype(float) - wanted).sum())
    spread = float(np.square(wanted.astype(float) - wanted.mean(0)).sum())
    return 1.0 if error == 0 else 1 - error / spread if spread > 0 else 0.0


def score(model: dict[str, Any], outputs: dict[str, Any], arrays: dict[str, Any]) -> float | None:
    """The record's metric; None of one that is not worked out here, or without labels."""
    rule, on = model["samples"]["rule"], model["samples"]["on"]
    if rule is None or "label" not in arrays:
        return None
    values, labels = outputs[on], arrays["label"]
    known = labels >= 0 if labels.dtype.kind in "iu" else ~np.isnan(labels)
    if rule in ("f1", "mean-iou"):
        return overlap_of_classes(values, labels, known, rule)
    if rule == "bits_per_token":
        chances = np.log2(softmax(values.swapaxes(0, 1))).swapaxes(0, 1)
        bits = -np.take_along_axis(chances, np.maximum(labels, 0)[:, None], 1)[:, 0] * known
        return float(np.mean(bits.sum(1) / np.maximum(known.sum(1), 1)))
    if rule == "accuracy":
        right = values.argmax(1) == labels
    else:
        labels, known = labels.reshape(values.shape), known.reshape(values.shape)
        right = (values > 0) == (labels > 0.5)
    if rule in ("accuracy", "binary-accuracy"):
        pairs = zip(right.reshape(len(right), -1), known.reshape(len(right), -1))
        return float(np.mean([ones[there].mean() for ones, there in pairs if there.any()]))
    error = np.square(values.astype(float) - labels)
    if rule == "mse":
        return float(error.mean())
    if rule == "psnr":
        error = np.square(values.astype(float).clip(0, 1) - labels).reshape(len(labels), -1)
        return float(np.mean(-10 * np.log10(np.maximum(error.mean(1), 1e-6))))
    spread = np.square(labels - labels.mean(0)).sum()
    return float(1 - error.sum() / spread) if spread > 0 else None


def overlap_of_classes(values: Any, labels: Any, known: Any, rule: str) -> float:
    """The mean over classes that are there, or are said to be, of F1 or intersection over union."""
    shares = []
    for kind in range(values.shape[1] if values.ndim > 1 else 1):
        if labels.dtype.kind == "f":
            of_kind = (slice(None), kind) if values.ndim > 1 else (slice(None),)
            there, said = (labels > 0.5)[of_kind], (values > 0)[of_kind]
            counts = known[of_kind]
        else:
            there, said, counts = labels == kind, values.argmax(1) == kind, known
        both, sizes = (there & said & counts).sum(), (there & counts).sum() + (said & counts).sum()
        if sizes:
            shares.append(2 * both / sizes if rule == "f1" else both / (sizes - both))
    return float(np.mean(shares))


if __name__ == "__main__":
    sys.exit(main())
