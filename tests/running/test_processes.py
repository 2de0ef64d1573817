"""Messages and sums between processes, and what is said when one of them is gone."""

import inspect
import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from compress import Candidate, QuantizeStage, TrainStage
from compress.stage import formats_of
from compress.testing.nets import NETS
from compress.testing.stage_contract import bench_context
from compress.training.distributed import SINGLE_PROCESS, join

PREFACE = """
import os, sys, torch
torch.set_num_threads(1)
from datetime import timedelta
from compress.training.distributed import join, leave
from compress.errors import CompressError
try:
    us = join()
"""
# As the command does: a process that ends inside its group may abort.
FAILED = """
    leave()
except CompressError as error:
    print(type(error).__name__, error, flush=True)
    os._exit(3)
"""


def both(code):
    """What each of two processes prints, and how it ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    indented = "".join(f"    {line}\n" for line in code.strip().splitlines())
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    shared |= {"LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PREFACE + indented + FAILED],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120) for process in running]
    return [(p.returncode, out.strip(), err) for p, (out, err) in zip(running, said, strict=True)]


def test_what_the_first_says_all_hear_and_means_are_of_all():
    results = both("""
mine = torch.full((2, 3), float(us.rank)).T
whole = torch.tensor(us.rank + 5)
heard = [us.broadcast(b"abc" * us.rank + b"hello"), us.broadcast(), us.broadcast(b"x" * 100_000)]
gathered = us.gather(torch.tensor([us.rank, 7]))
kept = mine.clone()
us.average([mine])
us.broadcast_tensors([kept, whole])
print(heard[0], heard[1], len(heard[2]), gathered.tolist(), mine.tolist(), kept.tolist(), whole)
""")
    expected = (
        "b'hello' b'' 100000 [[0, 7], [1, 7]] [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]] "
        "[[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]] tensor(5)"
    )
    assert [(code, out) for code, out, _ in results] == [(0, expected)] * 2, results


def test_models_of_different_sizes_are_refused_by_all():
    results = both("us.broadcast_tensors([torch.zeros(3 + us.rank)])")
    for code, out, err in results:
        assert code == 3, err
        assert out.startswith("ProcessError the processes of this launch have made models of diff")


def test_the_end_of_one_is_noticed_by_the_others():
    (gone, _, _), (code, out, err) = both("""
if us.is_rank_zero:
    os._exit(7)
us.broadcast()
""")
    assert gone == 7
    assert code == 3, err
    assert "ProcessError another process of this launch is gone (" in out
    assert "repeat the command, and it resumes from what was finished." in out


def test_who_waits_for_a_time_only_is_told_that_it_is_over():
    (_, out, _), (code, said, err) = both("""
import time
if us.is_rank_zero:
    time.sleep(4)
else:
    us.broadcast(timeout=timedelta(seconds=1))
""")
    assert out == ""
    assert code == 3, err
    assert "ProcessError another process of this launch is gone (" in said


@pytest.mark.exhaustive  # how one process tells the others is in the tests around it
def test_all_pass_a_stage_whose_request_is_met_already():
    results = both("""
import tempfile
from typing import ClassVar, Literal
from compress import Candidate, Effect, Recipe, ReplayTarget, Stage, TrainStage
from compress.errors import AlreadySo
from compress.testing.nets import NETS

class Trained(Stage):
    effects: ClassVar[frozenset[Effect]] = frozenset({Effect.WEIGHTS})
    kind: Literal["trained"] = "trained"

    def run(self, candidate, context):
        raise AlreadySo("trained: it learned enough.")

    def epochs_of_training(self):
        return 1

case = NETS["mlp"]
start = Candidate.of(case.build(), case.example())
recipe = Recipe(name="r", stages=(Trained(), TrainStage(epochs=13, batch_size=64)))
with tempfile.TemporaryDirectory() as folder:
    record = recipe.run(
        start, case.make_task(), workdir=folder, targets=[ReplayTarget()], report=False
    )
print(record.status, [row.notes for row in record.rows])
""")
    expected = "done [[], ['it learned enough; nothing changed'], []]"
    assert [(code, out) for code, out, _ in results] == [(0, expected)] * 2, results


def learned_clips_of(processes):
    """The clips that a training of one net leaves, in one of some processes."""
    case = NETS["mlp"]
    start = Candidate.of(case.build(), case.example())
    with tempfile.TemporaryDirectory() as folder:
        context = bench_context(start, Path(folder))
        context = replace(context, task=case.make_task(), processes=processes)
        stage = QuantizeStage(weights="int4", activations="float32", learn_steps=True)
        train = TrainStage(epochs=2, batch_size=32, optimizer="sgd", learning_rate=0.1, ema=0.9)
        after = train.run(stage.run(start, context), context)
    return [clip for format in formats_of(after).values() for clip in format.clip]


@pytest.mark.exhaustive
def test_learned_steps_are_one_in_all_processes_and_those_of_a_single_one():
    source = inspect.getsource(learned_clips_of)
    results = both(f"""
import tempfile
from dataclasses import replace
from pathlib import Path
from compress import Candidate, QuantizeStage, TrainStage
from compress.stage import formats_of
from compress.testing.nets import NETS
from compress.testing.stage_contract import bench_context

{source}
print(learned_clips_of(us))
""")
    assert [code for code, _, _ in results] == [0, 0], results
    first, other = (json.loads(said) for _, said, _ in results)
    assert first == other
    alone = learned_clips_of(SINGLE_PROCESS)
    assert min(alone) < 0.97
    assert first == pytest.approx(alone, abs=0.01)


def test_a_process_alone_talks_to_itself():
    assert join() is SINGLE_PROCESS
    tensor = torch.tensor([1.0, 2.0])
    SINGLE_PROCESS.average([tensor])
    SINGLE_PROCESS.broadcast_tensors([tensor])
    assert tensor.tolist() == [1.0, 2.0]
    assert SINGLE_PROCESS.broadcast(b"me") == b"me"
    assert SINGLE_PROCESS.gather(tensor).tolist() == [[1.0, 2.0]]
    with pytest.raises(AttributeError):
        SINGLE_PROCESS.rank = 1
