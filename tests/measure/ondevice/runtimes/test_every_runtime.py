"""What holds of every runtime on the list, whichever library it is."""

import json
import sys

import numpy as np
import pytest

from compress.errors import MeasurementError, SettingsError
from compress.measure.local import LocalTarget
from compress.measure.ondevice.runtimes import LIBRARIES, PROVIDERS, RUNTIMES, open_model
from compress.measure.target import BenchmarkConfig, Timing
from compress.testing.nets import NETS

EVERY = pytest.mark.parametrize("runtime", RUNTIMES)
X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)


@EVERY
@pytest.mark.parametrize("net", ["resnet", "attention"])
def test_it_computes_what_the_others_compute(runtime, net, artifact, answers):
    path, x = artifact(net, "float").path, NETS[net].example(8).numpy()
    expected, found = (answers(path, x, name) for name in ("onnxruntime", runtime))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@EVERY
def test_it_tells_the_ends_of_a_model_as_the_others_do(runtime, model, tokens, work):
    for file in (model, tokens):
        assert work("inspect", file, runtime=runtime) == work("inspect", file)


@EVERY
def test_it_opens_a_model_in_memory(runtime, model):
    jobs = [{"model": each, "runtime": runtime} for each in (model.read_bytes(), str(model))]
    outputs = [open_model(job).run(None, {"x": X[:1]})[0] for job in jobs]
    np.testing.assert_array_equal(*outputs)


@EVERY
@pytest.mark.parametrize("content", [None, b"", b"\x08\x07 no model"])
def test_what_is_no_model_is_refused_with_the_name_of_the_file(runtime, content, tmp_path):
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    reason = {None: "there is no such file", b"": "the file is empty"}.get(content, "")
    with pytest.raises(MeasurementError, match=rf"broken\.onnx: {reason}"):
        LocalTarget(runtime=runtime).predict(path, {"": X})


@EVERY
def test_a_provider_that_it_lacks_is_refused(runtime):
    lacking = [name for name in PROVIDERS if name not in RUNTIMES[runtime].providers]
    for provider in lacking:
        said = f"the runtime {runtime} runs models on cpu.*; got provider {provider}, which "
        with pytest.raises(SettingsError, match=said):
            LocalTarget(runtime=runtime, provider=provider)


@EVERY
def test_without_its_library_the_error_names_what_to_install(runtime, monkeypatch, model, work):
    one = RUNTIMES[runtime]
    library = one.imported or one.name
    assert library in one.libraries
    assert set(one.libraries) <= set(LIBRARIES)
    monkeypatch.setitem(sys.modules, library, None)
    said = work("inspect", model, runtime=runtime)["error"]
    assert said.startswith(f"the runtime {runtime} is not here (")
    assert said.endswith(f"; {one.install}.")


def test_each_is_a_device_of_its_own():
    found = {name: LocalTarget(runtime=name).environment() for name in RUNTIMES}
    assert len({each["device_id"] for each in found.values()}) == len(RUNTIMES)
    for name, facts in found.items():
        assert facts["device"][name] == RUNTIMES[name].version()
        assert not facts["device"].keys() & (RUNTIMES.keys() - {name})
        assert facts["state"]["session"] == RUNTIMES[name].settings
        assert json.loads(json.dumps(facts)) == facts


@EVERY
def test_doctor_finds_it(runtime):
    first, *_ = RUNTIMES[runtime].findings()
    assert first.state == "ok"
    assert (RUNTIMES[runtime].imported or runtime) in first.what


@EVERY
def test_it_is_timed_and_its_memory_measured(runtime, model, hasty):
    [timing] = LocalTarget(runtime=runtime).measure([model], BenchmarkConfig({"": X}, "quick"))
    assert isinstance(timing, Timing)
    assert timing.latency.p50_s > 0
    assert timing.memory.model_peak_bytes >= 0
