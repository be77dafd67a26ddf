"""Canaries that have a rule: what their requests did, and their end as the rule says."""

import asyncio
from collections.abc import Mapping

import structlog

from loramux_adapters.canary import Trial
from loramux_adapters.errors import LoramuxError
from loramux_adapters.model import AdapterState, CanaryEnd, CanaryFigures
from loramux_adapters.pointers import Pointers
from loramux_adapters.ports import Clock
from loramux_adapters.registry import Registry
from loramux_adapters.snapshot import Snapshot
from loramux_serving.relay.ports import Recorder
from loramux_serving.relay.record import Outcome, RequestRecord

_log = structlog.get_logger(__name__)

_LOOK_S = 1.0
"""How often rules are looked at."""

_FAILED: Mapping[Outcome, bool] = {"ok": False, "engine_error": True, "interrupted": True}
"""Requests that say something of a version, and whether that it failed. What its caller did wrong or broke off, and
what never came to it, says nothing."""


class CanaryWatch:
    """A `relay.ports.Recorder` that counts for the rules and hands on to the next one. One event loop."""

    def __init__(self, registry: Registry, pointers: Pointers, clock: Clock, then: Recorder) -> None:
        self._pointers = pointers
        self._clock = clock
        self._then = then
        self._trials: dict[str, Trial] = {}
        self._ending: set[str] = set()
        registry.on_publish(self._published)

    def record(self, record: RequestRecord) -> None:
        trial = self._trials.get(record.adapter) if self._trials and record.adapter is not None else None
        if trial is not None and record.version is not None:
            failed = _FAILED.get(record.outcome)
            if failed is not None:
                trial.count(record.version, self._clock.monotonic(), None if failed else record.duration_s)
        self._then.record(record)

    def figures(self, adapter: str) -> CanaryFigures | None:
        """What both sides did within the rule's window. None where the adapter has no canary with a rule."""
        trial = self._trials.get(adapter)
        return None if trial is None else trial.figures(self._clock.monotonic())

    async def run(self) -> None:
        """Look at the rules, for ever. Ends what it began when it is cancelled."""
        async with asyncio.TaskGroup() as ends:
            while True:
                await asyncio.sleep(_LOOK_S)
                for name, trial in self._trials.items():
                    end = None if name in self._ending else trial.end(self._clock.monotonic(), self._clock.now())
                    if end is not None:
                        self._ending.add(name)
                        ends.create_task(self._end(name, trial, end), name=f"end canary of {name}")

    async def _end(self, name: str, trial: Trial, end: CanaryEnd) -> None:
        """One that fails, as no engine or database answers, is judged again at the next look."""
        log = _log.bind(adapter=name, version=end.version, promoted=end.promoted, reason=end.reason)
        try:
            if await self._pointers.end_canary(name, trial.since, end) is not None:
                log.info("canary ended by its rule")
        except LoramuxError as error:
            log.warning("a canary could not be ended", code=error.code, why=error.message)
        finally:
            self._ending.discard(name)

    def _published(self, snapshot: Snapshot) -> None:
        """A canary that began anew, or beside another live version, is watched from the start."""
        trials: dict[str, Trial] = {}
        for adapter in snapshot.state.adapters.values():
            canary, live, since = adapter.canary, adapter.live, adapter.canary_since
            if adapter.canary_rule is None or canary is None or live is None or since is None:
                continue
            if adapter.state is not AdapterState.ACTIVE:
                continue
            known = self._trials.get(adapter.name)
            if known is None or (known.since, known.canary, known.live) != (since, canary, live):
                known = Trial(adapter.canary_rule, canary=canary, live=live, since=since)
            trials[adapter.name] = known
        self._trials = trials
