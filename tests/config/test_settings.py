"""Whoever makes a block in Python and errs reads the recipe's sentence, and nothing of pydantic."""

import copy
import inspect
import pickle

import pytest
from pydantic import BaseModel, ValidationError

import compress
from compress import (
    AdbTarget,
    Architecture,
    Budget,
    Candidate,
    DistillStage,
    Fields,
    LocalTarget,
    PruneStage,
    QuantizeStage,
    Recipe,
    SshTarget,
    Task,
    TrainStage,
)
from compress.config.settings import Settings
from compress.distillation.losses import BUILT_IN
from compress.errors import DataError, RecipeError, SettingsError

pytestmark = pytest.mark.fast

# What a class needs to be made at all.
NEEDED = {"Recipe": {"stages": [QuantizeStage()]}, "SshTarget": {"host": "board"}}
NEEDED |= {"Architecture": {"arch": "resnet"}, "PerceptualLoss": {"layers": ["a"]}}
LAYERS = {"student": ["a"], "teacher": ["a"]}
NEEDED |= dict.fromkeys(("HintLoss", "AttentionTransferLoss"), LAYERS)
NEEDED |= dict.fromkeys(("HiddenLoss", "AttentionMapsLoss"), LAYERS)


def blocks():
    """Every class of settings that is exported, every loss, and all blocks that these hold."""
    found = [getattr(compress, name) for name in compress.__all__]
    found += BUILT_IN.values()
    kinds = [one for one in found if isinstance(one, type) and issubclass(one, BaseModel)]
    return [one for one in dict.fromkeys(kinds) if issubclass(one, Settings) and made(one)]


def test_a_record_is_read_and_not_made():
    assert sentence(compress.Record) == "Record: the key 'name' is missing."


def made(kind):
    try:
        return kind(**NEEDED.get(kind.__name__, {}))
    except TypeError:  # an abstract one
        return None
    except SettingsError:
        assert kind is compress.Record
        return None


def test_all_that_is_exported_and_validated_has_these_errors():
    exported = [getattr(compress, name) for name in compress.__all__]
    validated = {one for one in exported if isinstance(one, type) and issubclass(one, BaseModel)}
    assert not [one for one in validated if not issubclass(one, Settings)]
    assert len(blocks()) > 20


def sentence(make, *given, **settings):
    with pytest.raises(SettingsError) as refused:
        make(*given, **settings)
    text = str(refused.value)
    assert refused.value.__cause__ is None
    # What is not suppressed a notebook would print.
    assert refused.value.__context__ is None or refused.value.__suppress_context__
    assert "\n" not in text
    assert text.endswith(".")
    for word in ("pydantic", "validation error", "Input ", "Extra inputs", "type="):
        assert word not in text
    return text


@pytest.mark.parametrize("kind", blocks(), ids=lambda one: one.__name__)
def test_a_key_that_is_not_known_is_refused_with_the_nearest(kind):
    name = next(reversed(kind.model_fields))
    misspelled = f"{name}x"
    text = sentence(kind, **NEEDED.get(kind.__name__, {}), **{misspelled: 1})
    assert text.startswith(f"{kind.__name__}: {misspelled}: unknown key; did you mean {name!r}")


@pytest.mark.parametrize("kind", blocks(), ids=lambda one: one.__name__)
def test_every_setting_of_a_wrong_kind_is_named(kind):
    for name, field in kind.model_fields.items():
        text = sentence(kind, **{**NEEDED.get(kind.__name__, {}), field.alias or name: object()})
        assert text.startswith(f"{kind.__name__}: ")
        assert (field.alias or name) in text


@pytest.mark.parametrize("kind", blocks(), ids=lambda one: one.__name__)
def test_settings_have_names(kind):
    text = sentence(kind, 0.5)
    assert text.startswith(f"{kind.__name__} takes its settings by name")
    assert text.endswith("got 0.5 without one.")


