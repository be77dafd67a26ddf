from collections import Counter
from itertools import count

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from loramux_serving.admission.fair_queue import FairQueue

ADAPTERS = st.sampled_from("abcde")
MAX_PER_ADAPTER = 2


def drain(queue: FairQueue[str], limit: int) -> list[str]:
    """Everything in the order of its turns, each finishing at once."""
    order = []
    while (item := queue.next(limit)) is not None:
        order.append(item)
        queue.finish(item[0])
    return order


def test_first_in_first_out_within_an_adapter() -> None:
    queue: FairQueue[str] = FairQueue(8)
    for item in ("a1", "a2", "a3"):
        queue.push("a", item)
    assert drain(queue, 1) == ["a1", "a2", "a3"]


def test_a_flood_does_not_delay_another_adapter() -> None:
    queue: FairQueue[str] = FairQueue(8)
    for number in range(1000):
        queue.push("a", f"a{number}")
    queue.push("b", "b0")
    queue.push("c", "c0")
    assert drain(queue, 1)[:4] == ["a0", "b0", "c0", "a1"]


def test_an_adapter_at_its_own_limit_is_passed_over_until_one_finishes() -> None:
    queue: FairQueue[str] = FairQueue(1)
    assert queue.start("a", 3)
    assert not queue.start("a", 3)
    queue.push("a", "a1")
    assert not queue.anyone_next
    assert queue.start("b", 3), "who waits for its own limit does not hold up others"
    assert queue.next(3) is None
    queue.finish("a")
    assert queue.next(3) == "a1"
    queue.check_integrity()


def test_nobody_is_overtaken() -> None:
    queue: FairQueue[str] = FairQueue(8)
    assert queue.start("a", 1)
    queue.push("b", "b0")
    queue.finish("a")
    assert not queue.start("a", 1)
    assert queue.next(1) == "b0"


def test_unwanted_items_cost_no_turn() -> None:
    gone = {"a0", "a1", "b0"}
    queue: FairQueue[str] = FairQueue(8, wanted=lambda item: item not in gone)
    for item in ("a0", "a1", "a2", "b0", "c0"):
        queue.push(item[0], item)
    assert drain(queue, 1) == ["a2", "c0"]
    queue.check_integrity()
    assert queue.queued == 0


def test_removed_items_are_gone() -> None:
    queue: FairQueue[str] = FairQueue(8)
    queue.push("a", "a0")
    queue.push("b", "b0")
    assert queue.remove("a", "a0")
    assert not queue.remove("a", "a0")
    assert not queue.remove("z", "z0")
    assert drain(queue, 1) == ["b0"]
    assert list(queue.adapters()) == []


class FairQueueMachine(RuleBasedStateMachine):
    """Random use with a limit that changes; a model counts what runs and how often others were served first."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[tuple[str, int]] = FairQueue(MAX_PER_ADAPTER)
        self.limit = 3
        self.running: Counter[str] = Counter()
        self.waiting: dict[str, list[tuple[str, int]]] = {}
        self.others_ahead: dict[str, int] = {}
        self.served_before: Counter[str] = Counter()
        self.numbers = count()

    def _line_up(self, adapter: str) -> None:
        """The adapter waits and may run: from now on every other may be served at most once before it."""
        if self.waiting.get(adapter) and self.running[adapter] < MAX_PER_ADAPTER:
            self.others_ahead[adapter] = sum(1 for other, line in self.waiting.items() if line and other != adapter)
            self.served_before[adapter] = 0

    @rule(adapter=ADAPTERS)
    def arrive(self, adapter: str) -> None:
        if self.queue.start(adapter, self.limit):
            assert not self.waiting.get(adapter), "overtook its own adapter's line"
            self.running[adapter] += 1
            return
        item = (adapter, next(self.numbers))
        self.queue.push(adapter, item)
        line = self.waiting.setdefault(adapter, [])
        line.append(item)
        if len(line) == 1:
            self._line_up(adapter)

    @rule()
    def grant(self) -> None:
        item = self.queue.next(self.limit)
        may_run = [a for a, line in self.waiting.items() if line and self.running[a] < MAX_PER_ADAPTER]
        if item is None:
            assert not may_run or self.running.total() >= self.limit, "a place was left empty"
            return
        adapter = item[0]
        assert adapter in may_run
        assert self.waiting[adapter].pop(0) == item
        assert self.served_before[adapter] <= self.others_ahead[adapter]
        for other in may_run:
            if other != adapter:
                self.served_before[other] += 1
                assert self.served_before[other] <= self.others_ahead[other], "kept waiting too long"
        self.running[adapter] += 1
        assert self.running.total() <= self.limit
        self._line_up(adapter)

    @precondition(lambda self: self.running.total() > 0)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        adapter = data.draw(st.sampled_from(sorted(+self.running)))
        was_full = self.running[adapter] == MAX_PER_ADAPTER
        self.running[adapter] -= 1
        self.queue.finish(adapter)
        if was_full:
            self._line_up(adapter)

    @precondition(lambda self: any(self.waiting.values()))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from([item for line in self.waiting.values() for item in line]))
        assert self.queue.remove(item[0], item)
        self.waiting[item[0]].remove(item)

    @rule(limit=st.integers(0, 8))
    def resize(self, limit: int) -> None:
        self.limit = limit

    @invariant()
    def books_agree(self) -> None:
        self.queue.check_integrity()
        assert self.queue.running == self.running.total()
        assert self.queue.queued == sum(map(len, self.waiting.values()))
        for adapter in self.queue.adapters():
            assert self.queue.running_of(adapter) == self.running[adapter]
            assert self.queue.queued_of(adapter) == len(self.waiting.get(adapter, []))


TestFairQueue = FairQueueMachine.TestCase
