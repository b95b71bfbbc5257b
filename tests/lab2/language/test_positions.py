"""Rotary positions and normalised queries and keys, by hand."""

import math

import pytest
import torch

from lab2.language import positions


def test_angles_by_hand():
    # A head of width 4 has two pairs, which a place turns by 1 and by 10000 ** (-2 / 4) = 0.01 radians.
    found = positions.turns(3, 4)
    assert found.shape == (2, 3, 2)
    angles = [[0, 0], [1, 0.01], [2, 0.02]]
    assert found[0].tolist() == [pytest.approx([math.cos(angle) for angle in row]) for row in angles]
    assert found[1].tolist() == [pytest.approx([math.sin(angle) for angle in row]) for row in angles]


def test_a_pair_is_turned_by_hand():
    # Numbers 0 and 2 are a pair, 1 and 3 another. At place 2: (1, 0) by 2 radians, (0, 1) by 0.02.
    x = torch.tensor([[9.0, 9, 9, 9], [9, 9, 9, 9], [1, 0, 0, 1]])
    turned = positions.rotate(x, positions.turns(3, 4))
    assert turned[0].tolist() == [9, 9, 9, 9]  # the first place turns nothing
    assert turned[2].tolist() == pytest.approx([math.cos(2), -math.sin(0.02), math.sin(2), math.cos(0.02)])
    torch.testing.assert_close(turned.norm(dim=1), x.norm(dim=1))
    assert positions.rotate(x.bfloat16(), positions.turns(3, 4)).dtype == torch.bfloat16


def test_products_know_only_how_far_two_places_are_apart():
    torch.manual_seed(0)
    query, key = torch.randn(2, 8)
    turns = positions.turns(50, 8)
    queries, keys = (positions.rotate(each.expand(50, 8), turns) for each in (query, key))
    products = queries @ keys.T
    for apart in (-30, -1, 0, 7):
        same = products.diagonal(apart)
        torch.testing.assert_close(same, same[:1].expand_as(same), atol=1e-5, rtol=0)
    torch.testing.assert_close(products[5, 5], query @ key)
    assert products[0].std() > 0.1  # other distances, other products


def test_queries_and_keys_are_normalised_by_hand():
    # The root mean square of 3, 4, 0, 0 is sqrt(25 / 4) = 2.5.
    x = torch.tensor([[3.0, 4, 0, 0]])
    assert positions.place(x, None, normalise=True)[0].tolist() == pytest.approx([1.2, 1.6, 0, 0])
    assert positions.place(x, None, normalise=False) is x
    torch.testing.assert_close(positions.place(100 * x, None, True), positions.place(x, None, True))
    turns = positions.turns(1, 4)
    assert positions.place(x, turns, True).tolist() == positions.place(x, None, True).tolist()  # at place 0
