"""Rounds of the bench, drawn from known distributions: what comparisons and verdicts are tested with."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loramux_bench.decide.round import Round, make_round
from loramux_bench.record import RequestRecord
from loramux_bench.run_dir import RunInfo
from loramux_bench.scenario import parse


@dataclass(frozen=True, slots=True)
class MadeRound:
    """A closed loop. Lognormal noise of 5 % on each TTFT and each gap; everything is `slowness` times as slow."""

    slowness: float = 1.0
    requests: int = 100
    users: int = 4
    tokens: int = 8
    ttft_s: float = 0.1
    gap_s: float = 0.01
    noise: float = 0.05
    errors: int = 0
    """The first so many fail, at once."""
    started_at: float = 1_000.0
    name: str = "run"
    outcome: str = "done"
    scenario: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)

    def make(self, rng: np.random.Generator) -> Round:
        ttfts_s = self.slowness * self.ttft_s * rng.lognormal(0, self.noise, self.requests)
        gaps_s = self.slowness * self.gap_s * rng.lognormal(0, self.noise, (self.requests, self.tokens - 1))
        free_s = [0.0] * self.users
        records = []
        for index in range(self.requests):
            user = min(range(self.users), key=free_s.__getitem__)
            record = self._request(index, free_s[user], float(ttfts_s[index]), gaps_s[index].tolist())
            free_s[user] = record.end_s
            records.append(record)
        content = {"name": "made", "load": {"requests": self.requests, "users": self.users}} | self.scenario
        info = RunInfo(
            name="made",
            scenario=parse(content, "of a test").model_dump(mode="json"),
            started_at=self.started_at,
            outcome=self.outcome,
            environment=self.environment,
        )
        return make_round(self.name, info, records)

    def _request(self, index: int, sent_s: float, ttft_s: float, gaps_s: list[float]) -> RequestRecord:
        known: dict[str, Any] = {
            "index": index,
            "target": "loramux",
            "api": "openai-chat",
            "adapter": "pirate",
            "sent_s": sent_s,
            "prompt_tokens_wanted": 64,
            "output_tokens_wanted": self.tokens,
        }
        if index < self.errors:
            return RequestRecord(**known, end_s=sent_s + 0.001, status=503, error="http_503")
        first_s = sent_s + ttft_s
        return RequestRecord(
            **known,
            first_token_s=first_s,
            end_s=first_s + sum(gaps_s),
            gaps_s=tuple(gaps_s),
            chunks=self.tokens,
            output_tokens=self.tokens,
            status=200,
        )


def made_rounds(*rounds: MadeRound, seed: int = 1) -> list[Round]:
    """Each with draws of its own."""
    rng = np.random.default_rng(seed)
    return [one.make(rng) for one in rounds]
