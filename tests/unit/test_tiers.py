"""What moves between the tiers of a replica, and what leaves for it."""

import random
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from loramux_adapters.model import Tier
from loramux_adapters.tiers import (
    CLEARLY,
    Place,
    Plan,
    Residency,
    Transition,
    Want,
    WantReason,
    most_pins,
    pin_changes,
    plan,
    slot_first,
)

GPU, CPU, DISK = Tier.GPU, Tier.CPU, Tier.DISK
RANK = {GPU: 0, CPU: 1, DISK: 2}


def want(name: str, tier: Tier = CPU, reason: WantReason = "request", number: int = 0) -> Want:
    return Want(name, tier, reason, number)


def moves(found: Plan) -> list[tuple[str, Tier, Tier]]:
    return [(step.engine_name, step.source, step.target) for step in found.transitions]


# --- host memory ---


def test_what_has_room_just_comes() -> None:
    found = plan(Residency(2, 2, (Place("a", CPU),), (want("b"),)))
    assert found == Plan((Transition("b", DISK, CPU, "request"),), ())


def test_the_least_recently_used_leaves_where_nobody_asks_for_any() -> None:
    held = (Place("new", CPU, last_used=3.0), Place("old", CPU, last_used=1.0), Place("middle", CPU, last_used=2.0))
    assert moves(plan(Residency(1, 3, held, (want("x"),)))) == [("old", CPU, DISK), ("x", DISK, CPU)]
    found = plan(Residency(1, 3, held, (want("x", number=1), want("y", number=2))))
    assert moves(found) == [("old", CPU, DISK), ("x", DISK, CPU), ("middle", CPU, DISK), ("y", DISK, CPU)]
    assert found.transitions[0].reason == "lru"


def test_what_is_in_least_demand_leaves_before_that() -> None:
    held = (Place("old", CPU, last_used=1.0, demand=2.0), Place("new", CPU, last_used=3.0, demand=1.0))
    assert moves(plan(Residency(1, 2, held, (want("x"),))))[0] == ("new", CPU, DISK)


def test_what_does_not_answer_leaves_first_and_what_is_awaited_last() -> None:
    held = (
        Place("awaited", CPU, awaited=True),
        Place("wanted", CPU, demand=9.0),
        Place("broken", CPU, demand=99.0, pin=CPU, answers=False),
    )
    wants = tuple(want(name, number=at) for at, name in enumerate("xyz"))
    gone = [name for name, _, target in moves(plan(Residency(1, 3, held, wants))) if target is DISK]
    assert gone == ["broken", "wanted", "awaited"]


def test_what_is_in_use_stays() -> None:
    held = (Place("leased", CPU, leases=1), Place("pinned", CPU, pin=CPU), Place("moving", CPU, moving=True))
    found = plan(Residency(1, 3, held, (want("x"),)))
    assert found == Plan((), (want("x"),))
    more = (*held, Place("free", GPU, last_used=99.0, pin=DISK))
    assert moves(plan(Residency(1, 4, more, (want("x"),)))) == [("free", GPU, DISK), ("x", DISK, CPU)]


def test_nothing_leaves_where_that_is_not_enough() -> None:
    over = (Place("a", CPU, leases=1), Place("b", CPU, leases=1), Place("c", CPU))
    assert plan(Residency(1, 2, over, (want("x"),))).transitions == ()
    assert plan(Residency(1, 0, (), (want("x"),))).waiting == (want("x"),)


def test_the_most_urgent_is_served_first() -> None:
    wants = (
        want("demand", reason="demand", number=0),
        want("foreseen", reason="foreseen", number=1),
        want("prefetch", reason="prefetch", number=2),
        want("pin", reason="pin", number=3),
        want("late", reason="request", number=5),
        want("version", reason="version", number=4),
    )
    found = plan(Residency(1, 4, (), wants))
    assert [step.engine_name for step in found.transitions] == ["version", "late", "pin", "prefetch"]
    assert [each.engine_name for each in found.waiting] == ["foreseen", "demand"]


def test_what_others_want_as_urgently_does_not_leave_for_it() -> None:
    held = (Place("a", CPU),)
    found = plan(Residency(1, 1, held, (want("a", GPU, number=0), want("b", number=1))))
    assert moves(found) == [("a", CPU, GPU)]
    assert [each.engine_name for each in found.waiting] == ["b"]


