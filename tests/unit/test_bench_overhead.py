"""The figures of `loramux bench overhead`: what wrk and the generator say, ratios, limits, goals, the search."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramux_bench.errors import EndpointError
from loramux_bench.overhead import capacity, frames, many_adapters, requests, rounds, streams
from loramux_bench.overhead.capacity import Held
from loramux_bench.overhead.cores import Cores, started_on
from loramux_bench.overhead.engine.answers import stamp, stamps
from loramux_bench.overhead.engine.ticks import rounded
from loramux_bench.overhead.generator.book import Book
from loramux_bench.overhead.generator.job import Job, Report, Spread
from loramux_bench.overhead.limits import THE_LIMIT, limited, limits
from loramux_bench.overhead.part import at_least, at_most
from loramux_bench.overhead.peers import STARTS
from loramux_bench.overhead.rounds import Taken
from loramux_bench.overhead.search import largest
from loramux_bench.overhead.side import PEERS, Side
from loramux_bench.overhead.usage import Usage
from loramux_bench.overhead.wrk import Shot, body, parse, script

IDLE = Usage(side=0.5, engine=0.2, generator=0.1, others=0.0, memory_bytes=2**20)


def shot(rps: float, p50_s: float = 0.001, errors: int = 0) -> Shot:
    return Shot(requests=round(rps) + errors, seconds=1.0, errors=errors, p50_s=p50_s, p99_s=2 * p50_s, max_s=1.0)


def taken(side: str, number: int, seen: Shot, used: Usage = IDLE) -> Taken[Shot]:
    return Taken(side=side, round=number, seen=seen, used=used)


def report(ttft_s: float = 0.02, rate: float = 100.0, *, late: int = 0, errors: int = 0) -> Report:
    spread = Spread(10, ttft_s, 2 * ttft_s, 3 * ttft_s)
    return Report(
        seconds=1.0,
        frames=round(rate),
        ended=1,
        errors=errors,
        failure="cut" if errors else "",
        ttft=spread,
        gap=spread,
        delay=spread,
        late=late,
        worst_s=0.0,
        engine_late=Spread(10, 0.0, 0.001, 0.002),
    )


class TestWrk:
    def test_the_line_of_the_script_is_read(self) -> None:
        said = "Running 4s test @ http://127.0.0.1:1\n  2 threads\nloramux-bench:1200 2000000 3 150 2100 9000\n"
        seen = parse(said)
        assert seen == Shot(requests=1200, seconds=2.0, errors=3, p50_s=0.00015, p99_s=0.0021, max_s=0.009)
        assert seen.rps == pytest.approx(598.5)

    @pytest.mark.parametrize("said", ["", "Requests/sec: 12\n", "loramux-bench:0 1000000 16 0 0 0\n"])
    def test_nothing_answered_is_no_figure(self, said: str) -> None:
        with pytest.raises(EndpointError):
            parse(said)

    def test_the_script_asks_as_the_side_wants_it(self) -> None:
        side = Side("loramux", "http://127.0.0.1:9", {"Authorization": "Bearer it's"}, "m", ())
        text = script(side, [body("one"), body("two")])
        assert "wrk.headers['Authorization'] = 'Bearer it\\'s'" in text
        assert json.loads(body("one")) == {
            "model": "one",
            "messages": [{"role": "user", "content": "Say in one sentence what a gateway is."}],
            "max_tokens": 8,
        }
        for model in ("one", "two"):
            assert f"'{body(model)}'" in text

    @pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not here")
    def test_wrk_takes_the_script(self, tmp_path: Path) -> None:
        side = Side("nobody", "http://127.0.0.1:9", {}, "m", ())
        path = tmp_path / "requests.lua"
        path.write_text(script(side, [body("m")]))
        argv = ["wrk", "-t", "1", "-c", "1", "-d", "1s", "-s", str(path), side.url]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        assert "error" not in done.stderr.lower().replace("socket errors", ""), done.stderr


class TestRounds:
    FOUND = (
        taken("direct", 0, shot(1000, 0.001)),
        taken("loramux", 0, shot(300, 0.003)),
        taken("vllm-router", 0, shot(100, 0.005)),
        taken("direct", 1, shot(2000, 0.001)),
        taken("loramux", 1, shot(800, 0.002)),
        taken("vllm-router", 2, shot(50, 0.001)),  # in a round of its own
    )

    def test_medians_differences_and_ratios_are_within_a_round(self) -> None:
        assert rounds.sides(self.FOUND) == ["direct", "loramux", "vllm-router"]
        assert rounds.middle(self.FOUND, "loramux", lambda one: one.rps) == 550
        assert rounds.added(self.FOUND, "loramux", "direct", lambda one: one.p50_s) == pytest.approx(0.0015)
        assert rounds.added(self.FOUND, "direct", "direct", lambda one: one.p50_s) is None
        ratio = rounds.ratio(self.FOUND, "loramux", "vllm-router", lambda one: one.rps)
        assert ratio is not None
        assert ratio.value == pytest.approx(3.0)
        assert ratio.rounds == 1
        assert rounds.ratio(self.FOUND, "litellm", "vllm-router", lambda one: one.rps) is None

    def test_goals(self) -> None:
        kept = at_least("rate", self.FOUND, lambda one: one.rps, 1.5)
        assert (kept.text, kept.kept) == ("rate ≥ 1.5× vllm-router's", True)
        assert at_least("rate", self.FOUND, lambda one: one.rps, 3.5).kept is False
        assert at_least("rate", self.FOUND[:2], lambda one: one.rps, 1.0).kept is None
        assert at_most("p50", self.FOUND, lambda one: one.p50_s).kept is True
        assert at_most("rate", self.FOUND[:4], lambda one: one.rps).kept is False
        assert at_most("p50", self.FOUND[1:], lambda one: one.p50_s).kept is None, "nothing to add to"

    def test_rows_of_requests(self) -> None:
        rows = requests.summarise({1: self.FOUND[:3], 16: self.FOUND})
        assert [(row.side, row.connections) for row in rows] == [
            (side, connections) for connections in (1, 16) for side in ("direct", "loramux", "vllm-router")
        ]
        assert rows[1].added_p50_s == pytest.approx(0.002)
        assert requests.remarks(rows) == []
        near = requests.summarise({1: [], 16: [*self.FOUND[:1], taken("loramux", 0, shot(900, errors=2))]})
        assert [THE_LIMIT in said or "2 errors" in said for said in requests.remarks(near)] == [True, True]

    def test_one_connection_is_never_limited_by_the_mock(self) -> None:
        rows = requests.summarise({1: [taken("direct", 0, shot(1000)), taken("loramux", 0, shot(990))], 16: []})
        assert all(row.limits == () for row in rows)

    def test_many_adapters_against_one(self) -> None:
        found = [
            taken(many_adapters.ONE, 0, shot(1000)),
            taken(many_adapters.FEW, 0, shot(990)),
            taken(many_adapters.ALL, 0, shot(940)),
        ]
        few, goal = many_adapters.goals(found, 1000)
        assert few.kept
        assert (goal.kept, goal.found) == (False, "0.94×")
        assert many_adapters.goals(found[:1], 1000)[0].kept is None


class TestLimits:
    def test_a_rate_near_the_engines_own_is_the_engines(self) -> None:
        assert limits(500, 1000, IDLE) == []
        (said,) = limits(810, 1000, IDLE)
        assert said == f"{THE_LIMIT}: 81% of what it does by itself"
        assert limits(810, None, IDLE) == []

    def test_a_busy_engine_beside_a_side_with_time_left(self) -> None:
        used = Usage(side=0.6, engine=0.55, generator=0.4, others=0.0, memory_bytes=0)
        (said,) = limits(500, 1000, used)
        assert said.startswith(THE_LIMIT)
        busy = Usage(side=0.97, engine=0.55, generator=0.4, others=0.0, memory_bytes=0)
        assert limits(500, 1000, busy) == []

    def test_sides_that_do_not_wait_quietly(self) -> None:
        used = Usage(side=0.9, engine=0.1, generator=0.1, others=0.2, memory_bytes=0)
        assert limits(500, 1000, used) == ["the sides that waited took 20% of a core"]

    def test_a_core_that_others_used(self) -> None:
        used = Usage(side=0.6, engine=0.1, generator=0.1, others=0.0, foreign=0.3, memory_bytes=0)
        assert limits(500, 1000, used) == ["something else took 30% of the tested core"]

    def test_each_reason_is_told_once(self) -> None:
        found = [taken("direct", number, shot(1000)) for number in range(2)]
        for number, share in enumerate((0.2, 0.3)):
            used = Usage(side=0.6, engine=0.1, generator=0.1, others=0.0, foreign=share, memory_bytes=0)
            found.append(taken("loramux", number, shot(500), used))
        assert limited(found, "loramux", lambda one: one.rps) == ("something else took 30% of the tested core",)
        assert limited(found, "direct", lambda one: one.rps) == ()


class TestStreams:
    FOUND = (
        Taken(side="direct", round=0, seen=report(0.02), used=IDLE),
        Taken(side="loramux", round=0, seen=report(0.021, 90), used=IDLE),
        Taken(side="vllm-router", round=0, seen=report(0.022, 50, errors=1), used=IDLE),
    )

    def test_rows_and_goals(self) -> None:
        rows = {row.side: row for row in streams.summarise(self.FOUND)}
        assert rows["loramux"].added_ttft_p50_s == pytest.approx(0.001)
        assert rows["loramux"].added_ttft_p99_s == pytest.approx(0.002)
        assert rows["direct"].added_gap_p99_s is None
        assert [goal.kept for goal in streams.goals(self.FOUND)] == [True, True, True]
        assert streams.remarks(list(rows.values())) == ["vllm-router: 1 streams failed, the first: cut."]

    def test_frames(self) -> None:
        rows = {row.side: row for row in frames.summarise(self.FOUND)}
        assert rows["loramux"].frames_per_core_s == pytest.approx(180)
        assert rows["loramux"].limits == (f"{THE_LIMIT}: 90% of what it does by itself",)
        assert [goal.kept for goal in frames.goals(self.FOUND)] == [True]

    def test_capacity(self) -> None:
        held = {"direct": 1000, "loramux": 900, "vllm-router": 300}
        found = [
            Taken(side=side, round=0, seen=Held(streams=count, tries=()), used=IDLE) for side, count in held.items()
        ]
        rows = {row.side: row for row in capacity.summarise(found)}
        assert [bool(rows[side].limits) for side in held] == [False, True, False]
        assert capacity.goals(found)[0].found == "3.00×"


class TestSearch:
    @given(st.integers(0, 5000), st.integers(1, 64), st.integers(1, 5000))
    def test_it_finds_what_holds(self, bound: int, least: int, more: int) -> None:
        most = least + more
        asked: list[int] = []

        def held(number: int) -> bool:
            asked.append(number)
            return number <= bound

        found = largest(held, least=least, most=most)
        if bound < least:
            assert found == 0
        else:
            true = min(bound, most)
            assert found <= true
            assert true <= found * 1.1 + 1
        assert all(least <= number <= most for number in asked)
        assert len(asked) == len(set(asked)) < 40


class TestBook:
    JOB = Job(
        host="h",
        port=1,
        path="/",
        headers={},
        model="m",
        prompt="p",
        streams=2,
        tokens=3,
        ttft_s=0.02,
        itl_s=0.02,
        seconds=1.0,
        late_s=0.02,
    )

    def test_what_came_when(self) -> None:
        book = Book(self.JOB, 10.0)
        book.first(9.5, 9.4, 9.49, 0.0)  # of the ramp
        book.first(10.125, 10.1, 10.12, 0.001)
        book.next(10.165, 10.125, 10.14, 0.0)  # 25 ms on the way
        book.next(10.166, 10.165, 10.165, 0.005)
        book.ended(10.166)
        book.failed("status 500")
        book.failed("cut")
        seen = book.report(11.0)
        assert (seen.frames, seen.ended, seen.errors, seen.failure) == (3, 1, 2, "status 500")
        assert seen.late == 1
        assert seen.worst_s == pytest.approx(0.025)
        assert seen.ttft is not None
        assert seen.ttft.count == 1
        assert seen.ttft.p50_s == pytest.approx(0.025)
        assert seen.gap is not None
        assert seen.gap.max_s == pytest.approx(0.04)
        assert seen.engine_late is not None
        assert seen.engine_late.max_s == pytest.approx(0.005)
        assert seen.frames_per_s == 3

    def test_a_request_that_waited_before_the_engine_is_late(self) -> None:
        book = Book(self.JOB, 10.0)
        book.first(10.150, 10.1, 10.149, 0.0)  # the engine was asked 29 ms late, and wrote in time
        assert book.report(11.0).late == 1

    def test_nothing_came(self) -> None:
        seen = Book(self.JOB, 10.0).report(11.0)
        assert (seen.frames, seen.ttft, seen.gap) == (0, None, None)
        assert self.JOB.ramp_s == pytest.approx(0.08 + 0.22)


class TestStamps:
    @given(st.floats(0, 1e9), st.floats(-1, 100))
    def test_they_are_read_as_they_were_written(self, written_s: float, late_s: float) -> None:
        text = stamp(written_s, late_s)
        assert len(text) == 26
        ((written, late),) = stamps(b'data: {"content":%b}\n' % text)
        assert written == pytest.approx(written_s, abs=2e-6)
        assert late == pytest.approx(min(max(late_s, 0.0), 0.999999), abs=2e-6)

    @given(st.floats(0, 1e6))
    def test_the_grid_is_never_after(self, at: float) -> None:
        assert -1e-9 <= at - rounded(at) < 0.001 + 1e-9


@pytest.mark.skipif(sys.platform != "linux", reason="cores are chosen on Linux only")
def test_children_run_where_they_are_told_to() -> None:
    cores = Cores.here()
    ask = "import os; print(*sorted(os.sched_getaffinity(0)))"
    for cpus in (cores.tested, cores.load):
        with started_on(cpus):
            said = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout
        assert {int(cpu) for cpu in said.split()} == cpus
    assert Cores.here() == cores, "this thread has its cores again"


@pytest.mark.parametrize("name", PEERS)
def test_other_gateways_are_started_before_one_engine(name: str) -> None:
    start = STARTS[name]("http://127.0.0.1:7", 8, 9, "m")  # type: ignore[index]
    argv = start.argv(Path("/env"), Path("/config"))
    assert argv[0].startswith("/env/bin/")
    assert "8" in argv
    assert "http://127.0.0.1:7" in " ".join([*argv, start.config])
    lock = (Path(__file__).parents[2] / "deploy" / "locks" / "peers.txt").read_text()
    assert f"\n{start.package}==" in lock


def test_no_malicious_litellm_is_locked() -> None:
    locks = (Path(__file__).parents[2] / "deploy" / "locks").glob("*.txt")
    found = [
        line.split()[0] for path in locks for line in path.read_text().splitlines() if line.startswith("litellm==")
    ]
    assert found
    assert not [one for one in found if one in ("litellm==1.82.7", "litellm==1.82.8") or "==1.107." in one]
