"""Intervals of ratios: held against data whose true ratio is known."""

import math
from collections.abc import Iterable

import numpy as np
import pytest

from loramux_bench.decide import bootstrap
from loramux_bench.decide.bootstrap import FEWEST_REQUESTS, Pool, Ratio, pool, pool_rates, ratios
from loramux_bench.decide.proportion import difference_interval, share_interval
from loramux_bench.decide.student import quantile

TRIES = 200


def _ratio(
    a: Pool, b: Pool, share: float | None, *, seed: int = 1, paired: bool = False, resamples: int = 400
) -> Ratio:
    (found,) = ratios(a, b, [share], np.random.default_rng(seed), paired=paired, resamples=resamples)
    assert found is not None
    return found


def _gaps(rng: np.random.Generator, requests: int, gaps: int, *, between: float = 0.1, within: float = 0.1) -> Pool:
    """One round; a request's gaps share a factor of their own. The median is 1."""
    own = rng.lognormal(0, between, (requests, 1))
    return pool([(own * rng.lognormal(0, within, (requests, gaps))).tolist()])


def _rounds(rng: np.random.Generator, machine: Iterable[float], requests: int) -> Pool:
    return pool([(factor * rng.lognormal(0, 0.05, (requests, 1))).tolist() for factor in machine])


@pytest.mark.parametrize(("share", "gaps"), [(0.5, 1), (None, 1), (0.9, 10), (None, 10)])
def test_of_two_hundred_intervals_nine_in_ten_or_more_hold_the_truth(share: float | None, gaps: int) -> None:
    """Nominally 95 %: of 200, fewer than 180 would come about once in a thousand times. The gaps of a request are
    alike, so that intervals over single gaps would be too narrow by far."""
    rng = np.random.default_rng(11)
    held = 0
    for seed in range(TRIES):
        interval = _ratio(_gaps(rng, 50, gaps), _gaps(rng, 50, gaps), share, seed=seed).interval(0.95)
        assert interval is not None
        held += interval[0] <= 1 <= interval[1]
    assert 180 <= held < TRIES, held


@pytest.mark.parametrize("rounds", [3, 5])
@pytest.mark.parametrize("paired", [False, True])
def test_they_hold_the_truth_also_when_the_machine_differs_between_rounds(rounds: int, paired: bool) -> None:
    """Requests alone would hold it in 65 of 100."""
    rng = np.random.default_rng(13)
    held = 0
    for seed in range(TRIES):
        a, b = (_rounds(rng, rng.lognormal(0, 0.02, rounds), 40) for _ in range(2))
        interval = _ratio(a, b, 0.5, seed=seed, paired=paired, resamples=200).interval(0.95)
        assert interval is not None
        held += interval[0] <= 1 <= interval[1]
    assert 180 <= held < TRIES, held


def test_what_paired_rounds_share_goes_out_of_the_ratio() -> None:
    rng = np.random.default_rng(17)
    machine = (1.0, 1.3, 0.8, 1.1)
    a, b = _rounds(rng, machine, 100), _rounds(rng, machine, 100)
    paired = _ratio(a, b, None, paired=True).interval(0.95)
    apart = _ratio(a, b, None, paired=False).interval(0.95)
    assert paired is not None
    assert apart is not None
    assert paired[1] / paired[0] < 1.05
    assert apart[1] / apart[0] > 1.5


def test_the_same_values_have_a_ratio_of_exactly_one_within_its_interval() -> None:
    side = _gaps(np.random.default_rng(3), 100, 20)
    for share in (0.5, 0.9, 0.99, None):
        found = _ratio(side, side, share)
        interval = found.interval(0.95)
        assert found.value == 1.0
        assert interval is not None
        assert interval[0] < 1 < interval[1]


def test_a_seed_gives_the_same_again() -> None:
    a, b = (_gaps(np.random.default_rng(seed), 50, 3) for seed in (1, 2))
    assert _ratio(a, b, 0.5, seed=4).interval(0.9) == _ratio(a, b, 0.5, seed=4).interval(0.9)
    assert _ratio(a, b, 0.5, seed=4).interval(0.9) != _ratio(a, b, 0.5, seed=5).interval(0.9)


def test_more_confidence_is_wider() -> None:
    a, b = (_gaps(np.random.default_rng(seed), 50, 3) for seed in (1, 2))
    narrow, wide = (_ratio(a, b, 0.5, resamples=2000).interval(confidence) for confidence in (0.8, 0.99))
    assert narrow is not None
    assert wide is not None
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


