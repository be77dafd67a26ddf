"""What has to leave so that something else fits."""

from hypothesis import given
from hypothesis import strategies as st

from loramux_adapters.tiers import Place, Room, make_room

places = st.lists(
    st.builds(
        Place, st.uuids().map(str), leases=st.integers(0, 2), pinned=st.booleans(), last_used=st.floats(0.0, 1e6)
    ),
    max_size=12,
    unique_by=lambda place: place.engine_name,
)


def place(name: str, *, leases: int = 0, pinned: bool = False, last_used: float = 0.0) -> Place:
    return Place(name, leases, pinned, last_used)


def test_the_least_recently_used_leaves_first() -> None:
    held = [place("new", last_used=3.0), place("old", last_used=1.0), place("middle", last_used=2.0)]
    assert make_room(held, 3) == Room(("old",), True)
    assert make_room(held, 3, incoming=2) == Room(("old", "middle"), True)
    assert make_room(held, 4) == Room((), True)


def test_what_is_in_use_stays() -> None:
    held = [place("leased", leases=1), place("pinned", pinned=True), place("free", last_used=9.0)]
    assert make_room(held, 3) == Room(("free",), True)
    assert make_room(held, 2) == Room((), False)


def test_nothing_fits_into_nothing() -> None:
    assert make_room([], 0) == Room((), False)


@given(places, st.integers(0, 12), st.integers(0, 4))
def test_a_plan_is_enough_and_no_more(held: list[Place], capacity: int, incoming: int) -> None:
    room = make_room(held, capacity, incoming)
    by_name = {each.engine_name: each for each in held}
    leaving = [by_name[name] for name in room.evict]
    assert len(set(room.evict)) == len(room.evict)
    assert all(each.may_leave for each in leaving)
    free = [each for each in held if each.may_leave]
    if room.fits:
        assert len(held) - len(leaving) + incoming <= capacity
        assert len(leaving) == max(0, len(held) + incoming - capacity)
        staying = [each for each in free if each not in leaving]
        assert all(gone.last_used <= stays.last_used for gone in leaving for stays in staying)
    else:
        assert leaving == []
        assert len(held) - len(free) + incoming > capacity
