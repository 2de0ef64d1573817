"""What ``accelerate launch --cpu`` leaves undone: starting more than one process.

It starts one, whatever ``--num_processes`` says, and counts on mpirun for the others. A run that
finds itself alone in this way starts again as so many processes, with torch's launcher, so that the
command does what it says.

The number has to be read from accelerate's own command line, since accelerate does not pass it on:
``accelerate.utils.launch.prepare_simple_launcher_cmd_env`` puts into the environment that more than
one process was requested (``MASTER_ADDR``), and never how many; a test fails once it does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from compress.environment import process_count
from compress.errors import RecipeError

__all__ = ["complete_launch", "missing_processes"]

_PROCESSES = ("--num_processes", "--num-processes")
_MACHINES = ("--num_machines", "--num-machines")


def complete_launch() -> None:
    """Replace this process by all that were requested, where accelerate has started one of them.

    Raises:
        RecipeError: it cannot be known how many were requested, or they are on several machines.
    """
    if process_count() > 1 or not _is_started_alone(os.environ):
        return
    count = missing_processes(_launcher_command())
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    os.execv(sys.executable, [sys.executable, *launcher, "-m", "compress", *sys.argv[1:]])


def missing_processes(command: Sequence[str]) -> int:
    """How many processes this command line of ``accelerate launch`` requests.

    Raises:
        RecipeError: it does not say, or says that they are on several machines.
    """
    count = _value(command, _PROCESSES)
    if count is None or _value(command, _MACHINES) not in (None, 1):
        raise RecipeError(
            "accelerate starts only one process where there are only CPUs; start all of them with "
            "`torchrun --nproc-per-node N -m compress run RECIPE.yaml`, or accelerate's "
            "--mpirun_hostfile."
        )
    return count


def _is_started_alone(environment: Mapping[str, str]) -> bool:
    # It sets an address to meet at where several are wanted, and no number of them.
    on_cpu = environment.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return on_cpu and "MASTER_ADDR" in environment and "WORLD_SIZE" not in environment


def _value(command: Sequence[str], names: Sequence[str]) -> int | None:
    for place, word in enumerate(command):
        name, _, value = word.partition("=")
        if name in names:
            value = value or "".join(command[place + 1 : place + 2])
            return int(value) if value.isdecimal() else None
    return None


def _launcher_command() -> list[str]:
    try:
        raw = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    except OSError:
        return []
    return raw.decode(errors="replace").split("\0")
