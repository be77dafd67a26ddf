"""One answer: its chunks, each written when it is due."""

import time
from collections.abc import Callable

from loramux_bench.mock.asking import Body
from loramux_bench.mock.connection import Connection
from loramux_bench.mock.deadlines import Deadlines
from loramux_bench.mock.forms import COMMENT, DONE, Counts, Forms, error
from loramux_bench.mock.ledger import Entry
from loramux_bench.mock.settings import MockSettings


class Generation:
    """Started once, when it has its place. `on_end` gets the time at which the place is free: when the last chunk was
    due (not when it was written, so that lateness does not add up over those that wait), or now if it was cut."""

    def __init__(
        self,
        settings: MockSettings,
        forms: Forms,
        body: Body,
        entry: Entry,
        connection: Connection,
        deadlines: Deadlines,
        offsets: list[float],
        *,
        created: int,
        on_end: Callable[["Generation", float], None],
    ) -> None:
        self.entry = entry
        self.over = False
        self._settings = settings
        self._forms = forms
        self._body = body
        self._connection = connection
        self._deadlines = deadlines
        self._offsets = offsets
        self._created = created
        self._on_end = on_end
        self._pieces = forms.pieces(body.tokens)
        options = body.stream_options
        self._usage_follows = options is not None and options.include_usage
        self._usage_always = settings.continuous_usage or (
            options is not None and options.include_usage and options.continuous_usage_stats
        )
        self._started_at = 0.0
        self._next = 0
        self._prefix = b""
        # Half of the chunks come before a break: the first token is seen where there are two.
        self._upto = len(self._pieces) // 2 if entry.fault else len(self._pieces)

    def open(self) -> None:
        """What the caller sees before the first token, while it may still wait for its place: as in vLLM the head."""
        self._connection.answering = self
        if self._body.stream:
            self._connection.open_stream(_request_id(self.entry))
            self._prefix = self._forms.prefix(self.entry.id, self._created, self._body.model)

    def start(self, at: float, *, at_once: bool) -> None:
        """It has its place since `at`. `at_once`: what is due at that time is written in this call."""
        self._started_at = at
        self.entry.started_s = at - self.entry.received_at
        if self._body.stream and self._settings.early_role and (role := self._role()):
            self._connection.stream(role)
        step = self._step if self._body.stream else self._answer
        due = at + (self._offsets[0] if self._body.stream else self._offsets[-1])
        if at_once and due <= at:
            step()
        else:
            self._deadlines.at(due, step)

    def cancel(self) -> None:
        """The caller has left."""
        self.entry.cancelled = True
        self._end(time.perf_counter())

    def _step(self) -> None:
        if self.over:
            return
        now = time.perf_counter()
        first, upto = self._next, self._upto
        while self._next < upto and self._started_at + self._offsets[self._next] <= now:
            self._note(now, self._offsets[self._next])
            self.entry.tokens += self._pieces[self._next].count
            self._next += 1
        frames = self._frames(first, self._next)
        if self._next < upto:
            self._connection.stream(frames)
            self._deadlines.at(self._started_at + self._offsets[self._next], self._step)
        elif upto < len(self._pieces):
            self._broken(frames)
        else:
            if self._usage_follows:
                frames += self._prefix + self._forms.usage(self._counts(self.entry.tokens))
            self._connection.stream(frames + DONE, last=True)
            self._end(self._started_at + self._offsets[-1])

    def _frames(self, first: int, upto: int) -> bytes:
        tails: list[bytes] = []
        if first == 0 and not self._settings.early_role and (role := self._forms.role(self._role_counts())):
            tails.append(role)
        if self._usage_always:
            tails.extend(
                self._forms.counted_tail(
                    self._pieces[number],
                    last=number == len(self._pieces) - 1,
                    usage_follows=self._usage_follows,
                    prompt=self.entry.prompt_tokens,
                )
                for number in range(first, upto)
            )
        else:
            tails.extend(self._forms.tails(self._body.tokens, self._usage_follows)[first:upto])
        if not tails:
            return b""
        begin = COMMENT + self._prefix if self._settings.comments else self._prefix
        return begin + begin.join(tails)

    def _role(self) -> bytes:
        role = self._forms.role(self._role_counts())
        return self._prefix + role if role else b""

    def _role_counts(self) -> Counts | None:
        return self._counts(0) if self._usage_always else None

    def _counts(self, tokens: int) -> Counts:
        return Counts(self.entry.prompt_tokens, tokens)

    def _broken(self, frames: bytes) -> None:
        if self.entry.fault == "break":
            self._connection.stream(frames)
            self._connection.answering = None
            self._connection.close()
        else:
            said = error("The engine failed.", "InternalServerError", 500)
            self._connection.stream(frames + b"data: " + said + b"\n\n" + DONE, last=True)
        self._end(time.perf_counter())

    def _answer(self) -> None:
        if self.over:
            return
        entry = self.entry
        self._note(time.perf_counter(), self._offsets[-1])
        entry.tokens = self._body.tokens
        whole = self._forms.whole(entry.id, self._created, self._body.model, self._counts(entry.tokens))
        self._connection.send(b"200 OK", b"application/json", whole, _request_id(entry))
        self._end(self._started_at + self._offsets[-1])

    def _note(self, now: float, offset: float) -> None:
        self.entry.sent_s.append(now - self.entry.received_at)
        self.entry.late_s.append(now - self._started_at - offset)

    def _end(self, at: float) -> None:
        if not self.over:
            self.over = True
            self.entry.ended_s = time.perf_counter() - self.entry.received_at
            self._on_end(self, at)


def _request_id(entry: Entry) -> bytes:
    return b"x-request-id: %b\r\n" % entry.request_id.encode("latin-1")
