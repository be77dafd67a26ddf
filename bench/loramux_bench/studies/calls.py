"""Calls of a study beside its load, below asyncio."""

import asyncio
from collections.abc import Mapping

import httpx

from loramux_bench.admin.answers import fault_of
from loramux_bench.bearer import bearer
from loramux_bench.errors import EndpointError

_LONGEST_S = 300.0
_KEPT_S = 4.0
"""How long an idle connection is used again: below the 5 s after which vLLM closes it."""


class Refused(EndpointError):
    """A call that was not answered as it should be."""


def client(url: str, key: str = "") -> httpx.AsyncClient:
    """For a server on this machine; as many connections as are asked for. The caller's to close."""
    return httpx.AsyncClient(
        base_url=url,
        headers=bearer(key),
        timeout=_LONGEST_S,
        limits=httpx.Limits(max_connections=None, keepalive_expiry=_KEPT_S),
        trust_env=False,
    )


async def call(http: httpx.AsyncClient, method: str, path: str, body: Mapping[str, object] | None = None) -> bytes:
    """The answer's body. Raises `Refused`."""
    try:
        async with asyncio.timeout(_LONGEST_S):
            answer = await http.request(method, path, json=body)
    except TimeoutError:
        raise Refused(f"{path} did not answer within {_LONGEST_S:g} s.") from None
    except httpx.HTTPError as error:
        raise Refused(f"{path} was not answered: {error!r}.") from error
    if not answer.is_success:
        code, message = fault_of(answer.content)
        raise Refused(f"{path} was refused with {answer.status_code} {code}: {message or answer.text[:300]}")
    return answer.content
