"""One line of the log for each inference request; never what was asked or answered."""

import asyncio
import sys
import time
from typing import TextIO

import msgspec
import structlog

from loramux_serving.relay.ports import Recorder
from loramux_serving.relay.record import RequestRecord
from loramux_serving.settings import LogSettings
from loramux_serving.telemetry.logs import hide_secrets, json_lines, written

LATE_S = 0.1
"""How long a line may wait for others, to be written with them."""
_MOST_BYTES = 64 * 1024

_LINE = b'{"event":"request","level":"info","logger":"%b","timestamp":"%%b' % __name__.encode()
_log = structlog.get_logger(__name__)


class RequestLog:
    """A `relay.ports.Recorder` that writes, and hands on to the next one. One event loop.

    JSON lines are collected and written together: through structlog a line takes 60 to 80 µs, as long as all the rest
    of a short request. On a terminal each comes at once, by structlog.
    """

    def __init__(self, settings: LogSettings, then: Recorder, stream: TextIO | None = None) -> None:
        """`stream` None: standard error."""
        self._then = then
        self._stream = stream or sys.stderr
        self._on = written(settings, "info")
        self._json = json_lines(settings, self._stream)
        self._encode = msgspec.json.Encoder().encode
        self._lines = bytearray()
        self._second, self._prefix = 0, b""
        self._timer: asyncio.TimerHandle | None = None

    def record(self, record: RequestRecord) -> None:
        if self._on:
            self._write(record)
        self._then.record(record)

    def flush(self) -> None:
        """Write what was collected."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, bytearray()
        if lines:
            self._stream.write(hide_secrets(lines.decode()))
            self._stream.flush()

    def _write(self, record: RequestRecord) -> None:
        if not self._json:
            _log.info("request", **msgspec.to_builtins(record))
            return
        second, part = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._second = second
            self._prefix = _LINE % time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        # The time in UTC, as structlog writes it.
        self._lines += b'%b.%06dZ",%b\n' % (self._prefix, part // 1000, self._encode(record)[1:])
        if len(self._lines) > _MOST_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LATE_S, self.flush)
