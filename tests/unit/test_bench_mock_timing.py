import asyncio
import statistics
import time
from random import Random
from typing import Any

import pytest

from loramux_bench.errors import ScenarioError
from loramux_bench.mock.deadlines import Deadlines, LoopTimer, TimerFd
from loramux_bench.mock.settings import MockSettings, parse
from loramux_bench.mock.timing import Piece, lognormal, offsets, pieces, word_tokens


def test_chunks_are_evenly_spaced_from_the_start() -> None:
    assert offsets(4, ttft_s=0.1, itl_s=0.02) == pytest.approx([0.1, 0.12, 0.14, 0.16])


def test_nothing_adds_up_over_a_long_answer() -> None:
    assert offsets(100_000, ttft_s=0.1, itl_s=0.1)[-1] == 0.1 + 99_999 * 0.1


def test_noise_multiplies_the_ttft_and_each_gap() -> None:
    draws = iter([2.0, 0.5, 3.0])
    assert offsets(3, ttft_s=0.1, itl_s=0.02, noise=lambda: next(draws)) == pytest.approx([0.2, 0.21, 0.27])


def test_noise_keeps_the_mean_and_has_the_deviation_that_was_asked_for() -> None:
    noise = lognormal(0.2, Random(1))
    assert noise is not None
    drawn = [noise() for _ in range(50_000)]
    assert statistics.fmean(drawn) == pytest.approx(1.0, abs=0.005)
    assert statistics.stdev(drawn) == pytest.approx(0.2, abs=0.005)
    assert min(drawn) > 0


def test_noise_is_that_of_its_seed() -> None:
    first, again, other = (lognormal(0.2, Random(seed)) for seed in (1, 1, 2))
    assert first is not None
    assert again is not None
    assert other is not None
    drawn = [first() for _ in range(5)]
    assert drawn == [again() for _ in range(5)]
    assert drawn != [other() for _ in range(5)]


def test_there_is_no_noise_unless_asked_for() -> None:
    assert lognormal(0.0, Random(1)) is None


@pytest.mark.parametrize(
    ("tokens", "per_chunk", "reasoning", "expected"),
    [
        (3, 1, 0, [Piece(0, 1), Piece(1, 1), Piece(2, 1)]),
        (5, 2, 0, [Piece(0, 2), Piece(2, 2), Piece(4, 1)]),
        (5, 2, 3, [Piece(0, 2, True), Piece(2, 1, True), Piece(3, 2)]),
        (2, 4, 8, [Piece(0, 2, True)]),
    ],
)
def test_an_answer_is_cut_into_chunks(tokens: int, per_chunk: int, reasoning: int, expected: list[Piece]) -> None:
    assert list(pieces(tokens, per_chunk, reasoning)) == expected


def test_prompt_tokens_are_counted_from_words() -> None:
    assert word_tokens(10, tokens_per_word=1.34, template_tokens=30) == 43


def test_options_are_the_fields_of_the_settings() -> None:
    settings = parse(["--ttft", "0.3", "--tokens-per-chunk", "2", "--comments", "--fault", "error-frame"])
    assert settings == MockSettings(ttft_s=0.3, tokens_per_chunk=2, comments=True, fault="error-frame")
    assert parse([]) == MockSettings()


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (["--ttft", "-1"], "ttft"),
        (["--ttft", "nan"], "ttft"),
        (["--fault", "nonsense"], "fault"),
        (["--tokens-per-chunk", "0"], "tokens_per_chunk"),
        (["--fault-share", "2"], "fault_share"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_place(arguments: list[str], place: str) -> None:
    with pytest.raises(ScenarioError, match=place):
        parse(arguments)


def test_an_unknown_option_ends_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--tfft", "1"])
    assert ended.value.code == 2
    assert "--tfft" in capsys.readouterr().err


async def test_deadlines_are_kept_in_order_and_never_early() -> None:
    deadlines = Deadlines(asyncio.get_running_loop())
    rung: list[tuple[int, float]] = []
    start = time.perf_counter()
    due = [0.03, 0.01, 0.02, -1.0, 0.01]
    over = asyncio.Event()

    def ring(number: int) -> None:
        rung.append((number, time.perf_counter() - start))
        if len(rung) == len(due) + 1:
            over.set()

    for number, at in enumerate(due):
        deadlines.at(start + at, lambda number=number: ring(number))  # type: ignore[misc]
    # One that is added by another, to be due before those that wait.
    deadlines.at(start + 0.011, lambda: deadlines.at(start + 0.015, lambda: ring(5)))
    await asyncio.wait_for(over.wait(), 10.0)
    deadlines.close()
    assert [number for number, _ in rung] == [3, 1, 4, 5, 2, 0]
    assert all(at >= [*due, 0.015][number] for number, at in rung)


async def test_a_call_that_fails_does_not_stop_the_others() -> None:
    loop = asyncio.get_running_loop()
    failures: list[Any] = []
    loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))
    deadlines = Deadlines(loop)
    over = asyncio.Event()
    now = time.perf_counter()
    deadlines.at(now + 0.001, lambda: failures[99])
    deadlines.at(now + 0.002, over.set)
    await asyncio.wait_for(over.wait(), 10.0)
    deadlines.close()
    assert [type(failure) for failure in failures] == [IndexError]


@pytest.mark.parametrize("kind", [TimerFd, LoopTimer])
async def test_an_alarm_rings_once_at_the_last_time_set(kind: type[TimerFd] | type[LoopTimer]) -> None:
    rung: list[float] = []
    over = asyncio.Event()

    def ring() -> None:
        rung.append(time.perf_counter())
        over.set()

    alarm = kind(asyncio.get_running_loop(), ring)
    start = time.perf_counter()
    alarm.set(start + 3600.0)
    alarm.set(start + 0.02)
    await asyncio.wait_for(over.wait(), 10.0)
    alarm.close()
    assert len(rung) == 1
    # asyncio's own timer may be early by its resolution.
    assert rung[0] >= start + 0.02 - 0.001
