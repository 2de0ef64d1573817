"""OpenVINO on the CPU: reads the same ONNX files, by classes that look like onnxruntime's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from compress.measure.ondevice.runtimes.base import Finding, InferenceSession, Runtime, Variant

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType
    from typing import Any

    from compress.measure.ondevice.answers import ExecutionFacts
    from compress.measure.ondevice.jobs import WorkerJob
    from compress.measure.ondevice.tensor_spec import Array

__all__ = ["OpenVino"]

_TYPES = {
    "f32": "float",
    "f64": "double",
    "f16": "float16",
    "boolean": "bool",
    **{f"i{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"u{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}
_VARIANTS: Mapping[Variant, Mapping[str, str]] = {
    "usual": {},
    "flushed": {"CPU_DENORMALS_OPTIMIZATION": "YES"},
    "exact": {"LP_TRANSFORMS_MODE": "NO"},  # the same file in float32
}
_PRODUCTS = {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}


class OpenVino(Runtime):
    """OpenVINO, with the latency hint and one stream."""

    name = "openvino"
    install = "pip install 'compresskit[openvino]', or openvino alone"
    libraries = ("openvino",)
    settings = "latency hint, one stream, float32 where not int8, threads pinned as by default"
    # Seen with 2026.4 at opsets 20 and 21; outputs are off by as much as they are large.
    refused_formats = (("int16", "OpenVINO's CPU loads such a file and computes something else"),)
    rounding_db = 30.0  # of the float32 that it is compared with

    def load(self, job: WorkerJob, variant: Variant = "usual") -> InferenceSession:
        """The model, compiled for the CPU; see :meth:`.base.Runtime.open`."""
        return _CompiledModel(self.module(), job, _VARIANTS[variant])

    def ran(self, session: InferenceSession, job: WorkerJob) -> ExecutionFacts | None:
        """``int8_mac_fraction``: the share of multiply-accumulates that it computes in int8."""
        assert isinstance(session, _CompiledModel)
        fraction = _int8_fraction(session.compiled)
        return None if fraction is None else {"int8_mac_fraction": fraction}

    def facts(self, job: WorkerJob) -> Mapping[str, object]:
        """Version, build and devices; see :meth:`.base.Runtime.facts`."""
        module = self.module()
        return {
            self.name: module.__version__,
            "build": module.get_version(),
            "providers": module.Core().available_devices,
        }

    def findings(self) -> Iterator[Finding]:
        """Whether it is installed."""
        from importlib import metadata  # slow to import, and no worker needs it

        try:
            yield Finding("ok", f"openvino {metadata.version('openvino')} as a second runtime")
        except metadata.PackageNotFoundError:
            fix = "pip install 'compresskit[openvino]' to measure with it too"
            yield Finding("note", "openvino is not installed", fix)


class _Declaration(NamedTuple):
    name: str
    type: str
    shape: list[int | None]


class _CompiledModel:
    """A model in OpenVINO, to jobs like one of onnxruntime's sessions."""

    def __init__(self, openvino: ModuleType, job: WorkerJob, options: Mapping[str, str]) -> None:
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(job.get("threads", 1)),
            # It would take shorter floats where the CPU has them, and accuracy would not compare.
            "INFERENCE_PRECISION_HINT": "f32",
            **options,
        }
        core = openvino.Core()
        self.compiled = core.compile_model(core.read_model(job["model"]), "CPU", settings)
        self._request = self.compiled.create_infer_request()
        self._names = [port.any_name for port in self.compiled.inputs]
        self._tensor = openvino.Tensor

    def get_inputs(self) -> list[_Declaration]:
        return [_declaration(port) for port in self.compiled.inputs]

    def get_outputs(self) -> list[_Declaration]:
        return [_declaration(port) for port in self.compiled.outputs]

    def run(self, _: None, feed: Mapping[str, Array], /) -> list[Array]:
        # Its own way with a dictionary of arrays takes longer than a small model does.
        for place, name in enumerate(self._names):
            tensor = self._tensor(feed[name], shared_memory=True)
            self._request.set_input_tensor(place, tensor)
        return list(self._request.infer().values())


def _declaration(port: Any) -> _Declaration:
    element = port.element_type.get_type_name()
    sizes = [size.get_length() if size.is_static else None for size in port.partial_shape]
    return _Declaration(port.any_name, f"tensor({_TYPES.get(element, element)})", sizes)


def _int8_fraction(compiled: Any) -> float | None:
    """From the graph that runs: a product whose activations are int8 there is computed in int8.

    The type that OpenVINO itself notes there is int8 for weights that are only stored so, too.
    ``None`` where no product is seen: with AVX-512 a whole MLP becomes one kernel.
    """
    total = int8 = 0.0
    for node in compiled.get_runtime_model().get_ops():
        kind = str(node.get_rt_info()["layerType"].get())
        if kind in _PRODUCTS:
            macs = _macs(node, kind)
            total += macs
            int8 += macs * (node.input_value(0).element_type.get_type_name() in ("i8", "u8"))
    return int8 / total if total else None


def _macs(node: Any, kind: str) -> float:
    source, weight = (node.input_value(place).shape for place in (0, 1))
    result = node.output(0).shape
    if kind == "MatMul":
        return float(math.prod(result) * source[-1])
    # Every weight meets every position: of the input for transposed convolutions, else the output.
    shape = source if kind == "Deconvolution" else result
    channels = shape[1] if "onvolution" in kind else shape[-1]
    return float(math.prod(shape) / channels * math.prod(weight))
