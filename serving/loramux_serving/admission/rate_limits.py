"""Requests and tokens a minute, of a key and of an adapter. Pure: time is passed in."""

from collections.abc import Iterator

from loramux_adapters.errors import RateLimited
from loramux_serving.admission.token_bucket import TokenBucket
from loramux_serving.relay.ports import Principal
from loramux_serving.settings import AdmissionSettings

Limit = tuple[str, str, int]
"""Name of the setting, whose it is (a key's id or an adapter's name), and how many a minute."""

_SWEEP_FLOOR = 1024


class RateLimits:
    """The buckets of all keys and adapters that are limited; one that filled up again is dropped in time, so there
    are never more than twice the busy ones and a floor of 1,024.

    A key's own limit goes before the default of the settings; 0 means no limit in both places. What a request costs
    in tokens is known only afterwards: `spend` may overdraw, and the next requests wait until the debt is paid.
    """

    def __init__(self, settings: AdmissionSettings) -> None:
        self._settings = settings
        self.by_default = bool(
            settings.key_requests_per_minute
            or settings.key_tokens_per_minute
            or settings.adapter_requests_per_minute
            or settings.adapter_tokens_per_minute
        )
        """Requests are limited whose keys have no limits of their own."""
        self._buckets: dict[tuple[str, str], TokenBucket] = {}
        self._sweep_at = _SWEEP_FLOOR

    def __len__(self) -> int:
        return len(self._buckets)

    def check(self, principal: Principal, adapter: str, now: float) -> None:
        """Raises `RateLimited` where a limit is reached; `retry_after_s` is when all of them will allow a request,
        if no other comes in between. Takes nothing."""
        longest_s, reached = 0.0, None
        # A request needs one of the requests, and of the tokens only that there is no debt.
        for units, limits in ((1, self._requests(principal, adapter)), (0, self._tokens(principal, adapter))):
            for limit in limits:
                wait_s = self._wait_s(limit, units, now)
                if wait_s > longest_s:
                    longest_s, reached = wait_s, limit
        if reached is not None:
            name, _, per_minute = reached
            whose = "The key" if name.startswith("key") else f"The adapter {adapter!r}"
            what = "requests" if "requests" in name else "tokens"
            raise RateLimited(
                f"{whose} has used up its {per_minute} {what} a minute.",
                details={"limit": name, "per_minute": per_minute},
                retry_after_s=longest_s,
            )

    def take(self, principal: Principal, adapter: str, now: float) -> None:
        """Count one request."""
        for limit in self._requests(principal, adapter):
            self._bucket(limit, now).take(1, now)

    def spend(self, principal: Principal, adapter: str, tokens: int, now: float) -> None:
        """Count the tokens of one request, which may overdraw."""
        if tokens > 0:
            for limit in self._tokens(principal, adapter):
                self._bucket(limit, now).take(tokens, now)

    def _requests(self, principal: Principal, adapter: str) -> Iterator[Limit]:
        own = principal.requests_per_minute
        if per_minute := self._settings.key_requests_per_minute if own is None else own:
            yield "key_requests_per_minute", principal.key_id, per_minute
        if per_minute := self._settings.adapter_requests_per_minute:
            yield "adapter_requests_per_minute", adapter, per_minute

    def _tokens(self, principal: Principal, adapter: str) -> Iterator[Limit]:
        own = principal.tokens_per_minute
        if per_minute := self._settings.key_tokens_per_minute if own is None else own:
            yield "key_tokens_per_minute", principal.key_id, per_minute
        if per_minute := self._settings.adapter_tokens_per_minute:
            yield "adapter_tokens_per_minute", adapter, per_minute

    def _wait_s(self, limit: Limit, units: int, now: float) -> float:
        name, owner, per_minute = limit
        bucket = self._buckets.get((name, owner))
        if bucket is None or bucket.per_minute != per_minute:
            return 0.0
        return bucket.wait_s(units, now)

    def _bucket(self, limit: Limit, now: float) -> TokenBucket:
        name, owner, per_minute = limit
        bucket = self._buckets.get((name, owner))
        if bucket is None or bucket.per_minute != per_minute:
            if len(self._buckets) >= self._sweep_at:
                self._sweep(now)
            bucket = self._buckets[(name, owner)] = TokenBucket(per_minute)
        return bucket

    def _sweep(self, now: float) -> None:
        self._buckets = {name: bucket for name, bucket in self._buckets.items() if not bucket.full(now)}
        self._sweep_at = max(_SWEEP_FLOOR, 2 * len(self._buckets))