# --- slots ---


def test_a_cold_one_goes_straight_into_a_slot() -> None:
    held = (Place("a", GPU, last_used=1.0), Place("b", GPU, last_used=2.0), Place("c", CPU, last_used=0.0))
    found = plan(Residency(2, 4, held, (want("x", GPU),)))
    assert moves(found) == [("a", GPU, CPU), ("x", DISK, GPU)]
    assert found.next_for("x") == Transition("a", GPU, CPU, "lru")


def test_a_slot_that_can_not_be_had_keeps_nobody_out_of_host_memory() -> None:
    held = (Place("a", GPU, leases=1), Place("b", GPU, pin=GPU))
    found = plan(Residency(2, 4, held, (want("x", GPU),)))
    assert moves(found) == [("x", DISK, CPU)]
    assert [each.engine_name for each in found.waiting] == ["x"]
    assert plan(Residency(2, 4, (*held, Place("x", CPU)), (want("x", GPU),))).next_for("x") is None


def test_a_pin_in_host_memory_may_leave_its_slot() -> None:
    held = (Place("a", GPU, pin=CPU), Place("x", CPU))
    assert moves(plan(Residency(1, 2, held, (want("x", GPU),)))) == [("a", GPU, CPU), ("x", CPU, GPU)]


def test_a_version_takes_only_a_free_slot() -> None:
    held = (Place("a", GPU),)
    found = plan(Residency(1, 4, held, (want("x", GPU, "version"),)))
    assert found == Plan((Transition("x", DISK, CPU, "version"),), ()), "and it does not wait for one"
    assert moves(plan(Residency(2, 4, held, (want("x", GPU, "version"),)))) == [("x", DISK, GPU)]


def test_pins_leave_one_slot_for_others() -> None:
    assert [most_pins(slots) for slots in (0, 1, 2, 8)] == [0, 0, 1, 7]
    held = (Place("a", GPU, pin=GPU), Place("b", GPU, pin=GPU, leases=1), Place("c", CPU, pin=GPU))
    found = plan(Residency(2, 4, held, (want("c", GPU, "pin"),)))
    assert found == Plan((), ()), "it counts as a pin in host memory, and is there"
    unused = tuple(replace(place, leases=0) for place in held)
    assert moves(plan(Residency(2, 4, unused, (want("x", GPU),)))) == [("b", GPU, CPU), ("x", DISK, GPU)]


def test_what_to_say_to_an_engine_about_pins() -> None:
    pinned = {"a": GPU, "b": CPU, "c": None, "d": GPU, "e": None}
    wanted = {"b": GPU, "c": CPU, "d": GPU, "elsewhere": GPU}
    assert pin_changes(wanted, pinned, slots=3) == (("a", None), ("c", CPU), ("b", GPU))
    assert pin_changes(wanted, pinned, slots=2) == (("a", None), ("c", CPU)), "d is there, and there is no slot for b"
    assert pin_changes(wanted, pinned, slots=1) == (("a", None), ("c", CPU), ("d", CPU))


def test_only_the_large_go_into_a_slot_before_their_request() -> None:
    assert [slot_first(CPU, size, 100) for size in (0, 100, 101)] == [False, False, True]
    assert not slot_first(GPU, 101, 100)


# --- demand ---


def test_demand_takes_the_place_of_what_is_clearly_less_wanted() -> None:
    def found(rate: float, *, awaited: bool = False) -> Plan:
        held = (Place("a", CPU, demand=1.0, awaited=awaited), Place("x", DISK, demand=rate))
        return plan(Residency(1, 1, held, (want("x", reason="demand"),)))

    assert found(CLEARLY * 1.01).transitions
    assert not found(CLEARLY).transitions
    assert not found(CLEARLY * 9, awaited=True).transitions


