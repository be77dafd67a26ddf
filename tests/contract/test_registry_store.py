"""`ports.RegistryStore` and `ports.KeyStore`, over SQLite in a file and over a real PostgreSQL."""

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, select, text, update

from loramux_adapters.errors import (
    AdapterBusy,
    AdapterNotFound,
    AliasNotFound,
    Conflict,
    KeyNotFound,
    NameTaken,
    NoPreviousVersion,
    OperationNotFound,
    RequestInvalid,
    SettingsInvalid,
    StorageFailed,
    VersionInUse,
    VersionNotFound,
    VersionNotReady,
)
from loramux_adapters.model import (
    Adapter,
    AdapterInfo,
    AdapterState,
    ApiKey,
    CanaryEnd,
    CanaryFigures,
    CanaryRule,
    Failure,
    Operation,
    OperationKind,
    OperationState,
    RegistryState,
    Role,
    Sticky,
    Tier,
    Version,
    VersionState,
)
from loramux_adapters.ports import KeyStore, RegistryStore
from loramux_adapters.store import tables
from loramux_adapters.store.database import Database
from loramux_adapters.store.keys import SqlKeyStore
from loramux_adapters.store.registry import SqlRegistryStore

INFO = AdapterInfo(8, 16.0, ("q_proj", "v_proj"), "F32", 4096, ("a warning",))
FAILURE = Failure("config_invalid", "There is no adapter_config.json.")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        found: str = request.getfixturevalue("postgres_url")
        return found
    return f"sqlite:///{tmp_path}/registry.db"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    with closing(Database(url)) as database:
        yield database


@pytest.fixture
def store(database: Database) -> Iterator[RegistryStore]:
    store = Following(database)
    yield store
    store.state()


