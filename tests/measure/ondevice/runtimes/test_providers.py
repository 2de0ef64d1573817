"""onnxruntime's providers: found, missed, and never silently replaced."""

import importlib
import importlib.util
import json
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from compress.errors import MeasurementError, SettingsError
from compress.measure.local import LocalTarget, RuntimeSettings
from compress.measure.ondevice.jobs import JobError
from compress.measure.ondevice.runtimes import open_model, runtime_of
from compress.measure.ondevice.runtimes.onnxruntime import PROVIDERS, OnnxRuntime, Provider
from compress.measure.target import BenchmarkConfig, Failure
from compress.measure.warnings import about_model

pytestmark = pytest.mark.fast

CPU, XNNPACK, CUDA = (PROVIDERS[key].name for key in ("cpu", "xnnpack", "cuda"))
OPENVINO, QNN = (PROVIDERS[key].name for key in ("openvino", "qnn"))

AZURE = "AzureExecutionProvider"


class Options:
    def __init__(self):
        self.entries, self.devices = {}, []

    def add_session_config_entry(self, key, value):
        self.entries[key] = value

    def add_provider_for_devices(self, devices, settings):
        self.devices = [(device.ep_name, device.device.type.name, settings) for device in devices]


def device(name, kind):
    return SimpleNamespace(ep_name=name, device=SimpleNamespace(type=SimpleNamespace(name=kind)))


class Runtime:
    """As much of onnxruntime as opening a session takes, with providers that the test invents.

    ``placed`` is where each operator goes, ``started`` are the providers that do not fail.
    """

    __name__ = "onnxruntime"
    __version__ = "9.9.9"
    SessionOptions = Options

    def __init__(self, available, placed=(), started=None, devices=(), tells=True):
        self.available, self.placed, self.devices = available, placed, list(devices)
        self.started = available if started is None else started
        self.tells, self.opened, self.libraries = tells, [], []

    def get_available_providers(self):
        return list(self.available)

    def get_ep_devices(self):
        return self.devices if self.libraries else []

    def register_execution_provider_library(self, name, path):
        self.libraries.append((name, path))

    def InferenceSession(self, model, options, providers, enable_fallback):
        assert enable_fallback == 0
        self.opened.append((providers, options))
        parts = [
            SimpleNamespace(
                ep_name=place,
                get_nodes=lambda op=op: [SimpleNamespace(op_type=op)],
            )
            for op, place in self.placed
        ]
        session = SimpleNamespace(get_providers=lambda: list(self.started))
        if self.tells:
            session.get_provider_graph_assignment_info = lambda: parts
        return session


@pytest.fixture
def use(monkeypatch, model):
    """Opens ``model`` on an invented runtime; the session, or what the job's error says."""

    def opened(runtime, provider, **job):
        monkeypatch.setattr(OnnxRuntime, "module", lambda _: runtime)
        job = {"model": str(model), "provider": provider, **job}
        try:
            return open_model(job), job
        except JobError as error:
            return str(error), job

    return opened


@pytest.fixture
def plugin(monkeypatch):
    """A plug-in package that is installed."""

    def install(name):
        package = SimpleNamespace(get_library_path=lambda: f"/lib/{name}.so")
        find, load = importlib.util.find_spec, importlib.import_module
        monkeypatch.setattr("importlib.util.find_spec", lambda n: package if n == name else find(n))
        monkeypatch.setattr("importlib.import_module", lambda n: package if n == name else load(n))

    return install


def ran_of(session, job):
    return runtime_of(job).ran(session, job)


def test_the_default_asks_onnxruntime_for_nothing_but_its_cpu(use):
    runtime = Runtime([CUDA, CPU])
    session, job = use(runtime, "cpu")
    ((providers, options),) = runtime.opened
    assert providers == [CPU]
    assert options.entries == {}
    assert ran_of(session, job) is None


def test_a_provider_comes_before_the_cpu_and_is_told_its_threads(use):
    runtime = Runtime([XNNPACK, CPU], [("Conv", XNNPACK)])
    session, job = use(runtime, "xnnpack", threads=3)
    ((providers, options),) = runtime.opened
    assert providers == [(XNNPACK, {"intra_op_num_threads": "3"}), CPU]
    assert options.entries == {"session.record_ep_graph_assignment_info": "1"}
    assert ran_of(session, job)["elsewhere"] == 0


def test_tensorrt_leaves_the_rest_to_cuda_first(use):
    name = PROVIDERS["tensorrt"].name
    runtime = Runtime([name, CUDA, CPU], [("Conv", name)])
    use(runtime, "tensorrt")
    assert runtime.opened[0][0] == [(name, {}), CUDA, CPU]


def test_a_part_that_fell_back_is_counted_and_becomes_a_warning(use):
    placed = [("Conv", XNNPACK), ("FusedMatMul", CPU), ("Softmax", CPU), ("Relu", XNNPACK)]
    session, job = use(Runtime([XNNPACK, CPU], placed), "xnnpack")
    ran = ran_of(session, job)
    assert json.loads(json.dumps(ran)) == {
        "provider": "xnnpack",
        "nodes": 4,
        "elsewhere": 2,
        "products": 2,
        "products_elsewhere": 1,
        "others": [CPU],
    }
    (warning,) = warnings_of(ran)
    assert warning == (
        "2 of its 4 operators ran on CPUExecutionProvider and not on the provider xnnpack, 1 of "
        "its 2 convolutions and products of matrices among them"
    )


