"""The bytes of its answers: those of `mock.forms`, whose form is vLLM's, joined once for each model.

Every frame of a stream that carries a token says in its text when it was written, and how late that was: the clock is
CLOCK_MONOTONIC, the same in every process of a machine.
"""

import re
from email.utils import formatdate

from loramux_bench.mock.forms import DONE, Counts, Forms
from loramux_bench.mock.settings import MockSettings

STAMP = re.compile(rb'" (\d{16})\+(\d{6})"')
"""In a frame: microseconds of the clock at which it was written, and how many of these it was late."""

PROMPT_TOKENS = 24
ANSWER_TOKENS = 8
_ID = "chatcmpl-00000000000000a1"
_LATEST_US = 999_999
_WRITTEN = b'" the"'
"""The first token's text in `mock.forms`, in whose place the stamp comes."""


def stamp(written_s: float, late_s: float) -> bytes:
    """The text of a frame, as JSON; always as long."""
    return b'" %016d+%06d"' % (written_s * 1e6, min(_LATEST_US, max(0.0, late_s * 1e6)))


def stamps(frames: bytes) -> list[tuple[float, float]]:
    """Of each whole stamp in them: when it was written, and how late, seconds."""
    return [(int(written) / 1e6, int(late) / 1e6) for written, late in STAMP.findall(frames)]


class Answers:
    """For one model that answers by this name."""

    def __init__(self, model: str, created: int) -> None:
        forms = Forms(MockSettings(), chat=True)
        head = b"HTTP/1.1 200 OK\r\ndate: %b\r\nserver: uvicorn\r\n" % formatdate(created, usegmt=True).encode()
        body = forms.whole(_ID, created, model, Counts(PROMPT_TOKENS, ANSWER_TOKENS))
        self.whole = head + b"content-length: %d\r\ncontent-type: application/json\r\n\r\n%b" % (len(body), body)
        self.stream_head = (
            head + b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        self._forms = forms
        self._prefix = forms.prefix(_ID, created, model)
        role = self._prefix + forms.role(None)
        self.role = _chunk(role)
        """The first frame, without a token."""
        one = stamp(0.0, 0.0)
        before, after = (self._prefix + forms.tails(2, False)[0]).split(_WRITTEN)
        size = len(before) + len(one) + len(after)
        self._before, self._after = b"%x\r\n%b" % (size, before), after + b"\r\n"
        self.deltas = (self.delta(0.0, 0.0), self.delta(0.0, 1e-6))
        """In turn, of a stream without pace, where nobody asks when they were written. Two, as LiteLLM takes a hundred
        of the same for an engine that has gone wrong."""
        self._last = {usage: (self._prefix + forms.tails(1, usage)[0]).split(_WRITTEN) for usage in (False, True)}

    def delta(self, written_s: float, late_s: float) -> bytes:
        """A frame with one token, as a chunk."""
        return self._before + stamp(written_s, late_s) + self._after

    def last(self, written_s: float, late_s: float, tokens: int, usage: bool) -> bytes:
        """The frame with the last token, the usage if it is wanted, and the end."""
        before, after = self._last[usage]
        frame = _chunk(before + stamp(written_s, late_s) + after)
        if usage:
            frame += _chunk(self._prefix + self._forms.usage(Counts(PROMPT_TOKENS, tokens)))
        return frame + _chunk(DONE) + b"0\r\n\r\n"


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)
