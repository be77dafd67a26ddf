"""An endpoint over HTTP, as the bench's control side sees it: models, loramux' admin interface, metrics, health.

Every call raises `CallFailed`. Safe to share between threads, or greenlets below gevent.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from loramux_bench.admin.answers import (
    Accepted,
    AdapterPage,
    AdapterView,
    CanaryView,
    Choices,
    Model,
    ModelList,
    NewKey,
    OperationView,
    ReplicaList,
    ReplicaView,
    fault_of,
)
from loramux_bench.bearer import bearer
from loramux_bench.errors import EndpointError
from loramux_bench.scenario import on_this_machine

ADMIN = "/admin/v1"

_CONNECT_S = 5.0
_ANSWER_S = 60.0
_LONG_ANSWER_S = 900.0
"""Calls that answer only when every engine has an adapter."""
_PAGE = 1000
_NOT_READY = frozenset({424, 503})

T = TypeVar("T")


class CallFailed(EndpointError):
    """A call that was not answered as it should be."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        code: str = "",
        not_ready: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status; 0 where none came."""
        self.code = code
        """The endpoint's own code, else `http_<status>`, `connect`, `timeout`, `broken` or `bad_answer`."""
        self.not_ready = not_ready
        """The same call can be answered later."""
        self.retry_after_s = retry_after_s


