"""Slots of a worker, over vLLM's own caches and its own `set_lora`: whatever happens between steps and within them, a
slot holds what its adapter says, and a step finds what it needs."""

import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
from vllm.lora.layers.column_parallel_linear import MergedColumnParallelLinearWithLoRA
from vllm.lora.model_manager import AdapterLRUCache

from loramux_serving.engine.plugin import slots as slots_module
from loramux_serving.engine.plugin.slots import Slots

SLOTS = 3
RANK = 4


class Shapes:
    """What `set_lora` of vLLM's linear layers touches, without the layer that they wrap."""

    lora_a_stacked: tuple[torch.Tensor, ...]
    lora_b_stacked: tuple[torch.Tensor, ...]

    def __init__(self, inputs: int, outputs: Sequence[int]) -> None:
        self.tp_size = 1
        self.n_slices = len(outputs)
        self.lora_a_stacked = tuple(torch.full((SLOTS, 1, RANK, inputs), 7.0) for _ in outputs)
        self.lora_b_stacked = tuple(torch.full((SLOTS, 1, out, RANK), 7.0) for out in outputs)

    def content(self, index: int) -> list[torch.Tensor]:
        return [stacked[index, 0] for stacked in (*self.lora_a_stacked, *self.lora_b_stacked)]


class Linear(Shapes, BaseLinearLayerWithLoRA):
    pass


class Merged(Shapes, MergedColumnParallelLinearWithLoRA):
    pass


class Odd(Linear):
    """A layer that we leave to itself."""

    def set_lora(self, index: int, lora_a: torch.Tensor, lora_b: torch.Tensor) -> None:
        BaseLinearLayerWithLoRA.set_lora(self, index, lora_a, lora_b)  # type: ignore[arg-type]


class Manager:
    """`LRUCacheLoRAModelManager` as far as slots go; what is here is its code."""

    def __init__(self) -> None:
        self.lora_slots = SLOTS
        self.lora_index_to_id: list[int | None] = [None] * SLOTS
        self._registered_adapters: Any = AdapterLRUCache(100, self.deactivate_adapter)
        self._active_adapters: Any = AdapterLRUCache(SLOTS, self._deactivate_adapter)
        self.modules = {
            "qkv": Merged(5, (6, 2, 2)),
            "o": Linear(6, (5,)),
            "embed": Odd(3, (4,)),
            "down": Linear(4, (5,)),
        }
        self.notes: dict[tuple[int, int], list[int]] = {}
        self.slots = Slots(self, self._note)

    def _note(self, module: Any, slot: int, ranks: Sequence[int]) -> None:
        self.notes[id(module), slot] = list(ranks)

    def _get_lora_layer_weights(self, lora: Any, name: str) -> Any:
        return lora.loras.get(name)

    def _deactivate_adapter(self, lora_id: int) -> None:
        if lora_id in self.lora_index_to_id:
            self.lora_index_to_id[self.lora_index_to_id.index(lora_id)] = None

    def deactivate_adapter(self, lora_id: int) -> bool:
        if lora_id not in self._active_adapters:
            return False
        self._deactivate_adapter(lora_id)
        self._active_adapters.pop(lora_id, None)
        return True

    def register(self, lora_id: int, rank: int, names: Sequence[str]) -> None:
        torch.manual_seed(lora_id)
        loras = {}
        for name in names:
            module = self.modules[name]
            inputs = module.lora_a_stacked[0].shape[3]
            a = [torch.randn(rank, inputs) for _ in range(module.n_slices)]
            b = [torch.randn(stacked.shape[2], rank) for stacked in module.lora_b_stacked]
            if module.n_slices > 1:
                absent = lora_id % module.n_slices
                parts: Any = [None if part == absent else one for part, one in enumerate(a)]
                other: Any = [None if part == absent else one for part, one in enumerate(b)]
                loras[name] = SimpleNamespace(lora_a=parts, lora_b=other)
            else:
                loras[name] = SimpleNamespace(lora_a=a[0], lora_b=b[0])
        self._registered_adapters[lora_id] = SimpleNamespace(id=lora_id, loras=loras, rank=rank)

    def expected(self, lora_id: int, name: str) -> list[torch.Tensor]:
        module, weights = self.modules[name], self._registered_adapters.cache[lora_id].loras.get(name)
        content = [torch.zeros_like(part) for part in module.content(0)]
        if weights is None:
            return content
        a = weights.lora_a if isinstance(weights.lora_a, list) else [weights.lora_a]
        b = weights.lora_b if isinstance(weights.lora_b, list) else [weights.lora_b]
        for whole, part in zip(content, [*a, *b], strict=True):
            if part is not None:
                whole[: part.shape[0], : part.shape[1]] = part
        return content

    def check(self) -> None:
        active = list(self._active_adapters.order)
        assert len(active) + len(self.slots.filling()) <= SLOTS
        indices = [index for index in self.lora_index_to_id if index is not None]
        assert sorted(index for index in indices if index > 0) == sorted(active)
        assert {-index for index in indices if index < 0} == set(self.slots.filling())
        for lora_id in active:
            index = self.lora_index_to_id.index(lora_id)
            for name, module in self.modules.items():
                expected = self.expected(lora_id, name)
                for part, whole in zip(module.content(index), expected, strict=True):
                    assert torch.equal(part, whole), f"{name} in slot {index} is not what adapter {lora_id} says"
                if name != "embed":
                    a = expected[: module.n_slices]
                    assert self.notes[id(module), index] == [int(one.any(dim=1).sum()) for one in a]


