"""What is remembered of who may call what: a change is effective with the very next request, and the memory is never
seen otherwise."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramux_adapters.clock import SystemClock
from loramux_adapters.errors import LoramuxError
from loramux_adapters.events import EventLog
from loramux_adapters.model import (
    Adapter,
    AdapterState,
    Alias,
    ApiKey,
    RegistryState,
    Role,
    Sticky,
    Target,
    Version,
    VersionState,
)
from loramux_adapters.registry import Registry
from loramux_serving.auth.api_keys import digest
from loramux_serving.auth.keyring import KeyRing
from loramux_serving.relay.dialect import Component
from loramux_serving.relay.grants import MOST, Grant, Grants
from loramux_serving.relay.local_gate import LocalGate
from loramux_serving.relay.ports import Principal
from loramux_serving.relay.signed_request import SignedRequest
from loramux_serving.relay.story import Story
from tests.fakes.relay_services import FakeAdmission, FakeFleet, FakeLeases, FakeRecorder, FakeReplica

NAMES = ("tone", "poem", "also", "base", "tone@1", "tone@2", "nobody")
SECRETS = ("one", "two", "none")
STICKY = "a caller"


@dataclass
class Store:
    """Of the registry's store, what a snapshot is made of."""

    state_now: RegistryState = field(default_factory=lambda: RegistryState(generation=0))

    def state(self, before: RegistryState | None) -> RegistryState:
        return self.state_now


def _version(adapter: str, number: int) -> Version:
    return Version(adapter, number, VersionState.READY, "file:/a", 1.0, digest=f"{number}{len(adapter)}" * 32)


VERSIONS = {(name, number): _version(name, number) for name in ("tone", "poem") for number in (1, 2)}

adapters = st.builds(
    lambda state, live, canary, sticky: {
        "state": state,
        "live": live,
        "canary": canary if canary != live else None,
        "canary_weight": 0.5,
        "canary_sticky": sticky,
    },
    st.sampled_from([AdapterState.ACTIVE, AdapterState.ACTIVE, AdapterState.DELETING]),
    st.sampled_from([1, 2, None]),
    st.sampled_from([None, None, 1, 2]),
    st.sampled_from(list(Sticky)),
)
registries = st.fixed_dictionaries(
    {"tone": adapters, "poem": st.none() | adapters, "also": st.sampled_from([None, "tone", "poem"])}
)
keys = st.lists(
    st.tuples(
        st.sampled_from(SECRETS[:2]), st.booleans(), st.sampled_from([(), ("tone",), ("p*",)]), st.sampled_from("ab")
    ),
    unique_by=lambda key: key[0],
)
calls = st.tuples(st.sampled_from(SECRETS), st.sampled_from(NAMES))
changes = st.lists(st.one_of(registries, keys, st.lists(calls, min_size=1, max_size=8)), max_size=12)


def _state(generation: int, told: Any) -> RegistryState:
    known = {
        name: replace(Adapter(name, "base", AdapterState.ACTIVE, 1.0, 1.0), **told[name])
        for name in ("tone", "poem")
        if told[name] is not None
    }
    aliases = {"also": Alias("also", told["also"], None, 1.0)} if told["also"] in known else {}
    versions = {key: version for key, version in VERSIONS.items() if key[0] in known}
    return RegistryState(generation=generation, adapters=known, versions=versions, aliases=aliases)


def _key(secret: str, revoked: bool, patterns: tuple[str, ...], suffix: str) -> ApiKey:
    key = ApiKey(f"key_{secret}_{suffix}", secret, Role.INFERENCE, digest(secret), 1.0, adapters=patterns)
    return replace(key, revoked_at=2.0) if revoked else key


class Both:
    """Two gates over the same keys and names, one of which remembers."""

    def __init__(self) -> None:
        self.store = Store()
        self.registry = Registry(
            cast(Any, self.store), cast(Any, None), SystemClock(), EventLog(SystemClock()), base_name="base"
        )
        self.keyring = KeyRing()
        grants = Grants(self.registry.lasting)
        self.registry.on_publish(grants.forget)
        self.keyring.on_replace(grants.forget)
        self.remembering = self._gate(grants)
        self.plain = self._gate(None)

    def _gate(self, grants: Grants | None) -> LocalGate:
        admission = FakeAdmission(at_once=True)
        admission.gate.set()
        fleet = FakeFleet([FakeReplica("r0", "http://one:1")])
        return LocalGate(
            self.keyring,
            cast(Any, self.registry),
            admission,
            fleet,
            FakeLeases(),
            FakeRecorder(),
            retries=0,
            grants=grants,
        )

    async def ask(self, gate: LocalGate, secret: str, model: str) -> tuple[str | None, Target | None, str | None]:
        """Who called, where it leads, and the error's code."""
        story = Story("r", "/v1/completions", 0.0)
        credentials = f"Bearer {secret}"
        try:
            passage = gate.enter_now(credentials, model, STICKY, story, lambda: None)
            if passage is None:
                passage = await gate.enter(credentials, model, STICKY, story, lambda: None)
        except LoramuxError as error:
            return story.key_id, story.target, error.code
        passage.give_back()
        return story.key_id, story.target, None


@given(registries, keys, changes)
def test_a_change_is_effective_with_the_very_next_request(first: Any, first_keys: Any, later: Any) -> None:
    async def go() -> None:
        both = Both()
        for generation, change in enumerate([first, first_keys, *later], 1):
            if isinstance(change, dict):
                both.store.state_now = _state(generation, change)
                await both.registry.open()
            elif all(len(each) == 4 for each in change):
                both.keyring.replace([_key(*each) for each in change])
            for secret, model in [] if isinstance(change, dict) else [each for each in change if len(each) == 2]:
                assert await both.ask(both.remembering, secret, model) == await both.ask(both.plain, secret, model)
            for secret in SECRETS:  # and all of them, twice: the second time from memory, where it is kept
                for model in NAMES * 2:
                    assert await both.ask(both.remembering, secret, model) == await both.ask(both.plain, secret, model)

    asyncio.run(go())


GRANT = Grant(Principal("k", "k", Role.INFERENCE), Target("tone", "tone@1", 1, "1" * 64), "tone@1")
SIGNED = SignedRequest("AKIA", "20260101T000000Z", "s", "t", "0" * 64, single_use=True)


@pytest.mark.parametrize(
    ("credentials", "model"), [(SIGNED, "tone"), ("Bearer a", Component("e", "tone")), ("Bearer a", "split")]
)
def test_what_does_not_last_is_not_kept(credentials: Any, model: Any) -> None:
    grants = Grants(lambda name: name != "split")
    grants.keep(credentials, model, GRANT)
    assert grants.known((credentials, model)) is None


def test_those_kept_first_give_way() -> None:
    grants = Grants(lambda name: True)
    for number in range(MOST + 10):
        grants.keep(f"Bearer {number}", "tone", GRANT)
    assert [grants.known((f"Bearer {number}", "tone")) for number in (0, 9)] == [None, None]
    assert grants.known(("Bearer 10", "tone")) is GRANT
    grants.forget()
    assert grants.known(("Bearer 10", "tone")) is None
