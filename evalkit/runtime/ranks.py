"""The processes that share a run: which of how many this one is, and what they tell one another.

torchrun, srun or evalkit itself (`evalkit.launch.processes`) starts them; each finds its place in the environment. They
speak through torch.distributed: gloo for what lies in memory, NCCL for what lies on GPUs.
"""

from __future__ import annotations

import atexit
import contextvars
import functools
import logging
import os
import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from evalkit.errors import UserError
from evalkit.runtime import notes

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger("evalkit")

T = TypeVar("T")

# All processes are there within this time, or the run does not begin.
MEETING = timedelta(minutes=10)
# Seconds after which a process says that it waits for them: its environment may be left from something else.
SILENT_S = 10.0
# One may wait for as long as another fits an adapter; one that is gone ends the wait at once.
WAITING = timedelta(days=30)
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Ranks:
    """A process's place among those of its run.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        local: its number among those of its machine, from 0.
        local_size: how many there are on its machine.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that fits, scores and writes."""
        return self.rank == 0

    def notes(self) -> AbstractContextManager[None]:
        """A block whose notes are shown as outside it in the first process, and not in the others."""
        return nullcontext() if self.first else notes.on_stderr(False)

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of items that all have in the same order; the parts differ by one item at most."""
        return items[self.rank :: self.size]

    def wait(self) -> None:
        """Returns once all processes have come here.

        Raises:
            OtherEndedError: one of them has ended.
        """
        self.gather(None)

    def gather(self, value: T) -> list[T]:
        """The values of all processes in order, in the first; in the others nothing.

        Raises:
            OtherEndedError: one of them has ended.
        """
        if self.size == 1:
            return [value]
        from torch import distributed

        values: list[Any] | None = [None] * self.size if self.first else None
        try:
            distributed.gather_object(value, values)
            distributed.barrier()
        except RuntimeError as error:
            raise _ended(error) from error
        return values or []

    def gather_all(self, value: T) -> list[T]:
        """The values of all processes in order, in all.

        Raises:
            OtherEndedError: one of them has ended.
        """
        if self.size == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.size
        try:
            distributed.all_gather_object(values, value)
        except RuntimeError as error:
            raise _ended(error) from error
        return values

    def rows(self, values: Tensor, sizes: Sequence[int], share: float) -> Tensor:
        """The rows of all processes, one process after the other; the gradient goes to this one's own.

        It is divided by this process's share of the batch, by which it is weighted where gradients are summed.

        Args:
            values: this process's rows, (n, D); those of a process with `share=0` do not count.
            sizes: how many rows each process has.
            share: of the batch that this process has.

        Raises:
            OtherEndedError: one of them has ended.
        """
        if self.size == 1:
            return values
        import torch
        from torch import distributed

        padded = values.new_zeros(max(sizes), values.shape[1])
        padded[: sizes[self.rank]] = values.detach()[: sizes[self.rank]]
        of_all = [torch.empty_like(padded) for _ in sizes]
        try:
            distributed.all_gather(of_all, padded)
        except RuntimeError as error:
            raise _ended(error) from error
        parts = [part[:size] for part, size in zip(of_all, sizes, strict=True)]
        own = values if share else values[:0]
        parts[self.rank] = own.detach() + (own - own.detach()) / (share or 1.0)
        return torch.cat(parts) + 0.0 * values.sum()  # a process without rows has gradients, too: of 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of the tensors of all processes, in place; the same bits in each.

        Raises:
            OtherEndedError: one of them has ended.
        """
        from torch import distributed

        try:
            distributed.all_reduce(values)
        except RuntimeError as error:
            raise _ended(error) from error
        return values

    def broadcast(self, value: T) -> T:
        """The first process's value, in all.

        Raises:
            OtherEndedError: the first has ended.
        """
        if self.size == 1:
            return value
        from torch import distributed

        values = [value]
        try:
            distributed.broadcast_object_list(values)
        except RuntimeError as error:
            raise _ended(error) from error
        return values[0]


ALONE = Ranks()


class OtherEndedError(UserError):
    """Another process of the run has ended, and says why."""


def _ended(error: RuntimeError) -> OtherEndedError:
    return OtherEndedError(
        f"another process of this run has ended; its message says why: {str(error).splitlines()[0]})"
    )


