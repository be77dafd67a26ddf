from collections import Counter
from itertools import count, cycle

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from loramux_serving.admission.fair_queue import FairQueue

MAX_PER_ADAPTER = 2
TURN_S = 1.0


class Line(FairQueue[str]):
    """A queue of items that are named for their adapter, with slots for all, at one moment."""

    def go(self, adapter: str, limit: int) -> bool:
        return self.start(adapter, adapter, limit, 99, 0.0)

    def wait(self, item: str) -> None:
        self.push(item[0], item[0], item, 0.0)

    def turn(self, limit: int) -> str | None:
        return self.next(limit, 99, 0.0)


def drain(queue: Line, limit: int) -> list[str]:
    """Everything in the order of its turns, each finishing at once."""
    order = []
    while (item := queue.turn(limit)) is not None:
        order.append(item)
        queue.finish(item[0], item[0])
    return order


def test_first_in_first_out_within_an_adapter() -> None:
    queue = Line(8)
    for item in ("a1", "a2", "a3"):
        queue.wait(item)
    assert drain(queue, 1) == ["a1", "a2", "a3"]


def test_a_flood_does_not_delay_another_adapter() -> None:
    queue = Line(8)
    for number in range(1000):
        queue.wait(f"a{number}")
    queue.wait("b0")
    queue.wait("c0")
    assert drain(queue, 1)[:4] == ["a0", "b0", "c0", "a1"]


def test_an_adapter_at_its_own_limit_is_passed_over_until_one_finishes() -> None:
    queue = Line(1)
    assert queue.go("a", 3)
    assert not queue.go("a", 3)
    queue.wait("a1")
    assert not queue.anyone_next
    assert queue.go("b", 3), "who waits for its own limit does not hold up others"
    assert queue.turn(3) is None
    queue.finish("a", "a")
    assert queue.turn(3) == "a1"
    queue.check_integrity()


def test_nobody_is_overtaken() -> None:
    queue = Line(8)
    assert queue.go("a", 1)
    queue.wait("b0")
    queue.finish("a", "a")
    assert not queue.go("a", 1)
    assert queue.turn(1) == "b0"


def test_unwanted_items_cost_no_turn() -> None:
    gone = {"a0", "a1", "b0"}
    queue = Line(8, wanted=lambda item: item not in gone)
    for item in ("a0", "a1", "a2", "b0", "c0"):
        queue.wait(item)
    assert drain(queue, 1) == ["a2", "c0"]
    queue.check_integrity()
    assert queue.queued == 0


def test_removed_items_are_gone() -> None:
    queue = Line(8)
    queue.wait("a0")
    queue.wait("b0")
    assert queue.remove("a", "a", "a0")
    assert not queue.remove("a", "a", "a0")
    assert not queue.remove("z", "z", "z0")
    assert drain(queue, 1) == ["b0"]
    assert list(queue.adapters()) == []


def test_the_versions_of_an_adapter_share_its_limit_but_not_its_line() -> None:
    queue: FairQueue[str] = FairQueue(2)
    assert queue.start("a", "a@1", 9, 1, 0.0)
    assert not queue.start("a", "a@2", 9, 1, 0.0), "there is one slot"
    queue.push("a", "a@2", "canary", 0.0)
    assert queue.start("base", None, 9, 1, 0.0), "the base needs none"
    queue.push("a", "a@1", "live", 0.5)
    assert queue.next(9, 1, 0.5) == "live"
    queue.finish("a", "a@1")
    queue.finish("a", "a@1")
    assert queue.next(9, 1, 0.5) == "canary"
    assert (queue.running_of("a"), queue.queued_of("a")) == (1, 0)
    queue.check_integrity()