@pytest.mark.parametrize("kind", blocks(), ids=lambda one: one.__name__)
def test_a_block_is_copied_pickled_and_described_as_ever(kind):
    one = made(kind)
    assert copy.deepcopy(one) == copy.copy(one) == one.model_copy() == one
    if kind is not Recipe:  # whose stages are objects
        assert kind.model_validate(one.model_dump(by_alias=True)) == one
        assert pickle.loads(pickle.dumps(one)) == one
    parameters = inspect.signature(kind).parameters.values()
    assert {one.kind for one in parameters} <= {
        inspect.Parameter.KEYWORD_ONLY,
        inspect.Parameter.VAR_KEYWORD,
    }


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: PruneStage(ratio=2), "PruneStage: ratio: should be less than 1; got 2."),
        (lambda: Recipe(stages=[]), "Recipe: stages: should have at least 1 item; got []."),
        (lambda: Recipe(stages=PruneStage()), "stages: is a list of stages"),
        (lambda: Recipe(stages=[PruneStage]), "each is an object such as PruneStage(); got <class"),
        (lambda: Recipe(stages=[{"kind": "prune"}]), "(Recipe.loads reads blocks of a file)"),
        (lambda: Recipe([PruneStage()]), "as in Recipe(stages=...)"),
        (lambda: Recipe(), "Recipe: the key 'stages' is missing."),
        (
            lambda: Recipe(stages=[PruneStage()], targets=[LocalTarget()]),
            "a target that is an object goes to run(..., targets=[...])",
        ),
        (lambda: Recipe(stages=[PruneStage()], targets="local"), "is a list of blocks"),
        (lambda: Budget(accuracy_drop="x"), "'x' is neither a number nor points"),
        (
            lambda: PruneStage(finetune={"epoch": 3}),
            "PruneStage: finetune.epoch: unknown key; did you mean 'epochs'.",
        ),
        (
            lambda: DistillStage(losses=[{"kind": "response", "temperatur": 3}]),
            "DistillStage: losses[0].temperatur: unknown key; did you mean 'temperature'.",
        ),
        (
            lambda: Recipe(stages=[PruneStage()], targets=[{"kind": "ssh", "hots": "a"}]),
            "targets[0].hots: unknown key; did you mean 'host'.",
        ),
        (lambda: SshTarget(), "SshTarget: the key 'host' is missing."),
        (lambda: AdbTarget(batch=0), "batch: should be greater than or equal to 1; got 0."),
        (lambda: Fields(input="x"), "did you mean 'inputs'."),
        (lambda: Architecture(), "the key 'arch' is missing."),
        (lambda: TrainStage(epochs="3"), "TrainStage: epochs: should be a valid integer; got '3'."),
    ],
)
def test_the_sentence_says_where_what_and_what_would_do(make, text):
    assert text in sentence(make)


def test_what_a_recipe_holds_stays_as_it_is():
    with pytest.raises(SettingsError, match=r"artifact_kib: it cannot be set.*model_copy\(update="):
        Budget().artifact_kib = 3


@pytest.mark.parametrize("given", ["net", None, 3, TrainStage])
def test_a_candidate_is_made_of_a_module(given):
    with pytest.raises(RecipeError, match=r"made of an nn\.Module; got "):
        Candidate.of(given, None)


@pytest.mark.parametrize("example", ["x", [1.0], {}, {"x": 1}, None])
def test_the_example_of_a_candidate_is_a_batch(example):
    import torch

    with pytest.raises(RecipeError, match="a batch of inputs, a tensor or a dictionary of tensors"):
        Candidate.of(torch.nn.Linear(2, 2), example)


def test_a_task_has_a_name():
    with pytest.raises(DataError, match=r"a task has a name, such as 'digits'; got 3\."):
        Task(3, [1], [1], [1])


def test_a_block_inside_of_somebody_elses_model_keeps_its_place():
    class Theirs(BaseModel):
        step: PruneStage

    with pytest.raises(ValidationError) as refused:
        Theirs(step={"ratio": 2})
    assert refused.value.errors()[0]["loc"] == ("step", "ratio")


def test_a_block_that_is_made_in_a_validator_is_told_with_the_place():
    from pydantic import field_validator

    class Theirs(BaseModel):
        ratio: float

        @field_validator("ratio")
        @classmethod
        def _fits(cls, ratio):
            PruneStage(ratio=ratio)
            return ratio

    with pytest.raises(ValidationError, match="PruneStage: ratio: should be less than 1"):
        Theirs(ratio=2)


def test_a_file_is_told_with_its_line():
    with pytest.raises(RecipeError, match=r"^recipe:2: stages\[0\]\.finetune\.epoch: .*'epochs'"):
        Recipe.loads("name: x\nstages: [{kind: prune, finetune: {epoch: 2}}]\n")
