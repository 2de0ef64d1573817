"""This machine as a target. Timing is asserted in structure only: the machine may be busy."""

import json

import numpy as np
import pytest

from compress.artifact import file_sha256
from compress.errors import MeasurementError, SettingsError
from compress.measure import local
from compress.measure.local import LocalTarget
from compress.measure.ondevice import machine
from compress.measure.target import BenchmarkConfig, Failure, Target, Timing

X = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)


def test_a_local_target_is_a_target_made_of_its_parameters():
    target = LocalTarget(name="laptop", batch=2)
    assert isinstance(target, Target)
    assert LocalTarget.model_validate(target.model_dump()) == target
    assert (target.name, target.runtime, target.threads) == ("laptop", "onnxruntime", 1)
    with pytest.raises(SettingsError, match="stays as it is"):
        target.threads = 2
    with pytest.raises(SettingsError, match="greater than or equal to 1"):
        LocalTarget(threads=0)
    with pytest.raises(SettingsError, match="unknown key"):
        LocalTarget(cores=2)


@pytest.mark.parametrize("batch", [1, 4])
def test_predict_gives_outputs_for_every_sample(any_batch, batch):
    (y,) = LocalTarget(batch=batch).predict(any_batch, {"": X})
    np.testing.assert_allclose(y, X @ (np.arange(12).reshape(4, 3) / 4), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("samples", [1, 7, 16, 17, 30])
def test_scoring_in_several_processes_gives_what_one_gives(any_batch, batch, samples, monkeypatch):
    monkeypatch.setattr("compress.measure.local._LEAST_SAMPLES", 5)
    monkeypatch.setattr("compress.measure.ondevice.machine.cpu_count", lambda: 3)
    started = []
    run = local.run_side_by_side
    monkeypatch.setattr(
        local,
        "run_side_by_side",
        lambda jobs, timeout_s: started.extend(jobs) or run(jobs, timeout_s=timeout_s),
    )
    x = np.random.default_rng(0).standard_normal((samples, 4), "float32")
    (y,) = LocalTarget(batch=batch).predict(any_batch, {"": x})
    # At whole batches, which may take a process less.
    assert len(started) == {1: 1, 7: 1, 16: 3 if batch == 1 else 2, 17: 3, 30: 3}[samples]
    np.testing.assert_allclose(y, x @ (np.arange(12).reshape(4, 3) / 4), rtol=1e-4, atol=1e-5)


def test_no_more_processes_score_than_there_is_memory_for(any_batch, monkeypatch):
    monkeypatch.setattr("compress.measure.local._LEAST_SAMPLES", 5)
    monkeypatch.setattr("compress.measure.ondevice.machine.cpu_count", lambda: 4)
    size = any_batch.stat().st_size
    for free, most in ((1.0, 1), (25 * size, 2), (float("inf"), 4)):
        monkeypatch.setattr(
            "compress.measure.ondevice.machine.free_memory_bytes", lambda free=free: free
        )
        assert LocalTarget().scoring_processes(any_batch) == most
    assert LocalTarget(threads=3).scoring_processes(any_batch) == 1
    assert LocalTarget(provider="cuda").scoring_processes(any_batch) == 1


def test_predict_says_what_is_wrong_with_the_file(truncated):
    with pytest.raises(MeasurementError, match=r"truncated\.onnx: the file is cut off"):
        LocalTarget().predict(truncated, {"": X})


def test_more_threads_than_this_process_may_use_are_refused(one):
    target = LocalTarget(name="big", threads=machine.cpu_count() + 1)
    for call in (
        lambda: target.predict(one, {"": X}),
        lambda: target.measure([one], BenchmarkConfig({})),
    ):
        with pytest.raises(MeasurementError, match=r"'big': threads is .* may use"):
            call()


def test_lowering_avoids_saturation_unless_the_cpu_is_known_not_to(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for flags, avoid in (({"avx2"}, True), ({"avx2", "avx512_vnni"}, False), (set(), True)):
        monkeypatch.setattr(machine, "cpu_flags", lambda flags=flags: frozenset(flags))
        lowering = LocalTarget(batch=3).lowering()
        assert (lowering.avoid_saturation, lowering.batch) == (avoid, 3)


def test_environment_tells_device_from_state():
    one, two = LocalTarget().environment(), LocalTarget(batch=2).environment()
    assert one["device_id"] == two["device_id"]
    assert one["state_id"] != two["state_id"]
    assert one["device"]["onnxruntime"]
    assert json.loads(json.dumps(one)) == one


def test_a_session_times_what_runs_and_explains_what_does_not(
    tmp_path, hasty, two_inputs, truncated
):
    config = BenchmarkConfig(
        {"ids": np.ones((9, 3), np.int64), "mask": np.ones((9, 3), np.float32)}, "quick"
    )
    raw = tmp_path / "raw.jsonl"
    base, broken, again = LocalTarget().measure([two_inputs, truncated, two_inputs], config, raw)
    assert isinstance(broken, Failure)
    assert "the file is cut off" in broken.error
    assert isinstance(base, Timing)
    assert isinstance(again, Timing)
    for timing in (base, again):
        lo, hi = timing.latency.ci95_p50_s
        assert 0 < lo <= timing.latency.p50_s <= hi
        assert timing.latency.processes >= 3
        assert timing.speedup.ci95[0] <= timing.speedup.value <= timing.speedup.ci95[1]
    assert base.speedup.verdict == "baseline"
    assert again.speedup.verdict in ("faster", "slower", "no difference shown", "noisy")
    if machine.machine()["system"] == "Linux":
        assert 0 < again.memory.model_peak_bytes < again.memory.peak_rss_bytes
    header, *lines = (json.loads(line) for line in raw.read_text().splitlines())
    assert header["kind"] == "session"
    assert header["models"][0] == {"path": str(two_inputs), "sha256": file_sha256(two_inputs)}
    assert header["environment"]["device_id"]
    assert sum(line["kind"] == "time" for line in lines) == (
        base.latency.processes + again.latency.processes
    )
    assert {line["batch"] for line in lines if line["kind"] == "time"} == {1}


def test_only_a_few_samples_spread_over_the_data_are_sent_to_time(monkeypatch, one):
    seen = []

    def spy(job, *, timeout_s):
        seen.append(np.load(job["inputs"][""])[:, 0])
        raise MeasurementError("enough")

    monkeypatch.setattr("compress.measure.local.run_worker", spy)
    x = np.repeat(np.arange(1000, dtype=np.float32)[:, None], 4, axis=1)
    assert LocalTarget().measure([one], BenchmarkConfig({"": x})) == [Failure("enough")]
    assert len(seen[0]) == 64
    assert (seen[0][0], seen[0][-1]) == (0, 999)


def test_scoring_a_data_set_may_take_as_long_for_every_thousand_samples(monkeypatch, one):
    limits = []

    def spy(jobs, *, timeout_s):
        limits.append(timeout_s)
        raise MeasurementError("enough")

    monkeypatch.setattr("compress.measure.local.run_side_by_side", spy)
    monkeypatch.setattr("compress.measure.ondevice.machine.cpu_count", lambda: 1)
    for samples in (10, 5000):
        with pytest.raises(MeasurementError, match="enough"):
            LocalTarget(timeout_s=60).predict(one, {"": np.zeros((samples, 4), np.float32)})
    assert limits == [60, 300]
