"""The few things that change when torchrun starts several processes: who am I, and what do we all agree on.

In a single process every function here is free: rank 0 of 1, and reductions that return what they were given.
"""

import atexit
import contextlib
import functools
import os
import sys
import time
import uuid
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn


def rank() -> int:
    """This process's number, 0 to world_size() - 1."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    """How many processes train together: 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", 1))


def start(device: torch.device) -> None:
    """Join the other processes, if there are any: NCCL between GPUs, Gloo between CPUs."""
    if world_size() == 1 or dist.is_initialized():
        return
    # Gloo beside NCCL: what the processors tell each other then never waits for a GPU.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if _board() is None:
        dist.init_process_group(backend)
        return
    store = dist.PrefixStore(_meeting(), _board())
    dist.init_process_group(backend, store=store, rank=rank(), world_size=world_size())


def finish() -> None:
    """Leave the other processes, if there are any, and end this one with the status that the exception under way has.

    At Python's own end one of Gloo's threads may still be giving back a tensor of the last step, which takes the
    interpreter's lock; by then that aborts the process, and torchrun would start a finished run again.
    """
    if not dist.is_initialized():
        return
    error = sys.exception()
    dist.destroy_process_group()
    status = error.code if isinstance(error, SystemExit) else int(error is not None)
    if error is not None and not isinstance(error, SystemExit):
        sys.excepthook(type(error), error, error.__traceback__)
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status or 0)


class StandIn(tuple):
    """A batch for a process that no example of a whole batch fell to: the first one all the same, but of weight 0, so
    that every process takes part in every step."""


def own_share(count: int) -> slice:
    """Which examples of a batch of ``count`` are this process's, every ``world_size()``-th of them; the first one where
    there are fewer examples than processes and none is left for it."""
    return slice(rank(), None, world_size()) if has_share(count) else slice(0, 1)


def has_share(count: int) -> bool:
    """Whether an example of a batch of ``count`` falls to this process; to the first process one always does."""
    return rank() < count


def shared_statistics(model: nn.Module, device: torch.device) -> nn.Module:
    """The network with batch normalisation over the whole batch, all processes' shares together, where torch can: on
    GPUs. On a processor each process normalises its own share."""
    if world_size() > 1 and device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model


def share_buffers(model: nn.Module) -> None:
    """Give every process the first one's buffers, such as the running means of batch normalisation: what is evaluated
    is then what is saved."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def lost_process(error: Exception) -> str | None:
    """What to say of an error that means no more than that another process is gone; None for any other. Gloo's are
    RuntimeErrors like any other."""
    if not (isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())):
        return None
    restarts, most = (int(os.environ.get(f"TORCHELASTIC_{name}", 0)) for name in ("RESTART_COUNT", "MAX_RESTARTS"))
    if restarts < most:
        return "one of the processes was lost; torchrun starts all of them again, from the newest checkpoint on"
    return "one of the processes was lost, so all of them stop; go on with the same command and --resume auto"


def is_first_to_complain() -> bool:
    """Whether no other process has said yet why all of them stop: one fault is one line, not one a process."""
    try:
        return rank() == 0 if _board() is None else _complaint() == 1
    except (RuntimeError, ValueError):
        return rank() == 0  # torchrun is gone, too


def note(name: str, text: str) -> None:
    """Leave a text for the processes that torchrun starts in place of these."""
    if (board := _board()) is not None:
        board.set(name, text)


def noted(name: str) -> str | None:
    """The text that was left under this name by this process or one before it; None where there is none."""
    board = _board()
    return board.get(name).decode() if board is not None and board.check([name]) else None


@functools.cache
def _board() -> dist.Store | None:
    # torchrun's own store outlives the processes that it starts. Without torchrun there is none.
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=20))
    store.set_timeout(timedelta(minutes=30))
    return dist.PrefixStore("labs", store)


@functools.cache
def _meeting() -> str:
    """A name that these processes have agreed on, and none before them.

    The store still holds where processes of an earlier attempt could be reached, and Gloo would wait for those. The
    count of attempts is no such name: on several nodes, torchrun counts differently on each.
    """
    board, own = _board(), uuid.uuid4().hex
    if rank() == 0:
        board.set("meeting", own)
        answers = [board.get(f"{own} {other}").decode() for other in range(1, world_size())]
        board.set(f"{own} complete", " ".join(answers))
        return own
    while True:
        meeting = board.get("meeting").decode()  # perhaps still the one of those before
        board.set(f"{meeting} {rank()}", own)
        if board.check([f"{meeting} complete"]) and own in board.get(f"{meeting} complete").decode():
            return meeting
        time.sleep(0.02)


@functools.cache
def _complaint() -> int:
    # Which complaint this process's is, of those since torchrun started the processes for the last time.
    attempt = _meeting() if dist.is_initialized() else os.environ.get("TORCHELASTIC_RESTART_COUNT")
    return _board().add(f"complaints {attempt}", 1)


@contextlib.contextmanager
def first_process_first():
    """The first process of this machine runs the block alone, then the others: so one download serves them all."""
    if dist.is_initialized() and int(os.environ.get("LOCAL_RANK", 0)) != 0:
        dist.barrier()
        yield
        return
    try:
        yield
    finally:
        if dist.is_initialized():
            dist.barrier()


def total(values: list[float]) -> list[float]:
    """The sum of each value over all processes, in float64."""
    if not dist.is_initialized():
        return values
    tensor = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(tensor)
    return tensor.tolist()


def from_every_process(value) -> list:
    """The value of every process, by rank. Plain containers of tensors and numbers only."""
    if not dist.is_initialized():
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def from_first_process(value):
    """The first process's value, in every process."""
    values = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(values)
    return values[0]