def test_demand_that_stays_the_same_moves_nothing_twice() -> None:
    chance = random.Random(7)
    for _ in range(50):
        rates = {f"a{number}": chance.expovariate(1.0) for number in range(12)}
        held: set[str] = set(chance.sample(sorted(rates), 4))
        came: list[str] = []
        for _ in range(30):
            places = tuple(
                Place(name, CPU if name in held else DISK, demand=rate, last_used=chance.random())
                for name, rate in rates.items()
            )
            wants = tuple(want(name, reason="demand", number=at) for at, name in enumerate(set(rates) - held))
            for step in plan(Residency(2, 4, places, wants)).transitions[:2]:
                held = held | {step.engine_name} if step.target is CPU else held - {step.engine_name}
                came += [step.engine_name] * (step.target is CPU)
        assert len(came) == len(set(came)) <= 8
        assert len(held) == 4
        assert min(rates[name] for name in held) * CLEARLY >= max(rates[name] for name in set(rates) - held)


# --- everything at once ---

NAMES = tuple("abcdefgh")


@dataclass
class Adapter:
    tier: Tier = DISK
    leases: int = 0
    pin: Tier | None = None
    demand: float = 0.0
    used: float = 0.0
    answers: bool = True
    awaited: bool = False
    moving: Transition | None = None


@dataclass
class Replica:
    """Executes plans as the manager does: first transitions, several under way at a time, which end in any order and
    may fail. A request waits for its adapter, holds it for a while and lets go."""

    slots: int
    places: int
    chance: random.Random
    trouble: float
    adapters: dict[str, Adapter] = field(default_factory=lambda: {name: Adapter() for name in NAMES})
    wants: list[Want] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    time: int = 0

    def residency(self) -> Residency:
        held = tuple(
            Place(
                name,
                each.tier,
                leases=each.leases,
                pin=each.pin,
                last_used=each.used,
                demand=each.demand,
                answers=each.answers,
                moving=each.moving is not None,
                awaited=each.awaited,
            )
            for name, each in self.adapters.items()
        )
        return Residency(self.slots, self.places, held, tuple(self.wants))

    def ask(self, name: str, tier: Tier, reason: WantReason) -> None:
        self.time += 1
        self.wants.append(Want(name, tier, reason, self.time))
        if reason == "request":
            self.adapters[name].leases += 1

    def step(self) -> bool:
        """Begin the first transition of a plan, and let something end. False where nothing happens any more."""
        residency = self.residency()
        found = plan(residency)
        assert plan(residency) == found
        self.check_plan(residency, found)
        if found.transitions:
            self.begin(found.transitions[0])
        self.check()
        under_way = [name for name, each in self.adapters.items() if each.moving is not None]
        if under_way and (self.chance.random() < 0.7 or not found.transitions):
            self.end(self.chance.choice(under_way))
        self.serve()
        self.check()
        return bool(found.transitions or under_way)

    def begin(self, step: Transition) -> None:
        adapter = self.adapters[step.engine_name]
        assert adapter.tier is step.source
        if RANK[step.target] > RANK[step.source]:
            assert adapter.leases == 0, "a leased one would fall"
            assert adapter.moving is None
            assert (
                not adapter.answers or adapter.pin is None or RANK[adapter.pin] > RANK[step.source] or self.over(step)
            )
            if step.target is CPU:
                adapter.tier = CPU
                return
            adapter.answers = False
        else:
            adapter.tier = step.target
        adapter.moving = step

    def over(self, step: Transition) -> bool:
        """Whether it is one pin too many for the slots, which may leave its slot."""
        pinned = [name for name, each in self.adapters.items() if each.pin is GPU]
        return step.source is GPU and step.target is CPU and len(pinned) > most_pins(self.slots)

    def end(self, name: str) -> None:
        adapter = self.adapters[name]
        step, adapter.moving = adapter.moving, None
        assert step is not None
        failed = self.chance.random() < self.trouble
        if step.target is DISK:
            if not failed:
                adapter.tier, adapter.answers = DISK, True
        elif failed:
            adapter.tier = step.source
        else:
            adapter.answers = True
            adapter.used = self.time

    def serve(self) -> None:
        """What is wanted and has a place, but does not answer, is loaded into that place. Wants that are met end; a
        request for one that could not have a slot goes without."""
        for each in self.wants:
            adapter = self.adapters[each.engine_name]
            adapter.answers |= adapter.moving is None
        waiting = set(plan(self.residency()).waiting)
        for each in list(self.wants):
            adapter = self.adapters[each.engine_name]
            there = adapter.tier is not DISK and adapter.moving is None and adapter.answers
            if there and (each.met(adapter.tier) or (each in waiting and each.reason == "request")):
                self.wants.remove(each)
                if each.reason == "request":
                    self.running.append(each.engine_name)
                    adapter.demand += 1.0

    def let_go(self) -> None:
        if self.running:
            name = self.running.pop(self.chance.randrange(len(self.running)))
            self.adapters[name].leases -= 1

    def check(self) -> None:
        in_slots = [name for name, each in self.adapters.items() if each.tier is GPU]
        in_host = [name for name, each in self.adapters.items() if each.tier is not DISK]
        assert len(in_slots) <= self.slots, in_slots
        assert len(in_host) <= self.places, in_host

    def check_plan(self, residency: Residency, found: Plan) -> None:
        tiers = {place.engine_name: place.tier for place in residency.held}
        rates = {place.engine_name: place.demand for place in residency.held}
        leaving: list[str] = []
        for step in found.transitions:
            assert tiers[step.engine_name] is step.source, "the steps do not follow each other"
            tiers[step.engine_name] = step.target
            assert sum(tier is GPU for tier in tiers.values()) <= self.slots
            assert sum(tier is not DISK for tier in tiers.values()) <= self.places
            if RANK[step.target] > RANK[step.source]:
                leaving.append(step.engine_name)
                continue
            if step.reason == "demand":
                for name in leaving:
                    answered = self.adapters[name].answers
                    assert not answered or rates[name] * CLEARLY < rates[step.engine_name], "less wanted than what left"
            leaving = []
        assert leaving == [], "something leaves for nothing"
        loaded = [step.engine_name for step in found.transitions if step.source is DISK and step.reason == "request"]
        for name in loaded:
            number = min(each.number for each in self.wants if each.engine_name == name and each.reason == "request")
            for other in found.waiting:
                late = other.reason == "request" and other.number < number
                cold = self.adapters[other.engine_name].tier is DISK and self.adapters[other.engine_name].moving is None
                assert not (late and cold and tiers[other.engine_name] is DISK), "somebody was overtaken"


