"""Which settings of a prune stage go together, as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from compress.pruning.channels import Unit
from compress.pruning.importance import CRITERIA, Criterion
from compress.pruning.importance_settings import described
from compress.pruning.invariants import block_shape, n_of_m

if TYPE_CHECKING:
    from compress.stages.prune import PruneStage

__all__ = ["EDITS", "UNITS", "check", "is_granularity"]

#: Granularities that cut what is there, by what is cut.
UNITS: Mapping[str, Unit] = {"channels": "channels", "heads": "heads"}
#: Granularities that put other modules in the place of some, by what ranks these.
EDITS = {"blocks": "the disturbance of the outputs", "embeddings": "singular values"}
_UNKNOWN = Criterion("", lambda *_: [])  # of one's own: it ranks channels


def is_granularity(text: str) -> bool:
    """Whether a text is a granularity: a word, a pattern ``N:M``, or a block ``RxC``."""
    return text in (*UNITS, *EDITS, "weights") or bool(n_of_m(text) or block_shape(text))


def check(stage: PruneStage) -> None:
    """Refuse what does not go together.

    Raises:
        ValueError: the first rule that is broken, in words.
    """
    for is_broken, sentence in _RULES:
        if is_broken(stage):
            raise ValueError(
                sentence.format(
                    granularity=stage.granularity,
                    importance=described(stage.importance),
                    ranked=EDITS.get(stage.granularity, ""),
                )
            )


def _criterion(stage: PruneStage) -> Criterion:
    """What is known of the criterion."""
    named = stage.importance if isinstance(stage.importance, str) else ""
    return CRITERIA.get(named, _UNKNOWN)


def _is_changed(stage: PruneStage, field: str) -> bool:
    return bool(getattr(stage, field) != type(stage).model_fields[field].default)


def _cuts(stage: PruneStage) -> bool:
    return stage.granularity in UNITS


def _edits(stage: PruneStage) -> bool:
    return stage.granularity in EDITS


def _zeros(stage: PruneStage) -> bool:
    return not (_cuts(stage) or _edits(stage))


def _has_blocks(stage: PruneStage) -> bool:
    return block_shape(stage.granularity) is not None


def _is_timed(stage: PruneStage) -> bool:
    return stage.goal is not None and (bool(stage.goal.parts) or stage.goal.macs is not None)


def _may_stop(stage: PruneStage) -> bool:
    return stage.finetune is not None and stage.finetune.patience is not None


# What may not be, and the sentence that says so; the first that applies is told.
_RULES: Sequence[tuple[Callable[[PruneStage], bool], str]] = (
    (
        lambda s: s.granularity not in ("channels", "embeddings") and _is_changed(s, "round_to"),
        "round_to is for granularity channels",
    ),
    (
        lambda s: s.granularity != "channels" and _is_changed(s, "of"),
        "of is for granularity channels",
    ),
    (
        lambda s: s.goal is not None and _is_changed(s, "ratio"),
        "give ratio or goal, which finds the ratio",
    ),
    (
        lambda s: s.ratios is not None and (s.goal is not None or _is_changed(s, "ratio")),
        "give one of ratio, ratios and goal",
    ),
    (
        lambda s: s.ratios is not None and not any(s.ratios.values()),
        "ratios: none is above 0, so that nothing would be cut",
    ),
    (
        lambda s: s.ratios is not None and not _cuts(s),
        "ratios are for granularity channels or heads",
    ),
    (
        lambda s: s.ratios is not None and (s.scope == "global" or s.of == "original"),
        "ratios are of single layers: leave `scope` and `of` out",
    ),
    (
        lambda s: s.ratios is not None and s.schedule is not None,
        "schedule goes with ratio: give it in place of ratios, or leave schedule out",
    ),
    (
        lambda s: s.goal is not None and _zeros(s),
        "goal is for granularity channels, heads, blocks or embeddings; zeros change no cost",
    ),
    (
        lambda s: s.granularity == "embeddings" and _is_timed(s),
        "a goal of embeddings is parameters or artifact_kib; two factors take no less time",
    ),
    (
        lambda s: s.goal is not None and _is_changed(s, "of"),
        "goal is of the model that comes in; leave `of` out",
    ),
    (
        lambda s: _edits(s) and _is_changed(s, "importance"),
        "importance {importance} is for channels; {granularity} go by {ranked}: leave it out",
    ),
    (
        lambda s: _edits(s) and s.scope == "global",
        "scope: global is for channels and weights, not {granularity}",
    ),
    (
        lambda s: _edits(s) and s.schedule is not None,
        "schedule is for channels and weights, not {granularity}",
    ),
    (
        lambda s: _edits(s) and s.sparsify is not None,
        "sparsify is for channels and weights, not {granularity}",
    ),
    (
        lambda s: s.scope == "sensitivity" and s.granularity != "channels",
        "scope: sensitivity is for granularity channels, not {granularity}",
    ),
    (
        lambda s: s.scope == "sensitivity" and s.goal is None,
        (
            "scope: sensitivity chooses for a goal: give goal, or take scope: global, which "
            "compares channels by their importance"
        ),
    ),
    (
        lambda s: s.granularity == "heads" and s.scope == "global",
        "heads are counted in each block, and go with scope: local",
    ),
    (
        lambda s: _cuts(s) and _criterion(s).of_weights,
        "importance {importance} is for single weights: granularity: weights, or such as '2:4'",
    ),
    (
        lambda s: _zeros(s) and not (_criterion(s).by_magnitude or _criterion(s).of_weights),
        (
            "importance {importance} is for channels; weights go by magnitude, wanda, snip, "
            "sparsegpt or movement"
        ),
    ),
    (
        lambda s: _has_blocks(s) and (_criterion(s).compensates or _criterion(s).is_learned),
        "importance {importance} chooses single weights; blocks go by magnitude, wanda or snip",
    ),
    (
        lambda s: _criterion(s).within_outputs and s.scope == "global",
        "importance {importance} ranks within each output, and goes with scope: local",
    ),
    (
        lambda s: _criterion(s).compensates and s.scope == "global",
        "importance {importance} goes through one layer at a time, and goes with scope: local",
    ),
    (
        lambda s: _criterion(s).is_learned and s.finetune is None,
        "importance {importance} is learned in training: give finetune",
    ),
    (
        lambda s: _criterion(s).is_learned and _may_stop(s),
        (
            "importance {importance} removes weights over the first half of the training; leave "
            "patience out of finetune, which may end it before"
        ),
    ),
    (
        lambda s: _criterion(s).is_learned and s.schedule is not None,
        "importance {importance} removes weights step by step while it trains; leave schedule out",
    ),
    (
        lambda s: s.of == "original" and s.scope == "global",
        "of: original counts per layer and goes with scope: local",
    ),
)
