"""Batches of images under torchrun: together the processes see each batch once, and all take every step."""

import pytest
import torch

from lab1.engine.distributed import StandIn
from lab1.images.augment import random_affine
from lab1.images.batches import Batches


def epochs(monkeypatch, processes: int, count: int, batch_size: int, seed: int | None) -> list[list]:
    """The batches of epoch 1, by rank."""
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 28, 28).contiguous()
    mean, std = torch.tensor([0.0]), torch.tensor([1.0])
    augment = None if seed is None else random_affine
    batches = Batches(images, torch.arange(count), batch_size, mean, std, seed, augment)
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    found = []
    for rank in range(processes):
        monkeypatch.setenv("RANK", str(rank))
        found.append(list(batches.epoch(1)))
        assert len(batches) == -(-count // batch_size)
    return found


@pytest.mark.parametrize(("count", "batch_size", "processes"), [(101, 20, 2), (11, 1, 3), (101, 50, 3), (5, 8, 4)])
def test_processes_share_what_one_sees(monkeypatch, count, batch_size, processes):
    (whole,) = epochs(monkeypatch, 1, count, batch_size, seed=0)
    parts = epochs(monkeypatch, processes, count, batch_size, seed=0)
    assert {len(part) for part in parts} == {len(whole)} == {-(-count // batch_size)}
    for (images, labels), *shares in zip(whole, *parts, strict=True):
        own = [share for share in shares if not isinstance(share, StandIn)]
        assert len(own) == min(processes, len(labels))
        seen = torch.cat([part for _, part in own])
        assert sorted(seen.tolist()) == sorted(labels.tolist())
        place = [labels.tolist().index(label) for label in seen.tolist()]
        assert torch.equal(torch.cat([part for part, _ in own]), images[place])  # augmented alike
        for stand_in in shares[len(own) :]:
            assert isinstance(stand_in, StandIn)
            assert torch.equal(stand_in[0], images[:1])
            assert stand_in[1].tolist() == labels[:1].tolist()


def test_nobody_stands_in_where_nothing_is_learned(monkeypatch):
    parts = epochs(monkeypatch, 3, count=7, batch_size=3, seed=None)
    assert [[labels.tolist() for _, labels in part] for part in parts] == [[[0], [3], [6]], [[1], [4]], [[2], [5]]]