class AdminClient:
    """Opens connections when they are needed; a context manager."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        key_variable: str = "LORAMUX_ADMIN_KEY",
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`key_variable` is what a person is told to set where the key is refused. Raises `EndpointError` where `url`
        is no address, `ScenarioError` for a key that no header can hold."""
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise EndpointError(f"{url!r} is no address: {error}.") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise EndpointError(f"{url!r} is no address: it must read http://host:port.")
        self.url = url.rstrip("/")
        self._key_variable = key_variable
        self._http = httpx.Client(
            base_url=self.url,
            headers=bearer(key),
            transport=transport,
            # A proxy of the environment can not reach this machine's loopback.
            trust_env=not on_this_machine(self.url),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def models(self) -> tuple[Model, ...]:
        """What may be asked for with this key."""
        return self._read("GET", "/v1/models", ModelList).data

    def complete(self, path: str, body: Mapping[str, Any], *, answer_s: float = _LONG_ANSWER_S) -> int | None:
        """Ask for an answer that is not streamed; its prompt tokens by the endpoint's count, None where it does not
        say."""
        usage = self._read("POST", path, Choices, json=body, answer_s=answer_s).usage
        return None if usage is None else usage.prompt_tokens

    def metrics(self, *, answer_s: float = _ANSWER_S) -> str:
        """In Prometheus' text format."""
        return self._call("GET", "/metrics", answer_s=answer_s).text

    def touch(self, path: str) -> None:
        """Any answer with a good status will do."""
        self._call("GET", path)

    def version(self) -> str:
        """Of a stock vLLM."""
        return str(self._read("GET", "/version", dict[str, Any]).get("version", ""))

    def adapters(self, *, answer_s: float = _ANSWER_S) -> tuple[AdapterView, ...]:
        """All pages, by name."""
        found: list[AdapterView] = []
        cursor: str | None = None
        while True:
            asked = {"limit": _PAGE} if cursor is None else {"limit": _PAGE, "cursor": cursor}
            page = self._read("GET", f"{ADMIN}/adapters", AdapterPage, params=asked, answer_s=answer_s)
            found += page.adapters
            if page.next_cursor is None:
                return tuple(found)
            cursor = page.next_cursor

    def adapter(self, name: str) -> AdapterView | None:
        """None where there is none of that name."""
        try:
            return self._read("GET", _path("adapters", name), AdapterView)
        except CallFailed as failure:
            if failure.status == 404:
                return None
            raise

    def upload(self, name: str, archive: Iterable[bytes]) -> OperationView:
        """Add the adapter or a version of it, from a .tar.gz; the operation that makes it live. Pass it to `wait`."""
        return self._read(
            "PUT",
            _path("adapters", name, "artifact"),
            Accepted,
            params={"promote": "true"},
            content=archive,
            headers={"Content-Type": "application/gzip"},
            answer_s=_LONG_ANSWER_S,
        ).operation

    def add(self, name: str, source: str) -> OperationView:
        """Add the adapter from where the gateway can read it; the operation that makes it live. Pass it to `wait`."""
        return self._read("POST", _path("adapters"), Accepted, json={"name": name, "source": source}).operation

    def wait(self, operation: OperationView) -> None:
        """Until it has succeeded. Raises `CallFailed` with the error that it failed with."""
        ended = self._read(
            "GET", _path("operations", operation.id), OperationView, params={"wait": "true"}, answer_s=_LONG_ANSWER_S
        )
        if ended.state != "succeeded":
            code, message = (ended.error.code, ended.error.message) if ended.error else ("", "It was interrupted.")
            raise CallFailed(
                f"{self.url} could not {_VERBS.get(ended.kind, ended.kind)} {ended.adapter!r}: {message}",
                status=200,
                code=code or "failed",
            )

    def delete(self, name: str) -> None:
        """The adapter and all of its versions; returns when it is gone, at once where there is none."""
        self._delete(_path("adapters", name))

    def delete_version(self, name: str, number: int) -> None:
        """Likewise."""
        self._delete(_path("adapters", name, "versions", str(number)))

    def promote(self, name: str, number: int) -> None:
        self._call("POST", _path("adapters", name, "promote"), json={"version": number}, answer_s=_LONG_ANSWER_S)

    def set_canary(self, name: str, canary: CanaryView) -> None:
        body = msgspec.to_builtins(canary)
        self._call("POST", _path("adapters", name, "canary"), json=body, answer_s=_LONG_ANSWER_S)

    def create_key(self, name: str, adapters: Iterable[str]) -> NewKey:
        """An inference key without limits, for these adapters; none: for all."""
        body = {"name": name, "adapters": list(adapters), "requests_per_minute": 0, "tokens_per_minute": 0}
        return self._read("POST", _path("keys"), NewKey, json=body)

    def revoke_key(self, key_id: str) -> None:
        self._call("DELETE", _path("keys", key_id))

    def replicas(self, *, answer_s: float = _ANSWER_S) -> tuple[ReplicaView, ...]:
        return self._read("GET", _path("replicas"), ReplicaList, answer_s=answer_s).replicas

    def _delete(self, path: str) -> None:
        try:
            self.wait(self._read("DELETE", path, Accepted).operation)
        except CallFailed as failure:
            if failure.status != 404:
                raise

    def _read(self, method: str, path: str, kind: type[T], *, answer_s: float = _ANSWER_S, **asked: Any) -> T:
        answer = self._call(method, path, answer_s=answer_s, **asked)
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CallFailed(
                f"The answers at {answer.url.copy_with(query=None)} are not those of {_interface(path)}; look whether "
                f"the target's url is right.",
                status=answer.status_code,
                code="bad_answer",
            ) from error

    def _call(self, method: str, path: str, *, answer_s: float = _ANSWER_S, **asked: Any) -> httpx.Response:
        timeout = httpx.Timeout(answer_s, connect=_CONNECT_S)
        with self._faults(path, answer_s):
            answer = self._http.request(method, path, timeout=timeout, **asked)
        if not answer.is_success:
            raise self._refusal(answer, path)
        return answer

    @contextmanager
    def _faults(self, path: str, answer_s: float) -> Iterator[None]:
        """What httpx raises, in our words."""
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise CallFailed(
                f"There is no endpoint at {self.url}: start one with `make serve` or `loramux serve`, or name another "
                f"in LORAMUX_URL or the target's url.",
                code="connect",
            ) from error
        except httpx.TimeoutException as error:
            raise CallFailed(f"{self.url}{path} said nothing for {answer_s:g} s.", code="timeout") from error
        except httpx.RequestError as error:
            raise CallFailed(
                f"{self.url}{path} did not answer as {_interface(path)} does: {str(error) or type(error).__name__}.",
                code="broken",
            ) from error

    def _refusal(self, answer: httpx.Response, path: str) -> CallFailed:
        status = answer.status_code
        code, message = fault_of(answer.content)
        said = f": {message}" if message else "."
        if status in (401, 403):
            text = (
                f"{self.url} refused the key{said} Set {self._key_variable} to a key that is good"
                f"{' for the admin interface' if path.startswith(ADMIN) else ''}."
            )
        else:
            text = f"{self.url}{path} answered {status} {answer.reason_phrase}{said}"
        return CallFailed(
            text,
            status=status,
            code=code or f"http_{status}",
            not_ready=status in _NOT_READY or (status == 429 and "notready" in _letters(code + message)),
            retry_after_s=_retry_after_s(answer.headers.get("retry-after", "")),
        )


_VERBS = {"add": "add", "update": "update", "delete_adapter": "delete", "delete_version": "delete a version of"}


def _path(*parts: str) -> str:
    return "/".join((ADMIN, *(quote(part, safe="") for part in parts)))


def _interface(path: str) -> str:
    return "loramux' admin interface" if path.startswith(ADMIN) else "an OpenAI-compatible endpoint"


def _letters(text: str) -> str:
    return "".join(char for char in text.lower() if char.isalpha())


def _retry_after_s(header: str) -> float | None:
    """Only the form in seconds; a date is of a clock that need not be ours."""
    return float(header) if header.strip().isdigit() else None