def test_what_waits_for_a_slot_starts_together() -> None:
    queue: FairQueue[str] = FairQueue(8)
    assert queue.start("a", "a", 9, 1, 0.0)
    for number in range(3):
        queue.push("b", "b", f"b{number}", 0.0)
    queue.push("c", "c", "c0", 0.0)
    assert queue.next(9, 1, 5.0) is None
    assert not queue.start("a", "a", 9, 1, 5.0), "its turn is over, and others wait"
    assert list(queue.soon(1)) == ["b0"]
    queue.finish("a", "a")
    assert [queue.next(9, 1, 5.0) for _ in range(4)] == ["b0", "b1", "b2", None]


def test_who_could_not_use_its_slot_comes_before_those_who_had_none() -> None:
    queue: FairQueue[str] = FairQueue(8)
    assert queue.start("a", "a", 9, 1, 0.0)
    queue.push("b", "b", "b0", 0.0)
    queue.push("c", "c", "c0", 0.0, ahead=True)
    queue.push("d", "d", "d0", 0.0, ahead=True)
    queue.finish("a", "a")
    order = []
    while (item := queue.next(9, 1, 0.0)) is not None:
        order.append(item)
        queue.finish(item[0], item[0])
    assert order == ["c0", "d0", "b0"]


LINES = {
    "a": ("a", "a@1"),
    "b": ("b", "b@1"),
    "c": ("c", "c@1"),
    "d": ("d", "d@1"),
    "e": ("d", "d@2"),
    "f": ("f", None),
}
"""Two of them are of one adapter, and one needs no slot."""


