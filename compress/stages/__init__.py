"""Stages: one file each. ``STAGES`` is the one list of those that recipes know by name."""

from __future__ import annotations

from compress.stage import Context, Effect, Stage, Teacher
from compress.stages.distill import DistillStage
from compress.stages.prune import FineTune, PruneStage
from compress.stages.quantize import QuantizeStage
from compress.stages.train import TrainStage

__all__ = [
    "STAGES",
    "Context",
    "DistillStage",
    "Effect",
    "FineTune",
    "PruneStage",
    "QuantizeStage",
    "Stage",
    "Teacher",
    "TrainStage",
]

STAGES: tuple[type[Stage], ...] = (TrainStage, DistillStage, QuantizeStage, PruneStage)
