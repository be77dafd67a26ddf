"""Whether the gate is right: pairs of mocks, the second as fast as the first, or slower by a known share."""

from contextlib import nullcontext
from pathlib import Path

import msgspec

from loramux_bench.decide.gate import judge
from loramux_bench.decide.round import read_round
from loramux_bench.launch import Blind
from loramux_bench.mock.process import MockProcess
from loramux_bench.scenario import Scenario
from loramux_bench.sides import Live, run_interleaved
from loramux_bench.trust.loads import mock_load

_TTFT_S = 0.05
_ITL_S = 0.005
_JITTER = 0.05
_TOKENS = 20
_USERS = 10
_REQUESTS = 100
_REPEATS = 3


class Try(msgspec.Struct, frozen=True, kw_only=True):
    """One verdict of the gate."""

    slow: float
    """How much slower the candidate was made: 1.1 is by 10 %."""
    outcome: str
    ratios: dict[str, float]
    """Candidate to baseline, by figure, of those that gate."""

    @property
    def right(self) -> bool:
        return self.outcome == ("failed" if self.slow > 1 else "passed")


def try_gate(slow: float, number: int, results: Path) -> Try:
    """Three rounds of each side in turns, on mocks with 5 % noise in every time. Raises `BenchError`."""
    with (
        MockProcess(ttft=_TTFT_S, itl=_ITL_S, jitter=_JITTER, seed=2 * number) as first,
        MockProcess(ttft=_TTFT_S, itl=_ITL_S, jitter=_JITTER, seed=2 * number + 1, slow=slow) as second,
    ):
        baseline, candidate = run_interleaved(
            [Live("baseline", _load(first.url)), Live("candidate", _load(second.url))],
            repeats=_REPEATS,
            results=results,
            processes=1,
            watcher=lambda scenario, label: nullcontext(Blind()),
        )
    verdict = judge([read_round(run) for run in candidate], [read_round(run) for run in baseline], ())
    rows = verdict.comparison.rows if verdict.comparison else ()
    ratios = {f"{row.measure} {row.statistic}".strip(): round(row.ratio, 4) for row in rows if row.gates and row.ratio}
    return Try(slow=slow, outcome=verdict.outcome, ratios=ratios)


def _load(url: str) -> Scenario:
    ramp_s = _TTFT_S + _TOKENS * _ITL_S
    return mock_load("gate", url, users=_USERS, requests=_REQUESTS, tokens=_TOKENS, ramp_s=ramp_s)
