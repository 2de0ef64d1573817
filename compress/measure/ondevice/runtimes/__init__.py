"""The runtimes that can be measured, one file each.

A new one is a file with a subclass of :class:`.base.Runtime`, and a line in :data:`RUNTIMES`: the
worker, targets' settings, ``doctor`` and the device's fingerprint ask this list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.measure.ondevice.jobs import JobError
from compress.measure.ondevice.runtimes.onnxruntime import OnnxRuntime
from compress.measure.ondevice.runtimes.openvino import OpenVino

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compress.measure.ondevice.jobs import WorkerJob
    from compress.measure.ondevice.runtimes.base import InferenceSession, Runtime, Variant

__all__ = ["LIBRARIES", "PROVIDERS", "RUNTIMES", "open_model", "runtime_named", "runtime_of"]

#: By the name that recipes, jobs and facts use; the first is the default.
RUNTIMES: Mapping[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        OnnxRuntime(),
        OpenVino(),
    )
}
#: What any of them can run a model on; ``cpu`` is all of theirs.
PROVIDERS = tuple(
    dict.fromkeys(each for runtime in RUNTIMES.values() for each in runtime.providers)
)
#: What a worker may import, as far as it is there.
LIBRARIES = ("numpy", *(each for runtime in RUNTIMES.values() for each in runtime.libraries))


def runtime_named(name: str) -> Runtime:
    """The runtime of that name.

    Raises:
        JobError: there is none.
    """
    if name not in RUNTIMES:
        *most, last = RUNTIMES
        raise JobError(f"the runtime is {name!r}; known are {', '.join(most)} and {last}.")
    return RUNTIMES[name]


def runtime_of(job: WorkerJob) -> Runtime:
    """The runtime of a job.

    Raises:
        JobError: there is none of the name that the job gives.
    """
    return runtime_named(str(job.get("runtime", next(iter(RUNTIMES)))))


def open_model(job: WorkerJob, variant: Variant = "usual") -> InferenceSession:
    """The job's model, opened by its runtime; see :meth:`.base.Runtime.open`."""
    return runtime_of(job).open(job, variant)
