"""Every request of a load, decided before it is sent: a pure function of the scenario and the request's index, so that
any process may ask for any request and gets the same."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

from loramux_bench.errors import ScenarioError
from loramux_bench.load.arrivals import arrivals
from loramux_bench.load.lengths import draw
from loramux_bench.load.popularity import Popularity, popularity
from loramux_bench.load.prompts import Source, Writer
from loramux_bench.load.tokenizers import Ruler
from loramux_bench.load.trace import Entry, read_trace
from loramux_bench.scenario import Scenario, Tenant, find_source


@dataclass(frozen=True, slots=True)
class Shot:
    """One request."""

    index: int
    target: str
    adapter: str
    """Or the base, or the target's own model."""
    tenant: str
    """Empty: the target's own key."""
    prompt: str
    input_tokens: int
    """Wanted, without a chat template."""
    output_tokens: int
    due_s: float | None
    """None in a closed loop."""
    warmup: bool


@dataclass(frozen=True, slots=True)
class _Menu:
    """What one tenant may ask for. One of the two is there."""

    adapters: Popularity | None
    base: bool


class Plan:
    """What is asked of which target, for whom, and when.

    Targets and tenants are drawn by weight. A target with a `model` of its own is asked for that, with its own key: it
    has neither the adapters nor the tenants. Each request has three streams of random numbers (who, lengths, text), so
    that a change of one section of a scenario leaves the others' draws as they were. Round robin goes by the index.
    """

    def __init__(
        self,
        scenario: Scenario,
        *,
        adapters: Sequence[str],
        base: str,
        ruler: Ruler,
        source: Source,
        trace: Sequence[Entry] = (),
    ) -> None:
        """Raises `ScenarioError` where there is nothing to ask for, or a tenant or a trace asks for what it can not."""
        self._scenario = scenario
        self._base = base
        self._ruler = ruler
        self._trace = tuple(trace)
        self._writer = Writer(source, ruler)
        self._models = {target.name: target.model for target in scenario.targets}
        self._targets = Popularity.of({target.name: target.weight for target in scenario.targets})
        self._menus: dict[str, _Menu] = {}
        self._tenants: Popularity | None = None
        self._tenants_of: dict[str, Popularity] = {}
        if not all(self._models.values()):
            self._decide_who(tuple(adapters))

    @classmethod
    def of(cls, scenario: Scenario, *, adapters: Sequence[str], base: str, ruler: Ruler) -> "Plan":
        """With the text and the trace that the scenario names, read now. Raises `ScenarioError`."""
        trace = scenario.load.arrivals.trace if scenario.load.shape == "open" else ""
        return cls(
            scenario,
            adapters=adapters,
            base=base,
            ruler=ruler,
            source=Source.load(scenario.prompts.text),
            trace=read_trace(find_source(trace)) if trace else (),
        )

    def _decide_who(self, adapters: tuple[str, ...]) -> None:
        settings, tenants = self._scenario.adapters, self._scenario.tenants
        if settings.base_share and not self._base:
            raise ScenarioError("adapters.base_share needs the base's name, which is not known: set adapters.base.")
        for tenant in tenants or (Tenant(name=""),):
            if strange := [name for name in tenant.adapters if name not in (*adapters, self._base)]:
                raise ScenarioError(
                    f"The tenant {tenant.name!r} names {', '.join(strange)}, which the load can not ask for."
                )
            self._menus[tenant.name] = self._menu(adapters, tenant.adapters)
        if tenants:
            self._tenants = Popularity.of({tenant.name: tenant.weight for tenant in tenants})
            for name in {entry.adapter for entry in self._trace if entry.adapter}:
                may = {tenant.name: tenant.weight for tenant in tenants if name in (tenant.adapters or (name,))}
                if not may:
                    raise ScenarioError(f"The trace asks for {name!r}, which no tenant may call.")
                self._tenants_of[name] = Popularity.of(may)

    def _menu(self, adapters: tuple[str, ...], allowed: tuple[str, ...]) -> _Menu:
        settings = self._scenario.adapters
        base = bool(settings.base_share) and (not allowed or self._base in allowed)
        if base and (settings.base_share == 1.0 or allowed == (self._base,)):
            return _Menu(None, base)
        return _Menu(popularity(settings, adapters, allowed), base)

    @property
    def total(self) -> int | None:
        """Requests at most, warm-up included; None where only time ends the load."""
        ends = [len(self._trace)] if self._trace else []
        load = self._scenario.load
        if load.requests is not None:
            ends.append(load.warmup_requests + load.requests)
        return min(ends, default=None)

    def indices(self, worker: int, workers: int) -> Iterator[int]:
        """Of a closed loop: those that this process sends, ascending; endless where only time ends the load."""
        return iter(count(worker, workers) if self.total is None else range(worker, self.total, workers))

    def dues(self, worker: int, workers: int) -> Iterator[tuple[int, float]]:
        """Of an open loop: the indices that this process sends, and when. Warm-up requests are the first that are due;
        `duration_s` counts from the last of them, without warm-up from the load's start."""
        return ((index, due_s) for index, due_s in self._dues() if index % workers == worker)

    def _dues(self) -> Iterator[tuple[int, float]]:
        load = self._scenario.load
        measured_from_s = 0.0
        for index, due_s in enumerate(islice(arrivals(load.arrivals, self._scenario.seed, self._trace), self.total)):
            if index < load.warmup_requests:
                measured_from_s = due_s
            elif load.duration_s is not None and due_s >= measured_from_s + load.duration_s:
                return
            yield index, due_s

    def shot(self, index: int, due_s: float | None = None) -> Shot:
        """The request of this index; with a trace, an index of it."""
        scenario = self._scenario
        entry = self._trace[index] if self._trace else Entry(at_s=0.0)
        who, lengths, text = (random.Random(f"{scenario.seed}/{index}/{what}") for what in ("who", "lengths", "text"))

        target = self._targets.choose(index, who)
        adapter, tenant = self._models[target], ""
        if not adapter:
            adapter, tenant = self._who(index, entry.adapter, who)

        input_tokens = draw(scenario.prompts.input_tokens, lengths)
        output_tokens = draw(scenario.prompts.output_tokens, lengths)
        if entry.prompt is not None:
            prompt, input_tokens = entry.prompt, self._ruler.count(entry.prompt)
        else:
            input_tokens = entry.input_tokens or input_tokens
            prompt = self._writer.write(index, input_tokens, text, f"{scenario.seed}/{target}/{scenario.prompts.mark}")
        return Shot(
            index=index,
            target=target,
            adapter=adapter,
            tenant=tenant,
            prompt=prompt,
            input_tokens=input_tokens,
            output_tokens=entry.output_tokens or output_tokens,
            due_s=due_s,
            warmup=index < scenario.load.warmup_requests,
        )

    def _who(self, index: int, adapter: str, rng: random.Random) -> tuple[str, str]:
        tenants = self._tenants_of.get(adapter, self._tenants)
        tenant = tenants.choose(index, rng) if tenants else ""
        if adapter:
            return adapter, tenant
        menu = self._menus[tenant]
        for_base = rng.random() < self._scenario.adapters.base_share
        if menu.adapters is None or (menu.base and for_base):
            return self._base, tenant
        return menu.adapters.choose(index, rng), tenant
