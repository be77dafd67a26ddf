"""What `loramux bench stall` and `tiers` make of what they saw."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramux_bench.cli.lists import rates, words
from loramux_bench.cli.stall import _table as stall_table
from loramux_bench.cli.tiers import _table as tiers_table
from loramux_bench.errors import EndpointError, ScenarioError
from loramux_bench.studies import stall, tiers
from loramux_bench.studies.adapters import ALL_MODULES
from loramux_bench.studies.calls import Refused
from loramux_bench.studies.servers import EngineShape
from loramux_bench.studies.stall import Seen, Weather
from loramux_bench.studies.stall_rounds import Plan
from loramux_bench.studies.streams import gaps_within
from loramux_bench.studies.tiers import Place, Sample
from loramux_bench.studies.token_chunks import carries_token
from loramux_bench.studies.use_order import UseOrder


def seen(side: stall.Side, number: int, weather: Weather, gaps_s: Sequence[float], **more: Any) -> Seen:
    return replace(
        Seen(
            side=side,
            round=number,
            weather=weather,
            gaps_s=np.array(gaps_s, dtype=np.float64),
            loads_s=np.array([], dtype=np.float64),
            due=0,
            begun=0,
            failures=(),
            engine_loads=None,
            seconds=10.0,
        ),
        **more,
    )


QUIET, BUSY = Weather(), Weather(4.0, "dropped")


def test_a_gap_counts_where_it_begins_however_long_it_lasts() -> None:
    times = [0.0, 1.0, 1.5, 2.0, 9.0, 9.5]
    assert gaps_within(times, 1.0, 3.0).tolist() == [0.5, 0.5, 7.0]
    assert gaps_within(times, 2.0, 2.0).tolist() == []
    assert gaps_within([1.0], 0.0, 2.0).tolist() == []
    assert gaps_within([], 0.0, 2.0).tolist() == []


def test_rows_pool_rounds_and_take_ratios_within_each() -> None:
    rows = stall.summarise(
        [
            seen("stock-load", 0, QUIET, [0.1, 0.1]),
            seen("stock-load", 0, BUSY, [0.2, 0.2], due=5, begun=4, loads_s=np.array([1.0, 3.0])),
            seen("stock-load", 1, QUIET, [0.2, 0.2]),
            seen("stock-load", 1, BUSY, [1.6, 1.6], due=5, begun=5, failures=("no room", "again"), engine_loads=3),
            seen("loramux-prefetch", 0, QUIET, [0.1]),
        ]
    )
    assert [(row.side, row.arrivals_per_s, row.rounds) for row in rows] == [
        ("stock-load", 0.0, 2),
        ("stock-load", 4.0, 2),
        ("loramux-prefetch", 0.0, 1),
    ]
    quiet, busy, _ = rows
    assert quiet.ratio_p99 is None
    assert quiet.gaps is not None
    assert (quiet.gaps.count, quiet.gaps.max) == (4, 0.2)
    assert busy.ratio_p99 is not None
    assert busy.ratio_p99.value == pytest.approx(4.0), "the geometric mean of 2 and 8"
    assert (busy.due, busy.begun, busy.failures, busy.failure, busy.engine_loads) == (10, 9, 2, "no room", 3)
    assert busy.loads is not None
    assert busy.loads.p50 == 2.0
    assert busy.loads_per_s == pytest.approx(2 / 20)


def test_a_cell_without_gaps_has_no_figures_and_no_ratio() -> None:
    (_, busy) = stall.summarise([seen("stock-lazy", 0, QUIET, [0.1]), seen("stock-lazy", 0, BUSY, [])])
    assert (busy.gaps, busy.ratio_p99, busy.loads) == (None, None, None)


def test_the_table_tells_of_loads_that_were_none() -> None:
    rows = stall.summarise(
        [
            seen("loramux-request", 0, QUIET, [0.05]),
            seen("loramux-request", 0, BUSY, [0.1], due=4, begun=4, loads_s=np.array([0.5] * 4), engine_loads=1),
        ]
    )
    cells = [list(column.cells) for column in stall_table(rows).columns]
    assert cells[0] == ["loramux-request", "loramux-request"]
    assert cells[2] == ["quiet", "4"]
    assert cells[8] == ["", "2.00"]
    assert cells[10] == ["", "4 (1 counted)"]


class Slow:
    """Each arrival takes so long; every third fails."""

    def __init__(self, took_s: float) -> None:
        self.took_s = took_s
        self.under_way = 0
        self.most = 0
        self.numbers: list[int] = []

    def files(self, number: int) -> Sequence[Path]:
        return ()

    async def arrive(self, number: int) -> None:
        self.numbers.append(number)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(self.took_s)
        finally:
            self.under_way -= 1
        if number % 3 == 2:
            raise Refused("every third")

    async def leave(self, number: int) -> None:
        pass


async def test_arrivals_wait_for_a_place_and_only_those_in_time_count() -> None:
    way = Slow(0.12)
    begin = time.perf_counter()
    arrivals = stall._Arrivals(way, Weather(50.0, "warm"), 7, 2, begin, begin + 0.4)
    await arrivals.run()
    await arrivals.settled()
    assert arrivals.due == 20
    assert way.most == 2
    assert way.numbers == list(range(7, 7 + arrivals.begun))
    assert 2 <= arrivals.begun <= 8
    assert len(arrivals.in_time_s) + len(arrivals.failures) < arrivals.begun
    assert min(arrivals.in_time_s) >= 0.12
    assert set(arrivals.failures) == {"every third"}


def test_a_plan_needs_adapters_that_the_engine_can_not_hold() -> None:
    plan = Plan(
        sides=stall.SIDES,
        rates=(1.0, 4.0),
        caches=stall.CACHES,
        rounds=2,
        seconds=1.0,
        streams=1,
        adapters=10,
        rank=8,
        modules=ALL_MODULES,
        on_base=False,
        seed=1,
    )
    assert plan.at_a_time(EngineShape(max_cpu_loras=8)) == 2
    with pytest.raises(ScenarioError, match="--adapters"):
        plan.at_a_time(EngineShape(max_cpu_loras=10))
    there, back = plan.weathers(0), plan.weathers(1)
    assert there[0] == back[0] == Weather()
    assert list(there[1:]) == list(reversed(back[1:]))
    assert len(there) == 5


def test_which_chunks_carry_a_token() -> None:
    assert carries_token(b'{"choices": [{"text": "x"}]}')
    assert carries_token(b'{"choices": [{"text": ""}]}'), "half a character"
    assert not carries_token(b'{"choices": [], "usage": {"prompt_tokens": 3}}')
    assert not carries_token(b" [DONE]")
    for broken in (b'{"error": {"message": "no memory"}}', b"<html>", b"\xff"):
        with pytest.raises(EndpointError):
            carries_token(broken)


@given(st.lists(st.integers(0, 9)), st.integers(1, 3), st.integers(0, 4))
def test_the_order_of_use_is_vllms(uses: list[int], slots: int, more: int) -> None:
    order = UseOrder(slots, slots + more)
    for name in uses:
        order.used(name)
    last_first = list(dict.fromkeys(reversed(uses)))
    expected = dict.fromkeys(last_first[:slots], "gpu")
    expected |= dict.fromkeys(last_first[slots : slots + more], "cpu")
    assert {name: order.where(name) for name in range(10)} == {name: expected.get(name, "disk") for name in range(10)}


class Shelf:
    """A server that is wrong about every second adapter, and has none on the accelerator."""

    places: tuple[Place, ...] = ("base", "cpu", "gpu")

    def __init__(self) -> None:
        self.looks = 0
        self.asked: list[tuple[Place, int]] = []

    async def bring(self, place: Place, rng: random.Random) -> str:
        return "" if place == "gpu" else "name"

    async def is_at(self, name: str, place: Place) -> bool:
        self.looks += 1
        return place == "base" or self.looks % 2 == 0

    async def ask(self, name: str, place: Place, number: int) -> float:
        self.asked.append((place, number))
        return 0.2 if place == "cpu" else 0.1


async def test_only_what_was_there_is_asked_and_the_rest_is_counted() -> None:
    shelf = Shelf()
    found = [
        sample async for sample in tiers.measure(shelf, "loramux", ("s3", "cpu", "gpu", "base"), 6, round=1, seed=3)
    ]
    assert len({number for _, number in shelf.asked}) == 12, "prompts of their own"
    rows = {row.place: row for row in tiers.summarise(found)}
    assert set(rows) == {"base", "cpu", "gpu"}, "nothing of a place that the server does not have"
    assert rows["cpu"].samples == 6
    assert 0 < rows["cpu"].missed <= 6
    assert (rows["gpu"].samples, rows["gpu"].missed, rows["gpu"].ttft, rows["gpu"].to_base) == (0, 30, None, None)
    assert rows["base"].to_base is None
    assert rows["cpu"].to_base is not None
    assert rows["cpu"].to_base.value == pytest.approx(2.0)


def test_tiers_take_ratios_of_medians_within_rounds() -> None:
    taken: list[tuple[int, Place, tuple[float, ...]]] = [
        (0, "base", (1.0, 1.0, 9.0)),
        (0, "disk", (2.0, 2.0, 2.0)),
        (1, "base", (1.0,)),
        (1, "disk", (8.0,)),
    ]
    samples = [Sample("stock", number, place, ttft_s, 0) for number, place, times in taken for ttft_s in times]
    base, disk = tiers.summarise(samples)
    assert (base.place, base.samples, disk.samples) == ("base", 4, 4)
    assert disk.to_base is not None
    assert disk.to_base.value == pytest.approx(4.0)
    assert [list(column.cells) for column in tiers_table([base, disk]).columns][4] == ["1000", "2000"]


def test_options_with_commas() -> None:
    assert words("b, a,b", ("a", "b", "c"), "--side") == ("b", "a")
    assert rates("16,1,4,4", "--rates") == (1.0, 4.0, 16.0)
    for bad in ("", "d", "a,d"):
        with pytest.raises(ScenarioError, match="--side"):
            words(bad, ("a", "b"), "--side")
    for bad in ("", "0", "-1", "x", "1,nan", "inf"):
        with pytest.raises(ScenarioError, match="--rates"):
            rates(bad, "--rates")