@pytest.mark.parametrize("most_blocks", [100_000, 4_096, 512])
def test_resampled_figures_are_those_of_the_drawn_values(most_blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against drawing in full. With as many blocks as values the same; with fewer, right to their share of ranks."""
    monkeypatch.setattr(bootstrap, "_MOST_BLOCKS", most_blocks)
    rng = np.random.default_rng(5)
    side = pool([rng.lognormal(0, 1, (40, 300)).tolist(), rng.lognormal(0, 1, (30, 50)).tolist()])
    weights = bootstrap._of_requests(side, rng, 20)
    assert (weights[:, :40].sum(axis=1) == 40).all()
    assert (weights[:, 40:].sum(axis=1) == 30).all()
    shares = (0.25, 0.5, 0.9, 0.99, None)
    found = bootstrap._draw(side, weights, shares)
    for row, drawn in zip(found, weights, strict=True):
        values = np.repeat(side.values, drawn[side.owners].astype(int))
        exact = [values.mean() if share is None else np.quantile(values, share) for share in shares]
        if most_blocks > side.values.size:
            assert row == pytest.approx(exact, rel=1e-6)
        else:
            ranks = np.searchsorted(np.sort(values), row[:-1]) / values.size
            assert ranks == pytest.approx(shares[:-1], abs=2 / most_blocks)


def test_many_requests_are_drawn_with_their_neighbours() -> None:
    rng = np.random.default_rng(7)
    a, b = (_gaps(rng, 12_345, 2) for _ in range(2))
    assert a.requests == 12_345
    assert a.rounds.size == 1_000
    assert a.denominators.sum() == 2 * 12_345
    interval = _ratio(a, b, 0.5).interval(0.95)
    assert interval is not None
    assert 1.001 < interval[1] / interval[0] < 1.03


def test_few_requests_have_no_interval() -> None:
    rng = np.random.default_rng(1)
    few, enough = _gaps(rng, FEWEST_REQUESTS - 1, 100), _gaps(rng, FEWEST_REQUESTS, 100)
    assert _ratio(few, enough, 0.5).interval(0.95) is None
    assert _ratio(enough, few, 0.5).interval(0.95) is None
    assert _ratio(enough, enough, 0.5).interval(0.95) is not None


def test_a_tail_takes_values_beyond_it() -> None:
    rng = np.random.default_rng(1)
    few, enough = _gaps(rng, 499, 1), _gaps(rng, 500, 1)
    assert _ratio(few, enough, 0.99).interval(0.95) is None
    assert _ratio(enough, enough, 0.99).interval(0.95) is not None
    assert _ratio(few, few, 0.9).interval(0.95) is not None


def test_without_values_there_is_no_ratio() -> None:
    rng = np.random.default_rng(1)
    empty, full = pool([[(), ()], []]), _gaps(rng, 30, 1)
    for a, b in ((empty, full), (full, empty), (empty, empty), (pool([[(0.0,)] * 30]), full)):
        assert ratios(a, b, [0.5, None], rng, resamples=10) == [None, None]


def test_a_round_without_values_does_no_harm() -> None:
    rng = np.random.default_rng(1)
    whole = [rng.lognormal(0, 0.1, (30, 1)).tolist() for _ in range(3)]
    a, b = pool(whole), pool([*whole[:2], [()] * 30])
    assert (a.round_count, b.round_count) == (3, 3)
    for paired in (False, True):
        interval = _ratio(a, b, None, paired=paired).interval(0.95)
        assert interval is not None
        assert all(math.isfinite(end) for end in interval)


def test_rates_are_sums_over_times() -> None:
    a = pool_rates([[(10.0, 2.0)] * 30, [(20.0, 2.0)] * 30])
    b = pool_rates([[(30.0, 4.0)] * 30, [(30.0, 2.0)] * 30])
    assert a.figure(None) == pytest.approx(900 / 120)
    found = _ratio(a, b, None)
    assert found.value == pytest.approx((1800 / 180) / (900 / 120))
    assert found.interval(0.95) == pytest.approx((found.value, found.value))


@pytest.mark.parametrize(
    ("confidence", "degrees", "expected"),
    [
        (0.95, 1, 12.7062047),
        (0.95, 2, 4.3026527),
        (0.95, 3, 3.1824463),
        (0.99, 4, 4.6040949),
        (0.95, 8, 2.3060041),
        (0.99, 9, 3.2498355),
        (0.95, 120, 1.9799304),
    ],
)
def test_students_t_is_as_in_the_tables(confidence: float, degrees: int, expected: float) -> None:
    assert quantile(confidence, degrees) == pytest.approx(expected, rel=1e-7)


def test_share_intervals_are_as_published() -> None:
    """Newcombe 1998: of single shares table I, 81 of 263; of differences table II, 56/70 - 48/80, method 10."""
    assert share_interval(81, 263, 0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert share_interval(0, 20, 0.95) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert difference_interval(48, 80, 56, 70, 0.95) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert difference_interval(0, 10, 0, 20, 0.95) == pytest.approx((-0.2775, 0.1611), abs=5e-5)
