"""What the generator is told, and what it says."""

from collections.abc import Mapping

import msgspec


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """`streams` at a time, each followed by another on the same connection, until the time is over."""

    host: str
    port: int
    path: str
    headers: Mapping[str, str]
    model: str
    prompt: str
    streams: int
    tokens: int
    """Frames with a token, in each stream."""
    ttft_s: float
    itl_s: float
    """The engine's pace. 0: as fast as it goes."""
    seconds: float
    """Of what is measured; the ramp comes before it."""
    late_s: float
    """From which on a frame is late."""

    @property
    def ramp_s(self) -> float:
        """The streams begin one after the other over the length of one, so that as many end as begin at any time."""
        return max(0.3, self.ttft_s + self.tokens * self.itl_s)


class Spread(msgspec.Struct, frozen=True):
    """Seconds."""

    count: int
    p50_s: float
    p99_s: float
    max_s: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Of the time that was measured. None where there was nothing."""

    seconds: float
    frames: int
    ended: int
    """Streams that came to their end, with every frame."""
    errors: int
    """Streams that did not: refused, cut, or with frames missing."""
    failure: str
    """The first of them."""
    ttft: Spread | None
    """From the request's last byte to the first frame with a token."""
    gap: Spread | None
    """From one frame of a stream to its next."""
    delay: Spread | None
    """From the engine's write of a frame to its coming."""
    late: int
    """Frames that came more than `late_s` after they were due: by the engine's schedule, and the first of a stream by
    the time of its request, so that waiting before the engine counts."""
    worst_s: float
    """Longest of these."""
    engine_late: Spread | None
    """How late the engine wrote."""

    @property
    def frames_per_s(self) -> float:
        return self.frames / self.seconds if self.seconds else 0.0
