"""A round of trust: one number of streams on the mock, measured by the bench and, beside it, by a peer."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from loramux_bench.launch import launch
from loramux_bench.mock.process import MockProcess
from loramux_bench.results.summary import summarise
from loramux_bench.scenario import Load, Normal, Prompts, Scenario, Scrape, Target
from loramux_bench.trust import peer
from loramux_bench.trust.accuracy import Figure, figures

TTFT_S = 0.1
ITL_S = 0.02
TOKENS = 50
PROMPT_TOKENS = 32
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
        run = launch(_scenario(mock.url, streams, requests), results)
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


def _scenario(url: str, streams: int, requests: int) -> Scenario:
    """Users begin one after the other within one request's length. All at once, the mock would read the last of them
    some milliseconds after it came: true for a caller, and not in what the mock knows."""
    return Scenario(
        name=f"trust-{streams}",
        targets=(Target(name="mock", url=url, model="mock-base"),),
        load=Load(users=streams, requests=requests, ramp_s=TTFT_S + TOKENS * ITL_S),
        prompts=Prompts(input_tokens=Normal(mean=PROMPT_TOKENS), output_tokens=Normal(mean=TOKENS), temperature=None),
        scrape=Scrape(metrics=False, admin=False),
    )
