"""A caller on a real socket that sends any bytes, and has h11 read what comes back."""

import json
import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import h11

LIMIT_S = 5.0
MAX_HEAD_BYTES = 256 * 1024


@dataclass(frozen=True)
class Answer:
    """One answer, whole. Names of headers are in lower case; `trailers` likewise."""

    status: int
    version: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    trailers: tuple[tuple[str, str], ...] = ()

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def one(self, name: str) -> str:
        (value,) = self.all(name)
        return value

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """`code` of an error in OpenAI's shape, which an answer of the gateway's own must have."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return str(error["code"])


class BrokenOffError(Exception):
    """The connection ended before the answer did."""


class Caller:
    """A context manager around one connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), LIMIT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Where the gateway has closed, the rest goes nowhere."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self._ended = True

    def ask(self, body: bytes, *headers: tuple[str, str], target: str = "/v1/chat/completions") -> Answer:
        """A request written by h11, and its answer."""
        writer = h11.Connection(h11.CLIENT)
        fields = [("Host", "gateway"), ("Authorization", "Bearer good"), *headers]
        if not any(name.lower() in ("content-length", "transfer-encoding") for name, _ in fields):
            fields.append(("Content-Length", str(len(body))))
        request = writer.send(h11.Request(method="POST", target=target, headers=fields)) or b""
        self.send(request + (writer.send(h11.Data(data=body)) or b"") + (writer.send(h11.EndOfMessage()) or b""))
        return self.answer()

    def half_close(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def answer(self, *, method: str = "POST") -> Answer:
        """The next final answer. Raises `BrokenOffError`; what h11 does not take for one raises its own error."""
        return self._read(method)[-1]

    def interim(self, *, method: str = "POST") -> int:
        """Status of the interim answer that comes next."""
        return self._read(method, until_interim=True)[0].status

    def answers(self) -> list[Answer]:
        """All that come until the connection closes."""
        found = []
        while not self._at_end():
            found.append(self.answer())
        return found

    def closes(self) -> bool:
        """Whether the gateway closes without another byte."""
        return self._at_end()

    def _at_end(self) -> bool:
        if not self._rest:
            self._rest = self._receive()
        return not self._rest

    def _read(self, method: str, *, until_interim: bool = False) -> list[Answer]:
        reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        reader.send(h11.Request(method=method, target="/", headers=[("Host", "gateway"), ("Content-Length", "0")]))
        reader.send(h11.EndOfMessage())
        if self._rest:
            reader.receive_data(self._rest)
        head: h11.Response | None = None
        body = b""
        while True:
            try:
                event = reader.next_event()
            except h11.RemoteProtocolError as error:
                if self._ended:
                    raise BrokenOffError from error
                raise
            if event is h11.NEED_DATA:
                data = self._receive()
                if not data and reader.their_state is h11.SEND_RESPONSE:
                    raise BrokenOffError
                reader.receive_data(data)
            elif isinstance(event, h11.InformationalResponse):
                if until_interim:
                    self._rest, _ = reader.trailing_data
                    return [Answer(event.status_code, event.http_version.decode(), (), b"")]
            elif isinstance(event, h11.Response):
                assert not until_interim, f"a final answer: {event}"
                head = event
                _check_framing(head)
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                self._rest, _ = reader.trailing_data
                version = head.http_version.decode()
                return [Answer(head.status_code, version, _text(head.headers), body, _text(event.headers))]

    def _receive(self) -> bytes:
        if self._ended:
            return b""
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:
            data = b""
        self._ended = not data
        return data


def _check_framing(head: h11.Response) -> None:
    """What RFC 9112, section 6 asks of an answer, and h11 does not look at."""
    names = [name for name, _ in head.headers]
    framing = [name for name in names if name in (b"content-length", b"transfer-encoding")]
    assert len(framing) <= 1, f"framed more than once: {head}"
    assert names.count(b"connection") <= 1


def _text(headers: Any) -> tuple[tuple[str, str], ...]:
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
