"""The mock endpoint as its callers see it, over real sockets, held against answers of the real vLLM."""

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from loramux_bench.mock.timing import lognormal, offsets
from tests.fixtures.mock_endpoint import MockEndpoint
from tests.fixtures.vllm import RealVllm

ANSWERS = Path(__file__).parents[1] / "fixtures" / "vllm_answers"
"""Recorded from vLLM 0.32 with the calls of `CALLS`, then `models.json` with paths made short."""

_CHAT = {"messages": [{"role": "user", "content": "Count to ten."}]}
_TEXT = {"prompt": "Count to ten:"}
_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
_COUNTED = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat.json": ("chat/completions", _CHAT),
    "chat_stream.txt": ("chat/completions", _CHAT | _USAGE),
    "chat_stream_bare.txt": ("chat/completions", _CHAT | {"stream": True}),
    "chat_stream_counted.txt": ("chat/completions", _CHAT | _COUNTED),
    "completion.json": ("completions", _TEXT),
    "completion_stream.txt": ("completions", _TEXT | _USAGE),
    "completion_stream_counted.txt": ("completions", _TEXT | _COUNTED),
}


@pytest.fixture(scope="module")
def fast() -> Iterator[MockEndpoint]:
    """Without any delay."""
    with MockEndpoint(ttft=0, itl=0) as endpoint:
        yield endpoint


def _ask(endpoint: MockEndpoint, path: str = "chat/completions", key: str = "", **body: Any) -> httpx.Response:
    return httpx.post(
        f"{endpoint.url}/v1/{path}",
        json={"model": "mock-0", "max_tokens": 4} | (_CHAT if path.startswith("chat") else _TEXT) | body,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=30.0,
    )


def _frames(text: str) -> list[Any]:
    """The events' JSON; `[DONE]` and comments left out."""
    events = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    return [json.loads(event) for event in events if event != "[DONE]"]


def _shape(value: Any, name: str = "") -> Any:
    """Keys in their order, kinds of values, and those texts that are the interface's own."""
    if isinstance(value, dict):
        return [(key, _shape(inner, key)) for key, inner in value.items()]
    if isinstance(value, list):
        return [_shape(inner) for inner in value]
    return value if name in ("object", "finish_reason", "role", "index") else type(value).__name__


def _shapes(text: str, name: str) -> Any:
    return [_shape(frame) for frame in _frames(text)] if name.endswith(".txt") else _shape(json.loads(text))


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20.0
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("name", CALLS)
def test_an_answer_has_the_form_of_vllm(fast: MockEndpoint, name: str) -> None:
    path, body = CALLS[name]
    answer = _ask(fast, path, **body)
    recorded = (ANSWERS / name).read_text("utf-8")
    assert _shapes(answer.text, name) == _shapes(recorded, name)
    assert answer.text.endswith("data: [DONE]\n\n") == recorded.endswith("data: [DONE]\n\n") == name.endswith(".txt")


def test_models_are_listed_in_the_form_of_vllm(fast: MockEndpoint) -> None:
    listed = httpx.get(f"{fast.url}/v1/models").json()
    base, adapter = json.loads((ANSWERS / "models.json").read_text("utf-8"))["data"]
    assert [_shape(model) for model in listed["data"]] == [_shape(base)] + [_shape(adapter)] * 4
    assert [(model["id"], model["parent"]) for model in listed["data"]] == [
        ("mock-base", None),
        *((f"mock-{number}", "mock-base") for number in range(4)),
    ]


@pytest.mark.vllm
@pytest.mark.timeout(400)
def test_vllm_still_answers_as_it_was_recorded(vllm: RealVllm) -> None:
    for name, (path, body) in CALLS.items():
        asked = {"model": vllm.name, "max_tokens": 4, "temperature": 0, "ignore_eos": True} | body
        answer = httpx.post(f"{vllm.url}/v1/{path}", json=asked, timeout=60.0)
        assert _shapes(answer.text, name) == _shapes((ANSWERS / name).read_text("utf-8"), name), name


