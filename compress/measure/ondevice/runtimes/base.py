"""What a runtime is to all that measures: how it is imported, opens a file, and what it tells."""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from compress.measure.ondevice.jobs import JobError
from compress.measure.ondevice.model_file import check_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import ModuleType

    from compress.measure.ondevice.answers import ExecutionFacts
    from compress.measure.ondevice.jobs import WorkerJob
    from compress.measure.ondevice.tensor_spec import Array, Declared

__all__ = ["Finding", "InferenceSession", "Runtime", "TracedSession", "Variant", "provider_of"]

#: How a model is opened: as it would be deployed; with denormal numbers flushed to zero; or with
#: int8 kernels whose sums cannot overflow. What a runtime does not have, it leaves as it is.
Variant = Literal["usual", "flushed", "exact"]


class InferenceSession(Protocol):
    """A loaded model: the part of onnxruntime's own session that jobs need.

    So onnxruntime is timed with nothing in between, and another runtime is a class.
    """

    def get_inputs(self) -> Sequence[Declared]:
        """The inputs, as the file declares them."""
        ...

    def get_outputs(self) -> Sequence[Declared]:
        """The outputs, as the file declares them."""
        ...

    def run(self, names: None, feed: Mapping[str, Array], /) -> list[Array]:
        """One inference: all outputs, in order."""
        ...


class TracedSession(InferenceSession, Protocol):
    """A loaded model whose operators are timed."""

    def end_profiling(self) -> str:
        """Stop, and return the path of a JSON file with what onnxruntime's profiler saw."""
        ...


class Finding(NamedTuple):
    """One thing that ``doctor`` looked at; ``fix`` is what to do where it is not ``ok``."""

    state: Literal["ok", "note", "missing"]
    what: str
    fix: str = ""


def provider_of(job: WorkerJob) -> str:
    """What the job's runtime is to run the model on; ``cpu`` where the job does not say."""
    return str(job.get("provider", "cpu"))


class Runtime:
    """A library that opens a model and runs it; its attributes are facts, its methods stateless."""

    #: As recipes, jobs and facts have it.
    name: str
    #: The module that is imported; empty where that is called as the runtime.
    imported: str = ""
    #: What ``pip`` installs it as, by itself and with this package.
    install: str
    #: Modules that a worker process may import of it: its own, and those that extend it.
    libraries: tuple[str, ...]
    #: What it can run a model on, by the names that recipes use.
    providers: tuple[str, ...] = ("cpu",)
    #: How its sessions are set, as a part of a device's state.
    settings: str
    #: Whether its int8 kernels overflow on CPUs where sums of pairs are in 16 bits, so that files
    #: for it should avoid that.
    int8_may_saturate: bool = True
    #: Whether nothing but measuring uses it: results of stages do not depend on its version then.
    only_measures: bool = True
    #: Number formats that it does not compute as they are meant, with what it does instead: files
    #: in them are not made for it.
    refused_formats: tuple[tuple[str, str], ...] = ()
    #: From this signal-to-noise ratio on, outputs of the ``exact`` variant may differ from the
    #: usual ones by another way of rounding ties alone.
    rounding_db: float = math.inf

    def module(self) -> ModuleType:
        """The library; imported here and not at the top, so that a device needs no other.

        Raises:
            JobError: it is not installed; names what to install.
        """
        try:
            return importlib.import_module(self.imported or self.name)
        except ModuleNotFoundError as error:
            raise JobError(
                f"the runtime {self.name} is not here ({error}); {self.install}."
            ) from error

    def version(self) -> str:
        """The library's own version."""
        return str(self.module().__version__)

    def open(self, job: WorkerJob, variant: Variant = "usual") -> InferenceSession:
        """The job's model, loaded; reads ``model`` (a path, or the bytes of a file) and settings.

        Raises:
            JobError: there is no such file, or it cannot be opened as the job wants it.
            Exception: whatever the library raises for a file that it does not take.
        """
        if isinstance(job["model"], str):
            check_file(job["model"])
        return self.load(job, variant)

    def load(self, job: WorkerJob, variant: Variant = "usual") -> InferenceSession:
        """As :meth:`open`, of a file that is there: what a runtime of its own has to define."""
        raise NotImplementedError

    def open_traced(self, job: WorkerJob, folder: str) -> TracedSession:
        """As :meth:`open`, with every operator timed and the graph that runs written to ``folder``.

        Raises:
            JobError: this runtime has no profiler that is used here.
        """
        raise JobError(f"operators are timed by onnxruntime's profiler; leave {self.name} out.")

    def ran(self, session: InferenceSession, job: WorkerJob) -> ExecutionFacts | None:
        """What the runtime made of a loaded model, as far as it tells and it may surprise."""
        return None

    def facts(self, job: WorkerJob) -> Mapping[str, object]:
        """Its version under its name, ``build``, and the ``providers`` that are here.

        Raises:
            JobError: the library or the job's provider is not here.
        """
        return {self.name: self.version(), "build": "", "providers": list(self.providers)}

    def findings(self) -> Iterator[Finding]:
        """What ``doctor`` says of it on this machine."""
        raise NotImplementedError
