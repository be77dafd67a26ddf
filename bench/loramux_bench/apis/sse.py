"""Server-sent events, read as they come.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream. The fields `id` and
`retry` are for reconnecting, which nothing here does: they are passed over.
"""

from typing import NamedTuple

from loramux_bench.apis.lines import Lines, LineTooLarge

MAX_EVENT_BYTES = 16 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """`data` is UTF-8 as it came: lines joined by LF, not decoded."""

    data: bytes
    type: str = "message"


class EventStream:
    """Any cut of the same bytes gives the same events. An event that the stream's end cuts off is none, by the text."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._lines = Lines(max_event_bytes)
        self._start: bytes | None = b""
        """What may be part of a byte order mark; None past its place."""
        self._after_cr = False
        """The next LF belongs to a CR that ended a line already."""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._type = ""

    def feed(self, part: bytes) -> list[Event]:
        """The events that end within `part`. Raises `LineTooLarge`; the stream can not be read on then."""
        if not part:
            return []
        if self._after_cr:
            self._after_cr = False
            part = part.removeprefix(b"\n")
        if self._start is not None:
            part = self._start + part
            if len(part) < len(_BOM) and _BOM.startswith(part):
                self._start = part
                return []
            self._start = None
            part = part.removeprefix(_BOM)
        if b"\r" in part:
            self._after_cr = part.endswith(b"\r")
            part = part.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        events: list[Event] = []
        for line in self._lines.feed(part):
            if not line:
                self._dispatch(events)
            else:
                self._field(line)
        if self._data_bytes + self._lines.held_bytes > self._max_event_bytes:
            raise LineTooLarge(f"an event of more than {self._max_event_bytes} bytes")
        return events

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._data_bytes += len(value) + 1
        elif name == b"event":
            self._type = value.decode("utf-8", "replace")

    def _dispatch(self, events: list[Event]) -> None:
        if self._data:
            data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            events.append(Event(data, self._type or "message"))
            self._data = []
            self._data_bytes = 0
        self._type = ""
