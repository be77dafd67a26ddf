"""A round of trust: one number of streams on the mock, measured by the bench and, beside it, by a peer."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from loramux_bench.launch import launch
from loramux_bench.mock.process import MockProcess
from loramux_bench.results.summary import summarise
from loramux_bench.trust import peer
from loramux_bench.trust.accuracy import Figure, figures
from loramux_bench.trust.loads import PROMPT_TOKENS, mock_load

TTFT_S = 0.1
ITL_S = 0.02
TOKENS = 50
_LATE_S = 0.001
"""A mock whose own writes are later than that (p99) was short of time: the round says nothing."""
_BUSY = 0.9
"""Share of all cores in use, in any second, from which the machine was the limit."""


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What one round found."""

    streams: int
    requests: int
    errors: int
    figures: tuple[Figure, ...]
    peer: Mapping[str, float]
    """The peer's figures by name; empty without one."""
    mock_late_p99_s: float
    limits: tuple[str, ...]
    """Sentences: what was short of time, so that its figures are in doubt."""

    @property
    def holds(self) -> bool:
        return not self.errors and all(figure.holds for figure in self.figures)


def run_round(streams: int, results: Path, *, tokenizer: Path | None) -> Round:
    """A few seconds for each. `tokenizer` is what the peer makes prompts with; None: no peer. Raises `BenchError`."""
    requests = max(10, 3 * streams)
    with MockProcess(ttft=TTFT_S, itl=ITL_S) as mock:
        ramp_s = TTFT_S + TOKENS * ITL_S
        load = mock_load(f"trust-{streams}", mock.url, users=streams, requests=requests, tokens=TOKENS, ramp_s=ramp_s)
        run = launch(load, results)
        records = [record for record in run.requests() if not record.warmup]
        log = mock.log()
        sent = {record.request_id for record in records}
        log["requests"] = [entry for entry in log["requests"] if entry["request_id"] in sent]
        summary = summarise(run.info(), records, run.samples(), run.churn())
        beside: Mapping[str, float] = {}
        if tokenizer is not None:
            beside = peer.measure(
                mock.url,
                "mock-base",
                tokenizer,
                requests=requests,
                streams=streams,
                prompt_tokens=PROMPT_TOKENS,
                tokens=TOKENS,
            )
    limits = list(summary.generator.reasons)
    if log["late_p99_s"] > _LATE_S:
        limits.append(f"The mock itself was late: {log['late_p99_s'] * 1000:.1f} ms (p99).")
    busiest = max((sample.generator.machine_cpu for sample in run.samples() if sample.generator), default=0.0)
    if busiest >= _BUSY:
        limits.append(f"The machine was busy with something else: {busiest:.0%} of its cores in some second.")
    return Round(
        streams=streams,
        requests=len(records),
        errors=sum(1 for record in records if not record.ok),
        figures=figures(records, log),
        peer=beside,
        mock_late_p99_s=log["late_p99_s"],
        limits=tuple(limits),
    )
