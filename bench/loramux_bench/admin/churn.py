"""Changes through the admin interface while a load runs: when they are due, and their doing."""

import heapq
import itertools
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, Protocol

from loramux_bench.admin.answers import CanaryView, OperationView
from loramux_bench.admin.artifact import Artifact
from loramux_bench.admin.client import AdminClient, CallFailed
from loramux_bench.admin.restoration import Restoration
from loramux_bench.run_dir import ChurnRecord
from loramux_bench.scenario import Churn, find_source

Action = Literal["add", "update", "delete"]

_AT_A_TIME = 4
_LATE_S = 1.0


class Stop(Protocol):
    """As `threading.Event`, which below gevent's patching is gevent's."""

    def is_set(self) -> bool: ...

    def wait(self, timeout: float | None = None) -> bool: ...


@dataclass(frozen=True, slots=True)
class Change:
    at_s: float
    action: Action
    number: int
    """The how manyth of its kind, from 0."""
    adapter: str = ""
    """Empty for a delete: what there is to delete shows when it is due."""


def changes(churn: Churn, adapters: tuple[str, ...]) -> Iterator[Change]:
    """Without end, by time. Those of a kind are evenly spaced, and kinds of the same rate fall between each other.
    Updates go through `adapters` in an order that the seed gives, then again in another."""
    kinds: tuple[tuple[Action, float, Iterator[str]], ...] = (
        ("add", churn.adds_per_min, (f"churn-{number:03}" for number in itertools.count())),
        ("update", churn.updates_per_min if adapters else 0.0, _rounds(adapters, random.Random(churn.seed))),
        ("delete", churn.deletes_per_min, itertools.repeat("")),
    )
    active = [kind for kind in kinds if kind[1] > 0]
    streams = [
        _evenly(action, 60.0 / rate, (place + 0.5) / len(active), names)
        for place, (action, rate, names) in enumerate(active)
    ]
    return heapq.merge(*streams, key=lambda change: change.at_s)


def _evenly(action: Action, every_s: float, phase: float, names: Iterator[str]) -> Iterator[Change]:
    for number, name in enumerate(names):
        yield Change((number + phase) * every_s, action, number, name)


def _rounds(adapters: tuple[str, ...], draw: random.Random) -> Iterator[str]:
    while True:
        yield from draw.sample(adapters, len(adapters))


@dataclass(slots=True)
class _Updated:
    """An adapter that is not the run's own: how it was, and the versions that churn has given it."""

    live: int | None
    canary: CanaryView | None
    added: list[int] = field(default_factory=list)


class Churner:
    """Does the changes of one run. `own` are adapters that are deleted after the run anyway; the others get back what
    was live. Everything is owed to `restoration`."""

    def __init__(
        self,
        client: AdminClient,
        churn: Churn,
        *,
        adapters: tuple[str, ...],
        own: tuple[str, ...],
        restoration: Restoration,
        keep: Callable[[ChurnRecord], None],
        now: Callable[[], float],
    ) -> None:
        """`now` gives seconds since the run's start; `keep` is called from several threads. Raises `ScenarioError` for
        a source that is no adapter."""
        self._client = client
        self._churn = churn
        self._adapters = adapters
        self._own = frozenset(own)
        self._restoration = restoration
        self._keep = keep
        self._now = now
        self._source = Artifact.read(find_source(churn.source))
        self._updates = (Artifact.read(find_source(churn.update_source)), self._source)
        self._lock = threading.Lock()
        self._added: deque[str] = deque()
        self._updated: dict[str, _Updated] = {}
        self._skipped = 0
        self._latest_s = 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what was not as the scenario wants it."""
        said = []
        if self._latest_s > _LATE_S:
            said.append(
                f"Churn could not keep its pace: a change began {self._latest_s:.1f} s late, as {_AT_A_TIME} others "
                f"were still under way."
            )
        if self._skipped:
            said.append(f"{self._skipped} deletes of churn were left out: there was no adapter of its own to delete.")
        return tuple(said)

    def run(self, stop: Stop) -> None:
        """Until stopped; returns when the changes under way have ended. Those that wait for their turn by then are not
        done."""
        pool = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="churn")
        try:
            for change in changes(self._churn, self._adapters):
                while (left_s := change.at_s - self._now()) > 0 and not stop.is_set():
                    stop.wait(left_s)
                if stop.is_set():
                    return
                pool.submit(self._do, change, stop)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _do(self, change: Change, stop: Stop) -> None:
        if stop.is_set():
            return
        began_s = self._now()
        with self._lock:
            self._latest_s = max(self._latest_s, began_s - change.at_s)
            name = change.adapter
            if change.action == "delete":
                if not self._added:
                    self._skipped += 1
                    return
                name = self._added.popleft()
        status, error = 0, ""
        try:
            status = self._act(change, name)
        except CallFailed as failure:
            status, error = failure.status, failure.code
        except OSError:  # of the source's files
            error = "source"
        self._keep(
            ChurnRecord(
                at_s=round(began_s, 6),
                action=change.action,
                adapter=name,
                took_s=round(self._now() - began_s, 6),
                status=status,
                error=error,
            )
        )

    def _act(self, change: Change, name: str) -> int:
        """The status. Raises `CallFailed`."""
        match change.action:
            case "add":
                self._restoration.owe(_deletion(name), lambda: self._client.delete(name))
                self._client.wait(self._client.upload(name, self._source.archive(f"{name} {change.number}")))
                with self._lock:
                    self._added.append(name)
            case "update":
                self._update(change, name)
            case "delete":
                self._client.delete(name)
                self._restoration.settle(_deletion(name))
        return 200

    def _update(self, change: Change, name: str) -> None:
        artifact = self._updates[change.number % 2]
        if name not in self._own:
            self._remember(name)
        operation = self._client.upload(name, artifact.archive(f"{name} update {change.number}"))
        self._note(name, operation)
        self._client.wait(operation)

    def _remember(self, name: str) -> None:
        if name in self._updated:
            return
        before = self._client.adapter(name)
        if before is None:
            raise CallFailed(f"There is no adapter {name!r} to update.", status=404, code="adapter_not_found")
        with self._lock:
            self._updated.setdefault(name, _Updated(before.live, before.canary))
        self._restoration.owe(f"lead the adapter {name!r} back to what was live", lambda: self._lead_back(name))

    def _note(self, name: str, operation: OperationView) -> None:
        with self._lock:
            if name in self._updated and operation.version is not None:
                self._updated[name].added.append(operation.version)

    def _lead_back(self, name: str) -> None:
        """Raises `CallFailed`."""
        was = self._updated[name]
        if not was.added:
            return
        if was.live is not None:
            self._client.promote(name, was.live)
        if was.canary is not None:
            self._client.set_canary(name, was.canary)
        for number in was.added:
            self._client.delete_version(name, number)


def _deletion(name: str) -> str:
    return f"delete the adapter {name!r}"
