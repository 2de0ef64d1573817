"""Every stage that recipes know keeps every clause of the contract."""

from typing import ClassVar, Literal

import pytest

from compress.errors import ContractViolation
from compress.stages import STAGES, DistillStage, PruneStage, QuantizeStage, Stage, TrainStage
from compress.testing.stage_contract import CHECKS

# The smallest useful settings of every kind of stage; a new kind needs one line here.
SETTINGS: dict[str, list[Stage]] = {
    "train": [TrainStage(epochs=1, batch_size=64)],
    "distill": [
        DistillStage(epochs=2, views=1, batch_size=64),
        DistillStage(
            epochs=1,
            batch_size=64,
            student={"arch": "dscnn", "width": 8, "classes": 4},
            losses=[{"kind": "logits-mse"}, {"kind": "label", "weight": 0.1}],
        ),
        DistillStage(
            epochs=2,
            views=1,
            batch_size=64,
            losses=[
                {"kind": "hint", "student": "blocks.0", "teacher": "blocks.1"},
                {"kind": "crd", "weight": {"from": 0.5, "to": 0.1}},
                {"kind": "adversarial", "weight": 0.01},
            ],
        ),
    ],
    "quantize": [
        QuantizeStage(),
        QuantizeStage(weights="float16"),
        QuantizeStage(activations="dynamic", select=("type:Linear",)),
        QuantizeStage(weights="int4", learn_steps=True),
        QuantizeStage(max_drop=0.1),
    ],
    "prune": [
        PruneStage(ratio=0.5, importance="taylor", round_to=4),
        PruneStage(ratio=0.5, scope="global", finetune={"epochs": 1, "batch_size": 64}),
        PruneStage(ratio=0.3, granularity="weights"),
        PruneStage(granularity="2:4"),
        PruneStage(granularity="weights", importance="sparsegpt"),
        PruneStage(
            granularity="weights",
            importance="movement",
            finetune={"epochs": 2, "batch_size": 64},
        ),
        PruneStage(goal={"latency_p50": 0.8, "max_drop": 0.1}),
        PruneStage(goal={"macs": 0.7}, scope="sensitivity"),
        PruneStage(
            ratio=0.5,
            sparsify={"epochs": 1},
            schedule={"steps": 2},
            finetune={"epochs": 1, "batch_size": 64},
        ),
        PruneStage(
            granularity="2:4", schedule={"steps": 2}, finetune={"epochs": 1, "batch_size": 64}
        ),
        PruneStage(granularity="blocks", ratio=0.9),
    ],
}


def _cases():
    for stages in SETTINGS.values():
        for number, stage in enumerate(stages):
            yield pytest.param(stage, id=f"{stage.kind}-{number}")


def test_every_kind_of_stage_has_settings():
    assert set(SETTINGS) == {stage.model_fields["kind"].default for stage in STAGES}


def _checks():
    """Every check of every case; in every position only the first case of a kind of stage."""
    for case in _cases():
        for name, check in CHECKS.items():
            more = name == "works_in_every_position" and not case.id.endswith("-0")
            marks = [pytest.mark.exhaustive] if more else []
            yield pytest.param(*case.values, check, id=f"{case.id}-{name}", marks=marks)


@pytest.mark.parametrize(("stage", "check"), list(_checks()))
def test_stage_keeps_the_contract(stage, check, tmp_path):
    check(stage, tmp_path)


class Fastest(Stage):
    """Tries two prunings and keeps the faster."""

    effects: ClassVar = PruneStage.effects
    measures: ClassVar = True
    kind: Literal["fastest"] = "fastest"

    def run(self, candidate, context):
        """The faster of two pruned candidates."""
        made = [PruneStage(ratio=ratio, round_to=4).run(candidate, context) for ratio in (0.2, 0.5)]
        return max(made, key=lambda one: context.evaluator.measure(one).speedup)


class Secretive(Fastest):
    measures: ClassVar = False


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_a_stage_that_measures_can_keep_the_contract(check, tmp_path):
    check(Fastest(), tmp_path)


def test_a_stage_that_measures_must_say_so(tmp_path):
    with pytest.raises(ContractViolation, match=r"clause 11: .* does not declare measures = True"):
        CHECKS["declares_that_it_measures"](Secretive(), tmp_path)
