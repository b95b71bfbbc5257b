"""Optimizers over several kinds of parameters: what they compute is what torch's own do."""

import pytest
import torch
from torch import nn

from lab1.engine.config import UsageError
from lab1.engine.optimizer import KernelMuon, Together, bare_step
from tests.exactness import assert_equal


def kernels() -> list[nn.Parameter]:
    torch.manual_seed(0)
    shapes = [(6, 4, 3, 3), (8, 3, 2, 2), (3, 5, 1, 1)]
    return [nn.Parameter(torch.randn(shape).contiguous(memory_format=torch.channels_last)) for shape in shapes]


def gradients(step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(kernel.shape, generator=generator) for kernel in kernels()]


def test_muon_on_kernels_is_torchs_on_the_same_matrices():
    ours = kernels()
    theirs = [nn.Parameter(kernel.detach().permute(0, 2, 3, 1).flatten(1).clone()) for kernel in ours]
    muon = KernelMuon(ours, lr=0.1)
    reference = torch.optim.Muon(theirs, lr=0.1, momentum=0.6, weight_decay=0.0, ns_steps=3)
    for step in range(3):
        for kernel, matrix, gradient in zip(ours, theirs, gradients(step), strict=True):
            kernel.grad, matrix.grad = gradient, gradient.permute(0, 2, 3, 1).flatten(1)
        muon.step()
        reference.step()
    for before, kernel, matrix in zip(kernels(), ours, theirs, strict=True):
        assert torch.equal(kernel.permute(0, 2, 3, 1).flatten(1), matrix)
        assert not torch.equal(kernel, before)


def test_an_update_has_singular_values_that_are_about_equal():
    (kernel, *_), (gradient, *_) = kernels(), gradients(0)
    before, muon = kernel.detach().clone(), KernelMuon([kernel], lr=1.0)
    kernel.grad = gradient * torch.logspace(-1, 1, 6)[:, None, None, None]  # a hundredfold range
    muon.step()
    values = torch.linalg.svdvals((kernel.detach() - before).flatten(1))
    spread = torch.linalg.svdvals(kernel.grad.flatten(1))
    assert spread[0] / spread[-1] > 50
    assert values[0] / values[-1] < 5


def both(ours: list[nn.Parameter]) -> Together:
    return Together(torch.optim.SGD(ours[:1], lr=0.1, momentum=0.9), KernelMuon(ours[1:], 0.1))


def train(optimizer: Together, ours: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        assert all(kernel.grad is None for kernel in ours)
        for kernel, gradient in zip(ours, gradients(step), strict=True):
            kernel.grad = gradient
        optimizer.step()


def test_together_is_each_by_itself_and_goes_on_from_its_state():
    whole = kernels()
    optimizer = both(whole)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1]
    train(optimizer, whole, range(4))
    first = kernels()
    stopped = both(first)
    train(stopped, first, range(2))
    again = [nn.Parameter(kernel.detach().clone()) for kernel in first]
    resumed = both(again)
    resumed.load_state_dict(stopped.state_dict())
    train(resumed, again, range(2, 4))
    assert_equal([kernel.detach() for kernel in again], [kernel.detach() for kernel in whole])


def test_a_rate_that_is_set_in_a_group_is_used():
    ours = kernels()
    optimizer = both(ours)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    train(optimizer, ours, range(2))
    assert_equal([kernel.detach() for kernel in ours], [kernel.detach() for kernel in kernels()])


def test_the_state_of_others_does_not_fit():
    ours = kernels()
    with pytest.raises(KeyError):
        both(ours).load_state_dict({"0": both(ours).state_dict()["0"]})


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_a_bare_step_is_the_optimizers_own(kind):
    ours, theirs = kernels(), kernels()
    optimizer, reference = kind(ours, lr=0.1), kind(theirs, lr=0.1)
    step = bare_step(optimizer)
    for number in range(3):
        for kernel, other, gradient in zip(ours, theirs, gradients(number), strict=True):
            kernel.grad, other.grad = gradient, gradient.clone()
        step()
        reference.step()
    assert_equal([kernel.detach() for kernel in ours], [kernel.detach() for kernel in theirs])
    assert_equal(optimizer.state_dict(), reference.state_dict())
    assert torch.is_grad_enabled()


def test_training_does_not_import_what_it_does_not_use(run_script, tmp_path):
    """Each of these takes up to a second, of every start."""
    (tmp_path / "script.py").write_text(
        "import sys\n"
        "from lab1 import train_mlp\n"
        "train_mlp.main(train_mlp.Config(dataset='digits', dry_run=True, model_dir='runs'))\n"
        "from lab3 import train_ppo\n"
        "train_ppo.main(train_ppo.Config(dry_run=True, model_dir='runs'))\n"
        "slow = ('torch._dynamo', 'torch.distributed.tensor', 'sympy', 'sklearn', 'scipy.stats', 'pandas')\n"
        "print([name for name in slow if name in sys.modules])\n",
        encoding="utf-8",
    )
    done = run_script(tmp_path / "script.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_torch_without_muon_is_said_to_be_too_old(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(UsageError, match=r"--optimizer muon: torch .* has no Muon; use torch 2.9 or newer, or sgd"):
        KernelMuon(kernels(), lr=0.1)
