"""`ports.ResourceStore`, over SQLite in a file and over a real PostgreSQL."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from loramux_adapters.errors import AdapterBusy, NameTaken
from loramux_adapters.model import Resource, ResourceKind, ResourceState
from loramux_adapters.ports import ResourceStore
from loramux_adapters.store.database import Database
from loramux_adapters.store.registry import SqlRegistryStore
from loramux_adapters.store.resources import SqlResourceStore

MODEL = Resource(ResourceKind.MODEL, "mine", {"Image": "a", "Environment": {"HF_MODEL_ID": "ö"}}, 1.0, 1.0)
COMPONENT = Resource(ResourceKind.COMPONENT, "tone", {"EndpointName": "e"}, 2.0, 2.0, of_adapter=True)


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
def store(database: Database) -> ResourceStore:
    return SqlResourceStore(database)


@pytest.fixture
def registry(database: Database) -> SqlRegistryStore:
    return SqlRegistryStore(database)


def add(store: ResourceStore, resource: Resource = COMPONENT) -> str:
    adapter, version, operation = store.create_adapter(
        resource, resource.name, "base", "s3://bucket/key", promote=True, pin=None, now=3.0
    )
    assert (adapter.name, version.number, version.source) == (resource.name, 1, "s3://bucket/key")
    return operation.id


def test_a_resource_is_kept_as_it_came(store: ResourceStore, url: str) -> None:
    tagged = replace(MODEL, tags={"team": "søk", "empty": ""}, state=ResourceState.CREATING)
    store.create_resource(tagged)
    assert store.resources() == (tagged,)
    with closing(Database(url)) as again:
        assert SqlResourceStore(again).resources() == (tagged,)


def test_names_are_of_a_kind(store: ResourceStore) -> None:
    store.create_resource(MODEL)
    store.create_resource(replace(MODEL, kind=ResourceKind.ENDPOINT, created_at=0.5))
    with pytest.raises(NameTaken):
        store.create_resource(replace(MODEL, body={}))
    assert [each.kind for each in store.resources()] == [ResourceKind.ENDPOINT, ResourceKind.MODEL]
    assert store.resources()[1].body == MODEL.body


def test_saving(store: ResourceStore) -> None:
    store.create_resource(MODEL)
    changed = replace(MODEL, body={"a": [1, None]}, state=ResourceState.DELETING, tags={"a": "b"}, updated_at=9.0)
    store.save_resource(changed)
    store.save_resource(replace(changed, name="other"))
    assert store.resources() == (changed,)


def test_deleting(store: ResourceStore) -> None:
    store.create_resource(MODEL)
    store.delete_resource(ResourceKind.ENDPOINT, MODEL.name)
    assert store.resources() == (MODEL,)
    store.delete_resource(MODEL.kind, MODEL.name)
    store.delete_resource(MODEL.kind, MODEL.name)
    assert store.resources() == ()


def test_an_adapter_and_its_resource_begin_together(store: ResourceStore, registry: SqlRegistryStore) -> None:
    operation = add(store)
    assert store.resources() == (COMPONENT,)
    assert registry.operation(operation).adapter == "tone"
    assert "tone" in registry.state().adapters


def test_a_reader_who_follows_changes_sees_the_adapter(store: ResourceStore, registry: SqlRegistryStore) -> None:
    before = registry.state()
    add(store)
    assert "tone" in registry.state(before).adapters


def test_an_adapter_that_exists_is_not_taken_over(store: ResourceStore, registry: SqlRegistryStore) -> None:
    registry.create_adapter("tone", "base", "s3://a/b", promote=True, pin=None, now=1.0)
    with pytest.raises(NameTaken):
        add(store)
    registry.begin_delete_adapter("tone", 2.0)
    with pytest.raises(AdapterBusy):
        add(store)
    assert store.resources() == ()


def test_nothing_is_half_made(store: ResourceStore, registry: SqlRegistryStore) -> None:
    store.create_resource(replace(COMPONENT, of_adapter=False))
    with pytest.raises(NameTaken):
        add(store)
    assert registry.state().adapters == {}


def test_a_resource_ends_with_its_adapter(store: ResourceStore, registry: SqlRegistryStore) -> None:
    add(store)
    store.create_resource(MODEL)
    deletion = registry.begin_delete_adapter("tone", 4.0)
    assert COMPONENT in store.resources()
    registry.finish_delete_adapter(deletion.id, "tone", 5.0)
    assert store.resources() == (MODEL,)


def test_an_adapter_of_the_registry_gets_a_resource(store: ResourceStore, registry: SqlRegistryStore) -> None:
    store.keep_adapter(COMPONENT)
    assert store.resources() == ()
    registry.create_adapter("tone", "base", "s3://a/b", promote=True, pin=None, now=1.0)
    store.keep_adapter(COMPONENT)
    changed = replace(COMPONENT, tags={"a": "b"}, updated_at=7.0)
    store.keep_adapter(changed)
    assert store.resources() == (changed,)


def test_of_many_who_make_the_same_one_does(store: ResourceStore) -> None:
    def attempt(number: int) -> bool:
        try:
            add(store, replace(COMPONENT, tags={"by": str(number)}))
        except NameTaken:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(attempt, range(8)))
    assert done.count(True) == 1
    assert store.resources()[0].tags == {"by": str(done.index(True))}
