"""Batches of tokens under torchrun: together the processes see each batch once, and all take every step."""

import pytest
import torch

from lab1.engine.distributed import StandIn
from lab2.language.corpus import RandomWindows
from lab2.tasks.batches import TextBatches


def by_rank(monkeypatch, processes: int, epoch) -> list[list]:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    found = []
    for rank in range(processes):
        monkeypatch.setenv("RANK", str(rank))
        found.append(list(epoch()))
    return found


@pytest.mark.parametrize(("count", "batch_size", "processes"), [(101, 20, 2), (11, 1, 3), (5, 8, 4)])
def test_texts(monkeypatch, count, batch_size, processes):
    tokens = {"input_ids": [[1] * (1 + row * 7 % 13) for row in range(count)]}
    batches = TextBatches(tokens, torch.arange(count), batch_size, padding=0, seed=3)
    (whole,) = by_rank(monkeypatch, 1, lambda: batches.epoch(2))
    parts = by_rank(monkeypatch, processes, lambda: batches.epoch(2))
    assert {len(part) for part in parts} == {len(whole)} == {len(batches)} == {-(-count // batch_size)}
    for (_, labels), *shares in zip(whole, *parts, strict=True):
        own = [share for share in shares if not isinstance(share, StandIn)]
        assert sorted(torch.cat([part for _, part in own]).tolist()) == sorted(labels.tolist())
        assert len(own) == min(processes, len(labels))
        assert all(len(part) == 1 for _, part in shares[len(own) :])


def test_texts_to_evaluate_on_have_no_stand_in(monkeypatch):
    batches = TextBatches({"input_ids": [[1], [1, 1], [1, 1, 1]]}, torch.arange(3), 2, padding=0)
    parts = by_rank(monkeypatch, 2, lambda: batches)
    assert [[labels.tolist() for _, labels in part] for part in parts] == [[[0], [2]], [[1]]]


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_windows(monkeypatch, batch_size):
    windows = RandomWindows(torch.arange(50), context=4, batch_size=batch_size, seed=1, steps=3, interval=3)
    (whole,) = by_rank(monkeypatch, 1, lambda: windows.epoch(0))
    parts = by_rank(monkeypatch, 3, lambda: windows.epoch(0))
    assert [len(part) for part in parts] == [len(windows)] * 3 == [3] * 3
    for (tokens, _), *shares in zip(whole, *parts, strict=True):
        own = [share for share in shares if not isinstance(share, StandIn)]
        assert len(own) == min(3, batch_size)
        assert sorted(torch.cat([part for part, _ in own]).tolist()) == sorted(tokens.tolist())
        for stand_in in shares[len(own) :]:
            assert stand_in[0].tolist() == tokens[:1].tolist()