event = st.one_of(
    st.tuples(st.just("request"), st.sampled_from(NAMES), st.sampled_from((CPU, GPU))),
    st.tuples(
        st.sampled_from(("prefetch", "foreseen", "demand", "version", "await")), st.sampled_from(NAMES), st.just(CPU)
    ),
    st.tuples(st.just("pin"), st.sampled_from(NAMES), st.sampled_from((CPU, GPU))),
    st.tuples(st.sampled_from(("unpin", "let_go", "step", "fade")), st.sampled_from(NAMES), st.just(CPU)),
)


@settings(deadline=None, max_examples=300)
@given(
    events=st.lists(event, max_size=60),
    slots=st.integers(1, 4),
    more=st.integers(0, 3),
    seed=st.integers(0, 2**32),
    trouble=st.sampled_from((0.0, 0.2)),
)
def test_any_course_of_events(
    events: list[tuple[str, str, Tier]], slots: int, more: int, seed: int, trouble: float
) -> None:
    replica = Replica(slots, slots + more, random.Random(seed), trouble)
    for kind, name, tier in events:
        adapter = replica.adapters[name]
        if kind == "request":
            replica.ask(name, tier, "request")
        elif kind in ("prefetch", "foreseen", "demand", "version"):
            replica.ask(name, GPU if kind == "version" else CPU, kind)  # type: ignore[arg-type]
        elif kind == "pin":
            pinned = sum(each.pin is not None for each in replica.adapters.values())
            if pinned < replica.places - 1:
                adapter.pin = tier
                replica.ask(name, tier, "pin")
        elif kind == "unpin":
            adapter.pin = None
        elif kind == "await":
            adapter.awaited = not adapter.awaited
        elif kind == "let_go":
            replica.let_go()
        elif kind == "fade":
            for each in replica.adapters.values():
                each.demand /= 2
        replica.step()
    left = 0
    while any(each.reason == "request" for each in replica.wants) or replica.running:
        left += 1
        assert left < 1000, f"{replica.wants} starve"
        replica.let_go()
        replica.step()
