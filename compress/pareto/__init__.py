"""The Pareto front of a record, what each stage did, and which row to ship.

Plain data in, plain data out: everything is computed from a :class:`~compress.record.Record`.
"""

from compress.pareto.advice import (
    Recommendation,
    ShipAnswers,
    recommend,
    ship_answers,
    unlimited_words,
)
from compress.pareto.bootstrap import Volume, front_probabilities, front_probabilities_on, volume
from compress.pareto.effects import (
    MeasuredChange,
    ObjectiveEffect,
    StageEffects,
    change,
    int8_slowdowns,
    stage_effects,
)
from compress.pareto.front import (
    FRONT_OBJECTIVES,
    FrontPoint,
    beats,
    front,
    front_facts,
    points_of,
    ties,
)
from compress.pareto.hypervolume import hypervolume, reference_point
from compress.pareto.objectives import (
    OBJECTIVES,
    ComparisonOutcome,
    Objective,
    Reading,
    compare,
    contenders,
    difference,
    objectives,
    readings,
    unpaired,
)
from compress.pareto.ship_rule import (
    LIMITS,
    Miss,
    ShipRule,
    allowed_drop,
    baseline_score,
    default_drop,
    limit_of,
    loss_words,
)

__all__ = [
    "FRONT_OBJECTIVES",
    "LIMITS",
    "OBJECTIVES",
    "ComparisonOutcome",
    "FrontPoint",
    "MeasuredChange",
    "Miss",
    "Objective",
    "ObjectiveEffect",
    "Reading",
    "Recommendation",
    "ShipAnswers",
    "ShipRule",
    "StageEffects",
    "Volume",
    "allowed_drop",
    "baseline_score",
    "beats",
    "change",
    "compare",
    "contenders",
    "default_drop",
    "difference",
    "front",
    "front_facts",
    "front_probabilities",
    "front_probabilities_on",
    "hypervolume",
    "int8_slowdowns",
    "limit_of",
    "loss_words",
    "objectives",
    "points_of",
    "readings",
    "recommend",
    "reference_point",
    "ship_answers",
    "stage_effects",
    "ties",
    "unlimited_words",
    "unpaired",
    "volume",
]
