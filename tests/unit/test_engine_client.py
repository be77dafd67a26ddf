"""How the client tells an engine's troubles apart. What it does when all is well is in the port's contract suite."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from loramux_adapters.errors import EngineError, EngineFailed, EngineRejected, EngineTimeout, EngineUnavailable
from loramux_adapters.model import Capabilities, Resident, Tier
from loramux_serving.engine.client import VllmEngine

ASSUMED = Capabilities(dynamic_lora=True, max_loras=4, max_cpu_loras=8, max_lora_rank=16, evict=True, staging=True)
ABLE = {
    "dynamic_lora": True,
    "max_loras": 8,
    "max_cpu_loras": 32,
    "max_lora_rank": 64,
    "evict": True,
    "staging": False,
    "vllm_version": "0.32.0",
}
Answers = dict[str, httpx.Response | type[httpx.HTTPError]]


@dataclass(frozen=True)
class Address:
    id: str = "engine-0"
    url: str = "http://engine"


def engine(answers: Answers, seen: list[httpx.Request] | None = None) -> VllmEngine:
    """A client of an engine that gives `answers` by `METHOD /path`, and 404 otherwise."""

    def answer(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(request)
        found = answers.get(f"{request.method} {request.url.path}", httpx.Response(404))
        if isinstance(found, httpx.Response):
            return found
        raise found("no", request=request)

    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return VllmEngine(Address(), client, assumed=ASSUMED, load_timeout_s=5.0)


def fault(status: int, message: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"message": message}})


PLUGIN: Answers = {"GET /loramux/v1/engine": httpx.Response(200, json=ABLE)}
HEALTHY: Answers = {"GET /health": httpx.Response(200)}


async def test_the_engine_tells_what_it_can() -> None:
    able = await engine(PLUGIN).capabilities()

    assert able == Capabilities(True, 8, 32, 64, evict=True, staging=False, version="0.32.0")


async def test_without_the_plugin_the_settings_tell_and_nothing_can_be_freed() -> None:
    able = await engine({"GET /version": httpx.Response(200, json={"version": "0.26.0"})}).capabilities()

    assert able == Capabilities(True, 4, 8, 16, evict=False, staging=False, version="0.26.0")


async def test_the_tier_is_where_the_engine_says_that_the_weights_are() -> None:
    held = [
        {"name": "a@1", "path": "/a", "id": 1, "tier": "cpu", "bytes": 7, "recency": 2, "pin": None},
        {"name": "b@1", "path": "/b", "id": 2, "tier": "disk", "bytes": 0, "recency": 0, "pin": None},
        {"name": "c@1", "path": "/c", "id": 3, "tier": "gpu", "bytes": 9, "recency": 1, "pin": "gpu"},
    ]
    residents = await engine({**PLUGIN, "GET /loramux/v1/adapters": httpx.Response(200, json=held)}).residents()

    assert residents == [
        Resident("a@1", Tier.CPU, "/a", 7, None, 2),
        Resident("b@1", Tier.DISK, "/b"),
        Resident("c@1", Tier.GPU, "/c", 9, Tier.GPU, 1),
    ]


async def test_names_are_quoted_in_paths() -> None:
    seen: list[httpx.Request] = []
    await engine(PLUGIN, seen).evict("a/b@0123456789ab?")

    assert seen[-1].url.raw_path == b"/loramux/v1/adapters/a%2Fb%400123456789ab%3F"


@pytest.mark.parametrize(
    ("answers", "expected", "words"),
    [
        ({}, EngineRejected, "rank 64 is greater"),
        ({"GET /health": httpx.Response(503)}, EngineFailed, "failed"),
        ({"GET /health": httpx.ConnectError}, EngineUnavailable, "reached"),
        ({"POST /loramux/v1/adapters": fault(404, "No adapter\n found ")}, EngineRejected, ": No adapter found$"),
        ({"POST /loramux/v1/adapters": httpx.Response(400, text="plain\nwords")}, EngineRejected, ": plain words$"),
        ({"POST /loramux/v1/adapters": httpx.Response(422)}, EngineRejected, "status 422"),
        ({"POST /loramux/v1/adapters": httpx.ReadTimeout}, EngineTimeout, "within 5 s"),
        ({"POST /loramux/v1/adapters": httpx.ConnectTimeout}, EngineUnavailable, "reached"),
        ({"POST /loramux/v1/adapters": httpx.RemoteProtocolError}, EngineFailed, "broke off"),
        ({"POST /loramux/v1/adapters": httpx.ReadError}, EngineFailed, "broke off"),
    ],
)
async def test_troubles_of_a_load(answers: Answers, expected: type[EngineError], words: str) -> None:
    refused: Answers = {"POST /loramux/v1/adapters": fault(500, "LoRA rank 64 is greater than 16.")}
    with pytest.raises(expected, match=words) as raised:
        await engine({**PLUGIN, **HEALTHY, **refused, **answers}).load("poet@1", Path("/poet"))

    assert "\n" not in raised.value.message
    assert raised.value.code == expected.code


@pytest.mark.parametrize("body", ["<html>", "[]", "{}", json.dumps({"max_loras": "many"})])
async def test_rubbish_is_a_failure(body: str) -> None:
    call: Callable[[], Any] = engine({"GET /loramux/v1/engine": httpx.Response(200, text=body)}).capabilities
    with pytest.raises(EngineFailed, match="nothing that can be read"):
        await call()
