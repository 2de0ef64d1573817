"""Events are those of one list, each with its fields, wherever they are told."""

import ast
import json
from dataclasses import fields
from pathlib import Path

import pytest

from compress import (
    Candidate,
    DistillStage,
    PruneStage,
    QuantizeStage,
    Recipe,
    ReplayTarget,
    TrainStage,
)
from compress.events import EVENTS, EpochEnd, MeasureStart, Redone, RunEnd, parse_event
from compress.testing.nets import NETS

PACKAGE = Path(__file__).parents[1] / "compress"


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What a run of all built-in stages tells, and then of the same with another seed."""
    case, events, folder = NETS["mlp"], [], tmp_path_factory.mktemp("run")
    stages = (
        TrainStage(epochs=1, batch_size=64),
        PruneStage(ratio=0.25, round_to=4),
        DistillStage(epochs=2, batch_size=64, views=1),
        QuantizeStage(),
    )
    for seed in (0, 1):
        Recipe(name="all", seed=seed, stages=stages).run(
            Candidate.of(case.build(), case.example()),
            case.make_task(),
            targets=[ReplayTarget()],
            workdir=folder,
            observer=events.append,
            report=False,
        )
    lines = (folder / "log.jsonl").read_text().splitlines()
    return events, [json.loads(line) for line in lines]


def test_every_event_of_a_run_is_listed_with_its_fields(told):
    events, lines = told
    for event in events:
        assert type(event) is dict
        whole = parse_event(event)
        assert whole is not None, event
        assert {**whole, **({"stage": event["stage"]} if "stage" in event else {})} == event
    names = {event["event"] for event in events}
    assert {"start", "stage", "epoch", "progress", "widths", "again"} <= names
    assert {"reading", "rehearsal", "measure", "row", "end"} <= names
    assert all(parse_event(line) is not None for line in lines)


def test_the_log_has_what_is_not_said_to_be_left_out_of_it(told):
    events, lines = told
    logged = {line["event"] for line in lines}
    for event in {event["event"] for event in events}:
        is_left_out = "Not logged" in str(EVENTS[event].__doc__)
        assert (event in logged) != is_left_out, event


def mappings_of(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            yield from (key.lineno for key in node.keys if getattr(key, "value", 0) == "event")


def test_no_event_is_written_out_where_it_is_told():
    found = [
        f"{path}:{line}"
        for path in PACKAGE.rglob("*.py")
        if path.name != "events.py"
        for line in mappings_of(ast.parse(path.read_text()))
    ]
    assert found == []


@pytest.mark.parametrize("kind", EVENTS.values(), ids=EVENTS)
def test_every_field_is_described(kind):
    for one in fields(kind):
        assert f"        {one.name}: " in kind.__doc__, one.name


@pytest.mark.parametrize("kind", EVENTS.values(), ids=EVENTS)
def test_an_event_is_the_mapping_that_is_told(kind):
    event = kind(**{one.name: 1 for one in fields(kind)})
    assert dict(event) == {"event": kind.event, **{one.name: 1 for one in fields(kind)}}
    assert event == dict(event)
    assert parse_event({"stage": "mine", "time_s": 1.5, **event}) == event
    assert len(event) == len(dict(event))
    with pytest.raises(KeyError):
        event["nothing"]


def test_what_was_not_said_is_left_out():
    assert dict(Redone(1, "train", "the seed changed")).keys() == {"event", "index", "label", "why"}
    assert dict(RunEnd()) == {"event": "end"}
    assert dict(MeasureStart()) == {"event": "measure"}
    assert EpochEnd(1, 2, 0.5, {}, None, 9.0, 0.0)["validation_loss"] is None


@pytest.mark.parametrize(
    "foreign", [{}, {"event": "mine"}, {"event": "epoch", "epoch": 1}, {"event": ["row"]}]
)
def test_what_is_not_listed_is_no_event(foreign):
    assert parse_event(foreign) is None
