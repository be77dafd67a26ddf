"""One process's share of one run: what its users do, and what it tells the conductor meanwhile."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import gevent
import gevent.event
import msgspec

from loramux_bench.apis.connect import connect
from loramux_bench.apis.port import Api, Ask
from loramux_bench.load.plan import Plan, Shot
from loramux_bench.load.split import split
from loramux_bench.load.tokenizers import Ruler, ruler_for
from loramux_bench.record import RequestRecord, encode
from loramux_bench.run_dir import Sample
from loramux_bench.runner.attempts import Sender
from loramux_bench.runner.clock import RunClock
from loramux_bench.runner.orders import Orders, Report, pack_report
from loramux_bench.runner.watch import Watch
from loramux_bench.scenario import Scenario, Target

_REPORT_EVERY_S = 0.25
_SAMPLE_EVERY_S = 1.0
_LOOK_EVERY_S = 0.05


@dataclass(slots=True)
class Part:
    """The share of one target: where its next request comes from."""

    scenario: Scenario
    plan: Plan
    turns: Iterator[tuple[int, float | None]]
    sender: Sender
    in_flight: int = 0
    held: int = 0
    """Taken from the turns, and not ended: under way, or waiting until they are due."""
    exhausted: bool = False
    users: int = 0
    begun: int = 0

    @property
    def target(self) -> Target:
        return self.scenario.targets[0]

    def next_shot(self) -> Shot | None:
        """None when there is nothing left."""
        for index, due_s in self.turns:
            return self.plan.shot(index, due_s)
        self.exhausted = True
        return None


class Session:
    """Used by every user of this process. `report` takes packed `Report`s; `seen` every record."""

    def __init__(
        self, orders: Orders, *, report: Callable[[bytes], None], seen: Callable[[RequestRecord], None]
    ) -> None:
        self._orders = orders
        self._report = report
        self._seen = seen
        self._outbox: list[bytes] = []
        self._fresh: deque[RequestRecord] = deque()
        self._any_fresh = gevent.event.Event()
        self._clock = RunClock(orders.started_at)
        self._stopping = gevent.event.Event()
        self._parts = {part.target.name: part for part in self._make_parts()}
        self._watch = Watch(orders.worker)
        self._clerk = gevent.spawn(self._file)
        self._reporter = gevent.spawn(self._report_on)

    def _make_parts(self) -> Iterator[Part]:
        scenario = self._orders.load_scenario()
        ruler = ruler_for(scenario.prompts, self._orders.observations)
        count = self._aside(ruler) if scenario.prompts.tokenizer else None
        for part in split(scenario):
            plan = Plan.of(part, adapters=self._orders.adapters, base=self._orders.base, ruler=ruler)
            sender = Sender(
                target=part.targets[0],
                clock=self._clock,
                not_ready=part.not_ready,
                worker=self._orders.worker,
                pause=self._stopping.wait,
                count=count,
            )
            yield Part(part, plan, self._turns(part, plan), sender)

    def _turns(self, part: Scenario, plan: Plan) -> Iterator[tuple[int, float | None]]:
        worker, workers = self._orders.worker, self._orders.workers
        if part.load.shape == "open":
            yield from plan.dues(worker, workers)
        else:
            for index in plan.indices(worker, workers):
                yield index, None

    def _aside(self, ruler: Ruler) -> Callable[[str], int]:
        """Count in a thread, so that other streams' time stamps are not late by it."""
        return lambda text: int(gevent.get_hub().threadpool.apply(ruler.count, (text,)))

    def open(self, target: Target) -> Api:
        """A client of a user's own, connected."""
        name = target.name
        self._parts[name].users += 1
        load = self._parts[name].scenario.load
        api = connect(target, url=self._orders.urls[name], key=self._orders.keys[name], timeout_s=load.timeout_s)
        api.open()
        return api

    def begin(self, target: Target) -> bool:
        """Wait for this user's beginning: offset 0, or with a ramp its place in it; False if the run ends before."""
        part = self._parts[target.name]
        load = part.scenario.load
        place = part.begun * self._orders.workers + self._orders.worker
        part.begun += 1
        return not self._wait_until(load.ramp_s * place / load.users if load.shape == "closed" else 0.0)

    def turn(self, target: Target, api: Api) -> bool:
        """One request of this target, when it is due; False when there is none left or the run ends."""
        part = self._parts[target.name]
        shot = part.next_shot()
        if shot is None:
            return False
        part.held += 1
        try:
            if self._stopping.is_set() or (shot.due_s is not None and self._wait_until(shot.due_s)):
                return False
            self._send(part, shot, api)
        finally:
            part.held -= 1
        think_s = part.scenario.load.think_s
        return not (think_s and self._stopping.wait(think_s))

    def _send(self, part: Part, shot: Shot, api: Api) -> None:
        part.in_flight += 1
        try:
            part.sender.send(shot, api, self._ask(part, shot), self._keep)
        finally:
            part.in_flight -= 1

    def _ask(self, part: Part, shot: Shot) -> Ask:
        prompts = part.scenario.prompts
        return Ask(
            model=shot.adapter,
            prompt=shot.prompt,
            max_tokens=shot.output_tokens,
            key=self._orders.tenants.get(shot.tenant, "") or self._orders.keys[part.target.name],
            timeout_s=part.scenario.load.timeout_s,
            ignore_eos=prompts.ignore_eos,
            temperature=prompts.temperature,
            extra=part.target.extra,
        )

    def _wait_until(self, due_s: float) -> bool:
        """True if the run ends meanwhile."""
        while (left_s := due_s - self._clock.now_s()) > 0:
            if self._stopping.wait(left_s):
                return True
        return bool(self._stopping.is_set())

    def _keep(self, record: RequestRecord) -> None:
        self._fresh.append(record)
        self._any_fresh.set()

    def _file(self) -> None:
        """Records are encoded and told one by one, with a look at the network between them: when many requests end at
        once, those that go on must not be read late."""
        while True:
            self._any_fresh.wait()
            self._any_fresh.clear()
            while self._fresh:
                self._file_one()
                gevent.sleep(0)

    def _file_one(self) -> None:
        record = self._fresh.popleft()
        self._outbox.append(encode(record))
        self._seen(record)

    @property
    def in_flight(self) -> int:
        return sum(part.in_flight for part in self._parts.values())

    def fail(self, sentence: str) -> None:
        """This process can not do its share."""
        self._report(pack_report(Report(worker=self._orders.worker, records=[], failure=sentence)))

    def stop(self) -> None:
        """Users that wait stop waiting, and none begins another request."""
        self._stopping.set()

    def drain(self, limit_s: float) -> None:
        """Wait until nothing is under way, at most so long."""
        deadline = time.monotonic() + limit_s
        while self.in_flight and time.monotonic() < deadline:
            gevent.sleep(_LOOK_EVERY_S)

    def close(self) -> None:
        """After the users have ended: the last report."""
        self._stopping.set()
        self._reporter.kill()
        self._clerk.kill()
        while self._fresh:
            self._file_one()
        self._send_report(done=True, closed=True)
        self._watch.stop()

    def _report_on(self) -> None:
        sampled_at = time.monotonic()
        while True:
            gevent.sleep(_REPORT_EVERY_S)
            due = time.monotonic() - sampled_at >= _SAMPLE_EVERY_S
            sampled_at = time.monotonic() if due else sampled_at
            idle = not self._fresh and all(part.exhausted and not part.held for part in self._parts.values())
            self._send_report(done=idle, sampled=due)

    def _send_report(self, *, done: bool, sampled: bool = True, closed: bool = False) -> None:
        records, self._outbox = self._outbox, []
        sample = b""
        if sampled:
            generator = self._watch.sample(
                users=sum(part.users for part in self._parts.values()), in_flight=self.in_flight
            )
            sample = msgspec.json.encode(Sample(at_s=round(self._clock.now_s(), 3), generator=generator))
        worker = self._orders.worker
        self._report(pack_report(Report(worker=worker, records=records, sample=sample, done=done, closed=closed)))
