"""Is our int8 as accurate, as fast and as small as what onnxruntime's quantizer gives?

Two nets trained on Fashion-MNIST by ``recipes/benchmark-nets.yaml`` (weights in ``models/``), each
as: the float32 export, four ways of calling ``quantize_static``, and ours. Accuracy is of the file
on the 10,000 test images, latency is paired against float32 in interleaved fresh processes.

    python benchmarks/quantize_baselines.py            # about 5 minutes
    python benchmarks/quantize_baselines.py --smoke    # seconds, on digits and untrained nets
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from claims import Claim, at_least, at_most, script_parser, write
from nets import MODELS
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from compress.backends.onnx import lower, take_census
from compress.candidate import Candidate, load_weights
from compress.measure.local import LocalTarget
from compress.measure.score import accuracy_facts, score
from compress.measure.target import BenchmarkConfig, Failure, Mode
from compress.quantization.numerics import Calibration, LayerFormat, Numerics, QuantRule
from compress.task import Task
from compress.tasks import make_task
from compress.training.data import head
from compress.zoo import build

CALIBRATION_IMAGES = 256
# quantize_static's arguments; the first is what one gets without reading the manual.
VARIANTS: dict[str, dict[str, Any]] = {
    "quantize_static, defaults": {},
    "quantize_static, u8s8 per channel": {
        "per_channel": True,
        "activation_type": QuantType.QUInt8,
    },
    "quantize_static, u8s8 per channel, reduced range": {
        "per_channel": True,
        "reduce_range": True,
        "activation_type": QuantType.QUInt8,
    },
    "quantize_static, u8u8": {
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QUInt8,
    },
}
OURS, FLOAT = "compresskit", "float32"


@dataclass(frozen=True)
class Setting:
    """What is compared on what."""

    task: Task
    nets: dict[str, Candidate]
    test_images: int
    mode: Mode


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds calibration images one by one, as the exported file wants them."""

    def __init__(self, name: str, images: np.ndarray[Any, Any]) -> None:
        self._feeds = iter([{name: image[None]} for image in images])

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        """The next feed, or none."""
        return next(self._feeds, None)


def full() -> Setting:
    """The trained nets on Fashion-MNIST."""
    task = make_task("fashion-mnist")
    example = head(task.validation, 4).inputs
    nets = {}
    for name, arch, width in (("residual 175k", "resnet", 16), ("depthwise 14k", "dscnn", 16)):
        module = build(arch, {"width": width})
        load_weights(module, MODELS / f"{arch}.safetensors")
        nets[name] = Candidate.of(module, example)
    return Setting(task, nets, 10_000, "default")


def smoke() -> Setting:
    """Untrained small nets on digits: whether the script runs."""
    task = make_task("digits")
    torch.manual_seed(0)
    net = Candidate.of(build("dscnn", {"width": 8}), head(task.validation, 4).inputs)
    return Setting(task, {"depthwise": net}, 50, "quick")


def files_of(candidate: Candidate, task: Task, target: LocalTarget, folder: Path) -> Iterator[Path]:
    """The files to compare: float32 first, ours last."""
    images = head(task.train, CALIBRATION_IMAGES).inputs
    assert isinstance(images, torch.Tensor)
    float_path = folder / f"{FLOAT}.onnx"
    torch.onnx.export(
        candidate.module, (images[:1],), float_path, dynamo=True, external_data=False, verbose=False
    )
    yield float_path
    for name, arguments in VARIANTS.items():
        path = folder / f"{name}.onnx"
        quantize_static(float_path, path, Reader("x", images.numpy()), **arguments)
        yield path
    format = LayerFormat(
        weights="int8",
        activations="int8",
        calibration=Calibration(method="percentile", samples=CALIBRATION_IMAGES),
    )
    ours = replace(candidate, numerics=Numerics((QuantRule(format=format),)))
    check = head(task.validation, 256).inputs
    path = folder / f"{OURS}.onnx"
    lower(ours, target.lowering(), calibration=[images], check=check, path=path)
    yield path


