"""``compresskit run --track``."""

import pytest

from compress.cli import main
from compress.record import Record

RECIPE = """\
schema: 1
name: tracked
task: {name: digits, limit: 200}
model: {arch: mlp, in_features: 64, width: 8}
stages:
  - {kind: quantize}
"""


@pytest.fixture
def track(tmp_path, capsys):
    """Runs a recipe without training, tracked; the exit code and what went to standard error."""
    (tmp_path / "r.yaml").write_text(RECIPE)

    def call(*trackers):
        options = [word for tracker in trackers for word in ("--track", tracker)]
        where = ["--out", str(tmp_path / "run"), "--quick"]
        code = main(["run", str(tmp_path / "r.yaml"), *where, *options])
        return code, capsys.readouterr().err

    return call


def test_several_trackers_are_told_of_one_run(track, pretend, tmp_path):
    boards, weights = pretend("tensorboard"), pretend("wandb")
    code, _ = track(f"tensorboard:{tmp_path / 'boards'}", "wandb")
    assert code == 0
    assert boards[-1][0] == "close"
    assert weights.of("finish") == [((), {"exit_code": 0})]
    told = {arguments[0] for arguments, _ in boards.of("add_scalar")}
    assert {"targets/local/speedup", "rows/macs"} <= told


@pytest.mark.exhaustive
def test_a_disk_that_is_full_for_a_tracker_ends_in_one_sentence(
    track, pretend, monkeypatch, tmp_path
):
    calls = pretend("mlflow")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mlflow.MlflowClient", full)
    code, said = track("mlflow")
    assert code == 0
    assert said.count("tracking with mlflow ends here (OSError: [Errno 28] No space left") == 1
    assert calls == []
    assert Record.load(tmp_path / "run").status == "done"


def test_a_library_that_is_missing_is_said_before_anything_runs(track, absent, tmp_path):
    absent("wandb")
    code, said = track("wandb")
    assert code == 1
    assert "pip install 'compresskit[wandb]'" in said
    assert not (tmp_path / "run").exists()
