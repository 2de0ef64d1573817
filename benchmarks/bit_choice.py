"""Do formats of layers that an integer program chooses move the outputs less than one for all?

Nets of the zoo are trained on digits for a few epochs. Under each budget of file bytes the program
chooses among float32, float16 and int8; beside it stand the finest format for all layers that fits,
and int8 from the last layer on for as many layers as needed. For cuts: ratios of layers under a
budget of multiply-accumulates, beside one ratio for all. There is no training after it. Errors are
of all at once, on the validation samples, of the outputs over their variance.

    python benchmarks/bit_choice.py                        # 5 minutes; goes on where stopped
    python benchmarks/bit_choice.py --nets mlp --seed 1    # one of the nets
    python benchmarks/bit_choice.py --smoke                # one epoch of the mlp
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from claims import Claim, at_most, script_parser, write
from trials import each

from compress import Candidate, Recipe, ReplayTarget, TrainStage
from compress.errors import AlreadySo, NoEffect
from compress.layer_facts import Sensitivity
from compress.pruning.channels import ChannelPruning, prune_channels
from compress.quantization.fakequant import declared_formats, layers_with_formats, simulate
from compress.quantization.numerics import Numerics
from compress.quantization.sensitivity import outputs_of, relative_error
from compress.quantization.stored import format_named
from compress.running.cut_choice import choose_cuts, cuts_of
from compress.running.job import Job
from compress.running.layer_files import LayerFiles, choose_formats
from compress.running.sensitivity import sensitivity_of
from compress.stage import ranges_of
from compress.stages.goals import count_macs
from compress.training.data import spread

FORMATS = ("float16/float16", "int8/int8")
#: Of the way from the smallest file to the largest.
BUDGETS = (0.15, 0.4)
MACS = (0.75, 0.5)
SAMPLES = 128
NETS: Mapping[str, tuple[Mapping[str, Any], int]] = {
    "resnet": ({"arch": "resnet", "width": 8}, 6),
    "mlp": ({"arch": "mlp", "width": 64}, 6),
    "dscnn": ({"arch": "dscnn", "width": 16}, 6),
    "smoke": ({"arch": "mlp", "width": 16}, 1),
}


@dataclass(frozen=True)
class Trained:
    """A trained net as the candidate of a job, its files, and what was found of its layers."""

    job: Job
    files: LayerFiles
    found: Sensitivity


def trained(net: str, seed: int, folder: Path) -> Trained:
    """The net, trained and looked at once."""
    model, epochs = NETS[net]
    recipe = Recipe(
        name=net,
        seed=seed,
        task={"name": "digits", "limit": 800},
        model=model,
        stages=(TrainStage(epochs=epochs, batch_size=32),),
    )
    task = recipe.make_task()
    start = recipe.make_candidate(task)
    record = recipe.run(
        *(start, task),
        workdir=folder,
        targets=[ReplayTarget()],
        cache="none",
        report=False,
    )
    after = replace(start, module=record.module(1))
    job = recipe.job(after, task, workdir=folder, targets=[ReplayTarget()])
    files = LayerFiles(job, {name: format_named(name) for name in FORMATS}, folder)
    found = sensitivity_of(job, files.formats, SAMPLES, with_cuts=False)
    return Trained(job, files, found)


def joint_error(job: Job, formats: Mapping[str, str]) -> float:
    """Of the outputs where all layers have their formats at once."""
    own = {layer: format_named(name) for layer, name in formats.items()}
    candidate = job.candidate
    declared = declared_formats(candidate.module, Numerics().with_formats(own), candidate.example)
    batches = [spread(job.task.validation, SAMPLES).inputs]
    expected = outputs_of(candidate.module, batches)
    ranges = ranges_of(candidate.module, declared, job.task)
    with simulate(candidate.module, declared, ranges):
        return relative_error(expected, outputs_of(candidate.module, batches))


def formats_trial(net: Trained, share: float) -> dict[str, Any]:
    """The program's choice and what stands beside it, under one budget of bytes."""
    job, files, found = net.job, net.files, net.found
    layers = list(layers_with_formats(job.candidate.module))
    sizes = {name: files.of(dict.fromkeys(layers, name)).bytes for name in FORMATS}
    whole, smallest = files.of({}).bytes, min(sizes.values())
    most = smallest + share * (whole - smallest)
    chosen = choose_formats(found, files, "bit_choice", most / 1024, None)
    uniform = next(name for name in FORMATS if sizes[name] <= most)
    last = dict[str, str]()
    for layer in reversed(layers):
        if files.of(last).bytes <= most:
            break
        last[layer] = "int8/int8"
    return {
        "budget_bytes": most,
        "program": {"bytes": chosen.file_bytes, "error": joint_error(job, chosen.formats)},
        "uniform": {
            "bytes": sizes[uniform],
            "error": joint_error(job, dict.fromkeys(layers, uniform)),
            "format": uniform,
        },
        "last_layers": {"bytes": files.of(last).bytes, "error": joint_error(job, last)},
        "formats": dict(chosen.formats),
    }


