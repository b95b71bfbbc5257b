"""How sure a comparison is: the one convention of all labs, by hand."""

import math

import numpy as np
import pytest

from lab1.engine.metrics import (
    MANY,
    interquartile_mean,
    interquartile_mean_interval,
    mean_interval,
    over_runs,
    paired_interval,
    ratio_interval,
)


def test_a_paired_interval_is_that_of_the_differences():
    assert paired_interval([3.0, 5, 7], [2.0, 3, 4]) == mean_interval([1.0, 2, 3])
    assert paired_interval([3.0, 5, 7], [2.0, 4, 6]) == (1, 1, 1)  # however far the pairs lie apart
    with pytest.raises(ValueError, match="shorter"):
        paired_interval([1.0, 2], [1.0])


def test_few_runs_have_a_mean_and_students_t():
    middle, low, high = over_runs([[1, 4], [3, 4], [5, 4]])
    assert middle.tolist() == [3, 4]
    # sd 2, t with 2 degrees of freedom 4.3027: 4.3027 x 2 / sqrt(3) = 4.9683
    assert low.tolist() == [pytest.approx(-1.9683, abs=1e-4), 4]
    assert high.tolist() == [pytest.approx(7.9683, abs=1e-4), 4]
    assert over_runs([7]) == (7, 7, 7)
    assert over_runs([1.0] * (MANY - 2) + [10]) == mean_interval([1.0] * (MANY - 2) + [10])


def test_many_runs_have_an_interquartile_mean_and_a_bootstrap():
    values = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 90.0])
    assert len(values) == MANY
    middle, low, high = over_runs(values)
    assert middle == interquartile_mean(values) == 4.5  # of 2 to 7
    assert (low, high) == interquartile_mean_interval(values)
    assert 0 < low < 4.5 < high < 90


@pytest.mark.parametrize("values", [[1.0, math.inf], [math.inf] * 3, [math.nan, 1.0, 2.0], [math.inf, -math.inf]])
def test_what_is_not_finite_has_no_interval(values):
    assert all(map(math.isnan, mean_interval(values)))
    assert all(map(math.isnan, ratio_interval(values)))