@functools.cache
def here() -> Ranks:
    """This process's place; the first call meets the other processes.

    A process that is in a process group already trains something else, and is alone.

    Raises:
        UserError: the others are not met.
    """
    import torch
    from torch import distributed

    # First, as Lightning sets a part of torchrun's variables.
    if distributed.is_available() and distributed.is_initialized():
        return ALONE
    place = place_in(os.environ)
    if place is None:
        return ALONE
    from torch.distributed.rendezvous import rendezvous

    rank, size, address = place
    late = (
        f"by its environment (RANK and WORLD_SIZE, or those of srun), this is process {rank} of {size}; it waits for "
        f"the others, at most {MEETING.seconds // 60} minutes"
    )
    waiting = threading.Timer(SILENT_S, contextvars.copy_context().run, (logger.info, late))
    waiting.daemon = True
    waiting.start()
    try:
        store, _, _ = next(rendezvous(address, rank, size, timeout=MEETING))
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and distributed.is_nccl_available() else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=WAITING,
        )
        atexit.register(_leave)
        names: list[Any] = [None] * size
        distributed.all_gather_object(names, os.environ.get("SLURMD_NODENAME") or socket.gethostname())
    except (RuntimeError, ValueError) as error:
        raise UserError(f"process {rank} of {size} does not meet the others: {str(error).splitlines()[0]}") from error
    finally:
        waiting.cancel()
    return Ranks(rank, size, names[:rank].count(names[rank]), names.count(names[rank]))


def _leave() -> None:
    """Ends the threads of the process group, one of which may ask for an interpreter that is gone, and abort."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def place_in(environment: Mapping[str, str]) -> tuple[int, int, str] | None:
    """Rank, number of processes and the address where they meet, by torchrun's variables or srun's.

    None where a process is alone; a script of sbatch is, which has the variables of its job and is no task of srun.

    Raises:
        UserError: some of the variables are there and others are missing, or one is not as torchrun and srun set it.
    """
    torchrun = {name for name in ("RANK", "WORLD_SIZE") if name in environment}
    if torchrun == {"RANK", "WORLD_SIZE"}:
        if missing := [name for name in _TORCHRUN if not environment.get(name)]:
            raise UserError(f"RANK and WORLD_SIZE are set, as torchrun does, and {missing[0]} is not: unset them")
        if not 0 < (port := _number(environment, "MASTER_PORT")) < 65_536:
            raise UserError(f"MASTER_PORT={port} in the environment: expected a port, 1 to 65535; torchrun sets one")
        return _among(environment, "RANK", "WORLD_SIZE", "env://")
    if "SLURM_STEP_NUM_TASKS" in environment and "SLURM_PROCID" in environment:
        if _number(environment, "SLURM_STEP_NUM_TASKS") == 1:
            return None
        if "SLURM_JOB_ID" not in environment:
            raise UserError("SLURM_STEP_NUM_TASKS and SLURM_PROCID are set, as srun does, and SLURM_JOB_ID is not")
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

        node = SLURMEnvironment.resolve_root_node_address(environment.get("SLURM_STEP_NODELIST", "127.0.0.1"))
        # One per job, as Lightning has it, and per step: those of one job may run side by side.
        step = _number({"SLURM_STEP_ID": "0", **environment}, "SLURM_STEP_ID")
        port = 15_000 + (_number(environment, "SLURM_JOB_ID") + 7_919 * step) % 10_000
        return _among(environment, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", f"tcp://{node}:{port}")
    if torchrun and environment.get("WORLD_SIZE") != "1":
        (name,) = torchrun
        (other,) = {"RANK", "WORLD_SIZE"} - torchrun
        raise UserError(f"{name}={environment[name]} is set, as torchrun does, and {other} is not: unset {name}")
    return None


def _among(environment: Mapping[str, str], rank: str, size: str, address: str) -> tuple[int, int, str] | None:
    """The place that two variables give; None where there is one process alone."""
    number, count = _number(environment, rank), _number(environment, size)
    if number >= count:
        raise UserError(f"{rank}={number} and {size}={count} in the environment: expected {rank} below {size}")
    return None if count == 1 else (number, count, address)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment[name]
    if not text.isdecimal():
        raise UserError(f"{name}={text} in the environment: expected a whole number, as torchrun and srun set it")
    return int(text)
