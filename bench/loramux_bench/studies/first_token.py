"""From a request to its first token."""

import time

import httpx

from loramux_bench.apis.lines import LineTooLarge
from loramux_bench.apis.sse import EventStream
from loramux_bench.errors import EndpointError
from loramux_bench.studies.token_chunks import carries_token

_TEXT = "they set out before the sun was up, and nobody in the village could tell what they had taken along:"


async def first_token_s(http: httpx.AsyncClient, model: str, number: int) -> float:
    """Seconds to the first chunk that carries a token, of a request for one. Prompts of different numbers begin with
    different words: no prefix cache helps. Raises `EndpointError` where there is none."""
    body = {
        "model": model,
        "prompt": f"{number}. On day {number} of the journey {_TEXT}",
        "max_tokens": 1,
        "temperature": 0.0,
        "ignore_eos": True,
        "stream": True,
    }
    began = time.perf_counter()
    found: float | None = None
    events = EventStream()
    try:
        async with http.stream("POST", "/v1/completions", json=body) as answer:
            if answer.status_code != 200:
                said = (await answer.aread()).decode("utf-8", "replace")[:500]
                raise EndpointError(f"A request for {model!r} was refused with {answer.status_code}: {said}")
            async for part in answer.aiter_raw():
                at = time.perf_counter()
                for event in events.feed(part):
                    if carries_token(event.data) and found is None:
                        found = at - began
    except (httpx.HTTPError, LineTooLarge) as error:
        raise EndpointError(f"A request for {model!r} broke: {error!r}.") from error
    if found is None:
        raise EndpointError(f"The answer of {model!r} holds no token.")
    return found
