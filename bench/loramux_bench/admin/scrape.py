"""What is read from an endpoint while a load runs."""

import math
import time
from collections.abc import Callable
from typing import TypeVar

from loramux_bench.admin.answers import AdapterView
from loramux_bench.admin.churn import Stop
from loramux_bench.admin.client import AdminClient, CallFailed
from loramux_bench.admin.metrics_page import read_page
from loramux_bench.run_dir import Sample
from loramux_bench.scenario import Scrape

T = TypeVar("T")

_ANSWER_S = 10.0
_TIERS_SHARE = 0.02
"""Of the time: what the list of adapters may take. The gateway makes it in the loop that relays the load's answers."""
_RANK = {"gpu": 0, "cpu": 1, "disk": 2, "remote": 3}
_NEVER = frozenset({401, 403, 404, 405})


def best_tier(adapter: AdapterView) -> str:
    """Of the live version, over the replicas; `remote` where there is none."""
    return min(adapter.tiers.values(), key=lambda tier: _RANK.get(tier, len(_RANK)), default="remote")


class Scraper:
    """Samples one endpoint. A part that fails is None in that sample; one that the endpoint does not have, by its first
    answer, is not asked for again."""

    def __init__(
        self,
        client: AdminClient,
        scrape: Scrape,
        *,
        admin: bool,
        keep: Callable[[Sample], None],
        now: Callable[[], float],
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`now` gives seconds since the run's start."""
        self._client = client
        self._scrape = scrape
        self._keep = keep
        self._now = now
        self._timer = timer
        self._asked = {"metrics": scrape.metrics, "tiers": scrape.admin and admin, "replicas": scrape.admin and admin}
        self._answered: set[str] = set()
        self._tiers_due_s = now()
        self._tiers_every_s = scrape.every_s
        self._tiers_cost_s = math.inf
        self._dropped = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what was not as the scenario wants it."""
        said = []
        if self._dropped:
            said.append(f"{self._dropped} series of the endpoint's metrics were left out of each sample.")
        if self._tiers_every_s > 2 * self._scrape.every_s:
            said.append(
                f"Tiers were asked for less often than every {self._scrape.every_s:g} s, at the slowest every "
                f"{self._tiers_every_s:.1f} s: the endpoint takes long to list its adapters, and its load is not to be "
                f"disturbed."
            )
        return tuple(said)

    def run(self, stop: Stop) -> None:
        """Until stopped. A scrape that takes longer than the interval leaves out those that were due meanwhile."""
        due_s = self._now()
        while not stop.is_set():
            self._keep(self.sample())
            late_s = self._now() - due_s
            due_s += self._scrape.every_s * (int(late_s / self._scrape.every_s) + 1)
            stop.wait(max(0.0, due_s - self._now()))

    def sample(self) -> Sample:
        """One look; nothing is raised for what the endpoint does."""
        due = self._now() >= self._tiers_due_s
        metrics = self._try("metrics", self._metrics)
        began = self._timer()
        replicas = self._try("replicas", self._replicas)
        # The gateway has both in its memory. What a short answer takes is the way there and the wait for its loop; what
        # the list takes beyond that is its own work.
        way_s = 0.0 if replicas is None else self._timer() - began
        tiers = self._try("tiers", lambda: self._tiers(way_s)) if due else None
        # When it was answered: an adapter that was loaded meanwhile was not there for requests sent before.
        return Sample(at_s=round(self._now(), 3), metrics=metrics, tiers=tiers, replicas=replicas)

    def _try(self, part: str, read: Callable[[], T]) -> T | None:
        if not self._asked[part]:
            return None
        try:
            found = read()
        except CallFailed as failure:
            if failure.status in _NEVER and part not in self._answered:
                self._asked[part] = False
            return None
        except ValueError:
            return None
        self._answered.add(part)
        return found

    def _metrics(self) -> dict[str, float]:
        found, dropped = read_page(self._client.metrics(answer_s=_ANSWER_S))
        self._dropped = max(self._dropped, dropped)
        return found

    def _tiers(self, way_s: float) -> dict[str, str]:
        began = self._timer()
        try:
            return {adapter.name: best_tier(adapter) for adapter in self._client.adapters(answer_s=_ANSWER_S)}
        finally:
            # The least that it took yet: more is the wait for a machine that is busy with the load.
            self._tiers_cost_s = min(self._tiers_cost_s, max(0.0, self._timer() - began - way_s))
            pause_s = self._tiers_cost_s / _TIERS_SHARE
            if pause_s > self._scrape.every_s:
                self._tiers_due_s = self._now() + pause_s
                self._tiers_every_s = max(self._tiers_every_s, pause_s)

    def _replicas(self) -> dict[str, str]:
        return {replica.id: replica.state for replica in self._client.replicas(answer_s=_ANSWER_S)}
