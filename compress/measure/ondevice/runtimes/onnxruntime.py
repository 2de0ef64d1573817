"""onnxruntime and its providers, none of which may fall back to the CPU without a word."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import re
import shutil
import sys
from typing import TYPE_CHECKING, NamedTuple, Protocol

from compress.measure.ondevice.jobs import JobError
from compress.measure.ondevice.model_file import check_file, why_unreadable
from compress.measure.ondevice.runtimes.base import (
    Finding,
    InferenceSession,
    Runtime,
    TracedSession,
    Variant,
    provider_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import ModuleType
    from typing import Any

    from compress.measure.ondevice.answers import ExecutionFacts
    from compress.measure.ondevice.jobs import WorkerJob

__all__ = ["PROVIDERS", "OnnxRuntime", "Provider", "provider_keys"]


class _Options(Protocol):
    """The part of onnxruntime's SessionOptions that is used once its plain fields are set."""

    enable_profiling: bool
    profile_file_prefix: str
    optimized_model_filepath: str

    def add_session_config_entry(self, key: str, value: str, /) -> None: ...

    def add_provider_for_devices(
        self, devices: Sequence[_EpDevice], options: object, /
    ) -> None: ...


class _EpDevice(Protocol):
    """A device that a plug-in has found."""

    ep_name: str
    device: Any


class _OrtSession(TracedSession, Protocol):
    """The part of onnxruntime's session that tells where operators run."""

    def get_providers(self) -> list[str]: ...


class Provider(NamedTuple):
    """What onnxruntime can run a model on: its own name for it, and how to get it where it lacks.

    ``plugin`` is a package that brings it to any build of onnxruntime; of the devices that a
    plug-in finds, the first of type ``device`` is taken. ``threads`` is its own setting for their
    number. ``suits`` says on which machines ``doctor`` misses it: those with this processor
    (``arm`` or ``x86``), system (as of ``sys.platform``) or program.
    """

    name: str
    fix: str
    plugin: str = ""
    device: str = ""
    threads: str = ""
    suits: str = ""


_GPU_BUILD = "pip install onnxruntime-gpu in place of onnxruntime"
PROVIDERS: dict[str, Provider] = {
    "cpu": Provider("CPUExecutionProvider", "pip install onnxruntime"),
    "cuda": Provider("CUDAExecutionProvider", _GPU_BUILD, suits="nvidia-smi"),
    "tensorrt": Provider(
        "TensorrtExecutionProvider", f"{_GPU_BUILD}, and TensorRT's libraries", suits="nvidia-smi"
    ),
    "xnnpack": Provider(
        "XnnpackExecutionProvider",
        "build onnxruntime with --use_xnnpack: no package for Python has it",
        threads="intra_op_num_threads",
        suits="arm",
    ),
    "openvino": Provider(
        "OpenVINOExecutionProvider",
        "pip install onnxruntime-ep-openvino",
        "onnxruntime_ep_openvino",
        "CPU",
        threads="num_of_threads",
        suits="x86",
    ),
    "coreml": Provider(
        "CoreMLExecutionProvider", "use onnxruntime's package for macOS", suits="darwin"
    ),
    "qnn": Provider(
        "QNNExecutionProvider",
        "pip install onnxruntime-qnn",
        "onnxruntime_qnn",
        "NPU",
        suits="arm",
    ),
    "dml": Provider(
        "DmlExecutionProvider",
        "pip install onnxruntime-directml in place of onnxruntime, on Windows",
        suits="win32",
    ),
}
_VARIANTS: Mapping[Variant, str] = {
    "flushed": "session.set_denormal_as_zero",
    "exact": "session.x64quantprecision",
}
_PRODUCT = re.compile("Conv|Gemm|MatMul")  # operators, of which a fused one has a longer name


