import pytest

from loramux_adapters.errors import RateLimited
from loramux_adapters.model import Role
from loramux_serving.admission.rate_limits import RateLimits
from loramux_serving.relay.ports import Principal
from loramux_serving.settings import AdmissionSettings


def caller(key_id: str = "k", requests: int | None = None, tokens: int | None = None) -> Principal:
    return Principal(key_id, "app", Role.INFERENCE, requests_per_minute=requests, tokens_per_minute=tokens)


def refused(limits: RateLimits, principal: Principal, adapter: str, now: float) -> RateLimited:
    with pytest.raises(RateLimited) as error:
        limits.check(principal, adapter, now)
    return error.value


def test_without_limits_nothing_is_kept() -> None:
    limits = RateLimits(AdmissionSettings())
    limits.check(caller(), "a", 0.0)
    limits.take(caller(), "a", 0.0)
    limits.spend(caller(), "a", 10**9, 0.0)
    assert len(limits) == 0


def test_requests_of_a_key() -> None:
    limits = RateLimits(AdmissionSettings(key_requests_per_minute=2))
    for adapter in ("a", "b"):
        limits.check(caller(), adapter, 0.0)
        limits.take(caller(), adapter, 0.0)
    error = refused(limits, caller(), "c", 0.0)
    assert error.retry_after_s == 30.0
    assert error.details == {"limit": "key_requests_per_minute", "per_minute": 2}
    limits.check(caller("another"), "a", 0.0)
    limits.check(caller(), "a", 30.0)


def test_requests_of_an_adapter() -> None:
    limits = RateLimits(AdmissionSettings(adapter_requests_per_minute=1))
    limits.take(caller("k1"), "a", 0.0)
    error = refused(limits, caller("k2"), "a", 15.0)
    assert error.retry_after_s == 45.0
    assert error.details["limit"] == "adapter_requests_per_minute"
    limits.check(caller("k1"), "b", 0.0)


def test_tokens_are_spent_afterwards_and_a_debt_is_waited_for() -> None:
    limits = RateLimits(AdmissionSettings(key_tokens_per_minute=600))
    limits.spend(caller(), "a", 600, 0.0)
    limits.check(caller(), "a", 0.0)
    limits.spend(caller(), "a", 100, 0.0)
    error = refused(limits, caller(), "a", 0.0)
    assert error.retry_after_s == pytest.approx(10.0)
    assert error.details["limit"] == "key_tokens_per_minute"
    limits.check(caller(), "a", error.retry_after_s or 0.0)


def test_tokens_of_an_adapter() -> None:
    limits = RateLimits(AdmissionSettings(adapter_tokens_per_minute=60))
    limits.spend(caller("k1"), "a", 61, 0.0)
    assert refused(limits, caller("k2"), "a", 0.0).retry_after_s == pytest.approx(1.0)
    limits.check(caller("k1"), "b", 0.0)


def test_a_keys_own_limit_goes_before_the_default_and_0_means_none() -> None:
    limits = RateLimits(AdmissionSettings(key_requests_per_minute=1, key_tokens_per_minute=1))
    free, bound = caller("free", requests=0, tokens=0), caller("bound", requests=3)
    for _ in range(3):
        limits.take(free, "a", 0.0)
        limits.spend(free, "a", 1000, 0.0)
        limits.check(bound, "a", 0.0)
        limits.take(bound, "a", 0.0)
    limits.check(free, "a", 0.0)
    assert refused(limits, bound, "a", 0.0).retry_after_s == pytest.approx(20.0)


def test_the_longest_wait_is_told() -> None:
    limits = RateLimits(AdmissionSettings(key_requests_per_minute=60, adapter_requests_per_minute=1))
    for _ in range(60):
        limits.take(caller(), "b", 0.0)
    limits.take(caller(), "a", 0.0)
    assert refused(limits, caller(), "a", 0.0).retry_after_s == pytest.approx(60.0)


def test_a_new_limit_begins_with_a_full_bucket() -> None:
    limits = RateLimits(AdmissionSettings())
    limits.take(caller(requests=1), "a", 0.0)
    refused(limits, caller(requests=1), "a", 0.0)
    limits.check(caller(requests=2), "a", 0.0)


def test_idle_buckets_are_dropped() -> None:
    limits = RateLimits(AdmissionSettings(key_requests_per_minute=60))
    largest = 0
    for number in range(20_000):
        limits.take(caller(f"k{number}"), "a", number * 0.1)
        largest = max(largest, len(limits))
    assert largest <= 1024


def test_a_bucket_in_use_survives_the_sweep() -> None:
    limits = RateLimits(AdmissionSettings(key_requests_per_minute=1))
    for number in range(5000):
        limits.take(caller(f"k{number}"), "a", 0.0)
    assert len(limits) == 5000
    refused(limits, caller("k0"), "a", 0.0)
