"""What the mock really did, request by request, and how late its own writes were."""

from array import array
from collections import deque
from typing import Any

MAX_CHUNKS = 2_000_000
"""Of all requests that are remembered together: 24 MB."""


class Entry:
    """One request. Times are of `time.perf_counter()`, on Linux the same clock in every process; those ending in `_s`
    count from `received_at`."""

    __slots__ = (
        "cancelled",
        "chunks",
        "ended_s",
        "fault",
        "id",
        "key",
        "late_s",
        "model",
        "path",
        "prompt_tokens",
        "received_at",
        "request_id",
        "sent_s",
        "started_s",
        "status",
        "stream",
        "tokens",
    )

    def __init__(self, *, id: str, request_id: str, path: str, key: str, received_at: float) -> None:
        self.id = id
        self.request_id = request_id
        self.path = path
        self.key = key
        self.received_at = received_at
        self.model = ""
        self.stream = False
        self.status = 200
        self.fault = ""
        self.started_s: float | None = None
        self.chunks = 0
        self.sent_s = array("d")
        self.late_s = array("f")
        self.prompt_tokens = 0
        self.tokens = 0
        self.ended_s: float | None = None
        self.cancelled = False

    def told(self) -> dict[str, Any]:
        """`chunks_s` is when each chunk was written; one, of the whole answer, where it was not streamed. `ended_s` is
        None while it is under way, `started_s` while it waits for its turn. `tokens` is how many were sent."""
        return {
            "id": self.id,
            "request_id": self.request_id,
            "path": self.path,
            "model": self.model,
            "key": self.key,
            "stream": self.stream,
            "status": self.status,
            "fault": self.fault,
            "received_at": self.received_at,
            "started_s": self.started_s,
            "first_chunk_s": self.sent_s[0] if self.sent_s else None,
            "chunks_s": self.sent_s.tolist(),
            "late_max_s": max(self.late_s, default=0.0),
            "prompt_tokens": self.prompt_tokens,
            "tokens": self.tokens,
            "ended_s": self.ended_s,
            "cancelled": self.cancelled,
        }


class Ledger:
    """The last requests, oldest first. Those that do not fit are dropped, and counted."""

    def __init__(self, requests: int) -> None:
        self._requests = requests
        self._entries: deque[Entry] = deque()
        self._chunks = 0
        self._dropped = 0

    def open(self, entry: Entry) -> None:
        """A request has come. `chunks`, how many its answer will have, does not change after."""
        self._entries.append(entry)
        self._chunks += entry.chunks
        while len(self._entries) > self._requests or (self._chunks > MAX_CHUNKS and len(self._entries) > 1):
            self._chunks -= self._entries.popleft().chunks
            self._dropped += 1

    def clear(self) -> None:
        self._entries.clear()
        self._chunks = 0
        self._dropped = 0

    def told(self) -> dict[str, Any]:
        """`late_*_s`: how long after they were due the writes of the remembered requests happened; 0 without any."""
        late = sorted(lateness for entry in self._entries for lateness in entry.late_s)
        return {
            "requests": [entry.told() for entry in self._entries],
            "dropped": self._dropped,
            "writes": len(late),
            "late_p50_s": _quantile(late, 0.50),
            "late_p99_s": _quantile(late, 0.99),
            "late_max_s": late[-1] if late else 0.0,
        }


def _quantile(ordered: list[float], share: float) -> float:
    """Nearest rank."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
