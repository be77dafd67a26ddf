"""When churn's changes are due, and what becomes of them."""

import itertools
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from loramux_bench.admin import churn as churn_module
from loramux_bench.admin.answers import AdapterView, CanaryView, OperationView
from loramux_bench.admin.artifact import WEIGHTS
from loramux_bench.admin.churn import Change, Churner, changes
from loramux_bench.admin.client import AdminClient, CallFailed
from loramux_bench.admin.restoration import Restoration
from loramux_bench.errors import ScenarioError
from loramux_bench.run_dir import ChurnRecord
from loramux_bench.scenario import Churn


def until(churn: Churn, end_s: float, adapters: tuple[str, ...] = ("a", "b", "c")) -> list[Change]:
    return list(itertools.takewhile(lambda change: change.at_s < end_s, changes(churn, adapters)))


def test_changes_come_at_their_rates_and_evenly() -> None:
    due = until(Churn(adds_per_min=12, updates_per_min=30, deletes_per_min=6), 600.0)
    assert Counter(change.action for change in due) == {"add": 120, "update": 300, "delete": 60}
    assert [change.at_s for change in due] == sorted(change.at_s for change in due)
    adds = [change.at_s for change in due if change.action == "add"]
    assert {round(after - before, 6) for before, after in itertools.pairwise(adds)} == {5.0}


def test_kinds_of_one_rate_fall_between_each_other() -> None:
    due = until(Churn(adds_per_min=10, updates_per_min=10, deletes_per_min=10), 60.0)
    assert [change.action for change in due] == ["add", "update", "delete"] * 10
    assert {round(after.at_s - before.at_s, 6) for before, after in itertools.pairwise(due)} == {2.0}


def test_names_are_the_same_for_the_same_seed() -> None:
    churn = Churn(updates_per_min=60, seed=7)
    names = [change.adapter for change in until(churn, 60.0)]
    assert names == [change.adapter for change in until(churn, 60.0)]
    assert names != [change.adapter for change in until(churn.model_copy(update={"seed": 8}), 60.0)]
    assert all(set(names[at : at + 3]) == {"a", "b", "c"} for at in range(0, 60, 3))
    assert [change.adapter for change in until(Churn(adds_per_min=3), 60.0)] == ["churn-000", "churn-001", "churn-002"]


def test_nothing_to_update_is_no_update() -> None:
    assert until(Churn(updates_per_min=60), 60.0, ()) == []


CANARY = CanaryView(version=2, weight=0.1, sticky="key", rule={"window_s": 60.0, "max_error_rate": 0.1})


class Registry(AdminClient):
    """An admin interface that keeps versions by adapter; `pirate` is somebody's, at version 3, with a canary."""

    def __init__(self) -> None:
        self.versions: dict[str, list[int]] = {"pirate": [2, 3]}
        self.live = {"pirate": 3}
        self.canary = {"pirate": CANARY}
        self.bodies: list[bytes] = []
        self.deleted: list[str] = []
        self.fails: set[str] = set()
        self.lock = threading.Lock()

    def adapter(self, name: str) -> AdapterView | None:
        if name not in self.versions:
            return None
        return AdapterView(name=name, state="ready", live=self.live[name], canary=self.canary[name], tiers={})

    def upload(self, name: str, archive: Iterable[bytes]) -> OperationView:
        with self.lock:
            self.bodies.append(b"".join(archive))
            number = max(self.versions.setdefault(name, []), default=0) + 1
            self.versions[name].append(number)
        return OperationView(id="1", kind="update", adapter=name, version=number, state="running")

    def wait(self, operation: OperationView) -> None:
        if operation.adapter in self.fails:
            raise CallFailed("It can not be served.", status=200, code="weights_mismatch")
        assert operation.version is not None
        self.live[operation.adapter] = operation.version
        self.canary.pop(operation.adapter, None)

    def delete(self, name: str) -> None:
        self.deleted.append(name)
        self.versions.pop(name, None)
        self.live.pop(name, None)

    def delete_version(self, name: str, number: int) -> None:
        assert self.live[name] != number
        self.versions[name].remove(number)

    def promote(self, name: str, number: int) -> None:
        assert number in self.versions[name]
        self.live[name] = number

    def set_canary(self, name: str, canary: CanaryView) -> None:
        self.canary[name] = canary