class FairQueueMachine(RuleBasedStateMachine):
    """Random use, with limits that change and time that passes; a model counts what runs and how often others were
    served first."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[tuple[str, int]] = FairQueue(MAX_PER_ADAPTER, slot_turn_s=TURN_S)
        self.limit = 3
        self.slots = 2
        self.now = 0.0
        self.running: Counter[str] = Counter()
        self.waiting: dict[str, list[tuple[str, int]]] = {}
        self.numbers = count()

    def adapter_runs(self, line: str) -> int:
        return sum(number for other, number in self.running.items() if LINES[other][0] == LINES[line][0])

    def runs(self, line: str) -> None:
        """The line's next one has begun."""
        self.running[line] += 1
        assert self.running.total() <= self.limit
        assert self.adapter_runs(line) <= MAX_PER_ADAPTER
        in_slots = [other for other, number in self.running.items() if number and LINES[other][1]]
        assert self.running[line] > 1 or not LINES[line][1] or len(in_slots) <= self.slots, "one that was not running"

    @rule(line=st.sampled_from(sorted(LINES)), ahead=st.booleans())
    def arrive(self, line: str, ahead: bool) -> None:
        if self.queue.start(*LINES[line], self.limit, self.slots, self.now):
            assert not self.waiting.get(line), "overtook its own line"
            self.runs(line)
            return
        item = (line, next(self.numbers))
        self.queue.push(*LINES[line], item, self.now, ahead=ahead)
        self.waiting.setdefault(line, []).append(item)

    @rule()
    def grant(self) -> None:
        item = self.queue.next(self.limit, self.slots, self.now)
        if item is not None:
            assert self.waiting[item[0]].pop(0) == item
            self.runs(item[0])
            return
        if self.running.total() >= self.limit:
            return
        left = [line for line, items in self.waiting.items() if items and self.adapter_runs(line) < MAX_PER_ADAPTER]
        over = self.queue.slots_held > self.slots
        for line in left:
            assert LINES[line][1], "waits for no slot, and was left beside an empty place"
            assert self.queue.slots_held >= self.slots, "a slot was left empty"
        if left and not over:
            # Those that run something have a slot: they were closed, for somebody who has none.
            assert any(items and not self.running[line] for line, items in self.waiting.items())

    @precondition(lambda self: self.running.total() > 0)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        line = data.draw(st.sampled_from(sorted(+self.running)))
        self.running[line] -= 1
        self.queue.finish(*LINES[line])

    @precondition(lambda self: any(self.waiting.values()))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from([item for items in self.waiting.values() for item in items]))
        assert self.queue.remove(*LINES[item[0]], item)
        self.waiting[item[0]].remove(item)

    @rule(limit=st.integers(0, 8), slots=st.integers(1, 5))
    def resize(self, limit: int, slots: int) -> None:
        self.limit, self.slots = limit, slots

    @rule(seconds=st.sampled_from([0.1, 0.5, TURN_S, 3 * TURN_S]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def books_agree(self) -> None:
        self.queue.check_integrity()
        assert self.queue.running == self.running.total()
        assert self.queue.queued == sum(map(len, self.waiting.values()))
        for adapter in {adapter for adapter, _ in LINES.values()}:
            mine = [line for line, (of, _) in LINES.items() if of == adapter]
            assert self.queue.running_of(adapter) == sum(self.running[line] for line in mine)
            assert self.queue.queued_of(adapter) == sum(len(self.waiting.get(line, [])) for line in mine)

    def teardown(self) -> None:
        """Whatever happened: when time goes on and what runs finishes, everybody is served, and nothing is left."""
        self.limit, self.slots = max(self.limit, 1), max(self.slots, 1)
        for _ in range(200):
            while (item := self.queue.next(self.limit, self.slots, self.now)) is not None:
                self.waiting[item[0]].remove(item)
                self.running[item[0]] += 1
            for line in self.running.elements():
                self.queue.finish(*LINES[line])
            self.running.clear()
            self.now += TURN_S
        assert (self.queue.running, self.queue.queued, self.queue.slots_held) == (0, 0, 0)
        self.queue.check_integrity()


TestFairQueue = FairQueueMachine.TestCase


@given(st.data())
def test_rounds_are_fair_while_there_are_slots_for_all(data: st.DataObject) -> None:
    """With a slot for each: whoever waits and may run is served after at most one of each other."""
    queue: FairQueue[tuple[str, int]] = FairQueue(99)
    numbers = count()
    since: dict[str, Counter[str]] = {}
    waiting: Counter[str] = Counter()
    for line in data.draw(st.lists(st.sampled_from("abcd."), max_size=60)):
        if line != ".":
            queue.push(line, line, (line, next(numbers)), 0.0)
            waiting[line] += 1
            since.setdefault(line, Counter())
        elif (item := queue.next(99, 4, 0.0)) is not None:
            served = item[0]
            for other in waiting.keys() - {served}:
                since[other][served] += 1
                assert since[other][served] <= 1
            waiting[served] -= 1
            since[served] = Counter()
            waiting = +waiting
            since = {line: since[line] for line in waiting}


LONGEST_S, TICK_S = 3.0, 0.25


@settings(deadline=None)
@given(st.integers(1, 3), st.lists(st.sampled_from([TICK_S, 1.0, LONGEST_S]), min_size=1, max_size=40))
def test_nobody_starves_however_many_others_ask(slots: int, answers_s: list[float]) -> None:
    """Lines that never become empty, answers of any length up to the longest: the wait for a slot has a bound."""
    lines = "abcdef"
    answers = cycle(answers_s)
    queue: FairQueue[tuple[str, int]] = FairQueue(3, slot_turn_s=TURN_S)
    numbers = count()
    until: list[tuple[float, str]] = []
    waits_since = dict.fromkeys(lines, 0.0)
    # Each before it in line takes at most a turn for each slot, and one answer.
    bound_s = len(lines) * (slots * TURN_S + LONGEST_S + 2 * TICK_S)
    for step in range(200):
        now = step * TICK_S
        for end, line in [running for running in until if running[0] <= now]:
            until.remove((end, line))
            queue.finish(line, line)
        for line in lines:
            while queue.queued_of(line) < 2:
                queue.push(line, line, (line, next(numbers)), now)
        while (item := queue.next(8, slots, now)) is not None:
            line = item[0]
            waits_since[line] = now
            until.append((now + next(answers), line))
        assert len({line for _, line in until}) <= slots
        for line, since in waits_since.items():
            assert now - since <= bound_s, f"{line} waits"
        queue.check_integrity()
