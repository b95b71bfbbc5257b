"""The few things that change when torchrun starts several processes: who am I, and what do we all agree on.

In a single process every function here is free: rank 0 of 1, and reductions that return what they were given.
"""

import contextlib
import os

import torch
import torch.distributed as dist


def rank() -> int:
    """This process's number, 0 to world_size() - 1."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    """How many processes train together: 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", 1))


def start(device: torch.device) -> None:
    """Join the other processes, if there are any: NCCL between GPUs, Gloo between CPUs."""
    if world_size() > 1 and not dist.is_initialized():
        # Gloo beside NCCL: what the processors tell each other then never waits for a GPU.
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")


def finish() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


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