@pytest.mark.parametrize("tokens_per_chunk", [1, 3])
def test_openais_client_reads_a_stream(tokens_per_chunk: int) -> None:
    with (
        MockEndpoint(ttft=0, itl=0.001, tokens_per_chunk=tokens_per_chunk, comments=True) as endpoint,
        openai.OpenAI(base_url=f"{endpoint.url}/v1", api_key="any", max_retries=0) as client,
    ):
        chunks = list(
            client.chat.completions.create(
                model="mock-0",
                messages=[{"role": "user", "content": "one two three"}],
                max_tokens=7,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
        assert texts[0] == ""
        assert len(texts) == 1 + -(-7 // tokens_per_chunk)
        assert len("".join(text or "" for text in texts).split()) == 7
        assert chunks[-2].choices[0].finish_reason == "length"
        assert chunks[-1].usage is not None
        assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (3, 7)


def test_openais_client_reads_whole_answers_and_models(fast: MockEndpoint) -> None:
    with openai.OpenAI(base_url=f"{fast.url}/v1", api_key="any", max_retries=0) as client:
        chat = client.chat.completions.create(
            model="mock-1", messages=[{"role": "user", "content": "one two"}], max_tokens=5
        )
        completion = client.completions.create(model="mock-base", prompt="one two three", max_tokens=5)
        assert len((chat.choices[0].message.content or "").split()) == 5
        assert chat.choices[0].message.content == completion.choices[0].text
        assert chat.usage is not None
        assert (chat.model, chat.usage.prompt_tokens, chat.usage.completion_tokens) == ("mock-1", 2, 5)
        assert len(client.models.list().data) == 5
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model="nobody", prompt="one")


@pytest.mark.parametrize("stream", [False, True])
def test_chunks_are_sent_when_they_are_due(stream: bool) -> None:
    with MockEndpoint(ttft=0.05, itl=0.01, slow=2.0) as endpoint:
        _ask(endpoint, stream=stream, max_tokens=20)
        log = endpoint.log()
    (entry,) = log["requests"]
    due = [0.1 + number * 0.02 for number in range(20)] if stream else [0.1 + 19 * 0.02]
    assert len(entry["chunks_s"]) == len(due) == log["writes"]
    late = [at - at_due for at, at_due in zip(entry["chunks_s"], due, strict=True)]
    assert min(late) >= -1e-6
    # The best of several, so that a machine that is busy for a moment does not matter; drift would.
    assert min(late[-10:]) < 0.01
    assert log["late_max_s"] == pytest.approx(max(late), abs=1e-5)
    assert entry["late_max_s"] == pytest.approx(max(late), abs=1e-5)
    assert 0 <= log["late_p50_s"] <= log["late_p99_s"] <= log["late_max_s"]
    assert entry["ended_s"] >= entry["chunks_s"][-1] >= entry["first_chunk_s"]


def test_noise_is_that_of_the_seed() -> None:
    with MockEndpoint(ttft=0.02, itl=0.01, jitter=0.5, seed=7) as endpoint:
        _ask(endpoint, stream=True, max_tokens=20)
        (entry,) = endpoint.log()["requests"]
    due = offsets(20, ttft_s=0.02, itl_s=0.01, noise=lognormal(0.5, Random(7)))
    late = [at - at_due for at, at_due in zip(entry["chunks_s"], due, strict=True)]
    assert min(late) >= -1e-6
    assert min(late[-10:]) < 0.01


async def test_requests_beyond_the_capacity_wait_their_turn() -> None:
    with MockEndpoint(ttft=0.3, itl=0.0, concurrency=1) as endpoint:
        async with httpx.AsyncClient(base_url=endpoint.url, timeout=30.0) as client:
            await asyncio.gather(*(client.post("/v1/chat/completions", json=_body()) for _ in range(4)))
        entries = endpoint.log()["requests"]
    free_at = 0.0
    for entry in entries:
        started_at = entry["received_at"] + entry["started_s"]
        # It has the place from the moment that the last was due to end, however late that was written.
        assert started_at == pytest.approx(max(entry["received_at"], free_at), abs=1e-6)
        free_at = started_at + 0.3
    assert entries[-1]["started_s"] > 0


def test_one_that_leaves_gives_its_place_to_the_next() -> None:
    with MockEndpoint(ttft=0, itl=3600, concurrency=1) as endpoint:
        with (
            httpx.stream("POST", f"{endpoint.url}/v1/chat/completions", json=_body(), timeout=30.0) as first,
            httpx.Client(timeout=30.0) as waiting,
        ):
            lines = first.iter_lines()  # kept: httpx closes the answer with it
            next(lines)
            with waiting.stream("POST", f"{endpoint.url}/v1/chat/completions", json=_body()) as second:
                assert second.status_code == 200
            _until(lambda: endpoint.log()["requests"][1]["cancelled"])
        _until(lambda: endpoint.log()["requests"][0]["cancelled"])
        left = endpoint.log()["requests"]
        assert [entry["tokens"] for entry in left] == [1, 0]
        assert left[1]["started_s"] is None
        with httpx.stream("POST", f"{endpoint.url}/v1/chat/completions", json=_body(), timeout=30.0) as third:
            assert "assistant" in next(third.iter_lines())
        assert (
            'num_requests_waiting{engine="0",model_name="mock-base"} 0.0' in httpx.get(f"{endpoint.url}/metrics").text
        )


def _body() -> dict[str, Any]:
    return {"model": "mock-0", "max_tokens": 2, "stream": True} | _CHAT


def test_prompt_tokens_are_counted_as_told() -> None:
    with MockEndpoint(ttft=0, itl=0, tokens_per_word=1.5, template_tokens=30) as endpoint:
        parts = [
            {"type": "text", "text": "four words in one"},
            {"type": "text", "text": " and six\tmore in \n the other "},
        ]
        for content in ("ten words make fifteen tokens where each counts\nas more", parts):
            answer = _ask(endpoint, messages=[{"role": "user", "content": content}])
            assert answer.json()["usage"]["prompt_tokens"] == 45
        assert _ask(endpoint, "completions", prompt=[1, 2, 3, 4]).json()["usage"]["prompt_tokens"] == 36
        assert [entry["prompt_tokens"] for entry in endpoint.log()["requests"]] == [45, 45, 36]


def test_sixteen_tokens_where_none_are_asked_for(fast: MockEndpoint) -> None:
    assert _ask(fast, max_tokens=None).json()["usage"]["completion_tokens"] == 16
    assert _ask(fast, max_tokens=None, max_completion_tokens=3).json()["usage"]["completion_tokens"] == 3


def test_reasoning_comes_first_and_comments_and_usage_between() -> None:
    with MockEndpoint(ttft=0, itl=0, reasoning=2, comments=True, continuous_usage=True, early_role=True) as endpoint:
        text = _ask(endpoint, stream=True).text
        whole = _ask(endpoint).json()["choices"][0]["message"]
    frames = _frames(text)
    assert [set(frame["choices"][0]["delta"]) for frame in frames] == [
        {"role", "content"},
        {"reasoning_content"},
        {"reasoning_content"},
        {"content"},
        {"content"},
    ]
    assert [frame["usage"]["completion_tokens"] for frame in frames] == [0, 1, 2, 3, 4]
    assert text.count("\n: ") >= 4
    assert len(whole["reasoning_content"].split()) == len(whole["content"].split()) == 2


def test_a_role_that_comes_early_does_not_wait_for_the_first_token() -> None:
    with (
        MockEndpoint(ttft=3600, early_role=True) as endpoint,
        httpx.stream("POST", f"{endpoint.url}/v1/chat/completions", json=_body(), timeout=30.0) as answer,
    ):
        (frame,) = _frames(next(answer.iter_lines()))
        assert frame["choices"][0]["delta"] == {"role": "assistant", "content": ""}


def test_keys_are_noted_and_wrong_ones_refused() -> None:
    with MockEndpoint(ttft=0, itl=0, key="right") as endpoint:
        answers = [_ask(endpoint, key=key) for key in ("", "wrong", "right")]
        assert [answer.status_code for answer in answers] == [401, 401, 200]
        assert answers[0].json()["error"]["type"] == "authentication_error"
        assert answers[0].json()["error"]["code"] == "unauthenticated"
        assert httpx.get(f"{endpoint.url}/v1/models").status_code == 401
        assert httpx.get(f"{endpoint.url}/healthz").status_code == 200
        assert [(entry["key"], entry["status"]) for entry in endpoint.log()["requests"]] == [
            ("", 401),
            ("wrong", 401),
            ("right", 200),
        ]


def test_it_is_not_ready_for_a_while() -> None:
    with MockEndpoint(ttft=0, itl=0, not_ready_s=1.0) as endpoint:
        answer = _ask(endpoint)
        if answer.status_code == 503:  # on a machine so slow that the time is over, what follows is all there is to see
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["code"] == "engine_unavailable"
        _until(lambda: httpx.get(f"{endpoint.url}/readyz").status_code == 200)
        assert _ask(endpoint).status_code == 200
        assert httpx.get(f"{endpoint.url}/health").status_code == 200
    with MockEndpoint(not_ready_s=3600) as endpoint:
        said = [httpx.get(f"{endpoint.url}{path}").status_code for path in ("/readyz", "/health", "/healthz")]
        assert said == [503, 503, 200]
        assert _ask(endpoint).headers["retry-after"] == "1"


def test_a_break_comes_in_the_middle() -> None:
    with MockEndpoint(ttft=0, itl=0, fault="break") as endpoint:
        read: list[str] = []
        with (
            pytest.raises(httpx.RemoteProtocolError),
            httpx.stream("POST", f"{endpoint.url}/v1/chat/completions", json=_body(), timeout=30.0) as answer,
        ):
            read.extend(answer.iter_lines())
        assert len(_frames("\n".join(read))) == 2
        (entry,) = endpoint.log()["requests"]
        assert (entry["fault"], entry["tokens"], entry["cancelled"]) == ("break", 1, False)


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_an_error_frame_comes_in_the_middle_even_of_one_token(path: str) -> None:
    with MockEndpoint(ttft=0, itl=0, fault="error-frame") as endpoint:
        for max_tokens in (4, 1):
            frames = _frames(_ask(endpoint, path, stream=True, max_tokens=max_tokens).text)
            assert "error" in frames[-1]
            assert len([f for f in frames[:-1] if "role" not in f["choices"][0].get("delta", {})]) == max_tokens // 2


def test_other_faults_come_with_their_share() -> None:
    with MockEndpoint(ttft=0, itl=0, fault="http-500", fault_share=0.3) as endpoint, httpx.Client() as client:
        body = {"model": "mock-0", "max_tokens": 1} | _CHAT
        said = [client.post(f"{endpoint.url}/v1/chat/completions", json=body).status_code for _ in range(200)]
        assert set(said) == {200, 500}
        assert 40 <= said.count(500) <= 80
        assert [entry["status"] for entry in endpoint.log()["requests"]] == said
    with MockEndpoint(fault="rubbish") as endpoint:
        answer = _ask(endpoint, stream=True)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html")


def test_the_log_is_bounded_and_can_be_cleared() -> None:
    with MockEndpoint(ttft=0, itl=0, log_requests=3) as endpoint, httpx.Client() as client:
        body = {"model": "mock-0", "max_tokens": 1} | _CHAT
        for number in range(5):
            client.post(f"{endpoint.url}/v1/chat/completions", json=body, headers={"x-request-id": f"id-{number}"})
        log = endpoint.log()
        assert [entry["id"] for entry in log["requests"]] == ["chatcmpl-id-2", "chatcmpl-id-3", "chatcmpl-id-4"]
        assert log["dropped"] == 2
        endpoint.clear_log()
        assert endpoint.log() == {
            "requests": [],
            "dropped": 0,
            "writes": 0,
            "late_p50_s": 0.0,
            "late_p99_s": 0.0,
            "late_max_s": 0.0,
        }


@pytest.mark.parametrize("body", [b"{", b'{"prompt": "x"}', b'{"model": "mock-0", "prompt": "x", "max_tokens": 0}'])
def test_a_body_that_is_no_request_is_refused(fast: MockEndpoint, body: bytes) -> None:
    answer = httpx.post(f"{fast.url}/v1/completions", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "BadRequestError"


def test_a_second_request_before_the_first_is_answered_closes_the_connection() -> None:
    body = json.dumps(_body()).encode()
    asked = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    with MockEndpoint(ttft=3600) as endpoint:
        parts = urlsplit(endpoint.url)
        with socket.create_connection((parts.hostname, parts.port), timeout=20.0) as connection:
            connection.sendall(asked + asked)
            read = b""
            while got := connection.recv(65536):
                read += got
        assert read.count(b"HTTP/1.1 200 OK") == 1
        _until(lambda: endpoint.log()["requests"][0]["cancelled"])


@pytest.mark.parametrize("stream", [False, True])
def test_a_connection_is_closed_after_the_answer_where_the_caller_wants_it(stream: bool) -> None:
    body = json.dumps(_body() | {"stream": stream}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    with MockEndpoint(ttft=0.01, itl=0.01) as endpoint:
        parts = urlsplit(endpoint.url)
        with socket.create_connection((parts.hostname, parts.port), timeout=20.0) as connection:
            connection.sendall(head % len(body) + body)
            read = b""
            while got := connection.recv(65536):
                read += got
        assert read.endswith(b"0\r\n\r\n" if stream else b"}")
        assert not endpoint.log()["requests"][0]["cancelled"]


def test_a_wrong_setting_is_told_in_a_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loramux_bench.mock", "--ttft", "soon"], capture_output=True, text=True, timeout=30.0
    )
    assert done.returncode == 2
    assert done.stderr.startswith("The mock endpoint can not be set so:")
    assert "Traceback" not in done.stderr


def test_it_imports_neither_locust_nor_gevent() -> None:
    said = subprocess.run(
        [sys.executable, "-c", "import sys, loramux_bench.mock.__main__; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30.0,
    ).stdout.split()
    assert not {"gevent", "locust"} & set(said)