def compare(candidate: Candidate, setting: Setting, folder: Path) -> dict[str, dict[str, Any]]:
    """Accuracy, latency and size of every file of one net."""
    target = LocalTarget()
    paths = list(files_of(candidate, setting.task, target, folder))
    test = head(setting.task.test, setting.test_images)
    assert isinstance(test.inputs, torch.Tensor)
    assert test.labels is not None
    inputs, labels = {"": test.inputs.numpy()}, test.labels.numpy()
    config = BenchmarkConfig({"": inputs[""][:32]}, setting.mode)
    timings = target.measure(paths, config, folder / "raw.jsonl")
    rows: dict[str, dict[str, Any]] = {}
    baseline = None
    for path, timing in zip(paths, timings, strict=True):
        if isinstance(timing, Failure):
            raise SystemExit(f"{path.stem}: {timing.error}")
        scores = score(target.predict(path, inputs)[0], labels, "accuracy")
        baseline = scores if baseline is None else baseline
        census = take_census(path)
        rows[path.stem] = {
            "bytes": path.stat().st_size,
            "weight_bytes": sum(census.weight_bytes.values()),
            "int8_mac_fraction": census.int8_mac_fraction,
            "accuracy": accuracy_facts(scores, baseline).model_dump(mode="json"),
            "latency": timing.latency.model_dump(mode="json"),
            "speedup": timing.speedup.model_dump(mode="json"),
            "warnings": list(timing.warnings),
        }
    return rows


def claims_of(net: str, rows: dict[str, dict[str, Any]]) -> Iterator[Claim]:
    """What the comparison is to show for one net."""
    ours, float32 = rows[OURS], rows[FLOAT]
    slug = net.replace(" ", "-")
    lost = 100 * (float32["accuracy"]["value"] - ours["accuracy"]["value"])
    yield at_most(f"{slug}-accuracy", f"{net}: points lost to float32 by ours", lost, 0.2)
    worst = max(
        100 * (float32["accuracy"]["value"] - rows[name]["accuracy"]["value"]) for name in VARIANTS
    )
    yield at_least(f"{slug}-worst", f"{net}: points lost by the worst variant", worst, lost)
    best = max(rows[name]["speedup"]["value"] for name in VARIANTS)
    ratio = best / ours["speedup"]["value"]
    low, high = (best / bound for bound in reversed(ours["speedup"]["ci95"]))
    yield at_most(
        f"{slug}-latency", f"{net}: our time over the best variant's", ratio, 1.03, (low, high)
    )
    allowed = 12_000 + 1.1 * ours["weight_bytes"]
    yield at_most(
        f"{slug}-bytes", f"{net}: our file in bytes (12 kB + 1.1 x weights)", ours["bytes"], allowed
    )


def table(net: str, rows: dict[str, dict[str, Any]]) -> str:
    """The rows as text."""
    lines = [net, f"{'':<50}{'bytes':>9}{'accuracy %':>12}{'speed-up':>10}  95 %"]
    for name, row in rows.items():
        low, high = row["speedup"]["ci95"]
        lines.append(
            f"{name:<50}{row['bytes']:>9,}{100 * row['accuracy']['value']:>12.2f}"
            f"{row['speedup']['value']:>10.2f}  [{low:.2f}, {high:.2f}]"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the comparison and write its result."""
    arguments = script_parser(__doc__).parse_args()
    setting = smoke() if arguments.smoke else full()
    raw: dict[str, Any] = {}
    claims: list[Claim] = []
    for net, candidate in setting.nets.items():
        with tempfile.TemporaryDirectory() as folder:
            raw[net] = compare(candidate, setting, Path(folder))
        claims += claims_of(net, raw[net])
    tables = "\n\n".join(table(net, rows) for net, rows in raw.items())
    write("quantize_baselines", raw, claims, arguments.results, tables)


if __name__ == "__main__":
    main()
