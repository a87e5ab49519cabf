"""One training in several processes: starting them, and what they tell each other.

The processes are equal but for their rank; the first one alone writes and reports. They meet
through a file, and exchange gradients over loopback (gloo) or between GPUs (NCCL).
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list, gather_object
from torch import nn

from tunetrail.errors import TrainingKilled, TuneTrailError
from tunetrail.files import scratch
from tunetrail.machine import LESS_MEMORY, machine_errors
from tunetrail.run import Numerics

T = TypeVar("T")

#: How long a process waits for the others: for the slowest look at a large selection set.
_PATIENCE = timedelta(hours=2)


def accelerator_for(numerics: Numerics) -> Accelerator:
    """What prepares a model and its optimiser for the device, precision and processes of a run."""
    several: list[Any] = []
    if numerics.processes > 1:
        # Which parameters get no gradient depends on the method and, in pretraining, on the phase.
        # With this setting the order of the sums is also that of the first step throughout, so that
        # a resumed training adds up the same way.
        several = [DistributedDataParallelKwargs(find_unused_parameters=True)]
    return Accelerator(
        mixed_precision="bf16" if numerics.precision == "bf16" else "no",
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=several,
    )


class Team:
    """The processes of a training, as one of them sees them; there may be just that one.

    Args:
        accelerator: Of the training.
        sharded: Whether each has a part of every parameter only.

    Attributes:
        count: How many there are.
        rank: The place of this one, from 0.
    """

    def __init__(self, accelerator: Accelerator, sharded: bool = False) -> None:
        self._accelerator = accelerator
        self._sharded = sharded
        self.count: int = accelerator.num_processes
        self.rank: int = accelerator.process_index

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def purpose(self, of: str) -> str:
        """What a seed for ``of`` is derived from here: each process draws its own dropout."""
        return of if self.first else f"{of}, process {self.rank}"

    def share(self, rows: int) -> tuple[slice, int]:
        """This process's part of a batch of ``rows``, and how many processes compute that part.

        A batch of fewer rows than processes is computed by all.
        """
        if rows < self.count:
            return slice(None), self.count
        return slice(self.rank, None, self.count), 1

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Mean of a tensor over the processes."""
        if self.count == 1:
            return value
        mean: torch.Tensor = self._accelerator.reduce(value, "mean")
        return mean

    def divided(self, batches: Iterable[T]) -> Iterator[T]:
        """Those of ``batches`` that this process predicts.

        Parts of a parameter come together batch by batch, which takes all processes: then each
        predicts every batch.
        """
        count = 1 if self._sharded else self.count
        return itertools.islice(batches, self.rank % count, None, count)

    def gathered(self, parts: Iterator[T]) -> Iterable[T]:
        """``parts`` of all processes, those of the first before the others."""
        if self.count == 1 or self._sharded:
            return parts
        found: list[T] = gather_object(list(parts))
        return found

    def told(self, value: Callable[[], T]) -> T:
        """What ``value`` gives in the first process."""
        if self.count == 1:
            return value()
        box = [value() if self.first else None]
        found: T = broadcast_object_list(box)[0]
        return found

    def saving(self, due: bool) -> bool:
        """Whether this process takes part in a checkpoint that is due in the first one."""
        # Only where parts of parameters have to come together the others are needed.
        return self.told(lambda: due) if self._sharded else due and self.first


def shard(model: nn.Module, layers: Iterable[nn.Module], device: torch.device) -> None:
    """Leave to each process its part of every parameter (FSDP, PyTorch's ``fully_shard``).

    The parameters of one of the ``layers`` of ``model`` come together while it computes.
    accelerate shards on GPUs only, by this same function.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor on the CPU, put together where processes have parts of it; then all must ask."""
    tensor = tensor.detach()
    if hasattr(tensor, "full_tensor"):
        tensor = tensor.full_tensor()
    return tensor.cpu()


