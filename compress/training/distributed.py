"""Processes: several of them training one model, each on its part of every batch.

The one file that knows ``accelerate``, which starts the group and chooses devices and precision.
Messages go over a second group, on the CPU and without a time-out, so that nobody gives up, or
keeps a GPU busy, while the first process measures for an hour.
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

__all__ = ["ALONE", "Processes", "join", "leave", "make_accelerator"]

# Some of what reads it counts milliseconds in 32 bits.
_PATIENCE = timedelta(days=20)


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Args:
        index: of this one; 0 is the first, which alone writes, measures and speaks.
        count: of all.
        messages: the group that carries them; ``None`` for a process alone.
    """

    index: int = 0
    count: int = 1
    messages: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes, measures and speaks."""
        return self.index == 0

    @property
    def part(self) -> tuple[int, int]:
        """Which part of each batch is this process's, and of how many."""
        return self.index, self.count

    def share(self, message: bytes = b"", limit: timedelta | None = None) -> bytes:
        """What the first process says; the messages of others do not matter.

        Args:
            message: what to say.
            limit: how long to wait for it.

        Raises:
            ProcessError: the first process is gone, or did not speak in time.
        """
        if self.count == 1:
            return message
        with _together():
            length = torch.tensor([len(message) if self.is_first else 0])
            self._broadcast(length, limit)
            content = torch.zeros(int(length), dtype=torch.uint8)
            if len(content):
                if self.is_first:
                    content = torch.frombuffer(bytearray(message), dtype=torch.uint8)
                self._broadcast(content, limit)
        return content.numpy().tobytes()

    def gather(self, values: Tensor) -> Tensor:
        """The same small tensor of every process, ``(count, ...)``, on the CPU."""
        own = values.detach().unsqueeze(0)
        if self.count == 1:
            return own.cpu()
        from accelerate import PartialState
        from accelerate.utils import gather

        with _together():
            everyone: Tensor = gather(own.to(PartialState().device).contiguous())
            return everyone.cpu()

    @torch.no_grad()
    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over the processes; all are on one device."""
        if self.count == 1:
            return
        from accelerate.utils import reduce

        with _together():
            for same in _by_dtype(tensors):
                _spread(reduce(_joined(same), reduction="mean"), same)

    @torch.no_grad()
    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by that of the first process.

        Raises:
            ProcessError: they are not of the same shapes in every process.
        """
        if self.count == 1:
            return
        from accelerate.utils import broadcast

        groups = _by_dtype(tensors)
        sizes = torch.tensor([sum(t.numel() for t in same) for same in groups] or [0])
        if len(set(self.gather(sizes.sum()).tolist())) > 1:
            raise ProcessError(
                "the processes of this launch have made models of different sizes from one recipe; "
                "they must see the same data, and run the same versions."
            )
        with _together():
            for same in groups:
                _spread(broadcast(_joined(same)), same)

    def _broadcast(self, content: Tensor, limit: timedelta | None) -> None:
        work = torch.distributed.broadcast(content, 0, group=self.messages, async_op=True)
        work.wait(limit or _PATIENCE)


#: No others.
ALONE = Processes()


def join() -> Processes:
    """This process among those that were launched together; every one of them must call it.

    Groups are those of ``accelerate launch``, ``torchrun`` or ``mpirun``.

    Raises:
        ProcessError: another process ended meanwhile.
    """
    if process_count() == 1:
        return ALONE
    with _together():
        state = make_accelerator()
        if state.num_processes == 1:
            return ALONE
        group = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)
    return Processes(state.process_index, state.num_processes, group)


def leave() -> None:
    """Take this process out of its group; nothing is left to be done together."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def make_accelerator() -> Any:
    """Accelerate's view of this process: its device, its precision, its group."""
    from accelerate import Accelerator

    # Without being told, accelerate makes no group of processes that have only CPUs.
    return Accelerator(cpu=not torch.accelerator.is_available())


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ProcessError(
            f"another process of this launch is gone ({str(error).splitlines()[0]}); repeat the "
            "command, and it goes on from what was finished."
        ) from error


def _by_dtype(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    return list(groups.values())


def _joined(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def _spread(flat: Tensor, tensors: list[Tensor]) -> None:
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    for part, tensor in zip(parts, tensors, strict=True):
        tensor.copy_(part.view(tensor.shape))