def cuts_trial(job: Job, share: float) -> dict[str, Any]:
    """The program's ratios and the smallest ratio for all that keeps the budget."""
    candidate = job.candidate
    table = cuts_of(candidate, job, SAMPLES)
    chosen = choose_cuts(table, candidate, job, SAMPLES, "macs", share)
    most = share * count_macs(candidate.module, candidate.example)
    return {
        "budget_macs": most,
        "program": {"macs": chosen.cost["macs"], "error": chosen.joint_error},
        "uniform": _uniform(job, candidate, most),
        "ratios": dict(chosen.ratios),
    }


def _uniform(job: Job, candidate: Candidate, most: float) -> dict[str, float]:
    batches = [spread(job.task.validation, SAMPLES).inputs]
    for ratio in (step / 64 for step in range(1, 63)):
        small = candidate.fork().module
        try:
            prune_channels(small, candidate.example, ChannelPruning(ratio=ratio))
        except (NoEffect, AlreadySo):
            continue
        macs = count_macs(small, candidate.example)
        if macs <= most:
            whole = outputs_of(candidate.module, batches)
            error = relative_error(whole, outputs_of(small, batches))
            return {"macs": macs, "error": error, "ratio": ratio}
    raise RuntimeError("no ratio for all keeps the budget")


def trial(given: Mapping[str, Any], nets: dict[str, Trained], folder: Path) -> dict[str, Any]:
    """One net under one budget; the net is trained once."""
    net = given["net"]
    if net not in nets:
        nets[net] = trained(net, given["seed"], folder / net)
    if given["kind"] == "formats":
        return formats_trial(nets[net], given["share"])
    return cuts_trial(nets[net].job, given["share"])


def claim_of(found: Mapping[str, Any]) -> Claim:
    """The program's error over that of one for all, which is no smaller in bytes or products."""
    ratio = found["program"]["error"] / found["uniform"]["error"]
    what = "bytes" if found["kind"] == "formats" else "products"
    return at_most(
        f"{found['net']}-{found['kind']}-{found['share']:g}-seed-{found['seed']}",
        f"{found['net']}, {found['kind']} at {found['share']:g} of the {what}: error of the "
        "outputs, program over one for all",
        ratio,
        1.0,
    )


def main() -> None:
    """Choose under every budget, and write the result."""
    parser = script_parser(__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the recipe (default: %(default)s)")
    parser.add_argument("--nets", nargs="+", choices=[*NETS], help="default: mlp resnet")
    arguments = parser.parse_args()
    nets = ("smoke",) if arguments.smoke else arguments.nets or ("mlp", "resnet")
    plan = [
        {"net": net, "kind": kind, "share": share, "seed": arguments.seed}
        for net in nets
        for kind, shares in (("formats", BUDGETS), ("cuts", MACS))
        for share in (shares[-1:] if arguments.smoke else shares)
    ]
    arguments.results.mkdir(parents=True, exist_ok=True)
    kept = arguments.results / "bit_choice.partial.jsonl"
    known: dict[str, Trained] = {}
    with tempfile.TemporaryDirectory(prefix="compresskit-bit-choice-") as name:
        found = list(each(plan, lambda one: trial(one, known, Path(name)), kept))
    claims = [claim_of(one) for one in found]
    write("bit_choice", {"trials": found}, claims, arguments.results)
    kept.unlink()


if __name__ == "__main__":
    main()