class Stage:
    """A churner over `Registry`, and a clock that its waiting moves."""

    def __init__(self, churn: Churn, *, own: tuple[str, ...] = (), end_s: float = 60.0) -> None:
        self.registry = Registry()
        self.records: list[ChurnRecord] = []
        self.now_s = 0.0
        self.end_s = end_s
        self.complaints: list[str] = []
        self.restoration = Restoration(self.complaints.append)
        self.churner = Churner(
            self.registry,
            churn,
            adapters=("pirate", *own),
            own=own,
            restoration=self.restoration,
            keep=self.records.append,
            now=lambda: self.now_s,
        )

    def is_set(self) -> bool:
        return self.now_s >= self.end_s

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.now_s += timeout
        return self.is_set()

    def run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(churn_module, "ThreadPoolExecutor", Inline)
        self.churner.run(self)


class Inline:
    """A pool that does its work at once, so that what comes out is the same each time."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def submit(self, act, *arguments) -> None:  # type: ignore[no-untyped-def]
        act(*arguments)

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None: ...


def test_deletes_take_churns_own_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(Churn(adds_per_min=6, deletes_per_min=3))
    stage.run(monkeypatch)
    assert [(record.action, record.adapter) for record in stage.records if record.action == "delete"] == [
        ("delete", "churn-000"),
        ("delete", "churn-001"),
        ("delete", "churn-002"),
    ]
    assert set(stage.registry.versions) == {"pirate", "churn-003", "churn-004", "churn-005"}
    assert stage.restoration.run() == ()
    assert set(stage.registry.versions) == {"pirate"}
    assert sorted(stage.registry.deleted) == [f"churn-00{number}" for number in range(6)], "each once"
    assert stage.churner.notes == ()


def test_a_delete_without_anything_to_delete_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(Churn(deletes_per_min=4))
    stage.run(monkeypatch)
    assert stage.records == []
    assert stage.churner.notes == ("4 deletes of churn were left out: there was no adapter of its own to delete.",)


def test_updates_differ_and_somebodys_adapter_is_led_back(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(Churn(updates_per_min=4))
    stage.run(monkeypatch)
    assert [record.status for record in stage.records] == [200] * 4
    assert stage.registry.live["pirate"] == 7
    assert len(set(stage.registry.bodies)) == 4
    assert stage.restoration.run() == ()
    assert stage.registry.versions == {"pirate": [2, 3]}
    assert stage.registry.live == {"pirate": 3}
    assert stage.registry.canary == {"pirate": CANARY}


def test_an_adapter_of_the_runs_own_is_not_led_back(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(Churn(updates_per_min=4), own=("bench-000",))
    stage.run(monkeypatch)
    assert stage.registry.versions["bench-000"] == [1, 2]
    stage.restoration.run()
    assert stage.registry.versions == {"pirate": [2, 3], "bench-000": [1, 2]}


def test_a_change_that_fails_is_recorded_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(Churn(adds_per_min=2, updates_per_min=2))
    stage.registry.fails = {"churn-000", "pirate"}
    stage.run(monkeypatch)
    assert [(record.adapter, record.error) for record in stage.records] == [
        ("churn-000", "weights_mismatch"),
        ("pirate", "weights_mismatch"),
        ("churn-001", ""),
        ("pirate", "weights_mismatch"),
    ]
    stage.restoration.run()
    assert stage.registry.versions == {"pirate": [2, 3]}


def test_a_slow_change_delays_no_other_and_falling_behind_is_said() -> None:
    """Real threads: four changes hang, so a fifth begins late."""
    stage = Stage(Churn(adds_per_min=600))
    held, begun = threading.Event(), threading.Semaphore(0)

    def hang(operation: OperationView) -> None:
        begun.release()
        assert held.wait(20)

    stage.registry.wait = hang  # type: ignore[method-assign]
    stop = threading.Event()
    moved = threading.Condition()

    class Stop:
        def is_set(self) -> bool:
            return stop.is_set()

        def wait(self, timeout: float | None = None) -> bool:
            with moved:
                moved.wait_for(stop.is_set, 0.01)
            return stop.is_set()

    runner = threading.Thread(target=stage.churner.run, args=(Stop(),))
    stage.now_s = 0.5
    runner.start()
    for _ in range(4):
        assert begun.acquire(timeout=20)
    assert stage.churner.notes == ()
    stage.now_s = 9.0
    held.set()
    assert begun.acquire(timeout=20)
    stop.set()
    runner.join(20)
    assert not runner.is_alive()
    assert len(stage.records) >= 4
    assert "could not keep its pace" in stage.churner.notes[0]


def test_a_source_that_is_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=WEIGHTS):
        Stage(Churn(adds_per_min=1, source=str(tmp_path)))
