"""Server-sent events, read as they come.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream. The fields `id` and
`retry` are for reconnecting, which nothing here does: they are passed over.
"""

from typing import NamedTuple

MAX_EVENT_BYTES = 16 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """`data` is UTF-8 as it came: lines joined by LF, not decoded."""

    data: bytes
    type: str = "message"


class EventTooLarge(ValueError):
    """An event of more bytes than a reader should hold."""


class EventStream:
    """Any cut of the same bytes gives the same events. An event that the stream's end cuts off is none, by the text."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._rest = b""
        """Of a line that has not ended. Holds no CR."""
        self._begun = False
        """Past the place where a byte order mark may stand."""
        self._after_cr = False
        """The next LF belongs to a CR that ended a line already."""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._type = ""

    def feed(self, part: bytes) -> list[Event]:
        """The events that end within `part`. Raises `EventTooLarge`; the stream can not be read on then."""
        if not part:
            return []
        if self._after_cr:
            self._after_cr = False
            if part.startswith(b"\n"):
                part = part[1:]
        held = self._rest + part if self._rest else part
        if not self._begun:
            if len(held) < len(_BOM) and _BOM.startswith(held):
                self._rest = held
                return []
            self._begun = True
            held = held.removeprefix(_BOM)
        if b"\r" in held:
            self._after_cr = held.endswith(b"\r")
            held = held.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, self._rest = held.split(b"\n")
        events: list[Event] = []
        for line in lines:
            if not line:
                self._dispatch(events)
            else:
                self._field(line)
        if len(self._rest) + self._data_bytes > self._max_event_bytes:
            raise EventTooLarge(f"an event of more than {self._max_event_bytes} bytes")
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
