"""How a worker with a GPU takes an adapter: mapped, its pages locked in a thread, then in the host cache. The locks are
CUDA's, and here a stand-in for them."""

import gc
import os
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.lora.model_manager import AdapterLRUCache

from loramux_serving.engine.plugin import worker as plugin
from loramux_serving.engine.plugin.slab import Weights, write
from loramux_serving.engine.plugin.slots import Slots
from tests.fixtures.gateway import eventually

PLACES = 2


class Pages:
    """`torch.cuda.cudart()`. Locks once `gate` is open; `status` is CUDA's."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.status = 0
        self.locked: set[int] = set()

    def cudaHostRegister(self, address: int, _size: int, _flags: int) -> int:
        assert self.gate.wait(20)
        if self.status == 0:
            self.locked.add(address)
        return self.status

    def cudaHostUnregister(self, address: int) -> int:
        self.locked.remove(address)
        return 0


def check(status: int) -> None:
    if status:
        raise RuntimeError(f"CUDA error {status}")


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Pages:
    pages = Pages()
    monkeypatch.setattr(plugin, "_cudart", lambda: pages)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "check_error", check)
    return pages


@pytest.fixture
def worker(pages: Pages) -> Iterator[Any]:
    """Lets go of everything in the end, as the threads that unlock need the stand-in."""
    manager: Any = SimpleNamespace(device="cuda", capacity=PLACES, lora_index_to_id=[None], modules={})
    manager._registered_adapters = AdapterLRUCache(PLACES, lambda lora_id: None)
    manager._active_adapters = AdapterLRUCache(1, lambda lora_id: None)
    manager.loramux_slots = Slots(manager)
    yield SimpleNamespace(
        model_runner=SimpleNamespace(lora_manager=SimpleNamespace(_adapter_manager=manager)), manager=manager
    )
    for lora_id in list(manager._registered_adapters.cache):
        manager._registered_adapters.pop(lora_id)
    gc.collect()
    eventually(lambda: not pages.locked)


def take(worker: Any, lora_id: int) -> str:
    fd, _ = write(2, {"m": Weights(2, 1, torch.ones(2, 3), torch.ones(3, 2))})
    try:
        return plugin.take(worker, lora_id, f"/proc/{os.getpid()}/fd/{fd}", False, [])
    finally:
        os.close(fd)


def test_it_is_held_once_its_pages_are_locked_and_they_are_unlocked_when_it_is_gone(pages: Pages, worker: Any) -> None:
    assert take(worker, 1) == "pinning"
    assert not plugin.pinned(worker, 1)
    assert plugin.holdings(worker)["host"] == []
    pages.gate.set()
    eventually(lambda: plugin.pinned(worker, 1))
    assert plugin.commit(worker, 1, False, []) == "held"
    assert [lora_id for lora_id, *_ in plugin.holdings(worker)["host"]] == [1]
    assert len(pages.locked) == 1
    worker.manager._registered_adapters.pop(1)
    gc.collect()
    eventually(lambda: not pages.locked)


def test_pages_that_can_not_be_locked_are_an_error_and_leave_nothing(pages: Pages, worker: Any) -> None:
    pages.status = 2
    assert take(worker, 1) == "pinning"
    pages.gate.set()
    with pytest.raises(RuntimeError, match="could not be pinned: CUDA error 2"):
        eventually(lambda: plugin.pinned(worker, 1))
    plugin.drop(worker, 1)
    plugin.drop(worker, 1)
    assert plugin.holdings(worker)["host"] == []
    assert not pages.locked


def test_the_oldest_that_may_leave_makes_room(pages: Pages, worker: Any) -> None:
    pages.gate.set()

    def held(lora_id: int, keep: list[int]) -> list[int]:
        take(worker, lora_id)
        eventually(lambda: plugin.pinned(worker, lora_id))
        plugin.commit(worker, lora_id, False, keep)
        return [held for held, *_ in plugin.holdings(worker)["host"]]

    assert held(1, []) == [1]
    assert held(2, []) == [1, 2]
    assert held(3, [1]) == [1, 3]
    assert plugin.pin(worker, 1, "cpu") == ""
    assert held(4, []) == [1, 4]
    with pytest.raises(RuntimeError, match="every place in the host cache"):
        held(5, [4])