def test_nothing_is_warned_of_where_everything_ran_where_it_should(use):
    session, job = use(Runtime([XNNPACK, CPU], [("Conv", XNNPACK)]), "xnnpack")
    assert warnings_of(ran_of(session, job)) == []
    assert warnings_of(None) == []
    assert warnings_of({"int8_mac_fraction": 0.5}) == []


def warnings_of(ran):
    result = {"steady": True, "samples_ns": [1000] * 20, "finite": True, "batch": 1, "ran": ran}
    return about_model([result], batch=1)


def test_a_model_of_which_nothing_runs_on_the_provider_is_refused(use):
    said, _ = use(Runtime([XNNPACK, CPU], [("Conv", CPU), ("Add", CPU)]), "xnnpack")
    assert said == (
        "the provider xnnpack takes none of the model's 2 operators: all fell back to "
        "CPUExecutionProvider, whose numbers these would be."
    )


def test_a_provider_that_does_not_start_is_not_replaced_in_silence(use):
    said, _ = use(Runtime([CUDA, CPU], [("Conv", CPU)], started=[CPU]), "cuda")
    assert "the provider cuda did not start, and onnxruntime took CPUExecutionProvider" in said
    assert "libraries and drivers which cuda needs" in said


@pytest.mark.skipif(AZURE not in onnxruntime.get_available_providers(), reason="not in this build")
def test_the_real_onnxruntime_tells_of_a_whole_fallback(monkeypatch, model, work):
    # A provider that every build for x86 has and that takes no operator: it is for remote services.
    monkeypatch.setitem(PROVIDERS, "cuda", Provider(AZURE, "not to be had"))
    said = work("inspect", model, provider="cuda")["error"]
    assert said == (
        "the provider cuda takes none of the model's 1 operators: all fell back to "
        "CPUExecutionProvider, whose numbers these would be."
    )


def test_an_onnxruntime_that_cannot_tell_is_warned_of(use):
    session, job = use(Runtime([CUDA, CPU], tells=False), "cuda")
    (warning,) = warnings_of(ran_of(session, job))
    assert "cannot tell which operators ran on its provider" in warning


@pytest.mark.parametrize("key", [key for key in PROVIDERS if key != "cpu"])
def test_a_provider_that_is_missing_is_named_with_those_that_are_there_and_a_fix(use, key):
    said, _ = use(Runtime(["AzureExecutionProvider", CPU]), key)
    assert said == (
        f"this onnxruntime 9.9.9 has no provider {key}; it has cpu; for {key}, "
        f"{PROVIDERS[key].fix}."
    )


def test_an_unknown_provider_is_answered_with_the_known_ones(use):
    said, _ = use(Runtime([CPU]), "rocket")
    assert "the provider is 'rocket'; known are cpu, cuda, tensorrt, xnnpack" in said


def test_a_plug_in_brings_its_provider_to_any_build(use, plugin):
    plugin("onnxruntime_ep_openvino")
    devices = [device(OPENVINO, "GPU"), device(OPENVINO, "CPU"), device(CPU, "CPU")]
    runtime = Runtime([CPU], [("Conv", OPENVINO)], started=[OPENVINO, CPU], devices=devices)
    session, _ = use(runtime, "openvino", threads=2)
    assert runtime.libraries == [("onnxruntime_ep_openvino", "/lib/onnxruntime_ep_openvino.so")]
    ((providers, options),) = runtime.opened
    assert providers is None
    assert options.devices == [(OPENVINO, "CPU", {"num_of_threads": "2"})]
    assert session.get_providers() == [OPENVINO, CPU]
    use(runtime, "openvino")
    assert len(runtime.libraries) == 1  # a second registration would be an error


def test_a_plug_in_without_its_device_says_which_it_found(use, plugin):
    plugin("onnxruntime_qnn")
    said, _ = use(Runtime([CPU], devices=[device(QNN, "GPU")]), "qnn")
    assert said == "the provider qnn needs a device of type NPU; of this machine's it takes GPU."
    said, _ = use(Runtime([CPU]), "qnn")
    assert said.endswith("of this machine's it takes none.")


def test_the_settings_name_the_providers_that_the_worker_knows():
    said = RuntimeSettings.model_json_schema()["properties"]["provider"]["enum"]
    assert list(PROVIDERS) == said


def test_a_provider_does_not_go_with_another_runtime():
    with pytest.raises(
        SettingsError, match="the runtime openvino runs models on cpu; got provider"
    ):
        LocalTarget(runtime="openvino", provider="cuda")


def test_a_target_on_a_provider_that_is_not_here_measures_nothing(model):
    missing = next(
        key
        for key in ("coreml", "dml", "cuda")
        if PROVIDERS[key].name not in onnxruntime.get_available_providers()
    )
    target = LocalTarget(provider=missing)
    said = rf"has no provider {missing}; it has cpu.*; for {missing}, "
    with pytest.raises(MeasurementError, match=said):
        target.environment()
    with pytest.raises(MeasurementError, match=said):
        target.predict(model, {"": np.zeros((1, 4), np.float32)})
    (failure,) = target.measure([model], BenchmarkConfig({}, "quick"))
    assert isinstance(failure, Failure)
    assert f"has no provider {missing}" in failure.error
