"""A whole run whose artifacts are measured on another device, with the link cut meanwhile."""

import pytest

from compress import Candidate, PruneStage, QuantizeStage, Recipe
from compress.measure import session
from compress.measure.local import LocalTarget
from compress.testing.nets import NETS


@pytest.fixture
def run(monkeypatch):
    """Runs a short recipe with targets in a folder; the rows of its record."""
    monkeypatch.setattr("compress.measure.rounds.PLANS", session.PLANS)
    case = NETS["mlp"]

    def start(folder, target):
        recipe = Recipe(stages=[QuantizeStage(), PruneStage(ratio=0.3)])
        candidate = Candidate.of(case.build(), case.example())
        task = case.make_task()
        return recipe.run(
            candidate, task, targets=[target], workdir=folder, mode="quick", report=False
        ).rows

    return start


def facts(rows):
    """What must not depend on how the device was reached."""
    measured = [row.on("pi") for row in rows]
    return [
        (row.stage, row.fingerprint, m.artifact.sha256, m.accuracy.value)
        for row, m in zip(rows, measured, strict=True)
    ]


@pytest.mark.exhaustive  # tests/measure/remote/test_ssh.py cuts the link at each moment
def test_a_run_measures_its_rows_there_whatever_becomes_of_the_link(
    run, device, there, tmp_path, meanwhile, until
):
    def cut():
        device.link.cut()
        lines = len(there.lines())
        until(lambda: len(there.lines()) > lines)
        device.link.mend()

    here = run(tmp_path / "here", LocalTarget(name="pi"))
    connections = device.link.connections
    meanwhile(lambda: any(line["kind"] == "time" for line in there.lines()), cut)
    rows = run(tmp_path / "run", device.target(there, name="pi"))
    assert [row.stage for row in rows] == ["input", "quantize", "prune"]
    assert facts(rows) == facts(here)
    for row in rows:
        measurement = row.on("pi")
        assert measurement.latency.p50_s > 0
        assert measurement.memory.model_peak_bytes > 0
        assert measurement.speedup.ci95[0] <= measurement.speedup.value
    assert device.link.connections > connections + 2
