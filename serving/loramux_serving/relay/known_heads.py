"""Heads that came before, and what they were read as.

Who keeps a connection sends the same head with each message, but for the length of the body. Reading one is a call for
each header, and more. So what came of it is kept by its bytes without that number: the same bytes, read by the same
parser from the same state, would come to the same.
"""

import re
from typing import Generic, TypeVar

MAX_BYTES = 4096
"""A longer head is not kept."""
MOST = 512

# As every client writes it, so that there is one way to write a number.
_LENGTH = re.compile(rb"\r\nContent-Length: (0|[1-9][0-9]{0,14})\r\n", re.IGNORECASE)

T = TypeVar("T")


def cut(data: bytes) -> tuple[bytes, int, int] | None:
    """Of a message that begins with `data`: its head without the length, the length, and where the body begins. None
    unless the length is said, the head is not too long, and `data` is one whole message."""
    begin = data.find(b"\r\n\r\n") + 4
    found = _LENGTH.search(data, 0, begin - 2)
    if found is None:
        return None
    first, last = found.span(1)
    length = int(data[first:last])
    if begin + length != len(data) or begin > MAX_BYTES:
        return None
    return data[:first] + data[last:begin], length, begin


class KnownHeads(Generic[T]):
    """At most `MOST`; those kept first give way. A look-up takes a hash of the whole head that nobody outside can know,
    so its time says nothing of the secrets in those that are kept."""

    def __init__(self) -> None:
        self._known: dict[bytes, T] = {}
        self.get = self._known.get

    def keep(self, head: bytes, meaning: T) -> None:
        """`meaning` must not depend on anything but the head's bytes and settings that never change."""
        if head not in self._known and len(self._known) >= MOST:
            del self._known[next(iter(self._known))]
        self._known[head] = meaning
