"""The stage contract as a suite: checks for the clauses of ``compress.stage``.

For a stage of your own::

    from compress.testing.stage_contract import CHECKS

    @pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
    def test_my_stage_keeps_the_contract(check, tmp_path):
        check(MyStage(factor=2.0), tmp_path)

Every check takes a stage that does something on a small convolutional net, and an empty folder. It
raises ``ContractViolation`` with what was broken.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from compress.candidate import Candidate, count_parameters
from compress.distillation.teachers import frozen_teacher
from compress.errors import ContractViolation, NoEffect
from compress.modules.tied import parameters_of
from compress.pruning.invariants import carried_to
from compress.pruning.sparsity import verify_zeros
from compress.quantization.fakequant import quantizable_layers
from compress.recipe import Recipe
from compress.running.stage_runner import check_effects
from compress.stage import EVALUATION_PARTS, Evaluation, EvaluationPart
from compress.stages import STAGES, Context, PruneStage, QuantizeStage, Stage, TrainStage
from compress.testing.nets import NETS
from compress.training.rng import foreign_state
from compress.zoo import build

__all__ = ["CHECKS", "NEIGHBORS", "ParameterCounter", "bench_candidate", "bench_context"]

Check = Callable[[Stage, Path], None]

_NET = "resnet"
_SEED = 7

#: What a stage must be able to stand beside, in settings that take no time.
NEIGHBORS: Mapping[str, Stage] = MappingProxyType(
    {
        "train": TrainStage(epochs=1, batch_size=64),
        "quantize": QuantizeStage(),
        "prune": PruneStage(ratio=0.25, round_to=4),
        "zero": PruneStage(ratio=0.25, granularity="weights"),
    }
)


def bench_candidate() -> Candidate:
    """A small residual net with random weights."""
    case = NETS[_NET]
    return Candidate.of(case.build(), case.example())


@dataclass
class ParameterCounter:
    """Stands in for a target: a candidate's bytes and time are by its parameters that are not 0.

    Its scores are all 0.5; ``calls`` is how often it was called.
    """

    incoming: Candidate
    calls: int = 0

    def measure(
        self, candidate: Candidate, parts: Collection[EvaluationPart] = EVALUATION_PARTS
    ) -> Evaluation:
        """What a candidate would do, without lowering it."""
        self.calls += 1
        own, before = (count_parameters(one.module)[1] for one in (candidate, self.incoming))
        speedup = before / own
        return Evaluation(4 * own, 0.5, (0.4, 0.6), True, 1e-9 * own, speedup, (speedup, speedup))


def bench_context(origin: Candidate, workdir: Path) -> Context:
    """A context with a small synthetic task, whose teacher is ``origin``."""
    workdir.mkdir(parents=True, exist_ok=True)
    return Context(
        task=NETS[_NET].make_task(),
        teacher=frozen_teacher(origin.fork().module, origin.example),
        origin=origin,
        seed=_SEED,
        workdir=workdir,
        build=lambda architecture: build(architecture.arch, architecture.options),
        evaluator=ParameterCounter(origin),
    )


def holds_no_run_state(stage: Stage, folder: Path) -> None:
    """The same object runs twice, gives the same twice, and stays as it was."""
    before, start = stage.model_dump(), bench_candidate()
    first = _run(stage, start, folder / "first")
    torch.rand(3)  # a stage that draws from the global generator would now differ
    second = _run(stage, start, folder / "second")
    if stage.model_dump() != before:
        raise ContractViolation("clause 1: running the stage changed its parameters.")
    if first.fingerprint != second.fingerprint:
        raise ContractViolation("clauses 1, 3: two runs with one seed gave different candidates.")


def leaves_its_input_alone(stage: Stage, folder: Path) -> None:
    """The candidate that it was given is as before."""
    start = bench_candidate()
    before = start.fingerprint
    after = _run(stage, start, folder)
    if start.fingerprint != before:
        raise ContractViolation("clause 2: the stage changed the candidate that it was given.")
    if after.module is start.module:
        raise ContractViolation("clause 2: the stage returned the module that it was given.")
    start.validate()


def leaves_the_process_alone(stage: Stage, folder: Path) -> None:
    """Random numbers, grad mode, thread count and default dtype are as before."""
    torch.manual_seed(_SEED)
    before = _process_state()
    _run(stage, bench_candidate(), folder)
    for what, (old, new) in _differences(before, _process_state()).items():
        raise ContractViolation(f"clause 2: the stage changed {what} from {old} to {new}.")


def gives_a_valid_candidate(stage: Stage, folder: Path) -> None:
    """What comes out is plain, float32, trainable, and survives being saved."""
    start = bench_candidate()
    after = _run(stage, start, folder / "work")
    after.validate()
    after.save(folder / "saved")

    def rebuild(_: object) -> torch.nn.Module:
        architecture = after.architecture
        own = start.fork().module
        return build(architecture.arch, architecture.options) if architecture else own

    if Candidate.load(folder / "saved", start.example, rebuild).fingerprint != after.fingerprint:
        raise ContractViolation("clause 8: the candidate is another once saved and loaded.")


def is_honest_about_its_effects(stage: Stage, folder: Path) -> None:
    """Nothing changes that it does not declare, and something does."""
    start = bench_candidate()
    after = _run(stage, start, folder)
    check_effects(stage, start, after)
    if after.fingerprint == start.fingerprint:
        raise ContractViolation("clause 5: the stage changed nothing and did not raise NoEffect.")


def keeps_names_and_invariants(stage: Stage, folder: Path) -> None:
    """Layers keep their names, and invariants of earlier stages hold."""
    zeroed = _run(NEIGHBORS["zero"], bench_candidate(), folder / "zero")
    after = _run(stage, zeroed, folder / "stage")
    if after.architecture != zeroed.architecture:
        return  # a new student has layers and weights of its own
    edited = tuple(f"{edit.path}." for edit in after.edits)
    layers = [
        [name for name in quantizable_layers(one.module) if not f"{name}.".startswith(edited)]
        for one in (zeroed, after)
    ]
    if layers[0] != layers[1]:
        raise ContractViolation("clause 7: the stage renamed or removed layers.")
    expected = carried_to(zeroed.invariants, parameters_of(after.module), {})
    missing = [one for one in expected if one not in after.invariants]
    if missing:
        raise ContractViolation("clause 7: the stage dropped an invariant of an earlier stage.")
    verify_zeros(zeroed.module, after.module, expected)


def works_in_every_position(stage: Stage, folder: Path) -> None:
    """It runs before and after every neighbor, between them, and twice in a row."""
    around = list(NEIGHBORS.values())
    chains = [[other, stage] for other in around] + [[stage, other] for other in around]
    chains += [[stage, stage], [around[1], stage, around[2]], [around[2], stage, around[1]]]
    for number, chain in enumerate(chains):
        _run_chain(chain, folder / str(number))


def round_trips_through_yaml(stage: Stage, _: Path) -> None:
    """A recipe with it can be written down and read back."""
    recipe = Recipe(name="round-trip", stages=(stage,))
    own = () if type(stage) in STAGES else (type(stage),)
    if Recipe.loads(recipe.dumps(), stages=own).stages != (stage,):
        raise ContractViolation("clause 9: the stage is another once written to YAML and read.")


def keeps_to_its_folder(stage: Stage, folder: Path) -> None:
    """It prints nothing and writes nowhere but to its work folder."""
    workdir, elsewhere = folder / "work", folder / "elsewhere"
    elsewhere.mkdir(parents=True)
    heard = io.StringIO()
    back = Path.cwd()
    os.chdir(elsewhere)
    try:
        with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
            _run(stage, bench_candidate(), workdir)
    finally:
        os.chdir(back)
    if heard.getvalue():
        raise ContractViolation(f"clause 10: the stage printed {heard.getvalue()[:80]!r}.")
    if any(elsewhere.iterdir()):
        raise ContractViolation("clause 10: the stage wrote to the current folder.")


def declares_that_it_measures(stage: Stage, folder: Path) -> None:
    """A stage that does not declare ``measures`` has no candidate measured."""
    start = bench_candidate()
    evaluator = ParameterCounter(start)
    stage.run(start, replace(bench_context(start, folder), evaluator=evaluator))
    if evaluator.calls and not stage.uses_evaluator():
        raise ContractViolation(
            "clause 11: the stage had a candidate measured and does not declare measures = True; "
            "its result would be re-used on other targets."
        )


#: Every check, by name.
CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        check.__name__: check
        for check in (
            holds_no_run_state,
            leaves_its_input_alone,
            leaves_the_process_alone,
            gives_a_valid_candidate,
            is_honest_about_its_effects,
            keeps_names_and_invariants,
            works_in_every_position,
            round_trips_through_yaml,
            keeps_to_its_folder,
            declares_that_it_measures,
        )
    }
)


def _run(stage: Stage, candidate: Candidate, workdir: Path) -> Candidate:
    after = stage.run(candidate, bench_context(candidate, workdir))
    return replace(after, lineage=(*candidate.lineage, candidate.fingerprint))


def _run_chain(chain: Iterable[Stage], folder: Path) -> None:
    current = bench_candidate()
    origin = current
    for number, stage in enumerate(chain):
        context = bench_context(origin, folder / str(number))
        try:
            current = stage.run(current, context)
        except NoEffect:
            continue  # a second time there may be nothing left to do
        current.validate()
        if current.architecture != origin.architecture:
            origin = current


def _process_state() -> dict[str, Any]:
    return {
        "the random number generator": torch.get_rng_state().tolist(),
        "a random number generator of Python or numpy": foreign_state(),
        "grad mode": torch.is_grad_enabled(),
        "the number of threads": torch.get_num_threads(),
        "the default dtype": torch.get_default_dtype(),
        "deterministic mode": torch.are_deterministic_algorithms_enabled(),
    }


def _differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {what: (old[what], new[what]) for what in old if old[what] != new[what]}