@pytest.fixture
def manager() -> Manager:
    return Manager()


def _busy(manager: Manager, monkeypatch: pytest.MonkeyPatch, *ids: int) -> None:
    """Steps run, so that a fill goes on one module at a time."""
    monkeypatch.setattr(slots_module, "_LEAST_FILL_S", 0.0)
    manager.slots.stepping(ids)


def test_an_idle_engine_fills_at_once(manager: Manager) -> None:
    manager.register(1, 2, ["qkv", "o"])
    assert manager.slots.fill(1, ()) == "active"
    assert manager.slots.fill(1, ()) == "active"
    manager.check()


def test_between_steps_a_slot_is_filled_a_little_at_a_time(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    manager.register(1, 2, ["qkv", "o", "embed"])
    _busy(manager, monkeypatch)
    said = [manager.slots.fill(1, ())]
    while said[-1] == "filling":
        manager.check()
        assert manager.slots.fill(1, ()) == "spent", "until the next step"
        manager.check()
        manager.slots.stepping(())
        said.append(manager.slots.fill(1, ()))
    assert said[-1] == "active"
    assert len(said) >= len(manager.modules)
    manager.check()


def test_a_step_that_needs_it_sooner_finishes_it(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    manager.register(1, 2, ["qkv", "o"])
    _busy(manager, monkeypatch)
    assert manager.slots.fill(1, ()) == "filling"
    manager.slots.stepping([1])
    assert manager.slots.activate(1)
    assert not manager.slots.activate(1)
    manager.check()


def test_a_step_that_needs_all_slots_takes_the_one_that_is_being_filled(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    for lora_id in range(1, 5):
        manager.register(lora_id, 2, ["o"])
    _busy(manager, monkeypatch)
    assert manager.slots.fill(4, ()) == "filling"
    manager.slots.stepping([1, 2, 3])
    for lora_id in (1, 2, 3):
        manager.slots.activate(lora_id)
    manager.check()
    assert manager.slots.filling() == []
    assert manager.slots.fill(4, ()) == "no slot", "all are in use"


def test_what_runs_or_is_kept_or_pinned_keeps_its_slot(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    for lora_id in range(1, 6):
        manager.register(lora_id, 2, ["o"])
    for lora_id in (1, 2, 3):
        assert manager.slots.fill(lora_id, ()) == "active"
    manager.slots.stepping([1])
    manager._active_adapters.pin(2)
    assert manager.slots.fill(4, [3]) == "no slot"
    while manager.slots.fill(4, ()) == "filling":
        manager.slots.stepping([1])
    assert sorted(manager._active_adapters.order) == [1, 2, 4]
    assert manager.slots.in_use() == {1}
    monkeypatch.setattr(slots_module, "_IN_USE_S", -1.0)
    assert manager.slots.in_use() == frozenset(), "the last step is long ago"
    manager.check()


def test_what_is_freed_while_it_is_filled_gives_its_slot_back(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.register(1, 2, ["o"])
    _busy(manager, monkeypatch)
    assert manager.slots.fill(1, ()) == "filling"
    manager._registered_adapters.pop(1)
    assert manager.slots.filling() == []
    assert manager.lora_index_to_id == [None] * SLOTS
    manager.register(1, 3, ["qkv"])
    while manager.slots.fill(1, ()) == "filling":
        manager.slots.stepping(())
    manager.check()


def test_an_adapter_that_does_not_fit_leaves_its_slot_free(manager: Manager) -> None:
    manager.register(1, 2, ["qkv", "o"])
    manager._registered_adapters.cache[1].loras["o"].lora_a = torch.ones(2, 99)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            manager.slots.fill(1, ())
        assert manager.lora_index_to_id == [None] * SLOTS
    with pytest.raises(RuntimeError):
        manager.slots.activate(1)
    manager.register(2, 3, ["o", "qkv", "down"])
    assert manager.slots.fill(2, ()) == "active"
    manager.check()


def test_the_share_of_a_step(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert manager.slots._budget_s() is None
    for _ in range(200):
        now += 0.1
        manager.slots.stepping([])
    assert manager.slots._budget_s() == pytest.approx(0.01, rel=0.01)
    now += 0.3
    assert manager.slots._budget_s() is not None
    now += 0.2
    assert manager.slots._budget_s() is None, "nothing runs any more"


names = st.lists(st.sampled_from(["qkv", "o", "embed", "down"]), unique=True)
events = st.lists(
    st.one_of(
        st.tuples(st.just("register"), st.integers(1, 8), st.integers(1, RANK), names),
        st.tuples(st.just("free"), st.integers(1, 8), st.just(0), st.just([])),
        st.tuples(st.just("fill"), st.integers(1, 8), st.integers(0, 255), st.just([])),
        st.tuples(st.just("step"), st.integers(0, 255), st.just(0), st.just([])),
        st.tuples(st.just("deactivate"), st.integers(1, 8), st.just(0), st.just([])),
        st.tuples(st.just("pin"), st.integers(1, 8), st.just(0), st.just([])),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(events)
def test_whatever_happens_slots_hold_what_their_adapters_say(history: list[tuple[str, int, int, list[str]]]) -> None:
    manager = Manager()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slots_module, "_LEAST_FILL_S", 0.0)
        for kind, number, other, modules in history:
            registered, pins = manager._registered_adapters, manager._active_adapters.pinned_items
            if kind == "register" and number not in registered:
                manager.register(number, other, modules)
            elif kind == "free":
                registered.pop(number, None)
            elif kind == "fill" and number in registered:
                keep = [one for one in range(1, 9) if other >> (one - 1) & 1]
                kept = [one for one in keep if one in manager._active_adapters]
                manager.slots.fill(number, keep)
                assert all(one in manager._active_adapters for one in kept)
            elif kind == "step":
                pinned = set(pins)
                wanted = [one for one in range(1, 9) if number >> (one - 1) & 1 and one in registered]
                batch = [*pinned & set(wanted), *[one for one in wanted if one not in pinned]][:SLOTS]
                batch = batch if len(pinned | set(batch)) <= SLOTS else batch[: SLOTS - len(pinned)]
                manager.slots.stepping(batch)
                for one in batch:
                    manager.slots.activate(one)
                assert all(one in manager._active_adapters for one in batch)
            elif kind == "deactivate":
                manager.deactivate_adapter(number)
            elif kind == "pin" and number in manager._active_adapters and len(pins) < SLOTS - 1:
                manager._active_adapters.pin(number)
            manager.check()
