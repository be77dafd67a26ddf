"""What names mean."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramux_adapters.errors import ModelNotFound
from loramux_adapters.model import (
    Adapter,
    AdapterState,
    Alias,
    RegistryState,
    Tier,
    Version,
    VersionState,
)
from loramux_adapters.snapshot import Snapshot, build, sticky_draw, target_of

READY = VersionState.READY


def version(number: int, state: VersionState = READY, *, source: str = "file:/a", adapter: str = "tone") -> Version:
    return Version(adapter, number, state, source, 1.0, digest=f"{number:02x}" * 32)


def adapter(name: str = "tone", **values: object) -> Adapter:
    return replace(Adapter(name, "base", AdapterState.ACTIVE, 1.0, 1.0), **values)  # type: ignore[arg-type]


def snapshot(*nouns: Adapter | Version | Alias) -> Snapshot:
    return build(
        RegistryState(
            generation=7,
            adapters={noun.name: noun for noun in nouns if isinstance(noun, Adapter)},
            versions={(noun.adapter, noun.number): noun for noun in nouns if isinstance(noun, Version)},
            aliases={noun.name: noun for noun in nouns if isinstance(noun, Alias)},
        ),
        "base",
    )


def number_of(found: Snapshot, model: str, draw: float = 0.5) -> int | None:
    return found.resolve(model, draw).version


def test_the_base_and_what_does_not_exist() -> None:
    found = snapshot()
    assert found.resolve("base", 0.0).is_base
    assert found.generation == 7
    for model in ("tone", "tone@1", "", "@", "@1", "base@1"):
        with pytest.raises(ModelNotFound):
            found.resolve(model, 0.0)


def test_an_adapter_leads_to_its_live_version() -> None:
    found = snapshot(adapter(live=2), version(1), version(2))
    assert number_of(found, "tone") == 2
    assert set(found.wanted) == {version(2).engine_name}


@pytest.mark.parametrize("state", [state for state in VersionState if state is not READY])
def test_only_ready_versions_answer(state: VersionState) -> None:
    found = snapshot(adapter(live=1), version(1, state))
    for model in ("tone", "tone@1"):
        with pytest.raises(ModelNotFound):
            found.resolve(model, 0.0)
    assert found.wanted == {}


def test_an_adapter_that_goes_does_not_answer() -> None:
    found = snapshot(adapter(state=AdapterState.DELETING, live=1), version(1))
    for model in ("tone", "tone@1"):
        with pytest.raises(ModelNotFound):
            found.resolve(model, 0.0)


def test_a_version_by_its_number() -> None:
    found = snapshot(adapter(live=2), version(1), version(2))
    assert number_of(found, "tone@1") == 1
    for model in ("tone@3", "tone@", "tone@-1", "tone@1.0", "tone@¹", "tone@" + "1" * 5000, "tone@1@1"):
        with pytest.raises(ModelNotFound):
            found.resolve(model, 0.0)


def test_a_canary_takes_the_draws_below_its_weight() -> None:
    found = snapshot(adapter(live=1, canary=2, canary_weight=0.25), version(1), version(2))
    assert [number_of(found, "tone", draw) for draw in (0.0, 0.2499, 0.25, 0.99)] == [2, 2, 1, 1]
    assert set(found.wanted) == {version(1).engine_name, version(2).engine_name}


def test_a_canary_that_is_not_ready_takes_nothing() -> None:
    found = snapshot(adapter(live=1, canary=2, canary_weight=0.9), version(1), version(2, VersionState.DRAINING))
    assert number_of(found, "tone", 0.0) == 1


def test_aliases() -> None:
    found = snapshot(
        adapter(live=2, canary=3, canary_weight=0.5),
        *(version(number) for number in (1, 2, 3)),
        Alias("prod", "tone", None, 1.0),
        Alias("stable", "tone", 1, 1.0),
        Alias("lost", "tone", 9, 1.0),
        Alias("orphan", "nobody", None, 1.0),
    )
    assert [number_of(found, "prod", draw) for draw in (0.0, 0.9)] == [3, 2]
    assert [number_of(found, "stable", draw) for draw in (0.0, 0.9)] == [1, 1]
    for model in ("lost", "orphan"):
        with pytest.raises(ModelNotFound):
            found.resolve(model, 0.0)
    assert len(found.wanted) == 3


def test_what_is_pinned() -> None:
    names = {"gpu": Tier.GPU, "cpu": Tier.CPU, "disk": Tier.DISK, "none": None}
    adapters = [adapter(name, live=1, pin=pin) for name, pin in names.items()]
    versions = [version(1, adapter=name) for name in names]
    found = snapshot(*adapters, *versions, Alias("other", "none", None, 1.0))
    assert found.pinned == {version(1, adapter="gpu").engine_name, version(1, adapter="cpu").engine_name}


def test_what_may_not_leave_the_disk() -> None:
    found = snapshot(
        adapter(live=1),
        version(1),
        version(2),
        version(3, source="upload:a"),
        version(4, VersionState.FAILED, source="upload:b"),
        version(5, VersionState.DELETED, source="upload:c"),
        version(6, VersionState.STAGING),
        version(7, VersionState.DRAINING, source="upload:d"),
    )
    assert found.protected_digests == {version(number).digest for number in (1, 3, 6, 7)}


def test_the_target_of_a_version() -> None:
    target = target_of(version(3))
    assert target is not None
    assert (target.adapter, target.version, target.engine_name) == ("tone", 3, "tone@030303030303")
    assert target_of(None) is None
    assert target_of(replace(version(1), digest=None)) is None


@given(st.text(), st.text())
def test_a_sticky_draw_is_a_share_and_stays(sticky: str, name: str) -> None:
    draw = sticky_draw(sticky, name)
    assert 0.0 <= draw < 1.0
    assert draw == sticky_draw(sticky, name)


def test_sticky_draws_are_spread_evenly_and_differ_by_adapter() -> None:
    draws = [sticky_draw(f"caller-{number}", "tone") for number in range(10_000)]
    for tenth in range(10):
        assert 900 < sum(tenth / 10 <= draw < (tenth + 1) / 10 for draw in draws) < 1100
    assert sticky_draw("caller", "tone") != sticky_draw("caller", "voice")


def test_the_largest_draw_is_below_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Highest:
        def digest(self) -> bytes:
            return b"\xff" * 8

    monkeypatch.setattr("loramux_adapters.snapshot.hashlib.blake2b", lambda *_, **__: Highest())
    assert sticky_draw("caller", "tone") < 1.0