class OnnxRuntime(Runtime):
    """onnxruntime, as an application would use it."""

    name = "onnxruntime"
    only_measures = False  # lowering and teachers run it too
    install = "pip install onnxruntime"
    libraries = ("onnxruntime", *(p.plugin for p in PROVIDERS.values() if p.plugin))
    providers = tuple(PROVIDERS)
    settings = "all optimizations, sequential, spinning and arena as by default"

    def load(self, job: WorkerJob, variant: Variant = "usual") -> InferenceSession:
        """A session; see :meth:`.base.Runtime.open`."""
        options = self._options(job)
        entries = dict(job.get("session") or {})
        if variant in _VARIANTS:
            entries[_VARIANTS[variant]] = "1"
        return self._opened(job, options, entries)

    def open_traced(self, job: WorkerJob, folder: str) -> TracedSession:
        """A session with the profiler on; see :meth:`.base.Runtime.open_traced`."""
        if isinstance(job["model"], str):
            check_file(job["model"])
        options = self._options(job)
        options.enable_profiling = True
        options.profile_file_prefix = os.path.join(folder, "trace")
        options.optimized_model_filepath = os.path.join(folder, "graph.onnx")
        beside = "session.optimized_model_external_initializers"
        entries = {
            **(job.get("session") or {}),
            f"{beside}_file_name": "weights",
            f"{beside}_min_size_in_bytes": "1024",
        }
        return self._opened(job, options, entries)

    def ran(self, session: InferenceSession, job: WorkerJob) -> ExecutionFacts | None:
        """Which operators a provider other than the CPU left to others."""
        return None if provider_of(job) == "cpu" else _placement(session, provider_of(job))

    def facts(self, job: WorkerJob) -> Mapping[str, object]:
        """Version, build and providers; see :meth:`.base.Runtime.facts`."""
        module = self.module()
        facts: dict[str, object] = {
            self.name: module.__version__,
            "build": module.get_build_info(),
            "providers": module.get_available_providers(),
        }
        if provider_of(job) != "cpu":
            _choose_provider(module, module.SessionOptions(), job)
            facts["provider"] = provider_of(job)
        return facts

    def findings(self) -> Iterator[Finding]:
        """What it runs on here, and which providers that would suit this machine are missing."""
        if not importlib.util.find_spec(self.name):
            return
        module = self.module()
        here = provider_keys(module)
        yield Finding("ok", f"onnxruntime {module.__version__} runs on {', '.join(here)}")
        for key, provider in PROVIDERS.items():
            if key not in here and _suits_this_machine(provider):
                yield Finding("note", f"onnxruntime has no provider {key} here", provider.fix)

    def _options(self, job: WorkerJob) -> _Options:
        options = self.module().SessionOptions()
        options.intra_op_num_threads = int(job.get("threads", 1))
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = bool(job.get("arena", True))
        fitted: _Options = options
        return fitted

    def _opened(
        self, job: WorkerJob, options: _Options, entries: Mapping[str, str]
    ) -> TracedSession:
        module, model = self.module(), job["model"]
        for key, value in entries.items():
            options.add_session_config_entry(key, value)
        providers = _choose_provider(module, options, job)
        try:
            # By default an error of a provider makes the session begin again on the CPU, and only
            # standard output hears of it.
            session: _OrtSession = module.InferenceSession(
                model, options, providers=providers, enable_fallback=0
            )
        except Exception as error:
            # Garbled names come back as words that cannot be decoded.
            garbled = isinstance(error, UnicodeDecodeError) or "INVALID_PROTOBUF" in str(error)
            if isinstance(model, str) and garbled:
                raise JobError(why_unreadable(model)) from error
            raise
        if isinstance(model, str):  # of the trivial model nothing is expected
            _refuse_fallback(session, job)
        return session


def provider_keys(onnxruntime: ModuleType) -> list[str]:
    """The providers that a job may name here."""
    available = onnxruntime.get_available_providers()
    return [
        key
        for key, provider in PROVIDERS.items()
        if provider.name in available
        or (provider.plugin and importlib.util.find_spec(provider.plugin))
    ]


