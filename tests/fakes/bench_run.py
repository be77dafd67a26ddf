"""A recorded run of the bench, made up from a seed: what the results and the report are tested with."""

import random
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from loramux_bench.record import RequestRecord
from loramux_bench.run_dir import ChurnRecord, Generator, RunInfo, Sample

HOSTILE = "</script><img src=x onerror=window.broken=1>"
"""A name or message that must never be more than text."""


@dataclass(frozen=True, slots=True)
class MadeRun:
    """As the files of a run's directory hold it."""

    info: RunInfo
    requests: list[RequestRecord]
    samples: list[Sample]
    churn: list[ChurnRecord]


@dataclass(frozen=True, slots=True)
class MadeUp:
    """How to make it: an open loop at an even rate; every third adapter sits on the disk, where first tokens take
    longer; the adapters' popularity falls by Zipf. `adapters` 3 or more."""

    seconds: int = 60
    rate_per_s: int = 8
    adapters: int = 12
    tokens: int = 30
    error_share: float = 0.03
    targets: tuple[str, ...] = ("loramux",)
    scenario: dict[str, Any] = field(default_factory=dict)
    seed: int = 7

    def make(self) -> MadeRun:
        """The last adapter's name and the errors' messages are `HOSTILE`; the first five requests are warm-up, the last
        two are cut; half way a second replica is ready, and adapters have their second version."""
        dice = random.Random(self.seed)
        names = [f"adapter-{number:02d}" for number in range(self.adapters - 1)] + [HOSTILE]
        weights = [1 / (rank + 1) for rank in range(self.adapters)]
        tiers = {name: "disk" if place % 3 == 2 else "gpu" for place, name in enumerate(names)}
        requests = [
            self._request(dice, index, dice.choices(names, weights)[0], tiers)
            for index in range(self.seconds * self.rate_per_s)
        ]
        return MadeRun(self._info(names), requests, self._samples(dice, tiers), self._churn(dice, names))

    def _request(self, dice: random.Random, index: int, adapter: str, tiers: dict[str, str]) -> RequestRecord:
        scheduled_s = index / self.rate_per_s
        sent_s = scheduled_s + dice.expovariate(1 / 0.001)
        ttft_s = dice.lognormvariate(-2.8, 0.35) if tiers[adapter] == "gpu" else dice.lognormvariate(-0.9, 0.4)
        count = max(2, round(dice.gauss(self.tokens, self.tokens / 8)))
        gaps_s = tuple(
            round(dice.gauss(0.011, 0.0008) + (dice.expovariate(1 / 0.08) if dice.random() < 0.004 else 0), 6)
            for _ in range(count - 1)
        )
        first_s = sent_s + ttft_s
        known = RequestRecord(
            index=index,
            target=dice.choice(self.targets),
            api="openai-chat",
            adapter=adapter,
            tenant=dice.choice(("red", "blue")),
            warmup=index < 5,
            scheduled_s=round(scheduled_s, 6),
            sent_s=round(sent_s, 6),
            end_s=round(first_s, 6),
            prompt_tokens_wanted=64,
            output_tokens_wanted=count,
            version="2" if scheduled_s > self.seconds / 2 else "1",
            request_id=f"req-{index:05d}",
            replica=f"engine-{index % 2}",
        )
        if index >= self.seconds * self.rate_per_s - 2:
            return replace(known, cut=True)
        if dice.random() < self.error_share:
            code = dice.choice(("http_503", "timeout", "broken_stream"))
            return replace(known, end_s=round(sent_s + 0.02, 6), status=503, error=code, message=HOSTILE)
        return replace(
            known,
            first_token_s=round(first_s, 6),
            end_s=round(first_s + sum(gaps_s) + 0.0005, 6),
            gaps_s=gaps_s,
            chunks=count,
            prompt_tokens=64 + dice.randrange(9, 12),
            prompt_tokens_local=64,
            output_tokens=count,
            output_tokens_local=count - (1 if dice.random() < 0.05 else 0),
            status=200,
            finish_reason="length",
        )

    def _samples(self, dice: random.Random, tiers: dict[str, str]) -> list[Sample]:
        def sample(second: int) -> Sample:
            loaded = min(len(tiers), 3 + second)
            return Sample(
                at_s=second + 0.6,
                metrics={
                    'loramux_requests_queued{pool="main"}': float(dice.randrange(3)),
                    'loramux_requests_outstanding{replica="engine-0"}': float(dice.randrange(2, 6)),
                },
                tiers={name: tier if place < loaded else "remote" for place, (name, tier) in enumerate(tiers.items())},
                replicas={"engine-0": "ready", "engine-1": "ready" if second > self.seconds / 2 else "starting"},
                generator=Generator(
                    users=8,
                    in_flight=dice.randrange(1, 8),
                    cpu=round(dice.uniform(0.15, 0.4), 3),
                    machine_cpu=round(dice.uniform(0.3, 0.6), 3),
                    loop_lag_s=round(dice.expovariate(1 / 0.002), 6),
                ),
            )

        return [sample(second) for second in range(self.seconds)]

    def _churn(self, dice: random.Random, names: list[str]) -> list[ChurnRecord]:
        actions = ("add", "update", "update", "delete")
        return [
            ChurnRecord(
                at_s=second + 0.25,
                action=actions[place % 4],
                adapter=names[place % len(names)],
                took_s=round(dice.lognormvariate(-0.7, 0.3), 6),
                status=409 if place == 5 else 200,
                error="conflict" if place == 5 else "",
            )
            for place, second in enumerate(range(3, self.seconds, 5))
        ]

    def _info(self, names: list[str]) -> RunInfo:
        scenario = {
            "name": "nightly",
            "about": "The mixed load of the release candidate.",
            "targets": [{"name": name, "url": "http://127.0.0.1:8080"} for name in self.targets],
            "load": {"shape": "open", "duration_s": float(self.seconds), "arrivals": {"rate_per_s": self.rate_per_s}},
            "tenants": [{"name": "red"}, {"name": "blue"}],
            "cost": {"price_per_replica_hour": 4.1},
            "slos": ["ttft:p99:2s", "ttft:p90:250ms", "error_rate:10%", "throughput:-5%"],
        } | self.scenario
        return RunInfo(
            name="nightly",
            scenario=scenario,
            started_at=1_790_000_000.0,
            ended_s=float(self.seconds),
            outcome="done",
            prepare_s=2.5,
            adapters=names,
            tokenizer="endpoint",
            prompt_overhead_tokens=10.0,
            environment={"python": "3.11.9", "cpus": 2, "memory_bytes": 8 * 2**30, "packages": {"locust": "2.43.0"}},
        )
