"""Every order of stages on nets that strangers might write, and every candidate on its way."""

import functools
import shutil
from dataclasses import replace
from itertools import permutations

import numpy as np
import onnxruntime
import pytest
import torch

from compress import Recipe, ReplayTarget
from compress.candidate import Candidate, count_parameters
from compress.errors import NoEffect
from compress.measure.local import LocalTarget
from compress.modules.inputs import forward
from compress.running.encoding import encode
from compress.stages import DistillStage, PruneStage, QuantizeStage
from compress.testing.stage_contract import bench_context
from tests.covering import covering

from .strangers import STRANGERS

ORDERS = ["".join(order) for order in permutations("dqp")] + ["qpqp", "pdpq"]

STAGES = {
    "d": DistillStage(epochs=1, batch_size=64, learning_rate=1e-3),
    "q": QuantizeStage(),
    "p": PruneStage(ratio=0.25, round_to=4, finetune={"epochs": 1, "batch_size": 64}),
}

LEAST_AGREEMENT = 0.9

# With a scope, so that both tests of an order follow each other and share its candidates.
every_order = pytest.mark.parametrize(
    ("name", "order"), covering(STRANGERS, ORDERS, each=1), scope="module"
)


@pytest.fixture(scope="session")
def after(tmp_path_factory):
    """What is left of a net after some stages, each of which runs once."""

    @functools.cache
    def run(name, letters):
        stranger = STRANGERS[name]
        if not letters:
            return Candidate.of(stranger.train(), stranger.example())
        before, letter = run(name, letters[:-1]), letters[-1]
        context = bench_context(run(name, ""), tmp_path_factory.mktemp(letters))
        try:
            return STAGES[letter].run(before, replace(context, task=stranger.make_task()))
        except NoEffect:
            if letter == "q" and "q" in letters[:-1]:
                return before
            raise

    return run


@every_order
def test_every_order_ends_in_a_smaller_net_and_a_file_that_agrees_with_it(
    name, order, after, tmp_path
):
    candidates = [after(name, order[:number]) for number in range(len(order) + 1)]
    for candidate in candidates:
        candidate.validate()
    start, final = candidates[0], candidates[-1]
    assert count_parameters(final.module)[0] < count_parameters(start.module)[0]

    path = tmp_path / "model.onnx"
    artifact = encode(final, STRANGERS[name].make_task(), LocalTarget(), path)
    assert artifact.parity.agreement >= LEAST_AGREEMENT
    assert np.isfinite(answers(path, start.example)).all()


@every_order
def test_every_candidate_is_the_same_once_saved_and_loaded(name, order, after, tmp_path):
    for number in range(len(order) + 1):
        candidate, folder = after(name, order[:number]), tmp_path / str(number)
        candidate.save(folder)
        loaded = Candidate.load(folder, candidate.example, lambda _: STRANGERS[name].build())
        with torch.no_grad():
            expected = forward(candidate.module, candidate.example)
            assert torch.equal(forward(loaded.module, candidate.example), expected)
        assert count_parameters(loaded.module) == count_parameters(candidate.module)
        assert loaded.fingerprint == candidate.fingerprint
        loaded.validate()


@pytest.mark.exhaustive  # as tests/running/test_kill.py and tests/stages/test_resume.py do
@pytest.mark.parametrize("name", ["recorder", "sky-and-station", "keyword-spotter"])
def test_a_resumed_run_gives_the_rows_of_one_that_was_not_interrupted(name, after, tmp_path):
    start = after(name, "")
    expected, cached = rows(name, start, LocalTarget(), tmp_path / "whole")
    assert cached == [False, False, False, False]
    # Only the first run is timed: the clock is most of the work, and rows do not depend on it.
    again = functools.partial(rows, name, start, ReplayTarget(), tmp_path / "resumed")
    assert again() == (expected, cached)
    (last,) = (tmp_path / "resumed" / "stages").glob("03-*")
    shutil.rmtree(last)
    assert again() == (expected, [False, True, True, False])


def rows(name, start, target, folder):
    recipe = Recipe(name="strange", stages=[STAGES[letter] for letter in "pqd"])
    task = STRANGERS[name].make_task()
    record = recipe.run(
        start, task, targets=[target], workdir=folder, mode="quick", cache="none", report=False
    )
    facts = [(row.stage, row.parameters, row.fingerprint) for row in record.rows]
    return facts, [row.cached for row in record.rows]


def answers(path, example):
    session = onnxruntime.InferenceSession(path)
    ports = [port.name for port in session.get_inputs()]
    named = example if isinstance(example, dict) else {ports[0]: example}
    (outputs,) = session.run(None, {port: named[port][:1].numpy() for port in ports})
    return outputs