def like(tensor: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
    """This process's part of ``tensor``, if it has parts of ``model``; else ``tensor`` itself."""
    if not hasattr(model, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = model.device_mesh, model.placements  # type: ignore[attr-defined]
    return distribute_tensor(tensor.to(model.device), mesh, placements)


# -- starting them --------------------------------------------------------------------------------


def check_devices(numerics: Numerics) -> None:
    """Refuse more processes than there are GPUs, where there are any.

    Raises:
        TuneTrailError: With both numbers.
    """
    gpus = torch.cuda.device_count()
    if 0 < gpus < numerics.processes:
        raise TuneTrailError(
            f"numerics.processes is {numerics.processes}, and this machine has "
            f"{gpus} GPU{'s' * (gpus > 1)}: each process needs one of its own",
            f"lower numerics.processes to {gpus} or less, or train on a machine with more",
        )


def together(
    numerics: Numerics,
    target: Callable[..., Any],
    arguments: Mapping[str, Any],
    heard: Mapping[str, Callable[..., None]],
) -> Any:
    """Call a function in as many processes as ``numerics`` says and return what the first one does.

    When one fails or is killed, all end; and all end with this process.

    Args:
        numerics: Processes, and CPU threads of each.
        target: A function of a module.
        arguments: By name; they are pickled, as is what ``target`` returns.
        heard: Further arguments of ``target``, functions: when the first process calls one, it is
            called here.

    Raises:
        TuneTrailError: What a process raised, too many processes, or
            :class:`~tunetrail.errors.TrainingKilled`.
        RuntimeError: Any other error of a process; its traceback is on standard error.
    """
    check_devices(numerics)
    # Forked from a process that imports once, and never touches a GPU: after that a fork could not.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, target.__module__])
    # DDP would warn in each process that no parameter went without a gradient.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    processes, ours = [], []
    with scratch() as folder:
        try:
            for rank in range(numerics.processes):
                here, there = context.Pipe()
                place = str((folder / "meeting").absolute())
                member = (rank, numerics, place, dict(os.environ), there)
                process = context.Process(
                    target=_process, args=(*member, target, arguments, list(heard))
                )
                process.start()
                there.close()
                processes.append(process)
                ours.append(here)
            return _listen(processes, ours, heard)
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.join()


def _listen(
    processes: list[Any], ours: list[Connection], heard: Mapping[str, Callable[..., None]]
) -> Any:
    """Pass on what processes say until all are done; returns the result of the first."""
    waiting: dict[Any, int] = {connection: rank for rank, connection in enumerate(ours)}
    result: Any = None
    what: str
    content: Any
    while waiting:
        for ready in wait(list(waiting)):
            connection: Any = ready
            rank = waiting[connection]
            try:
                what, content = connection.recv()
            except (EOFError, ConnectionResetError):
                raise _dead(processes[rank], rank, len(processes)) from None
            if what == "failed":
                if not isinstance(content, TuneTrailError):
                    _raise_for_killed(processes)  # without it the others fail
                raise content
            if what == "done":
                del waiting[connection]
                result = content if rank == 0 else result
            else:
                heard[what](*content)
    return result


def _raise_for_killed(processes: list[Any]) -> None:
    for rank, process in enumerate(processes):
        if (process.exitcode or 0) < 0:
            raise _dead(process, rank, len(processes))


def _dead(process: Any, rank: int, count: int) -> Exception:
    """The error for a process that ended without a word."""
    process.join()
    which = f"process {rank + 1} of the {count} of this training"
    if process.exitcode == -signal.SIGKILL:
        return TrainingKilled(
            f"{which} was killed (SIGKILL), as the system does when memory runs out; the others "
            "were ended",
            LESS_MEMORY,
        )
    return TrainingKilled(
        f"{which} ended with exit code {process.exitcode}; the others were ended",
        "see its output above, and repeat the command: it goes on from the last checkpoint",
    )


def _process(
    rank: int,
    numerics: Numerics,
    meeting: str,
    environment: dict[str, str],
    out: Connection,
    target: Callable[..., Any],
    arguments: Mapping[str, Any],
    heard: list[str],
) -> None:
    """In a process: join the others, call ``target`` and send what it returns or raises."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it is interrupted, and ends it
    os.environ.clear()
    os.environ.update(environment)  # not as it was when the server started
    threading.Thread(target=_end_with_parent, args=(out,), daemon=True).start()

    def telling(name: str) -> Callable[..., None]:
        return (lambda *said: out.send((name, said))) if rank == 0 else (lambda *_: None)

    try:
        with machine_errors():
            _join(rank, numerics, meeting)
            result = target(**arguments, **{name: telling(name) for name in heard})
        out.send(("done", result if rank == 0 else None))
        torch.distributed.barrier()  # nobody leaves while another still needs it
        torch.distributed.destroy_process_group()
    except TuneTrailError as error:
        out.send(("failed", error))
    except Exception as error:
        traceback.print_exc()
        said = f"process {rank + 1} of a training: {type(error).__name__}: {error}"
        out.send(("failed", RuntimeError(said)))


def _join(rank: int, numerics: Numerics, meeting: str) -> None:
    """Make this process one of the group, as accelerate and torch expect it."""
    count = str(numerics.processes)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ["OMP_NUM_THREADS"] = str(numerics.threads)  # else accelerate chooses
    for _, name in socket.if_nameindex():
        if name in ("lo", "lo0"):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
    if gpu := torch.cuda.is_available():
        torch.cuda.set_device(rank)
    torch.distributed.init_process_group(
        "nccl" if gpu else "gloo",
        store=torch.distributed.FileStore(meeting, numerics.processes),  # type: ignore[attr-defined]
        rank=rank,
        world_size=numerics.processes,
        timeout=_PATIENCE,
    )


def _end_with_parent(parent: Connection) -> None:
    """End this process at once when the other end is gone.

    One that outlives a killed training would write beside the one that repeats it.
    """
    with contextlib.suppress(EOFError, ConnectionResetError):
        parent.recv()
    os.kill(os.getpid(), signal.SIGKILL)
