"""What a worker process answers: one JSON object for each kind of job.

Times are in nanoseconds: integers survive JSON. Keys of a base class with ``total=False`` are those
that sessions of earlier versions, or some systems, do not have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    #: An answer as it came, of whichever kind: plain JSON.
    Answer = Mapping[str, Any]

__all__ = [
    "CheckAnswer",
    "EnergyAnswer",
    "EnergyWindow",
    "ExecutionFacts",
    "FitAnswer",
    "InspectAnswer",
    "MachineFacts",
    "MachineState",
    "MemoryAnswer",
    "OperatorFacts",
    "PredictAnswer",
    "ProfileAnswer",
    "SustainAnswer",
    "SustainSlot",
    "TensorFacts",
    "TensorSignature",
    "TimeAnswer",
    "Unavailable",
]


class Unavailable(TypedDict):
    """A job whose facts the system does not tell, and why."""

    unavailable: str


class MachineState(TypedDict):
    """How the machine is set, and how it was at a moment; what is not known is empty.

    ``throttled`` has the flags of a Raspberry Pi's firmware, in hexadecimal. ``throttle_count`` is
    how often Intel's CPUs were slowed down since they started, and ``cooling`` how many of the
    kernel's cooling devices slow a CPU down now. ``temperatures_mc`` are in thousandths of a degree
    Celsius.
    """

    governor: list[str]
    khz: list[int]
    temperatures_mc: list[int]
    throttled: str
    throttle_count: int
    cooling: int
    load: float | None


class MachineFacts(MachineState):
    """What the device is and how it is set: names are stable, missing facts are empty.

    The answer to ``environment`` has the facts of the job's runtime beside these.
    """

    arch: str
    system: str
    kernel: str
    cpu: str
    board: str
    isa: list[str]
    cores: int
    max_khz: list[str]
    memory_gib: float | None
    python: str
    boost: str
    affinity: list[int]
    cpu_limit: float | None
    mains_power: list[bool]
    pressure: str


class ExecutionFacts(TypedDict, total=False):
    """What a runtime made of a model, as far as it tells.

    Of a provider: how many operators, and products among them, were left to others. ``nodes`` is
    ``None`` where onnxruntime does not tell (before 1.24). ``int8_mac_fraction`` is the share of
    multiply-accumulates computed in int8.
    """

    provider: str
    nodes: int | None
    elsewhere: int
    products: int
    products_elsewhere: int
    others: list[str]
    int8_mac_fraction: float


class _TimeSince(TypedDict, total=False):
    shapes: dict[str, list[int]]
    turns: list[int]
    at_ns: list[int]
    state: list[MachineState]
    ran: ExecutionFacts | None


class TimeAnswer(_TimeSince):
    """Of ``time`` and ``turns``; the runtime's version is there under the runtime's name.

    Each of ``samples_ns`` is the time of ``runs_per_sample`` inferences. ``turns`` are the numbers
    of samples that were taken together, in order. ``state``, ``load`` and ``probe_ns`` (of a fixed
    loop) are from before and after the timing; ``at_ns`` are those times, on a clock that all
    processes share.
    """

    batch: int
    runs_per_sample: int
    import_ns: int
    create_ns: int
    first_run_ns: int
    warmup_ns: list[int]
    steady: bool
    finite: bool
    samples_ns: list[int]
    wall_ns: int
    cpu_ns: int
    probe_ns: list[int]
    load: list[float | None]


class _MemorySince(TypedDict, total=False):
    free_bytes: float | None
    energy_source: str


class MemoryAnswer(_MemorySince):
    """Of ``memory``: peaks of resident memory, and what the runtime takes by itself.

    ``reset`` says whether the peak of the run is apart from that of the load. ``energy_source``
    says whether an ``energy`` job would be of use.
    """

    batch: int
    runtime_bytes: int
    load_peak_bytes: int
    run_peak_bytes: int
    resident_bytes: int
    reset: bool


class CheckAnswer(TypedDict):
    """Of ``check``: what would make a model's numbers misleading on this device.

    ``saturation_sqnr_db`` compares the outputs with those of saturation-free int8 kernels and is
    ``None`` where they are the same, or where the file cannot be opened so; ``denormal_ratio`` is
    the slow-down by denormal numbers.
    """

    denormal_ratio: float
    saturation_sqnr_db: float | None
    repeatable: bool
    finite: bool


class EnergyWindow(TypedDict):
    """Microjoules and inferences of some nanoseconds."""

    uj: float
    ns: int
    runs: int


class EnergyAnswer(TypedDict):
    """Of ``energy``: windows of running back to back, and one of idling, by the sensor named."""

    source: str
    batch: int
    idle: EnergyWindow
    windows: list[EnergyWindow]


class SustainSlot(MachineState):
    """Some seconds of a long run, and the machine at their end; ``uj`` counts from its begin."""

    begin_ns: int
    end_ns: int
    runs: int
    uj: float


class SustainAnswer(TypedDict):
    """Of ``sustain``; without a sensor of energy, ``source`` is empty."""

    batch: int
    shapes: dict[str, list[int]]
    source: str
    before: MachineState
    slots: list[SustainSlot]


class OperatorFacts(TypedDict):
    """One operator of the graph that ran: its mean nanoseconds and calls in one inference.

    ``inputs`` and ``outputs`` are pairs of a type and a shape.
    """

    name: str
    operator: str
    provider: str
    inputs: list[tuple[str, list[int]]]
    outputs: list[tuple[str, list[int]]]
    calls: float
    ns: float


class ProfileAnswer(TypedDict):
    """Of ``profile``: ``run_ns`` is without the profiler, ``operators`` in order of running.

    ``graph`` is the graph that ran without its large weights (an ONNX file; zlib, base64), where
    it was asked for.
    """

    batch: int
    shapes: dict[str, list[int]]
    run_ns: float
    runs: int
    operators: list[OperatorFacts]
    graph: str | None


class PredictAnswer(TypedDict):
    """Of ``predict``: the ``.npy`` file of each output, and the outputs' names."""

    outputs: list[str]
    names: list[str]
    samples: int
    batch: int


class TensorSignature(TypedDict):
    """An input or output; ``None`` is a size that the file leaves open."""

    name: str
    type: str
    shape: list[int | None]


class TensorFacts(TensorSignature):
    """The same with the names of its axes, empty where they have none."""

    axes: list[str]


class FitAnswer(TypedDict):
    """Of ``fit``: with which sizes a model runs, if it does.

    ``shapes`` are those it runs with, ``guessed`` the axes among them whose size was not given,
    ``tried`` all shapes. ``failed`` is the runtime's error for the first; ``None`` if the model
    runs.
    """

    inputs: list[TensorFacts]
    shapes: dict[str, list[int]]
    guessed: dict[str, list[int]]
    tried: list[dict[str, list[int]]]
    failed: str | None


class InspectAnswer(TypedDict):
    """Of ``inspect``: what every runtime tells of a model's ends."""

    inputs: list[TensorSignature]
    outputs: list[TensorSignature]
