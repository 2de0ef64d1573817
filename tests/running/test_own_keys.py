"""Own parts in the keys of results: their code, their options and the files that these name."""

from __future__ import annotations

import importlib
import json
import sys

import pytest

from compress import Recipe
from compress.config.references import CodeReferences
from compress.fingerprints import DataDigestCache, FileDigestCache
from compress.running.digests import ContentDigests
from compress.running.keys import StageModels, of_stage

CODE = """
from dataclasses import dataclass
from pathlib import Path
import torch
from compress.distillation.losses.base import LossBlock, loss_on_outputs

FACTOR = {factor}


def loss(student, teacher, labels, margin=0.5, table: Path | None = None):
    return FACTOR * (student - teacher.detach() * margin).abs().mean()


@dataclass
class Loss:
    margin: float = 0.5
    table: Path | None = None

    def __call__(self, student, teacher, labels):
        return FACTOR * (student - teacher.detach() * self.margin).abs().mean()


class Block(LossBlock):
    margin: float = 0.5
    table: Path | None = None

    def loss_function(self, context):
        return loss_on_outputs(lambda s, t: FACTOR * (s - t * self.margin).abs().mean())


def importance(group, margin=0.5, table: Path | None = None):
    return FACTOR * group.weights.norm(dim=1) + margin


def teacher(inputs, margin=0.5, table: Path | None = None):
    return FACTOR * inputs.flatten(1)[:, :10] * margin


def stage(candidate, context, margin=0.5, table: Path | None = None):
    after = candidate.fork()
    with torch.no_grad():
        next(after.module.parameters()).mul_(FACTOR * margin)
    return after
"""
DISTILL = {"kind": "distill", "epochs": 1, "batch_size": 64}
STAGES = {
    "loss": lambda keys: {**DISTILL, "losses": [{"kind": "mine:loss", **keys}]},
    "class": lambda keys: {**DISTILL, "losses": [{"kind": "mine:Loss", **keys}]},
    "block": lambda keys: {**DISTILL, "losses": [{"kind": "mine:Block", **keys}]},
    "finetune": lambda keys: {
        "kind": "prune",
        "ratio": 0.25,
        "finetune": {"epochs": 1, "losses": [{"kind": "mine:loss", **keys}]},
    },
    "importance": lambda keys: {
        "kind": "prune",
        "ratio": 0.25,
        "importance": {"kind": "mine:importance", **keys},
    },
    "teacher": lambda keys: {
        **DISTILL,
        "teacher": {"callable": "mine:teacher", **keys},
        "losses": [{"kind": "logits-mse"}],
    },
    "stage": lambda keys: {"kind": "mine:stage", **keys},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "table.txt").write_text("first")
    yield tmp_path
    sys.modules.pop("mine", None)


def loaded(folder, stage, factor=1.0, **keys):
    """A recipe of one stage, whose part multiplies by ``factor``."""
    (folder / "mine.py").write_text(CODE.format(factor=factor))
    sys.modules.pop("mine", None)
    importlib.invalidate_caches()
    data = {
        "schema": 1,
        "name": "own",
        "task": {"name": "digits", "limit": 64},
        "model": {"arch": "dscnn", "width": 4},
        "stages": [STAGES[stage](keys)],
    }
    return Recipe.loads(json.dumps(data), imports=["mine"])


def dependencies(recipe):
    """What the result of its stage depends on."""
    task = recipe.make_task()
    candidate = recipe.make_candidate(task)
    return of_stage(
        recipe.stages[0],
        StageModels(candidate, candidate, candidate),
        ContentDigests(
            task, candidate.module, DataDigestCache(), FileDigestCache(), lambda _: None
        ),
        CodeReferences.of("mine"),
        seed=0,
        processes=1,
    )


@pytest.mark.parametrize("stage", STAGES)
def test_what_an_own_part_is_made_of_is_in_the_key(stage, folder):
    given = {"margin": 0.25, "table": "table.txt"}
    first = dependencies(loaded(folder, stage, **given))
    assert first.key is not None
    assert dependencies(loaded(folder, stage, **given)).key == first.key
    edits = {
        "the stage's settings changed": {**given, "margin": 0.5},
        "code that the recipe names changed": {**given, "factor": 2.0},
    }
    for why, keys in edits.items():
        changed = dependencies(loaded(folder, stage, **keys))
        assert changed.key != first.key
        assert changed.changed(first.facts) == why
    (folder / "table.txt").write_text("second")
    changed = dependencies(loaded(folder, stage, **given))
    assert changed.changed(first.facts) == "a file that the recipe names changed"


def test_a_stage_is_made_again_where_a_key_of_its_part_changed(folder, target):
    def again(margin):
        recipe, events = loaded(folder, "loss", margin=margin), []
        task = recipe.make_task()
        record = recipe.run(
            recipe.make_candidate(task),
            task,
            targets=[target],
            workdir=folder / "run",
            mode="quick",
            observer=events.append,
            report=False,
        )
        whys = [one["why"] for one in events if one["event"] == "again" and "what" not in one]
        [block] = record.recipe["stages"][0]["losses"]
        assert block == {"kind": "mine:loss", "weight": 1.0, "margin": margin}
        return whys, record.rows[1].cached

    assert again(0.25) == ([], False)
    assert again(0.25) == ([], True)
    assert again(0.5) == (["the stage's settings changed"], False)


def test_a_text_that_looks_like_a_reference_is_a_text(folder):
    recipe = loaded(folder, "loss", margin=0.25)
    [stage] = recipe.stages
    [loss] = stage.losses
    assert dependencies(recipe).key
    other = loss.model_copy()
    other.take({"margin": 0.25, "note": "mine:nothing"})
    changed = recipe.model_copy(update={"stages": (stage.model_copy(update={"losses": (other,)}),)})
    assert dependencies(changed).key != dependencies(recipe).key
