"""The Pareto front of a record, what each stage did, and which row to ship.

Plain data in, plain data out: everything is computed from a :class:`~compress.record.Record`.
"""

from compress.pareto.advice import Recommendation, allowed_drop, recommend
from compress.pareto.effects import (
    Change,
    Effect,
    StageEffects,
    change,
    int8_slowdowns,
    stage_effects,
)
from compress.pareto.front import (
    FRONT_OBJECTIVES,
    Point,
    beats,
    front,
    front_facts,
    points_of,
    ties,
)
from compress.pareto.hypervolume import hypervolume, reference_point
from compress.pareto.objectives import (
    OBJECTIVES,
    Difference,
    Objective,
    Outcome,
    Reading,
    compare,
    contenders,
    difference,
    objectives,
    readings,
    unpaired,
)

__all__ = [
    "FRONT_OBJECTIVES",
    "OBJECTIVES",
    "Change",
    "Difference",
    "Effect",
    "Objective",
    "Outcome",
    "Point",
    "Reading",
    "Recommendation",
    "StageEffects",
    "allowed_drop",
    "beats",
    "change",
    "compare",
    "contenders",
    "difference",
    "front",
    "front_facts",
    "hypervolume",
    "int8_slowdowns",
    "objectives",
    "points_of",
    "readings",
    "recommend",
    "reference_point",
    "stage_effects",
    "ties",
    "unpaired",
]
