"""What the bench finds of faults under load and of held connections: the real gateway before the mock, in small."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvloop

from loramux_bench.mock.process import MockProcess
from loramux_bench.overhead import connections, departures, memory, outages, shutdown
from loramux_bench.overhead.cores import Cores
from loramux_bench.overhead.fault_rows import rows
from loramux_bench.overhead.lineup import lineup
from loramux_bench.overhead.paced_load import Shape
from loramux_bench.overhead.paced_mocks import before, engines_ready, paced_mocks
from loramux_bench.overhead.side import DIRECT, LORAMUX, Side
from loramux_bench.overhead.slow_readers import Shape as SlowShape
from loramux_bench.overhead.workplace import Workplace
from loramux_bench.studies.study import StudyDir

pytestmark = pytest.mark.timeout(180)

_LOAD = Shape(streams=6, tokens=20, short_rps=20.0)
_ANYWHERE: frozenset[int] = frozenset()
_GENEROUS_S = 5.0
"""Times are not what is tested here: other work may hold the machine up."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    study = StudyDir.create(tmp_path, "overhead")
    with Workplace.open(study, Cores(_ANYWHERE, _ANYWHERE), tmp_path / "peers", lambda _: None) as opened:
        yield opened


@contextmanager
def side_of(
    place: Workplace, name: str = LORAMUX, *, mocks: int = 2, ttft_s: float = 0.1, itl_s: float = 0.02, **settings: str
) -> Iterator[tuple[Side, list[MockProcess]]]:
    with (
        paced_mocks(place, mocks, ttft_s=ttft_s, itl_s=itl_s) as engines,
        before(place, name, engines, name=name, settings=settings) as side,
    ):
        yield side, engines


def test_an_engine_is_told_that_its_caller_has_left(place: Workplace) -> None:
    plan = departures.Plan(leavers=6, load=_LOAD)
    with side_of(place, ttft_s=plan.ttft_s) as (side, mocks):
        found = uvloop.run(departures.leave(side, mocks, plan))
    assert [one.when for one in found] == list(departures.WHEN)
    for one in found:
        assert (one.left, one.told.count, one.not_told, one.unseen) == (6, 6, 0, 0), one
        assert one.told.max_s is not None
        assert 0.0 <= one.told.max_s < _GENEROUS_S
        assert set(one.others) == {"whole"}


def test_an_engine_stands_still_and_then_dies(place: Workplace) -> None:
    plan = outages.Plan(load=_LOAD, before_s=1.5, after_s=3.0, stall_s=1.5)
    with side_of(place) as (side, mocks):
        stalled = uvloop.run(outages.stall(side, mocks, plan))
        killed = uvloop.run(outages.kill(side, mocks, plan, engines_ready(place, side, LORAMUX)))
    assert set(stalled.held_ends) == {"whole"}, "they wait, and are answered"
    assert set(stalled.other_ends) == {"whole"}
    assert 0 <= stalled.held < stalled.begun
    assert stalled.short_meanwhile.count > 0
    assert stalled.gaps_meanwhile.count > 0
    assert set(killed.streaming) <= {"whole", "error frame"}
    assert "error frame" in killed.streaming, "streams of the engine that died say so"
    assert (killed.failed, killed.hung) == (0, 0), killed
    assert killed.later["whole"] > 0
    assert killed.out_of_service_s is not None
    assert all(row.kept is not False for row in rows([killed])), rows([killed])


def test_a_gateway_that_stops_lets_requests_end(place: Workplace) -> None:
    plan = shutdown.Plan(load=_LOAD, before_s=1.0)
    with side_of(place, SHUTDOWN_TIMEOUT_S=f"{plan.limit_s:g}") as (side, _):
        found = uvloop.run(shutdown.stop(side, plan, limited=True))
    assert set(found.under_way) == {"whole"}
    assert (found.first_cut_s, found.cut_early) == (None, 0)
    assert set(found.later) <= {"whole", "refused", "closed"}
    assert found.exit_s is not None
    assert found.exit_s < plan.limit_s, "nothing was left to wait for"


def test_a_gateway_that_stops_breaks_off_at_its_limit(place: Workplace) -> None:
    plan = shutdown.Plan(load=Shape(streams=4, tokens=400, short_rps=10.0), before_s=1.0, limit_s=1.0)
    with side_of(place, SHUTDOWN_TIMEOUT_S="1") as (side, _):
        found = uvloop.run(shutdown.stop(side, plan, limited=True))
    assert sum(count for end, count in found.under_way.items() if end != "whole") == 4
    assert found.first_cut_s is not None
    assert found.first_cut_s >= plan.limit_s
    assert found.cut_early == 0
    assert found.exit_s is not None
    assert found.exit_s < plan.limit_s + _GENEROUS_S


def test_a_server_that_drops_everything_when_it_stops_is_found(place: Workplace) -> None:
    """The mock does not drain."""
    plan = shutdown.Plan(load=_LOAD, before_s=1.0)
    with side_of(place, DIRECT, mocks=1) as (side, _):
        found = uvloop.run(shutdown.stop(side, plan, limited=True))
    assert found.cut_early >= _LOAD.streams
    assert [row.kept for row in rows([found]) if row.what == "requests under way"] == [False]


def test_held_connections_are_served_at_the_end(place: Workplace) -> None:
    plan = connections.Plan(
        idle=40,
        slow=SlowShape(readers=6),
        load=Shape(streams=0, short_rps=40.0),
        seconds=0.5,
        settle_s=2.0,
    )
    with side_of(place, mocks=1, ttft_s=plan.ttft_s, itl_s=0.0) as (side, mocks):
        idle, slow = uvloop.run(connections.hold(side, mocks, plan))
    assert (idle.held, idle.served, idle.ends) == (40, 40, {"whole": 40})
    assert (slow.held, slow.served, slow.ends) == (6, 6, {"whole": 6})
    assert slow.held_back == 6, "the engine is read as slowly as the callers read"
    for row in (idle, slow):
        assert set(row.others) == {"whole"}
        assert row.after == {"whole": 6}
        assert row.quiet.count > 0
        assert row.added_p99_s is not None


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk makes the load, and is not here")
def test_memory_is_read_while_the_load_runs(place: Workplace) -> None:
    plan = memory.Plan(requests=200, slice_s=2, sample_s=0.05)
    (side,) = (one for one in lineup(place, [LORAMUX]) if one.name == LORAMUX)
    row = memory.endure(place, side, plan)
    assert row.requests >= 200
    assert row.errors == 0
    assert row.growth is not None
    served = [sample.requests for sample in row.samples]
    assert served == sorted(served)
    assert served[-1] <= row.requests
    assert all(sample.memory_bytes > 2**20 for sample in row.samples)
