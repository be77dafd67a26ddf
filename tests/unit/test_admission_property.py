"""Random arrivals, departures, cancellations and time-outs, several of them in one tick of the loop, with fewer slots
than adapters at times."""

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from loramux_adapters.errors import QueueFull, QueueTimeout
from loramux_adapters.model import Role
from loramux_serving.admission.fair_admission import FairAdmission
from loramux_serving.relay.ports import Principal
from loramux_serving.settings import AdmissionSettings
from tests.fakes.clock import FakeClock

APP = Principal("k", "app", Role.INFERENCE)
SETTINGS = AdmissionSettings(
    max_concurrent=2,
    max_concurrent_per_adapter=2,
    slot_turn_s=2,
    max_queue=6,
    max_queue_per_adapter=4,
    queue_timeout_s=10,
)


class AdmissionMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.replicas = 1
        self.most_replicas = 1
        self.slots = 2
        self.most_slots = 2
        self.admission = FairAdmission(
            SETTINGS, self.clock, lambda: self.replicas, self.clock.call_later, slots=lambda: self.slots
        )
        self.inside: list[str] = []
        self.aside: list[str] = []
        self.loads: list[asyncio.Event] = []
        self.callers: list[tuple[asyncio.Task[None], asyncio.Event]] = []

    async def _stay(self, adapter: str, may_go: asyncio.Event, loaded: asyncio.Event | None = None) -> None:
        """With `loaded`, steps aside first, until then."""
        try:
            async with self.admission.admit(APP, adapter, f"{adapter}@1" if adapter != "c" else None) as place:
                if loaded is not None:
                    async with place.aside():
                        self.aside.append(adapter)
                        try:
                            await loaded.wait()
                        finally:
                            self.aside.remove(adapter)
                self.inside.append(adapter)
                try:
                    await may_go.wait()
                finally:
                    self.inside.remove(adapter)
        except (QueueFull, QueueTimeout):
            pass

    def _settle(self) -> None:
        async def ticks() -> None:
            for _ in range(60):  # a place may pass through many hands
                await asyncio.sleep(0)

        self.loop.run_until_complete(ticks())
        self.callers = [(task, may_go) for task, may_go in self.callers if not task.done()]

    @rule(adapter=st.sampled_from("abcde"))
    def arrive(self, adapter: str) -> None:
        may_go = asyncio.Event()
        self.callers.append((self.loop.create_task(self._stay(adapter, may_go)), may_go))

    @rule(adapter=st.sampled_from("abcde"))
    def arrive_cold(self, adapter: str) -> None:
        may_go, loaded = asyncio.Event(), asyncio.Event()
        self.loads.append(loaded)
        self.callers.append((self.loop.create_task(self._stay(adapter, may_go, loaded)), may_go))

    @rule(data=st.data())
    def finish_load(self, data: st.DataObject) -> None:
        if self.loads:
            loaded = data.draw(st.sampled_from(self.loads))
            self.loads.remove(loaded)
            loaded.set()

    @rule(data=st.data())
    def depart(self, data: st.DataObject) -> None:
        if self.callers:
            data.draw(st.sampled_from(self.callers))[1].set()

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.callers:
            data.draw(st.sampled_from(self.callers))[0].cancel()

    @rule()
    def tick(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0))

    @rule()
    def settle(self) -> None:
        """When all is quiet, who is inside has a place, who has a place is inside, and none is left empty."""
        self._settle()
        snapshot = self.admission.snapshot()
        assert snapshot.running == len(self.inside)
        assert snapshot.queued == len(self.callers) - len(self.inside)
        for adapter, load in snapshot.adapters.items():
            assert load.running == self.inside.count(adapter)
            if load.queued > self.aside.count(adapter) and load.running < SETTINGS.max_concurrent_per_adapter:
                assert snapshot.running >= snapshot.capacity or (
                    adapter != "c" and snapshot.slots_held >= self.slots
                ), f"{adapter} waits beside an empty place"

    @rule(seconds=st.floats(0, 6))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(replicas=st.integers(0, 3), slots=st.integers(1, 4))
    def resize(self, replicas: int, slots: int) -> None:
        self.replicas, self.slots = replicas, slots
        self.most_replicas = max(self.most_replicas, replicas)
        self.most_slots = max(self.most_slots, slots)
        self.admission.capacity_changed()

    @invariant()
    def limits_hold(self) -> None:
        self.admission.check_integrity()
        snapshot = self.admission.snapshot()
        assert snapshot.running <= SETTINGS.max_concurrent * self.most_replicas
        assert snapshot.queued <= SETTINGS.max_queue
        assert sum(load.running > 0 for name, load in snapshot.adapters.items() if name != "c") <= self.most_slots
        for load in snapshot.adapters.values():
            assert load.running <= SETTINGS.max_concurrent_per_adapter
            assert load.queued <= SETTINGS.max_queue_per_adapter

    def teardown(self) -> None:
        for task, _ in self.callers:
            task.cancel()
        self._settle()
        self.loop.close()
        snapshot = self.admission.snapshot()
        assert (snapshot.running, snapshot.queued, snapshot.adapters) == (0, 0, {}), "a place was lost"


TestAdmission = AdmissionMachine.TestCase
TestAdmission.settings = settings(stateful_step_count=60, max_examples=100, deadline=None)
