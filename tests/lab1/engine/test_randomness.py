"""Splits, and random generators that are a function of their numbers."""

import numpy as np
import pytest
import torch

from lab1.engine.randomness import random_generator, stratified_split
from tests.refusals import refusal


def test_a_split_is_disjoint_and_complete_and_has_equal_class_shares():
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[torch.randperm(100)]
    rest, held_out = stratified_split(labels, 20, seed=3)
    assert sorted([*rest.tolist(), *held_out.tolist()]) == list(range(100))
    assert labels[held_out].bincount().tolist() == [12, 6, 2]
    assert labels[rest].bincount().tolist() == [48, 24, 8]


def test_a_split_is_a_function_of_its_seed():
    labels = torch.arange(200) % 4
    one, again, other = (stratified_split(labels, 40, seed)[1] for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    stratified_split(labels, 40, seed=2**63 - 1)


def test_a_split_is_the_one_that_scikit_learn_draws():
    from sklearn.model_selection import train_test_split

    numbers, split, refused = np.random.default_rng(0), 0, 0
    for _ in range(300):
        classes, seed = int(numbers.integers(1, 12)), int(numbers.integers(2**40))
        labels = numbers.choice(classes, int(numbers.integers(2, 400)), p=numbers.dirichlet(np.ones(classes) * 3))
        if numbers.random() < 0.3:
            labels = np.arange(len(labels)) % classes  # as many of each: chance decides
        held_out = int(numbers.integers(1, len(labels)))
        places = np.arange(len(labels))
        try:
            theirs = train_test_split(places, test_size=held_out, random_state=seed % 2**32, stratify=labels)
        except ValueError:
            assert "too small" in refusal(stratified_split, torch.tensor(labels), held_out, seed)
            refused += 1
        else:
            ours = stratified_split(torch.tensor(labels), held_out, seed)
            assert [part.tolist() for part in ours] == [sorted(part.tolist()) for part in theirs]
            split += 1
    assert min(split, refused) > 30


@pytest.mark.parametrize(("labels", "held_out"), [([0, 0, 0, 1], 1), ([0, 1, 0, 1], 0), ([0, 0, 1, 1], 1)])
def test_a_data_set_too_small_to_split_is_refused(labels, held_out):
    assert "too small" in refusal(stratified_split, torch.tensor(labels), held_out, seed=0)


def test_a_random_generator_is_a_function_of_its_numbers():
    draws = [torch.rand(3, generator=random_generator(*numbers)) for numbers in ((1, 2), (1, 2), (2, 1), (1, 3))]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[3])
