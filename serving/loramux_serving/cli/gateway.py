"""A gateway over HTTP, as the commands see it: JSON in, JSON out, and one kind of failure."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx

ADMIN = "/admin/v1"

_CONNECT_S = 5.0
_ANSWER_S = 60.0
LONG_ANSWER_S = 900.0
"""Calls that answer only when every engine has an adapter, or when a model has written its answer."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Fault(Exception):
    """What the user is told: one line, with the code where the gateway gave one."""

    def __init__(self, message: str, code: str = "") -> None:
        line = " ".join(printable(message).split())
        super().__init__(f"{line} ({code})" if code else line)
        self.message = line
        self.code = code


def printable(text: str) -> str:
    """`text` without what could move a terminal's cursor or change its colours."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def path_of(*parts: str | int) -> str:
    """A path of the admin interface; names that users typed are quoted."""
    return "/".join((ADMIN, *(quote(str(part), safe="") for part in parts)))


class Gateway:
    """Opens connections when they are needed. Safe to share between threads."""

    def __init__(self, url: str, key: Callable[[], str | None], transport: httpx.BaseTransport | None = None) -> None:
        """`key` is asked once, before the first call. Neither it nor the address is looked at before that."""
        self.url = url.rstrip("/")
        self._key = key
        self._transport = transport
        self._made: httpx.Client | None = None

    def call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, str | int] | None = None,
        answer_s: float = _ANSWER_S,
    ) -> Any:
        """The answer's JSON, None where it has no body. Raises `Fault`."""
        with self._faults(answer_s):
            answer = self._client().request(
                method, path, json=body, params=params, timeout=httpx.Timeout(answer_s, connect=_CONNECT_S)
            )
        return _content(answer)

    def text(self, path: str, *, answer_s: float = _ANSWER_S) -> str:
        """The answer's body where it is no JSON. Raises `Fault`."""
        with self._faults(answer_s):
            answer = self._client().get(path, timeout=httpx.Timeout(answer_s, connect=_CONNECT_S))
        if not answer.is_success:
            _content(answer)
        return answer.text

    def send(self, method: str, path: str, *, params: Mapping[str, str | int] | None = None, **body: Any) -> Any:
        """As `call`, with a body that is streamed: `content` and `headers`, or `files`, as httpx takes them."""
        with self._faults(LONG_ANSWER_S):
            answer = self._client().request(
                method, path, params=params, timeout=httpx.Timeout(LONG_ANSWER_S, connect=_CONNECT_S), **body
            )
        return _content(answer)

    @contextmanager
    def lines(self, path: str, headers: Mapping[str, str]) -> Iterator[Iterator[str]]:
        """The lines of an answer that does not end. The gateway sends something every 15 s."""
        with (
            self._faults(_ANSWER_S),
            self._client().stream(
                "GET", path, headers=dict(headers), timeout=httpx.Timeout(_ANSWER_S, connect=_CONNECT_S)
            ) as answer,
        ):
            if answer.is_error:
                answer.read()
                _content(answer)
            yield answer.iter_lines()

    def _client(self) -> httpx.Client:
        if self._made is None:
            local = _host_of(self.url) in _LOOPBACK
            key = self._key()
            self._made = httpx.Client(
                base_url=self.url,
                headers={"Authorization": f"Bearer {key}"} if key else {},
                transport=self._transport,
                # A proxy of the environment can not reach this machine's loopback.
                trust_env=not local,
            )
        return self._made

    @contextmanager
    def _faults(self, answer_s: float) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Fault(f"no gateway at {self.url}; start one with `make serve` or `loramux serve`") from error
        except httpx.TimeoutException as error:
            raise Fault(f"The gateway at {self.url} said nothing for {answer_s:g} s.") from error
        except httpx.TransportError as error:
            raise Fault(f"The connection to the gateway at {self.url} broke: {error}.") from error


def _host_of(url: str) -> str:
    """Raises `Fault` where the address is none."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise Fault(f"{url!r} is no address: {error}.") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise Fault(f"{url!r} is no address: it must read http://host:port.")
    return parsed.host


def _content(answer: httpx.Response) -> Any:
    try:
        content = json.loads(answer.content) if answer.content else None
    except ValueError:
        content = None
        if answer.is_success:
            raise Fault(f"{answer.url} is no loramux gateway: its answer is no JSON.") from None
    if answer.is_success:
        return content
    error = content.get("error") if isinstance(content, dict) else None
    if isinstance(error, dict) and error.get("message"):
        raise Fault(str(error["message"]), str(error.get("code") or answer.status_code))
    raise Fault(f"{answer.url} answered {answer.status_code} {answer.reason_phrase}.", f"http_{answer.status_code}")
