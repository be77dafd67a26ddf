"""What staging relies on is looked for, and what is missing is named."""

from types import SimpleNamespace
from typing import Any

import pytest
import vllm.lora.worker_manager
import vllm.utils.cache
from vllm.lora.model_manager import LRUCacheLoRAModelManager

from loramux_serving.engine.plugin import reliance


def test_nothing_is_missing_in_the_vllm_that_we_install() -> None:
    assert reliance.missing_in_vllm() == []


def test_a_name_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(vllm.utils.cache.LRUCache, "_unpin")
    monkeypatch.delattr(vllm.lora.worker_manager.WorkerLoRAManager, "_load_adapter")
    assert set(reliance.missing_in_vllm()) == {
        "vllm.utils.cache.LRUCache._unpin",
        "vllm.lora.worker_manager.WorkerLoRAManager._load_adapter",
    }


def test_another_signature_counts_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def activate_adapter(self: Any, lora_id: int, slot: int) -> bool:
        return True

    monkeypatch.setattr(LRUCacheLoRAModelManager, "activate_adapter", activate_adapter)
    assert reliance.missing_in_vllm() == ["LRUCacheLoRAModelManager.activate_adapter(lora_id)"]


def test_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAMUX_STAGING", "0")
    assert reliance.missing_in_vllm() == ["LORAMUX_STAGING, which is 0"]


def _worker(**more: Any) -> Any:
    class_ = type("LRUCacheLoRAModelManager", (), {})
    manager = class_()
    cache = SimpleNamespace(pinned_items=set())
    attributes = dict.fromkeys(reliance.MANAGER_NEEDS) | {"_active_adapters": cache, "_registered_adapters": cache}
    for name, value in (attributes | {"modules": {}} | more).items():
        if "." not in name and value is not ...:
            setattr(manager, name, value)
    lora_manager = SimpleNamespace(
        _adapter_manager=manager, lora_config=None, max_position_embeddings=None, vocab_size=1
    )
    return SimpleNamespace(model_runner=SimpleNamespace(lora_manager=lora_manager))


def test_a_worker_that_has_all() -> None:
    assert reliance.missing_in_worker(_worker()) == []


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"packed_modules": ...}, "packed_modules"),
        ({"_active_adapters": SimpleNamespace()}, "_active_adapters.pinned_items"),
        ({"is_pooling_model": True}, "generates"),
        ({"_is_moe": True}, "experts"),
        ({"modules": {"model.layers.0.mlp.experts": None}}, "experts"),
    ],
)
def test_a_worker_that_does_not(more: dict[str, Any], named: str) -> None:
    missing = reliance.missing_in_worker(_worker(**more))
    assert len(missing) == 1
    assert named in missing[0]


def test_a_worker_without_lora() -> None:
    assert reliance.missing_in_worker(SimpleNamespace(model_runner=SimpleNamespace()))
