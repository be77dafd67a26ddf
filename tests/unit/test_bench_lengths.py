"""Lengths are drawn as LLMPerf draws them."""

import random
import statistics

import pytest

from loramux_bench.load.lengths import draw
from loramux_bench.scenario import Normal


def test_without_deviation_it_is_the_mean() -> None:
    assert {draw(Normal(mean=17), random.Random(seed)) for seed in range(50)} == {17}


def test_mean_and_deviation() -> None:
    rng = random.Random(1)
    drawn = [draw(Normal(mean=500, stddev=25), rng) for _ in range(20_000)]
    assert statistics.fmean(drawn) == pytest.approx(499.5, abs=0.8)
    assert statistics.stdev(drawn) == pytest.approx(25, rel=0.03)


def test_it_is_positive_also_where_the_deviation_is_large() -> None:
    """Drawn anew, not set to 1: the mean of what is left of a normal distribution above 1 is far above its own."""
    rng = random.Random(1)
    drawn = [draw(Normal(mean=1, stddev=1000), rng) for _ in range(5_000)]
    assert min(drawn) >= 1
    assert statistics.fmean(drawn) == pytest.approx(1000 * (2 / 3.14159) ** 0.5, rel=0.05)


def test_llmperfs_own_numbers() -> None:
    """What `sample_random_positive_int` gives with the same generator."""
    ours, theirs = random.Random(7), random.Random(7)

    def sample_random_positive_int(mean: int, stddev: int) -> int:
        ret = -1
        while ret <= 0:
            ret = int(theirs.gauss(mean, stddev))
        return ret

    assert [draw(Normal(mean=5, stddev=9), ours) for _ in range(200)] == [
        sample_random_positive_int(5, 9) for _ in range(200)
    ]
