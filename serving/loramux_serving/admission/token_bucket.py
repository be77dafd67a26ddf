"""A limit of so many units a minute. Pure: time is passed in."""

_SLACK_S = 1e-6
"""Below the resolution that matters: adding a wait to the time may fall short of its end by rounding."""


class TokenBucket:
    """Holds up to a minute's worth of units, is full at first, and fills evenly. It may be overdrawn.

    Kept as one number, the time at which it will be full again (the virtual scheduling form of the generic cell
    rate algorithm, ITU-T I.371 annex A): the level at time t is `per_minute - (full_at - t) * per_minute / 60`.
    Over any span of s seconds no more than `per_minute * (1 + s / 60)` units are taken without overdraft.
    """

    __slots__ = ("_full_at", "_unit_s", "per_minute")

    def __init__(self, per_minute: int) -> None:
        """`per_minute` is at least 1."""
        self.per_minute = per_minute
        self._unit_s = 60.0 / per_minute
        self._full_at = float("-inf")

    def wait_s(self, units: float, now: float) -> float:
        """Seconds until `units`, at most `per_minute`, are there: 0 where they are. Asking for 0 units waits for the
        end of a debt."""
        wait_s = self._full_at - now - (self.per_minute - units) * self._unit_s
        return wait_s if wait_s > _SLACK_S else 0.0

    def take(self, units: float, now: float) -> None:
        """Take `units`, into debt where they are not there."""
        self._full_at = max(self._full_at, now) + units * self._unit_s

    def full(self, now: float) -> bool:
        """True where the bucket is as a new one, so that it can be dropped."""
        return self._full_at <= now
