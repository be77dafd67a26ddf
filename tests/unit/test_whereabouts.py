from loramux_adapters.model import Resident, Tier, Version, VersionState
from loramux_serving.whereabouts import Held, Occupancy, Whereabouts, by_tier, host, in_order, slots

DIGEST = "ab" * 32
NAME = "pirate@abababababab"


def version(digest: str | None = DIGEST) -> Version:
    return Version("pirate", 1, VersionState.READY, "/x", 0.0, digest=digest)


def held(*residents: Resident) -> Held:
    return Held(0.5, residents)


def test_each_replica_says_for_itself_and_the_disk_is_below() -> None:
    found = Whereabouts({"b": held(), "a": held(Resident(NAME, Tier.GPU))}, {DIGEST: 5})
    assert found.tiers(version()) == {"a": Tier.GPU, "b": Tier.DISK}
    assert list(found.tiers(version())) == ["a", "b"]
    assert found.best(version()) is Tier.GPU


def test_what_nobody_has_is_remote() -> None:
    found = Whereabouts({"a": held()}, {})
    assert found.tiers(version()) == {"a": Tier.REMOTE}
    assert found.tiers(version(None)) == {"a": Tier.REMOTE}


def test_a_name_without_weights_is_where_the_files_are() -> None:
    names = {"a": held(Resident(NAME, Tier.DISK))}
    assert Whereabouts(names, {DIGEST: 5}).best(version()) is Tier.DISK
    assert Whereabouts(names, {}).best(version()) is Tier.REMOTE


def test_without_a_report_nothing_is_said_of_a_replica() -> None:
    found = Whereabouts({}, {DIGEST: 5})
    assert found.tiers(version()) == {}
    assert found.best(version()) is Tier.DISK


def test_occupancy_counts_a_slot_in_host_memory_too() -> None:
    residents = (
        Resident("a", Tier.GPU, size_bytes=1, pin=Tier.GPU),
        Resident("b", Tier.GPU, size_bytes=2, pin=Tier.CPU),
        Resident("c", Tier.CPU, size_bytes=4),
        Resident("d", Tier.DISK),
    )
    assert slots(residents) == Occupancy(used=2, pinned=1, size_bytes=3)
    assert host(residents) == Occupancy(used=3, pinned=2, size_bytes=7)
    assert by_tier(residents) == {Tier.GPU: Occupancy(2, 1, 3), Tier.CPU: Occupancy(1, 1, 4)}


def test_the_next_to_leave_comes_first_within_its_tier() -> None:
    residents = [
        Resident("late", Tier.CPU, recency=9),
        Resident("early", Tier.CPU, recency=2),
        Resident("slot", Tier.GPU, recency=5),
        Resident("name", Tier.DISK),
    ]
    assert [each.engine_name for each in in_order(residents)] == ["slot", "early", "late", "name"]
