"""What a load asks, what it sees of the answer, and the port that every interface fulfils.

Clients block the greenlet that calls them: they run below gevent. Clock: `time.perf_counter()`.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, in no interface's words."""

    model: str
    prompt: str
    max_tokens: int
    key: str = ""
    timeout_s: float = 300.0
    """Connection to last byte."""
    ignore_eos: bool = True
    """Ask for exactly `max_tokens`, where the endpoint can."""
    temperature: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further parameters of the body, in the interface's own names."""


@dataclass(slots=True)
class Trace:
    """What was seen of one attempt, as it comes: right at any moment, also when the greenlet is killed."""

    sent_at: float = 0.0
    first_token_at: float | None = None
    last_token_at: float | None = None
    end_at: float | None = None
    gaps_s: list[float] = field(default_factory=list)
    chunks: int = 0
    text: list[str] = field(default_factory=list)
    """Content, reasoning and tool calls, in the order that they came."""
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str = ""
    status: int = 0
    error: str = ""
    message: str = ""
    not_ready: bool = False
    """The endpoint said that it can answer later: nothing was generated."""
    retry_after_s: float | None = None
    request_id: str = ""
    version: str = ""
    replica: str = ""

    def token(self, text: str, at: float | None = None) -> None:
        """A chunk that carries tokens has come."""
        now = time.perf_counter() if at is None else at
        if self.last_token_at is None:
            self.first_token_at = now
        else:
            self.gaps_s.append(now - self.last_token_at)
        self.last_token_at = now
        self.chunks += 1
        self.text.append(text)

    def fail(self, error: str, message: str) -> None:
        """How it ended, if not well. The first failure stays."""
        if not self.error:
            self.error = error
            self.message = message[:500]


class Api(Protocol):
    """A client of one endpoint for one user of the load; keeps its connection between requests."""

    def open(self) -> None:
        """Connect ahead, where this client can, so that the first request finds a kept connection as all others do.
        Nothing is raised where it fails: the request will tell."""

    def ask(self, ask: Ask, trace: Trace) -> None:
        """Send it, read the whole answer, and note everything in `trace`, `sent_at` and `end_at` included.

        Whatever the endpoint or the network does wrong ends in `trace.error`; nothing is raised for it. A
        `GreenletExit` passes through, and the connection is closed.
        """

    def close(self) -> None: ...