class Following(SqlRegistryStore):
    """Reads everything, and sees to it that whoever read what changed since any earlier look has the same."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._looks: list[RegistryState] = [super().state()]

    def state(self, since: RegistryState | None = None) -> RegistryState:
        found = super().state(since)
        for look in self._looks:
            followed = super().state(look)
            if followed.generation == found.generation:  # else somebody else writes at the same time
                assert followed == found
                assert list(followed.adapters) == list(found.adapters), "in another order"
        self._looks.append(found)
        return found


@pytest.fixture
def keys(database: Database) -> KeyStore:
    return SqlKeyStore(database)


def add(store: RegistryStore, name: str = "tone", *, promote: bool | float = True) -> tuple[Version, Operation]:
    _, version, operation = store.create_adapter(name, "base", "file:/a", promote=promote, pin=None, now=1.0)
    return version, operation


def arrive(store: RegistryStore, version: Version, operation: Operation, digest: str | None = None) -> Adapter:
    return store.finish_version(operation.id, ready(version, digest), now=5.0)


def ready(version: Version, digest: str | None = None) -> Version:
    return replace(
        version,
        state=VersionState.READY,
        digest=digest or f"{version.number:064x}",
        size_bytes=10,
        info=INFO,
        ready_at=5.0,
    )


def further(store: RegistryStore, name: str = "tone", *, promote: bool | float = True) -> Adapter:
    """One more version, ready."""
    return arrive(store, *store.create_version(name, "file:/b", promote=promote, now=2.0))


def with_versions(store: RegistryStore, count: int, name: str = "tone") -> Adapter:
    """`count` ready versions, the last one live."""
    adapter = arrive(store, *add(store, name))
    for _ in range(count - 1):
        adapter = further(store, name)
    return adapter


# --- arriving ---


def test_an_empty_registry(store: RegistryStore) -> None:
    state = store.state()
    assert (dict(state.adapters), dict(state.versions), dict(state.aliases)) == ({}, {}, {})
    assert state.generation == 0
    assert store.unfinished_operations() == ()


def test_a_new_adapter_has_a_pending_version_and_an_operation(store: RegistryStore) -> None:
    adapter, version, operation = store.create_adapter(
        "tone", "base", "s3://bucket/tone", promote=0.25, pin=Tier.CPU, now=7.5
    )
    assert adapter == Adapter("tone", "base", AdapterState.ACTIVE, 7.5, 7.5, pin=Tier.CPU)
    assert version == Version("tone", 1, VersionState.PENDING, "s3://bucket/tone", 7.5)
    assert (operation.kind, operation.adapter, operation.version) == (OperationKind.ADD, "tone", 1)
    assert (operation.state, operation.promote, operation.created_at) == (OperationState.PENDING, 0.25, 7.5)
    state = store.state()
    assert state.adapters == {"tone": adapter}
    assert state.versions == {("tone", 1): version}
    assert store.operation(operation.id) == operation
    assert store.unfinished_operations() == (operation,)


def test_names_are_taken_once(store: RegistryStore) -> None:
    add(store)
    with pytest.raises(NameTaken):
        add(store)


def test_an_alias_takes_a_name_too(store: RegistryStore) -> None:
    with_versions(store, 1)
    store.create_alias("other", "tone", None, 6.0)
    with pytest.raises(NameTaken, match="alias"):
        add(store, "other")


def test_an_adapter_of_failed_versions_can_be_added_again(store: RegistryStore) -> None:
    version, operation = add(store)
    store.fail_version(operation.id, "tone", 1, FAILURE, 3.0)
    adapter, version, operation = store.create_adapter("tone", "base2", "file:/b", promote=True, pin=Tier.GPU, now=4.0)
    assert (version.number, operation.kind) == (2, OperationKind.ADD)
    assert (adapter.base, adapter.pin) == ("base2", Tier.GPU)
    assert arrive(store, version, operation).live == 2


def test_a_version_of_no_adapter(store: RegistryStore) -> None:
    with pytest.raises(AdapterNotFound):
        store.create_version("tone", "file:/b", promote=True, now=1.0)


def test_a_version_is_saved_on_its_way(store: RegistryStore) -> None:
    version, _ = add(store)
    staging = replace(version, state=VersionState.STAGING, digest="a" * 64, size_bytes=2**40, info=INFO)
    store.save_version(staging)
    assert store.state().versions["tone", 1] == staging
    with pytest.raises(VersionNotFound):
        store.save_version(replace(staging, number=2))
    with pytest.raises(AdapterNotFound):
        store.save_version(replace(staging, adapter="nobody"))


def test_what_has_arrived_does_not_go_back(store: RegistryStore) -> None:
    """Two gateways may run one operation: the slower one must not take a live version away."""
    version, operation = add(store)
    arrive(store, version, operation)
    with pytest.raises(Conflict):
        store.save_version(replace(version, state=VersionState.FETCHING))
    store.fail_version(operation.id, "tone", 1, FAILURE, 8.0)
    assert arrive(store, version, operation).live == 1
    assert store.state().versions["tone", 1] == ready(version)
    assert store.operation(operation.id).state is OperationState.SUCCEEDED


def test_what_failed_does_not_arrive(store: RegistryStore) -> None:
    version, operation = add(store)
    store.fail_version(operation.id, "tone", 1, FAILURE, 3.0)
    with pytest.raises(Conflict):
        arrive(store, version, operation)
    assert store.state().versions["tone", 1].state is VersionState.FAILED
    assert store.operation(operation.id).state is OperationState.FAILED


def test_a_first_version_becomes_live(store: RegistryStore) -> None:
    version, operation = add(store)
    store.start_operation(operation.id)
    assert store.operation(operation.id).state is OperationState.RUNNING
    adapter = arrive(store, version, operation)
    assert (adapter.live, adapter.updated_at) == (1, 5.0)
    assert store.state().versions["tone", 1] == ready(version)
    ended = store.operation(operation.id)
    assert (ended.state, ended.finished_at, ended.progress) == (OperationState.SUCCEEDED, 5.0, 1.0)
    assert store.unfinished_operations() == ()


@pytest.mark.parametrize(
    ("promote", "live", "canary", "weight"), [(True, 2, None, 0.0), (False, 1, None, 0.0), (0.25, 1, 2, 0.25)]
)
def test_what_a_further_version_does(
    store: RegistryStore, promote: bool | float, live: int, canary: int | None, weight: float
) -> None:
    with_versions(store, 1)
    adapter = further(store, promote=promote)
    assert (adapter.live, adapter.canary, adapter.canary_weight) == (live, canary, weight)


@pytest.mark.parametrize(("promote", "live"), [(True, 1), (0.25, 1), (False, None)])
def test_what_a_first_version_does(store: RegistryStore, promote: bool | float, live: int | None) -> None:
    adapter = arrive(store, *add(store, promote=promote))
    assert (adapter.live, adapter.canary) == (live, None)


@pytest.mark.parametrize("promote", [True, 0.5])
def test_a_version_that_was_overtaken_stays_behind(store: RegistryStore, promote: bool | float) -> None:
    with_versions(store, 1)
    slow = store.create_version("tone", "file:/slow", promote=promote, now=2.0)
    assert further(store).live == 3
    adapter = arrive(store, *slow)
    assert (adapter.live, adapter.canary) == (3, None)
    assert store.state().versions["tone", 2].state is VersionState.READY


def test_a_failed_version_keeps_its_reason(store: RegistryStore) -> None:
    _, operation = add(store)
    store.fail_version(operation.id, "tone", 1, FAILURE, 9.0)
    assert store.state().versions["tone", 1].failure == FAILURE
    assert store.state().adapters["tone"].live is None
    ended = store.operation(operation.id)
    assert (ended.state, ended.failure, ended.finished_at) == (OperationState.FAILED, FAILURE, 9.0)


def test_starting_does_not_take_an_ended_operation_up(store: RegistryStore) -> None:
    _, operation = add(store)
    store.fail_operation(operation.id, FAILURE, 9.0)
    store.start_operation(operation.id)
    assert store.operation(operation.id).state is OperationState.FAILED


def test_unfinished_operations_come_oldest_first(store: RegistryStore) -> None:
    wanted = []
    for number, name in enumerate(["c", "a", "b"]):
        _, _, operation = store.create_adapter(name, "base", "file:/a", promote=True, pin=None, now=float(number))
        wanted.append(operation.id)
    assert [operation.id for operation in store.unfinished_operations()] == wanted


def test_no_such_operation(store: RegistryStore) -> None:
    with pytest.raises(OperationNotFound):
        store.operation("nothing")


# --- pointers ---


def test_promotion_and_what_refuses_it(store: RegistryStore) -> None:
    with_versions(store, 2)
    store.create_version("tone", "file:/c", promote=True, now=3.0)
    assert store.promote("tone", 1, 7.0).live == 1
    assert store.promote("tone", 1, 7.0).live == 1
    with pytest.raises(VersionNotReady):
        store.promote("tone", 3, 7.0)
    with pytest.raises(VersionNotFound):
        store.promote("tone", 4, 7.0)
    with pytest.raises(AdapterNotFound):
        store.promote("nobody", 1, 7.0)


def test_rollback_goes_back_step_by_step(store: RegistryStore) -> None:
    with_versions(store, 3)
    assert store.rollback_target("tone") == 2
    assert store.rollback("tone", 7.0).live == 2
    assert store.rollback("tone", 8.0).live == 1
    with pytest.raises(NoPreviousVersion):
        store.rollback("tone", 9.0)
    with pytest.raises(NoPreviousVersion):
        store.rollback_target("tone")
    assert store.promote("tone", 3, 10.0).live == 3
    assert store.rollback("tone", 11.0).live == 1


def test_rollback_passes_over_versions_that_are_gone(store: RegistryStore) -> None:
    with_versions(store, 3)
    operation = store.begin_delete_version("tone", 2, 6.0)
    assert store.rollback_target("tone") == 1
    store.finish_delete_version(operation.id, "tone", 2, 7.0)
    assert store.rollback("tone", 8.0).live == 1


def test_rollback_of_one_version(store: RegistryStore) -> None:
    with_versions(store, 1)
    with pytest.raises(NoPreviousVersion):
        store.rollback_target("tone")
    with pytest.raises(AdapterNotFound):
        store.rollback_target("nobody")


def test_a_canary_begins_and_ends(store: RegistryStore) -> None:
    with_versions(store, 1)
    further(store, promote=False)
    adapter = store.set_canary("tone", 2, 0.1, 7.0)
    assert (adapter.canary, adapter.canary_weight) == (2, 0.1)
    adapter = store.set_canary("tone", None, 0.0, 8.0)
    assert (adapter.canary, adapter.canary_weight) == (None, 0.0)
    with pytest.raises(RequestInvalid):
        store.set_canary("tone", 1, 0.1, 9.0)
    with pytest.raises(VersionNotFound):
        store.set_canary("tone", 5, 0.1, 9.0)


RULE = CanaryRule(window_s=60.0, max_error_rate=0.05, promote_after_s=600.0)
FIGURES = CanaryFigures(40, 3, 0.5, 200, 0, 0.4)


def test_a_canary_keeps_its_rule_and_says_how_it_ended(store: RegistryStore) -> None:
    with_versions(store, 2)
    store.set_canary("tone", 1, 0.1, 7.0, sticky=Sticky.KEY, rule=RULE)
    adapter = store.state().adapters["tone"]
    assert (adapter.canary_sticky, adapter.canary_rule, adapter.canary_since) == (Sticky.KEY, RULE, 7.0)
    store.set_canary("tone", None, 0.0, 8.0)
    adapter = store.state().adapters["tone"]
    assert (adapter.canary_sticky, adapter.canary_rule, adapter.canary_since) == (Sticky.REQUEST, None, None)
    assert adapter.canary_end == CanaryEnd(1, False, False, "It was ended by hand.", 8.0)
    store.set_canary("tone", None, 0.0, 9.0)
    assert store.state().adapters["tone"].canary_end == adapter.canary_end, "there was none to end"
    assert store.set_canary("tone", 1, 0.2, 10.0).canary_end is None


@pytest.mark.parametrize("promoted", [False, True])
def test_a_canary_ends_by_its_rule(store: RegistryStore, promoted: bool) -> None:
    with_versions(store, 2)
    store.promote("tone", 1, 6.0)
    store.set_canary("tone", 2, 0.1, 7.0, rule=RULE)
    end = CanaryEnd(2, promoted, True, "Because.", 8.0, FIGURES)
    found = store.end_canary("tone", 7.0, end, 8.0)
    assert found is not None
    assert found == store.state().adapters["tone"]
    assert (found.live, found.canary, found.canary_rule, found.canary_end) == (2 if promoted else 1, None, None, end)
    assert store.rollback_target("tone") == (1 if promoted else 2)
    assert store.end_canary("tone", 7.0, end, 9.0) is None
    assert store.state().adapters["tone"] == found


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda store: store.set_canary("tone", None, 0.0, 8.0),
        lambda store: store.set_canary("tone", 2, 0.5, 8.0, rule=RULE),
        lambda store: store.set_canary("tone", 3, 0.5, 8.0, rule=RULE),
        lambda store: store.promote("tone", 2, 8.0),
        lambda store: store.promote("tone", 3, 8.0),
        lambda store: store.rollback("tone", 8.0),
    ],
)
@pytest.mark.parametrize("promoted", [False, True])
def test_a_rule_that_comes_too_late_does_nothing(
    store: RegistryStore, meanwhile: Callable[[RegistryStore], object], promoted: bool
) -> None:
    with_versions(store, 3)
    store.promote("tone", 1, 6.0)
    store.set_canary("tone", 2, 0.1, 7.0, rule=RULE)
    meanwhile(store)
    before = store.state()
    assert store.end_canary("tone", 7.0, CanaryEnd(2, promoted, True, "Late.", 9.0, FIGURES), 9.0) is None
    assert store.state().adapters == before.adapters


def test_a_rule_does_nothing_to_an_adapter_that_goes(store: RegistryStore) -> None:
    with_versions(store, 2)
    store.set_canary("tone", 1, 0.1, 7.0, rule=RULE)
    store.begin_delete_adapter("tone", 8.0)
    with pytest.raises(AdapterBusy):
        store.end_canary("tone", 7.0, CanaryEnd(1, True, True, "Late.", 9.0), 9.0)


def test_another_live_version_begins_a_canary_anew(store: RegistryStore) -> None:
    with_versions(store, 3)
    store.set_canary("tone", 2, 0.1, 7.0, rule=RULE)
    assert store.promote("tone", 1, 8.0).canary_since == 8.0
    assert store.rollback("tone", 9.0).canary_since == 9.0
    adapter = further(store)
    assert (adapter.canary, adapter.canary_since) == (2, 5.0), "the time of the version's end"


def test_where_a_rollback_leads_is_known(store: RegistryStore) -> None:
    adapter = arrive(store, *add(store))
    assert (adapter.previous, adapter.live_since) == (None, 5.0)
    for _ in range(3):
        adapter = further(store)
    assert (adapter.live, adapter.previous) == (4, 3)
    adapter = store.rollback("tone", 7.0)
    assert (adapter.live, adapter.previous, adapter.live_since) == (3, 2, 7.0)
    store.begin_delete_version("tone", 2, 8.0)
    assert store.state().adapters["tone"].previous == store.rollback_target("tone") == 1
    adapter = store.rollback("tone", 9.0)
    assert (adapter.live, adapter.previous) == (1, None)


def test_a_registry_of_the_first_release_is_taken_over(url: str) -> None:
    """With its canary, and where its rollback leads."""
    with closing(Database(url)) as database:
        store = SqlRegistryStore(database)
        with_versions(store, 3)
        store.set_canary("tone", 1, 0.1, 7.0)
    engine = create_engine(url)
    with engine.begin() as connection:
        for name in ("live_since", "previous", "canary_end", "canary_since", "canary_rule", "canary_sticky"):
            connection.execute(text(f"ALTER TABLE adapters DROP COLUMN {name}"))
        connection.execute(text("DROP TABLE registry_changes"))
        connection.execute(text("DROP TABLE sagemaker_resources"))
        connection.execute(text("DROP INDEX ix_api_keys_access_key_id"))
        connection.execute(text("ALTER TABLE api_keys DROP COLUMN access_key_id"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    engine.dispose()
    with closing(Database(url)) as database:
        adapter = SqlRegistryStore(database).state().adapters["tone"]
    assert (adapter.live, adapter.previous, adapter.live_since) == (3, 2, None)
    assert (adapter.canary, adapter.canary_since, adapter.canary_rule) == (1, 7.0, None)
    assert adapter.canary_sticky is Sticky.REQUEST


def test_promoting_a_canary_ends_it(store: RegistryStore) -> None:
    with_versions(store, 1)
    further(store, promote=0.5)
    adapter = store.promote("tone", 2, 7.0)
    assert (adapter.live, adapter.canary, adapter.canary_weight) == (2, None, 0.0)
    store.set_canary("tone", 1, 0.5, 8.0)
    adapter = store.rollback("tone", 9.0)
    assert (adapter.live, adapter.canary) == (1, None)


def test_pins(store: RegistryStore) -> None:
    with_versions(store, 1)
    assert store.set_pin("tone", Tier.GPU, 7.0).pin is Tier.GPU
    assert store.set_pin("tone", None, 8.0).pin is None
    with pytest.raises(AdapterNotFound):
        store.set_pin("nobody", None, 8.0)


def test_aliases_are_made_moved_and_deleted(store: RegistryStore) -> None:
    with_versions(store, 2)
    alias = store.create_alias("prod", "tone", None, 6.0)
    assert store.state().aliases == {"prod": alias}
    moved = store.create_alias("prod", "tone", 1, 7.0)
    assert store.state().aliases == {"prod": moved}
    store.delete_alias("prod")
    assert store.state().aliases == {}
    with pytest.raises(AliasNotFound):
        store.delete_alias("prod")


def test_what_refuses_an_alias(store: RegistryStore) -> None:
    with_versions(store, 1)
    add(store, "other")
    with pytest.raises(NameTaken):
        store.create_alias("other", "tone", None, 6.0)
    with pytest.raises(AdapterNotFound):
        store.create_alias("prod", "nobody", None, 6.0)
    with pytest.raises(VersionNotFound):
        store.create_alias("prod", "tone", 9, 6.0)
    with pytest.raises(VersionNotReady):
        store.create_alias("prod", "other", 1, 6.0)


# --- deletion ---


def test_deleting_an_adapter(store: RegistryStore) -> None:
    with_versions(store, 2)
    store.create_alias("prod", "tone", 1, 6.0)
    operation = store.begin_delete_adapter("tone", 7.0)
    assert operation.kind is OperationKind.DELETE_ADAPTER
    state = store.state()
    assert (state.adapters["tone"].state, state.adapters["tone"].live) == (AdapterState.DELETING, None)
    assert {version.state for version in state.versions.values()} == {VersionState.DRAINING}
    assert state.aliases == {}
    assert store.begin_delete_adapter("tone", 8.0) == operation
    store.finish_delete_adapter(operation.id, "tone", 9.0)
    state = store.state()
    assert (dict(state.adapters), dict(state.versions)) == ({}, {})
    assert store.operation(operation.id).state is OperationState.SUCCEEDED
    with pytest.raises(AdapterNotFound):
        store.begin_delete_adapter("tone", 10.0)


def test_nothing_can_be_done_with_an_adapter_that_goes(store: RegistryStore) -> None:
    with_versions(store, 2)
    arriving, operation = store.create_version("tone", "file:/c", promote=True, now=3.0)
    store.begin_delete_adapter("tone", 7.0)
    refused: list[Callable[[], object]] = [
        lambda: add(store),
        lambda: store.create_version("tone", "file:/c", promote=True, now=8.0),
        lambda: store.save_version(replace(arriving, state=VersionState.FETCHING)),
        lambda: arrive(store, arriving, operation),
        lambda: store.promote("tone", 1, 8.0),
        lambda: store.rollback("tone", 8.0),
        lambda: store.set_canary("tone", 1, 0.5, 8.0),
        lambda: store.set_pin("tone", Tier.CPU, 8.0),
        lambda: store.create_alias("prod", "tone", None, 8.0),
        lambda: store.begin_delete_version("tone", 1, 8.0),
    ]
    for attempt in refused:
        with pytest.raises(AdapterBusy):
            attempt()


def test_a_deletion_that_failed_is_begun_anew(store: RegistryStore) -> None:
    with_versions(store, 2)
    first = store.begin_delete_version("tone", 1, 6.0)
    store.fail_operation(first.id, FAILURE, 7.0)
    again = store.begin_delete_version("tone", 1, 8.0)
    assert again.id != first.id
    whole = store.begin_delete_adapter("tone", 9.0)
    store.fail_operation(whole.id, FAILURE, 10.0)
    assert store.begin_delete_adapter("tone", 11.0).id != whole.id


def test_a_deletion_that_ended_does_not_take_the_next_adapter_of_that_name(store: RegistryStore) -> None:
    with_versions(store, 1)
    operation = store.begin_delete_adapter("tone", 7.0)
    store.finish_delete_adapter(operation.id, "tone", 8.0)
    with_versions(store, 2)
    store.finish_delete_adapter(operation.id, "tone", 9.0)
    assert store.state().adapters["tone"].live == 2
    operation = store.begin_delete_version("tone", 1, 10.0)
    store.finish_delete_version(operation.id, "tone", 1, 11.0)
    store.finish_delete_version(operation.id, "tone", 2, 12.0)
    assert store.state().versions["tone", 2].state is VersionState.READY


def test_deleting_a_version(store: RegistryStore) -> None:
    with_versions(store, 2)
    operation = store.begin_delete_version("tone", 1, 6.0)
    assert (operation.kind, operation.version) == (OperationKind.DELETE_VERSION, 1)
    assert store.state().versions["tone", 1].state is VersionState.DRAINING
    with pytest.raises(VersionNotReady):
        store.promote("tone", 1, 7.0)
    with pytest.raises(Conflict):
        store.begin_delete_version("tone", 1, 7.0)
    store.finish_delete_version(operation.id, "tone", 1, 8.0)
    assert store.state().versions["tone", 1].state is VersionState.DELETED
    with pytest.raises(VersionNotFound):
        store.begin_delete_version("tone", 1, 9.0)
    version, _ = store.create_version("tone", "file:/c", promote=True, now=10.0)
    assert version.number == 3


def test_what_refuses_the_deletion_of_a_version(store: RegistryStore) -> None:
    with_versions(store, 1)
    further(store, promote=0.5)
    further(store, promote=False)
    store.create_alias("prod", "tone", 3, 6.0)
    store.create_version("tone", "file:/c", promote=True, now=6.0)
    for number in (1, 2, 3):
        with pytest.raises(VersionInUse):
            store.begin_delete_version("tone", number, 7.0)
    with pytest.raises(Conflict):
        store.begin_delete_version("tone", 4, 7.0)
    with pytest.raises(VersionNotFound):
        store.begin_delete_version("tone", 5, 7.0)


# --- transactions ---


def test_every_change_grows_the_generation(store: RegistryStore) -> None:
    changes: list[Callable[[], object]] = [
        lambda: with_versions(store, 2),
        lambda: store.rollback("tone", 6.0),
        lambda: store.set_pin("tone", Tier.GPU, 6.0),
        lambda: store.create_alias("prod", "tone", None, 6.0),
        lambda: store.delete_alias("prod"),
        lambda: store.begin_delete_adapter("tone", 6.0),
    ]
    for change in changes:
        before = store.state().generation
        change()
        assert store.state().generation > before


def test_a_change_that_is_refused_leaves_nothing(store: RegistryStore) -> None:
    with_versions(store, 1)
    before = store.state()
    with pytest.raises(VersionNotFound):
        store.promote("tone", 9, 6.0)
    assert store.state() == before


def test_a_crash_in_the_middle_of_a_transaction_leaves_nothing(url: str) -> None:
    """A process that dies after its statements, before its commit."""
    with closing(Database(url)) as database:
        store = SqlRegistryStore(database)
        with_versions(store, 1)
        before = store.state()
    process = multiprocessing.get_context("spawn").Process(target=_die_while_writing, args=(url,))
    process.start()
    process.join(60)
    assert process.exitcode == 9
    with closing(Database(url)) as database:
        store = SqlRegistryStore(database)
        assert store.state() == before
        assert further(store).live == 2


def _die_while_writing(url: str) -> None:
    import os

    with Database(url).writing() as connection:
        connection.execute(update(tables.adapters).values(live=7))
        os._exit(9)


def test_versions_made_at_once_get_different_numbers(url: str, database: Database) -> None:
    store = SqlRegistryStore(database)
    with_versions(store, 1)
    start = threading.Barrier(8)

    def create(_: int) -> list[int]:
        start.wait(30)
        return [store.create_version("tone", "file:/b", promote=True, now=2.0)[0].number for _ in range(5)]

    before = store.state().generation
    with ThreadPoolExecutor(8) as pool:
        numbers = [number for batch in pool.map(create, range(8)) for number in batch]
    assert sorted(numbers) == list(range(2, 42))
    assert store.state().generation == before + 40


def test_versions_made_by_several_processes_get_different_numbers(url: str, database: Database) -> None:
    store = SqlRegistryStore(database)
    with_versions(store, 1)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        numbers = [number for batch in pool.map(_create_versions, [url] * 4, chunksize=1) for number in batch]
    assert sorted(numbers) == list(range(2, 22))


def _create_versions(url: str) -> list[int]:
    with closing(Database(url)) as database:
        store = SqlRegistryStore(database)
        return [store.create_version("tone", "file:/b", promote=True, now=2.0)[0].number for _ in range(5)]


def test_names_are_taken_once_by_threads_too(store: RegistryStore) -> None:
    start = threading.Barrier(6)

    def create(_: int) -> bool:
        start.wait(30)
        try:
            add(store)
        except NameTaken:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(create, range(6))) == 1


def test_a_reader_sees_one_state(url: str, database: Database) -> None:
    """Each change here adds one version: a state whose generation and versions differ is a mixture of two."""
    store = SqlRegistryStore(database)
    with_versions(store, 1)
    base = store.state()
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            store.create_version("tone", "file:/b", promote=True, now=2.0)

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write) for _ in range(2)]
        try:
            for _ in range(60):
                state = store.state()
                assert len(state.versions) - len(base.versions) == state.generation - base.generation
        finally:
            stop.set()
        for writer in writers:
            writer.result(60)


def test_what_was_written_survives(url: str) -> None:
    with closing(Database(url)) as database:
        with_versions(SqlRegistryStore(database), 2)
        before = SqlRegistryStore(database).state()
    with closing(Database(url)) as database:
        assert SqlRegistryStore(database).state() == before


# --- migrations ---


def test_the_migrations_make_the_tables(database: Database) -> None:
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
        assert set(tables.metadata.tables) <= set(inspect(connection).get_table_names())


def test_gateways_that_start_together_migrate_once(url: str) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map(_generation, [url] * 3, chunksize=1) == [0, 0, 0]


def _generation(url: str) -> int:
    with closing(Database(url)) as database, database.reading() as connection:
        return int(connection.execute(select(tables.generation.c.value)).scalar_one())


def test_a_registry_of_a_later_release_is_left_alone(url: str) -> None:
    with closing(Database(url)) as database, database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SettingsInvalid, match="release"):
        Database(url)


def test_a_migration_that_breaks_off_leaves_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from alembic import op

    def broken(*_: object) -> None:
        raise OSError("pulled the plug")

    with monkeypatch.context() as patch:
        patch.setattr(op, "bulk_insert", broken)
        with pytest.raises(OSError, match="plug"):
            Database(url)
    with closing(Database(url)) as database:
        assert SqlRegistryStore(database).state().generation == 0


# --- addresses ---


@pytest.mark.parametrize(
    "address", ["nonsense", "mongodb://host/db", "sqlite+nothing:///x", "postgresql+nothing://h/d"]
)
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(SettingsInvalid):
        Database(address)


def test_a_database_that_can_not_be_opened(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed):
        Database(f"sqlite:///{tmp_path}/no/such/directory/registry.db")


@pytest.mark.postgres
def test_a_server_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed):
        Database(f"postgresql://somebody@/registry?host={tmp_path}")


@pytest.mark.postgres
def test_addresses_as_hosts_write_them(postgres_url: str) -> None:
    for scheme in ("postgres://", "postgresql://"):
        with closing(Database(postgres_url.replace("postgresql+psycopg://", scheme))) as database:
            assert SqlRegistryStore(database).state().generation == 0


@pytest.mark.postgres
def test_a_connection_that_the_server_closed_is_made_anew(postgres_url: str) -> None:
    with closing(Database(postgres_url)) as database:
        store = SqlRegistryStore(database)
        with closing(Database(postgres_url)) as other, other.writing() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        assert store.state().generation == 1


# --- keys ---

KEY = ApiKey("k1", "app", Role.INFERENCE, "d" * 64, 1.0, ("tone*", "base"), 60, 1000)


def test_keys_are_kept_whole_and_oldest_first(keys: KeyStore) -> None:
    later = ApiKey("k0", "ops", Role.ADMIN, "e" * 64, 2.0)
    keys.create_key(later)
    keys.create_key(KEY)
    assert keys.list_keys() == (KEY, later)


def test_a_revoked_key_stays_listed(keys: KeyStore) -> None:
    keys.create_key(KEY)
    revoked = keys.revoke_key("k1", 9.0)
    assert revoked == replace(KEY, revoked_at=9.0)
    assert keys.revoke_key("k1", 10.0) == revoked
    assert keys.list_keys() == (revoked,)
    with pytest.raises(KeyNotFound):
        keys.revoke_key("k2", 9.0)


def test_a_secret_is_kept_once(keys: KeyStore) -> None:
    keys.create_key(KEY)
    with pytest.raises(StorageFailed):
        keys.create_key(replace(KEY, id="k2"))
    assert keys.list_keys() == (KEY,)


def test_an_access_key_is_kept_and_its_id_is_taken_once(keys: KeyStore) -> None:
    signing = replace(KEY, id="k2", digest="e" * 64, access_key_id="LMXAAAAAAAAAAAAAAAAA")
    keys.create_key(KEY)
    keys.create_key(signing)
    assert keys.list_keys() == (KEY, signing)
    assert keys.revoke_key("k2", 9.0) == replace(signing, revoked_at=9.0)
    with pytest.raises(StorageFailed):
        keys.create_key(replace(signing, id="k3", digest="f" * 64))
    keys.create_key(replace(KEY, id="k4", digest="f" * 64))  # any number may have none


def test_a_reader_follows_without_reading_everything(database: Database) -> None:
    store = SqlRegistryStore(database)
    for number in range(5):
        arrive(store, *add(store, f"tone{number}"))
    before = store.state()
    untouched = before.adapters["tone1"]
    further(store, "tone2")
    store.create_alias("prod", "tone3", None, now=6.0)
    now = store.state(before)

    assert now == store.state()
    assert now.generation > before.generation
    assert now.adapters["tone1"] is untouched
    assert now.adapters["tone2"].live == 2
    assert store.state(now) == now


def test_a_reader_who_missed_too_much_reads_everything(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loramux_adapters.store.database.KEPT_CHANGES", 4)
    monkeypatch.setattr("loramux_adapters.store.state.KEPT_CHANGES", 4)
    store = SqlRegistryStore(database)
    looks = [store.state()]
    for number in range(12):
        add(store, f"tone{number}")
        looks.append(store.state())
    with database.reading() as connection:
        assert len(connection.execute(select(tables.changes)).all()) <= 12
    assert all(store.state(look) == looks[-1] for look in looks)
    far = replace(looks[-1], generation=looks[-1].generation + 1)
    assert store.state(far) == looks[-1], "the database is an older one than was read"


def test_a_reader_reads_everything_where_much_was_touched(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loramux_adapters.store.state._MOST_TOUCHED", 2)
    store = SqlRegistryStore(database)
    before = store.state()
    for number in range(4):
        add(store, f"tone{number}")
    assert store.state(before) == store.state()
