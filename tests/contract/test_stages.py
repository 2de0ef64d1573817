"""Every stage that recipes know keeps every clause of the contract."""

import pytest

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
    ],
    "prune": [
        PruneStage(ratio=0.5, importance="taylor", round_to=4),
        PruneStage(ratio=0.5, scope="global", finetune={"epochs": 1, "batch_size": 64}),
        PruneStage(ratio=0.3, granularity="weights"),
        PruneStage(granularity="2:4"),
    ],
}


def _cases():
    for stages in SETTINGS.values():
        for number, stage in enumerate(stages):
            yield pytest.param(stage, id=f"{stage.kind}-{number}")


def test_every_kind_of_stage_has_settings():
    assert set(SETTINGS) == {stage.model_fields["kind"].default for stage in STAGES}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("stage", list(_cases()))
def test_stage_keeps_the_contract(stage, check, tmp_path):
    check(stage, tmp_path)
