"""What the relay does to the bytes of a server-sent event stream. Pure and incremental.

Whole frames leave at once; only an incomplete last one is held back. There is no JSON parsing of a frame with tokens:
names are replaced by a search for bytes, and a frame is parsed only if it has usage and no choices, or is the last
one with usage.
"""

import re
from itertools import pairwise

from loramux_adapters.errors import EngineFailed
from loramux_serving.relay.renaming import Renaming
from loramux_serving.relay.token_usage import Usage, is_usage_only, usage_of

MAX_FRAME_BYTES = 16 * 1024 * 1024

_END = re.compile(rb"\n\r?\n")
_TOKENS = re.compile(rb'"choices": ?\[ ?\{|"delta"')
_USAGE = re.compile(rb'"usage": ?\{')
_NO_CHOICES = re.compile(rb'"choices": ?\[ ?\]')
_ERROR = re.compile(rb'^data: ?\{"error"', re.MULTILINE)


class FrameScanner:
    """Frames in, frames out. The output does not depend on how the input was cut into pieces."""

    def __init__(self, renaming: Renaming, *, drop_usage: bool) -> None:
        """`drop_usage`: leave out the usage-only frame, because the caller did not ask for it."""
        self._renaming = renaming
        self._drop_usage = drop_usage
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._tail = b""
        self._usage_frame: bytes | None = None
        self.tokens_seen = False
        """A frame with choices or a delta has passed."""
        self.failed = False
        """The engine has sent an error in a frame."""

    @property
    def usage(self) -> Usage | None:
        """Usage of the last frame that had any."""
        return None if self._usage_frame is None else usage_of(_payload(self._usage_frame))

    def feed(self, data: bytes) -> bytes:
        """The frames that are complete now. Raises `EngineFailed` for one over `MAX_FRAME_BYTES`."""
        window = self._tail + data
        end = _last_end(window) - len(self._tail)
        if end <= 0:
            self._hold(data)
            return b""
        if self._pieces:
            block = b"".join((*self._pieces, data[:end]))
            self._pieces.clear()
            self._held_bytes = 0
        else:
            block = data[:end]
        self._tail = b""
        if end < len(data):
            self._hold(data[end:])
        return self._pass(block)

    def finish(self) -> bytes:
        """What is left when the stream has ended, though its last frame did not end."""
        block = b"".join(self._pieces)
        self._pieces.clear()
        return self._pass(block)

    def _hold(self, data: bytes) -> None:
        self._pieces.append(data)
        self._held_bytes += len(data)
        self._tail = (self._tail + data)[-2:]
        if self._held_bytes > MAX_FRAME_BYTES:
            raise EngineFailed(f"The engine sent a frame larger than {MAX_FRAME_BYTES} bytes.")

    def _pass(self, block: bytes) -> bytes:
        if not self.tokens_seen and _TOKENS.search(block):
            self.tokens_seen = True
        if b'{"error"' in block and _ERROR.search(block):
            self.failed = True
        if b'"usage"' in block:
            block = self._without_usage(block)
        return self._renaming.apply(block)

    def _without_usage(self, block: bytes) -> bytes:
        """Notes the last usage; leaves out the usage-only frame where it is to be dropped."""
        kept = []
        for frame in _frames(block):
            if _USAGE.search(frame):
                self._usage_frame = frame
                if self._drop_usage and _NO_CHOICES.search(frame) and is_usage_only(_payload(frame)):
                    # Blank lines before a frame are none of it: they may have left before it came.
                    kept.append(frame[: len(frame) - len(frame.lstrip(b"\r\n"))])
                    continue
            kept.append(frame)
        return b"".join(kept)


def _last_end(data: bytes) -> int:
    """Where the last complete frame of `data` ends; 0 where none does."""
    lf, crlf = data.rfind(b"\n\n"), data.rfind(b"\n\r\n")
    return max(lf + 2 if lf >= 0 else 0, crlf + 3 if crlf >= 0 else 0)


def _frames(block: bytes) -> list[bytes]:
    ends = [0, *(match.end() for match in _END.finditer(block))]
    if ends[-1] != len(block):
        ends.append(len(block))
    return [block[start:end] for start, end in pairwise(ends)]


def _payload(frame: bytes) -> bytes:
    """The value of the frame's `data` field."""
    return b"\n".join(line[5:].strip() for line in frame.splitlines() if line.startswith(b"data:"))
