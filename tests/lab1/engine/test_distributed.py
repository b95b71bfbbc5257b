"""Several processes: who gets what, who speaks, and what is left for those that torchrun starts again."""

import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from torch import nn

from lab1.engine import distributed


@pytest.mark.parametrize(
    ("count", "shares"),
    [
        (7, [[0, 3, 6], [1, 4], [2, 5]]),
        (3, [[0], [1], [2]]),
        (2, [[0], [1], None]),
        (1, [[0], None, None]),
    ],
)
def test_shares_of_a_batch(monkeypatch, count, shares):
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank, share in enumerate(shares):
        monkeypatch.setenv("RANK", str(rank))
        assert distributed.has_share(count) is (share is not None)
        assert list(range(count))[distributed.own_share(count)] == (share or [0])


def test_batch_normalisation_over_all_processes_on_gpus_alone(monkeypatch):
    def network() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.BatchNorm2d(2)))

    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    model = network()
    assert distributed.shared_statistics(model, cuda) is model
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert distributed.shared_statistics(model, cpu) is model
    assert type(model[1][0]) is nn.BatchNorm2d
    shared = distributed.shared_statistics(network(), cuda)
    assert type(shared[1][0]) is nn.SyncBatchNorm
    shared.load_state_dict(model.state_dict())  # the same weights under the same names


@pytest.mark.parametrize(
    ("restarts", "line"),
    [
        ("0", "one of the processes was lost, so all of them stop; go on with the same command and --resume auto"),
        ("2", "one of the processes was lost; torchrun starts all of them again, from the newest checkpoint on"),
    ],
)
def test_what_a_lost_process_looks_like(monkeypatch, restarts, line):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", restarts)
    gloo = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:50374."
    assert distributed.lost_process(RuntimeError(gloo)) == line
    assert distributed.lost_process(dist.DistBackendError("NCCL error: remote process exited")) == line
    assert distributed.lost_process(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert distributed.lost_process(ValueError("gloo")) is None


# A group of one. Who is taken apart at Python's own end says so.
ALONE = """
import atexit, sys
import torch.distributed as dist
from lab1.engine import distributed

class Speaks:
    def __del__(self):
        print("taken apart")

speaks = Speaks()
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
atexit.register(print, "registered")
print("done")
try:
    {}
finally:
    distributed.finish()
"""


@pytest.mark.parametrize(
    ("ending", "status", "error"),
    [
        ("pass", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(130)", 130, ""),
        ("[][0]", 1, "IndexError: list index out of range"),
    ],
)
def test_a_process_of_a_group_ends_before_python_takes_its_tensors_apart(ending, status, error):
    done = subprocess.run([sys.executable, "-c", ALONE.format(ending)], capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr
    assert done.stdout.split("\n") == ["done", "registered", ""]
    assert bool(done.stderr) is bool(error)
    assert done.stderr.strip().endswith(error)


@pytest.fixture
def another_process(monkeypatch):
    """torchrun's store, and a function after which this process counts as another one."""

    def forget():
        distributed._board.cache_clear()
        distributed._complaint.cache_clear()

    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for name, value in {
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "RANK": "1",
        "WORLD_SIZE": "2",
    }.items():
        monkeypatch.setenv(name, value)
    forget()
    yield forget
    forget()
    del store


def test_the_first_process_with_a_fault_speaks(monkeypatch, another_process):
    assert distributed.is_first_to_complain()
    assert distributed.is_first_to_complain()  # it may ask again
    another_process()
    assert not distributed.is_first_to_complain()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    another_process()
    assert distributed.is_first_to_complain()  # of the processes that were started again


def test_notes_outlive_the_processes(another_process):
    assert distributed.noted("mlp") is None
    distributed.note("mlp", "model/mlp-2")
    another_process()
    assert distributed.noted("mlp") == "model/mlp-2"
    assert distributed.noted("cnn") is None


def test_alone_a_process_speaks_and_leaves_no_notes():
    assert distributed.is_first_to_complain()
    distributed.note("mlp", "model/mlp-2")
    assert distributed.noted("mlp") is None