def _suits_this_machine(provider: Provider) -> bool:
    arm = platform.machine().lower() in ("arm64", "aarch64")
    here = {"arm" if arm else "x86", sys.platform}
    return provider.suits in here or shutil.which(provider.suits) is not None


def _choose_provider(
    onnxruntime: ModuleType, options: _Options, job: WorkerJob
) -> list[object] | None:
    """What the session's ``providers`` must be; a plug-in goes into ``options`` instead.

    Raises:
        JobError: this installation does not have the job's provider.
    """
    key = provider_of(job)
    if key not in PROVIDERS:
        raise JobError(f"the provider is {key!r}; known are {', '.join(PROVIDERS)}.")
    provider = PROVIDERS[key]
    available = onnxruntime.get_available_providers()
    if key not in provider_keys(onnxruntime):
        raise JobError(
            f"this onnxruntime {onnxruntime.__version__} has no provider {key}; it has "
            f"{', '.join(provider_keys(onnxruntime))}; for {key}, {provider.fix}."
        )
    if key == "cpu":
        return [provider.name]
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # What has threads of its own.
    settings = {provider.threads: str(job.get("threads", 1))} if provider.threads else {}
    if provider.name in available:
        # TensorRT leaves to CUDA what it cannot do.
        helpers = ["CUDAExecutionProvider"] if key == "tensorrt" else []
        rest = [helper for helper in [*helpers, "CPUExecutionProvider"] if helper in available]
        return [(provider.name, settings), *rest]
    devices = _plugin_devices(onnxruntime, provider)
    fitting = [device for device in devices if device.device.type.name == provider.device]
    if not fitting:
        kinds = ", ".join(sorted({device.device.type.name for device in devices})) or "none"
        raise JobError(
            f"the provider {key} needs a device of type {provider.device}; of this machine's it "
            f"takes {kinds}."
        )
    options.add_provider_for_devices(fitting[:1], settings)
    return None


def _plugin_devices(onnxruntime: ModuleType, provider: Provider) -> list[_EpDevice]:
    """The devices of a plug-in, which is loaded if it is not yet."""

    def found() -> list[_EpDevice]:
        return [
            device for device in onnxruntime.get_ep_devices() if device.ep_name == provider.name
        ]

    if not found():
        library = importlib.import_module(provider.plugin).get_library_path()
        onnxruntime.register_execution_provider_library(provider.plugin, library)
    return found()


def _refuse_fallback(session: _OrtSession, job: WorkerJob) -> None:
    """See that at least a part of the model runs where the job wants it.

    Raises:
        JobError: it does not, of which onnxruntime says nothing.
    """
    key = provider_of(job)
    if key == "cpu":
        return
    name = PROVIDERS[key].name
    others = ", ".join(other for other in session.get_providers() if other != name)
    if name not in session.get_providers():
        raise JobError(
            f"the provider {key} did not start, and onnxruntime took {others} in its place; see "
            f"that the libraries and drivers which {key} needs are there."
        )
    placed = _placement(session, key)
    if placed["nodes"] and placed["elsewhere"] == placed["nodes"]:
        raise JobError(
            f"the provider {key} takes none of the model's {placed['nodes']} operators: all fell "
            f"back to {others}, whose numbers these would be."
        )


def _placement(session: object, key: str) -> ExecutionFacts:
    """How many operators, and products among them, the provider ``key`` left to others.

    Counted are those of the graph that onnxruntime divides up.
    """
    assigned = getattr(session, "get_provider_graph_assignment_info", None)
    if assigned is None:
        return {"provider": key, "nodes": None}
    parts = assigned()
    nodes = [(part.ep_name, node.op_type) for part in parts for node in part.get_nodes()]
    own = PROVIDERS[key].name
    others = [place for place, _ in nodes if place != own]
    products = [place for place, kind in nodes if _PRODUCT.search(kind)]
    return {
        "provider": key,
        "nodes": len(nodes),
        "elsewhere": len(others),
        "products": len(products),
        "products_elsewhere": sum(place != own for place in products),
        "others": sorted(set(others)),
    }
