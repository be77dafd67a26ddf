"""Whether a signed request was signed with a key's secret, lately, and for the first time."""

import hmac
from datetime import UTC, datetime
from functools import lru_cache

from loramux_adapters.errors import Unauthenticated
from loramux_adapters.ports import Clock
from loramux_serving.auth.seen_signatures import SeenSignatures
from loramux_serving.auth.sigv4 import INVALID, TIMESTAMP, seconds
from loramux_serving.relay.signed_request import SignedRequest

MAX_REMEMBERED = 1 << 19
"""Signatures, about 40 MiB: over five minutes, 1,700 requests a second. Above that the window becomes shorter for the
busiest key, and no request passes twice."""


class Verifier:
    """AWS' Signature Version 4, as its "Signature calculations" define it. One event loop; memory only.

    A request counts for `clock_skew_s` before and after its own time. Where its signature is for a single use, it
    passes once; one of another SDK may pass again until its time is over. What has passed is not known to another
    gateway, nor after a restart."""

    def __init__(self, clock: Clock, *, clock_skew_s: float, max_remembered: int = MAX_REMEMBERED) -> None:
        self._clock = clock
        self._clock_skew_s = clock_skew_s
        self._seen = SeenSignatures(max_remembered)

    def verify(self, signed: SignedRequest, secret: str) -> None:
        """Counts as the request's one use. Raises `Unauthenticated`."""
        signed_at = seconds(signed.timestamp)
        now = self._clock.now()
        self._check_time(signed, signed_at, now)
        expected = hmac.digest(_signing_key(secret, signed.scope), signed.string_to_sign.encode(), "sha256").hex()
        if not hmac.compare_digest(expected.encode(), signed.signature.encode()):
            raise _refused(
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
                "Access Key and signing method."
            )
        if signed.single_use:
            self._use(signed, int(signed_at), now)

    def _check_time(self, signed: SignedRequest, signed_at: float, now: float) -> None:
        skew_s = self._clock_skew_s
        if signed_at < now - skew_s:
            raise _refused(
                f"Signature expired: {signed.timestamp} is now earlier than {_written(now - skew_s)} "
                f"({_written(now)} - {skew_s:g} s)."
            )
        if signed_at > now + skew_s:
            raise _refused(
                f"Signature not yet current: {signed.timestamp} is still later than {_written(now + skew_s)} "
                f"({_written(now)} + {skew_s:g} s)."
            )

    def _use(self, signed: SignedRequest, second: int, now: float) -> None:
        self._seen.forget_before(int(now - self._clock_skew_s))
        if self._seen.is_too_old(signed.access_key_id, second):
            raise _refused(
                f"Signature expired: {signed.timestamp} is too early while there are more requests than can be "
                "remembered."
            )
        if not self._seen.use(signed.access_key_id, second, signed.signature):
            raise _refused("The request has come before: each must be signed anew.")


@lru_cache(maxsize=1024)
def _signing_key(secret: str, scope: str) -> bytes:
    """The same for a day."""
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _written(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime(TIMESTAMP)


def _refused(message: str) -> Unauthenticated:
    return Unauthenticated(message, details={"aws_code": INVALID})
