"""A caller that sends bytes as they are, and reads answers strictly."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

LIMIT_S = 5.0


@dataclass(frozen=True)
class Answer:
    status: int
    version: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def frames(self) -> list[str]:
        return [frame.removeprefix("data: ") for frame in self.body.decode().split("\n\n") if frame]


class RawCaller:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> Answer:
        """The next answer, whole. Raises where it breaks off."""
        async with asyncio.timeout(LIMIT_S):
            version, status, headers = await self._head()
            return Answer(status, version, headers, await self._body(status, headers))

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(LIMIT_S):
            _, status, headers = await self._head()
            return status, headers

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body; empty for the last."""
        async with asyncio.timeout(LIMIT_S):
            return await self._chunk()

    async def closed(self) -> bytes:
        """What comes until the connection closes."""
        async with asyncio.timeout(LIMIT_S):
            with suppress(ConnectionError):
                return await self.reader.read()
            return b""

    async def _head(self) -> tuple[str, int, dict[str, str]]:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        version, status, _ = lines[0].split(" ", 2)
        pairs = [(line.split(": ", 1)[0], line.split(": ", 1)[1]) for line in lines[1:-2]]
        assert len({name for name, _ in pairs}) == len(pairs), f"a header came twice: {pairs}"
        return version, int(status), dict(pairs)

    async def _body(self, status: int, headers: dict[str, str]) -> bytes:
        if status < 200 or status == 204:
            return b""
        if headers.get("transfer-encoding") == "chunked":
            assert "content-length" not in headers
            body = b""
            while data := await self._chunk():
                body += data
            return body
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        return await self.reader.read()

    async def _chunk(self) -> bytes:
        size = int((await self.reader.readuntil(b"\r\n"))[:-2], 16)
        data = await self.reader.readexactly(size + 2)
        assert data.endswith(b"\r\n")
        return data[:-2]


@asynccontextmanager
async def raw_caller(port: int, *, limit: int = 2**20) -> AsyncIterator[RawCaller]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit)
    try:
        yield RawCaller(reader, writer)
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


def post(
    body: bytes | dict[str, Any],
    path: str = "/v1/chat/completions",
    *,
    version: str = "1.1",
    headers: dict[str, str] | None = None,
    key: str | None = "Bearer good",
) -> bytes:
    """A well-formed request."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Host": "gateway", "Content-Type": "application/json", "Content-Length": str(len(data))}
    if key is not None:
        fields["Authorization"] = key
    fields |= headers or {}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value != "")
    return f"POST {path} HTTP/{version}\r\n{lines}\r\n".encode() + data


def ask(model: str = "shop", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "?"}], **more}
