"""Moves up what is in demand, ahead of need: from remote to disk, and from disk to host memory."""

import asyncio
from collections.abc import Collection, Mapping
from functools import partial

from loramux_adapters.demand import Demand
from loramux_adapters.errors import LoramuxError, QueueTimeout
from loramux_adapters.model import Target, Tier
from loramux_adapters.ports import Clock
from loramux_adapters.residency.moves import Locate, Moves
from loramux_adapters.residency.room import Room
from loramux_adapters.residency.shelf import Shelf
from loramux_adapters.tiers import Want, plan

_REST_S = 60.0
"""How long something is left alone that failed, and how long what was seen on disk is taken to be there."""

_REACH = 2
"""How many times as many adapters as there are places are looked at: the others may come next, and are fetched."""


class Prefetch:
    """Never in the way of requests: it begins nothing on a replica where a load waits for room, and never waits
    itself. `close` ends what is under way."""

    def __init__(
        self, moves: Moves, room: Room, locate: Locate, demand: Demand, clock: Clock, *, concurrency: int
    ) -> None:
        """At most `concurrency` moves at a time, over all replicas."""
        self._moves = moves
        self._room = room
        self._locate = locate
        self._demand = demand
        self._clock = clock
        self._concurrency = concurrency
        self._tasks: set[asyncio.Task[None]] = set()
        self._resting: dict[str, float] = {}
        """What failed, until when."""
        self._fetched: dict[str, float] = {}
        """What is on disk, or on its way there, until when that is taken for granted."""

    def step(self, shelves: Collection[Shelf], wanted: Mapping[str, Target]) -> None:
        """Begin what is due; `wanted` are the targets that names lead to, by engine name. Only engines that load beside
        their step loop are given something to load: in the others it would stall everybody."""
        now = self._clock.monotonic()
        for marks in (self._resting, self._fetched):
            for name in [name for name, until in marks.items() if until <= now]:
                del marks[name]
        most = _REACH * max((shelf.capabilities.max_cpu_loras for shelf in shelves), default=0)
        targets = [target for name, _ in self._demand.top(most, now) if (target := wanted.get(name)) is not None]
        for shelf in shelves:
            missing = {
                target.engine_name: target
                for target in targets
                if (entry := shelf.holdings.get(target.engine_name)) is None or not (entry.placed or entry.move)
            }
            fits = self._fits(shelf, missing.values())
            for name, target in missing.items():
                if len(self._tasks) >= self._concurrency:
                    return
                if name in self._resting:
                    continue
                if name in fits:
                    self._watch(target, self._moves.begin(shelf, target, "demand"))
                elif name not in self._fetched:
                    self._fetched[name] = now + _REST_S
                    self._watch(target, asyncio.create_task(self._to_disk(target), name=f"fetch {name}"))

    def _fits(self, shelf: Shelf, targets: Collection[Target]) -> frozenset[str]:
        if not shelf.capabilities.staging or len(shelf.line):
            return frozenset()
        wants = tuple(Want(target.engine_name, Tier.CPU, "demand", at) for at, target in enumerate(targets))
        found = plan(self._room.residency(shelf, wants, tuple(targets)))
        return frozenset(step.engine_name for step in found.transitions if step.reason == "demand")

    async def _to_disk(self, target: Target) -> None:
        await self._locate(target)

    def _watch(self, target: Target, task: asyncio.Task[None] | None) -> None:
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(partial(self._done, target))

    def _done(self, target: Target, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None or isinstance(error, QueueTimeout):
            return
        self._resting[target.engine_name] = self._clock.monotonic() + _REST_S
        if not isinstance(error, LoramuxError):
            raise error

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
