from collections import Counter

from loramux_serving.admission.slots import Slots

TURN_S = 2.0


class Hall:
    """Slots, and how much each holder runs."""

    def __init__(self, limit: int) -> None:
        self.slots = Slots(TURN_S)
        self.limit = limit
        self.running: Counter[str] = Counter()

    def begin(self, name: str, now: float, count: int = 1) -> bool:
        if not self.slots.take(name, self.limit, now):
            return False
        self.running[name] += count
        return True

    def end(self, name: str) -> None:
        del self.running[name]
        self.slots.release(name)

    def closed(self, now: float) -> list[str]:
        return self.slots.close(self.limit, now, self.running.__getitem__)

    def opened(self, now: float) -> list[str]:
        names = []
        while (name := self.slots.open_next(self.limit, now)) is not None:
            names.append(name)
        self.slots.check_integrity()
        return names


def test_with_a_slot_for_each_nothing_ever_happens() -> None:
    hall = Hall(2)
    for now in (0.0, 100.0):
        assert hall.begin("a", now)
        assert hall.begin("b", now)
    assert not hall.slots.contended
    assert hall.closed(200.0) == []
    assert hall.begin("a", 200.0)


def test_a_turn_is_over_only_when_somebody_waits_and_the_time_has_passed() -> None:
    hall = Hall(1)
    assert hall.begin("a", 0.0)
    assert not hall.begin("b", 1.0)
    hall.slots.want("b", 1.0)
    assert hall.closed(1.9) == []
    assert hall.begin("a", 1.9)
    assert hall.closed(2.0) == ["a"]
    assert not hall.begin("a", 2.0)
    assert hall.opened(2.0) == [], "it drains first"
    hall.end("a")
    assert hall.opened(2.5) == ["b"]
    assert hall.slots.open("b")


def test_a_turn_begins_with_its_first_request() -> None:
    hall = Hall(1)
    hall.begin("a", 0.0)
    hall.slots.want("b", 0.0)
    hall.slots.want("c", 0.0)
    hall.end("a")
    assert hall.opened(1.0) == ["b"]
    assert hall.closed(50.0) == [], "no place was free yet: its turn has not begun"
    hall.slots.began("b", 50.0)
    assert hall.closed(51.0) == []
    assert hall.closed(52.0) == ["b"]


def test_as_many_are_closed_as_wait_and_those_first_that_run_least() -> None:
    hall = Hall(3)
    for name, count in (("hot", 9), ("warm", 4), ("cool", 2)):
        hall.begin(name, 0.0, count)
    hall.slots.want("new", 10.0)
    assert hall.closed(10.0) == ["cool"]
    assert hall.closed(10.0) == []
    hall.slots.want("newer", 10.0)
    assert hall.closed(10.0) == ["warm"]


def test_a_long_answer_does_not_hold_up_the_line() -> None:
    hall = Hall(2)
    hall.begin("long", 0.0, 1)
    hall.begin("short", 0.0, 5)
    hall.slots.want("new", 10.0)
    assert hall.closed(10.0) == ["long"]
    assert hall.closed(11.9) == []
    assert hall.closed(12.0) == ["short"], "no slot was handed over for a turn"


def test_who_was_closed_is_opened_again_when_nobody_waits_any_more() -> None:
    hall = Hall(1)
    hall.begin("a", 0.0)
    hall.slots.want("b", 5.0)
    assert hall.closed(5.0) == ["a"]
    hall.slots.unwant("b")
    assert hall.opened(5.0) == []
    assert hall.begin("a", 5.0)
    assert not hall.slots.contended


def test_who_was_closed_and_has_more_to_do_has_its_turn_in_the_line() -> None:
    hall = Hall(2)
    hall.begin("long", 0.0, 1)
    hall.begin("b", 0.0, 2)
    hall.slots.want("c", 3.0)
    assert hall.closed(3.0) == ["long"]
    hall.slots.want("long", 3.0)
    assert hall.opened(3.0) == []
    hall.end("b")
    assert hall.opened(3.0) == ["c", "long"], "it never gave its slot up"
    assert hall.slots.held == 2


def test_when_slots_go_away_the_rest_drains() -> None:
    hall = Hall(3)
    for name in "abc":
        hall.begin(name, 0.0)
    hall.limit = 1
    assert hall.slots.crowded(1)
    assert not hall.begin("a", 0.1)
    assert hall.closed(0.1) == ["a", "b"], "at once: their turns do not count"
    hall.slots.want("a", 0.1)
    assert hall.opened(0.1) == []
    hall.end("b")
    assert hall.opened(0.2) == []
    hall.end("c")
    assert hall.opened(0.3) == ["a"]
    assert hall.begin("a", 0.3)


def test_those_next_in_line() -> None:
    slots = Slots(TURN_S)
    slots.take("x", 1, 0.0)
    for name in "abc":
        slots.want(name, 0.0)
    slots.want("d", 0.0, ahead=True)
    slots.want("b", 0.0, ahead=True)
    assert slots.first_in_line(3) == ["d", "b", "a"]
    assert slots.first_in_line(99) == ["d", "b", "a", "c"]
