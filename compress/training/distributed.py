"""Processes that train one model together, each on its part of every global batch.

The one file that knows ``accelerate``, which starts the group and chooses devices and precision.
Messages go over a second group, on the CPU and without a time-out, so that no process gives up, or
keeps a GPU busy, while rank 0 measures for an hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from compress.environment import process_count
from compress.errors import ProcessError

__all__ = ["SINGLE_PROCESS", "Processes", "join", "leave", "make_accelerator"]

# Some of what reads it counts milliseconds in 32 bits.
_TIMEOUT = timedelta(days=20)


@dataclass(frozen=True)
class Processes:
    """The processes that train one model together, as this one sees them.

    Args:
        rank: of this process. Rank 0 alone runs the recipe: it writes, measures and prints.
        world_size: number of processes.
        message_group: torch's group for messages on the CPU; ``None`` for a single process.
    """

    rank: int = 0
    world_size: int = 1
    message_group: Any = None

    @property
    def is_rank_zero(self) -> bool:
        """Whether this is the process that runs the recipe."""
        return self.rank == 0

    def broadcast(self, message: bytes = b"", timeout: timedelta | None = None) -> bytes:
        """The message of rank 0, in every process.

        Args:
            message: what rank 0 sends; that of other ranks is not used.
            timeout: how long to wait; ``None`` for 20 days.

        Raises:
            ProcessError: rank 0 ended, or sent nothing in time.
        """
        if self.world_size == 1:
            return message
        with _as_process_error():
            length = torch.tensor([len(message) if self.is_rank_zero else 0])
            self._broadcast(length, timeout)
            content = torch.zeros(int(length), dtype=torch.uint8)
            if len(content):
                if self.is_rank_zero:
                    content = torch.frombuffer(bytearray(message), dtype=torch.uint8)
                self._broadcast(content, timeout)
        return content.numpy().tobytes()

    def gather(self, values: Tensor) -> Tensor:
        """A small tensor of every process, stacked by rank: ``(world_size, ...)``, on the CPU.

        Args:
            values: of one shape in all processes.

        Raises:
            ProcessError: another process ended.
        """
        own = values.detach().unsqueeze(0)
        if self.world_size == 1:
            return own.cpu()
        from accelerate import PartialState
        from accelerate.utils import gather

        with _as_process_error():
            stacked: Tensor = gather(own.to(PartialState().device).contiguous())
            return stacked.cpu()

    @torch.no_grad()
    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor, in place, by its mean over the processes; all are on one device.

        Raises:
            ProcessError: another process ended.
        """
        if self.world_size == 1:
            return
        from accelerate.utils import reduce

        with _as_process_error():
            for same in _by_dtype(tensors):
                _unflatten(reduce(_flatten(same), reduction="mean"), same)

    @torch.no_grad()
    def broadcast_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor, in place, by that of rank 0.

        Raises:
            ProcessError: the sizes differ between processes, or another process ended.
        """
        if self.world_size == 1:
            return
        from accelerate.utils import broadcast

        groups = _by_dtype(tensors)
        sizes = torch.tensor([sum(t.numel() for t in same) for same in groups] or [0])
        if len(set(self.gather(sizes.sum()).tolist())) > 1:
            raise ProcessError(
                "the processes of this launch have made models of different sizes from one recipe; "
                "they must see the same data, and run the same versions."
            )
        with _as_process_error():
            for same in groups:
                _unflatten(broadcast(_flatten(same)), same)

    def _broadcast(self, content: Tensor, timeout: timedelta | None) -> None:
        work = torch.distributed.broadcast(content, 0, group=self.message_group, async_op=True)
        work.wait(timeout or _TIMEOUT)


#: What a run of one process is given.
SINGLE_PROCESS = Processes()


def join() -> Processes:
    """Join the processes that were launched together; every one of them must call it.

    They are started by ``accelerate launch``, ``torchrun`` or ``mpirun``.

    Returns:
        This process's rank among them; ``SINGLE_PROCESS`` where there are no others.

    Raises:
        ProcessError: another process ended meanwhile.
    """
    if process_count() == 1:
        return SINGLE_PROCESS
    with _as_process_error():
        state = make_accelerator()
        if state.num_processes == 1:
            return SINGLE_PROCESS
        group = torch.distributed.new_group(backend="gloo", timeout=_TIMEOUT)
    return Processes(state.process_index, state.num_processes, group)


def leave() -> None:
    """Take this process out of its group, at the end of a run."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def make_accelerator() -> Any:
    """The ``Accelerator`` of this process: its device, its precision, its group."""
    from accelerate import Accelerator

    # By default accelerate makes no group of processes that have only CPUs.
    return Accelerator(cpu=not torch.accelerator.is_available())


@contextmanager
def _as_process_error() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ProcessError(
            f"another process of this launch is gone ({str(error).splitlines()[0]}); repeat the "
            "command, and it resumes from what was finished."
        ) from error


def _by_dtype(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    return list(groups.values())


def _flatten(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def _unflatten(flat: Tensor, tensors: list[Tensor]) -> None:
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    for part, tensor in zip(parts, tensors, strict=True):
        tensor.copy_(part.view(tensor.shape))
