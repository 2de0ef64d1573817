"""Each library's tracker, on a library that only writes down its calls, and on the real one."""

import os

import pytest

from compress.tracking import TRACKERS, Tracking, tracker_of


@pytest.mark.parametrize("kind", TRACKERS)
def test_nothing_is_written_before_the_run_begins(kind, pretend, tmp_path):
    calls = pretend(kind)
    tracker_of(f"{kind}:{tmp_path / 'place'}")
    assert calls == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("status", "word"), [("done", "FINISHED"), ("interrupted", "KILLED")])
def test_mlflow_gets_an_experiment_of_the_recipe(pretend, tmp_path, status, word):
    calls = pretend("mlflow")
    tracker = tracker_of(f"mlflow:{tmp_path}")
    tracker.begin("mine", {f"p{i}": "x" * 600 for i in range(120)})
    tracker.add("stages/train", "epoch", 2, {"losses/my:own": 0.5})
    tracker.end(status)
    assert calls.of("MlflowClient") == [((), {"tracking_uri": tmp_path.as_uri()})]
    assert calls.of("create_experiment") == [(("mine",), {})]
    assert calls.of("create_run") == [(("7",), {})]
    first, second, metrics = (keywords for _, keywords in calls.of("log_batch"))
    assert [len(part["params"]) for part in (first, second)] == [100, 20]
    assert first["params"][0] == ("p0", "x" * 500)
    assert metrics["metrics"] == [("stages/train/losses/my_own", 0.5, 2)]
    assert calls.of("set_terminated") == [(("r1", word), {})]


@pytest.mark.parametrize(
    ("place", "environment", "uri"),
    [
        ("mlflow:http://host:5000", "sqlite:///x.db", "http://host:5000"),
        ("mlflow", "http://other:5000", "http://other:5000"),
        ("mlflow", "", "mlruns"),
        ("mlflow:sqlite:///x.db", "", "sqlite:///x.db"),
    ],
)
def test_mlflow_goes_to_a_server_only_where_one_is_named(
    pretend, monkeypatch, tmp_path, place, environment, uri
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", environment)
    monkeypatch.chdir(tmp_path)
    calls = pretend("mlflow")
    tracker_of(place).begin("mine", {})
    expected = uri if "://" in uri else (tmp_path / uri).as_uri()
    assert calls.of("MlflowClient") == [((), {"tracking_uri": expected})]


def test_tensorboard_gets_a_folder_for_each_run(pretend, tmp_path):
    calls = pretend("tensorboard")
    tracker = tracker_of(f"tensorboard:{tmp_path}")
    tracker.begin("mine", {"stages.0.kind": "a|b"})
    tracker.add("targets/pi", "row", 3, {"p50_s": 0.25, "speedup": 2.0})
    tracker.end("done")
    (((folder,), _),) = calls.of("SummaryWriter")
    assert folder.startswith(str(tmp_path / "mine-"))
    (_, table, _), _ = calls.of("add_text")[0]
    assert "| stages.0.kind | a\\|b |" in table
    assert [arguments for arguments, _ in calls.of("add_scalar")] == [
        ("targets/pi/p50_s", 0.25, 3),
        ("targets/pi/speedup", 2.0, 3),
    ]
    assert calls[-1][0] == "close"


@pytest.mark.parametrize(("chosen", "mode"), [(None, "offline"), ("online", "online")])
def test_wandb_stays_offline_unless_it_was_told_otherwise(
    pretend, monkeypatch, tmp_path, chosen, mode
):
    if chosen:
        monkeypatch.setenv("WANDB_MODE", chosen)
    calls = pretend("wandb")
    tracker = tracker_of(f"wandb:{tmp_path / 'new'}")
    tracker.begin("mine", {"seed": 3})
    ((_, keywords),) = calls.of("init")
    assert (keywords["mode"], keywords["dir"]) == (mode, str(tmp_path / "new"))
    assert (keywords["name"], keywords["config"]) == ("mine", {"seed": 3})
    assert keywords["settings"]["x_disable_stats"]
    assert (tmp_path / "new").is_dir()


def test_wandb_has_an_axis_for_each_group(pretend):
    calls = pretend("wandb")
    tracker = tracker_of("wandb")
    tracker.begin("mine", {})
    for epoch in (1, 2):
        tracker.add("stages/train", "epoch", epoch, {"loss": 1 / epoch})
    tracker.end("failed")
    assert calls.of("define_metric") == [
        (("stages/train/*",), {"step_metric": "stages/train/epoch"})
    ]
    assert [arguments[0] for arguments, _ in calls.of("log")] == [
        {"stages/train/loss": 1.0, "stages/train/epoch": 1},
        {"stages/train/loss": 0.5, "stages/train/epoch": 2},
    ]
    assert calls.of("finish") == [((), {"exit_code": 1})]


@pytest.mark.parametrize("kind", TRACKERS)
def test_libraries_are_told_to_keep_to_themselves_before_they_are_imported(
    kind, pretend, monkeypatch
):
    pretend(kind)
    quiet = {"mlflow": "MLFLOW_DISABLE_TELEMETRY", "wandb": "WANDB_ERROR_REPORTING"}
    if kind not in quiet:
        return
    monkeypatch.delenv(quiet[kind])
    tracker_of(kind)
    assert os.environ[quiet[kind]] == {"mlflow": "true", "wandb": "false"}[kind]


def test_a_real_tensorboard_reads_back_what_was_written(run, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record = run(Tracking.of([f"tensorboard:{tmp_path / 'boards'}"], pytest.fail))
    (folder,) = (tmp_path / "boards").iterdir()
    read = EventAccumulator(str(folder)).Reload()
    losses = [(event.step, event.value) for event in read.Scalars("stages/train/loss")]
    history = record.rows[1].history
    assert losses == [(e["epoch"], pytest.approx(e["loss"])) for e in history]
    speedups = [event.step for event in read.Scalars("targets/replay/speedup")]
    assert speedups == [0, 1, 2]


def test_a_real_mlflow_store_reads_back_what_was_written(run, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    store = tmp_path / "store"
    record = run(Tracking.of([f"mlflow:{store}"], pytest.fail))
    client = mlflow.MlflowClient(tracking_uri=store.as_uri())
    experiment = client.get_experiment_by_name("tracked")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["stages.0.kind"] == "train"
    last = record.rows[-1].on("replay")
    assert found.data.metrics["targets/replay/speedup"] == pytest.approx(last.speedup.value)
    losses = client.get_metric_history(found.info.run_id, "stages/train/loss")
    assert [metric.step for metric in losses] == [1, 2]


def test_a_real_wandb_writes_a_run_to_be_sent_later(run, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run(Tracking.of([f"wandb:{tmp_path}"], pytest.fail))
    (written,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    assert written.stat().st_size > 0
