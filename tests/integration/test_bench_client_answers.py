"""What the clients make of the answers of each interface. They run below gevent, in a process of their own."""

import json
from typing import Any

import pytest
from huggingface_hub import InferenceClient

from tests.fakes.driven_clients import Driver
from tests.fakes.inference_server import (
    AWS_STREAM,
    InferenceServer,
    Play,
    chat,
    event_message,
    json_play,
    lmi,
    openai_error,
    payload_part,
    sse,
    stream_exception,
    tgi,
    tgi_frames,
)


def delta(finish: str | None = None, **content: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": content, "finish_reason": finish}]}


# OpenAI's streams

USAGE = {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}
CALL = {"index": 0, "id": "1", "type": "function", "function": {"name": "sail", "arguments": ""}}
STREAMS: dict[str, tuple[list[bytes], dict[str, Any]]] = {
    "reasoning first": (
        sse(
            delta(role="assistant", content=""),
            delta(reasoning_content="hm"),
            delta(content="a"),
            delta("stop"),
            b"[DONE]",
        ),
        {"text": ["hm", "a"], "finish_reason": "stop"},
    ),
    "reasoning under two names": (
        sse(delta(reasoning="hm", reasoning_content="hm"), delta("stop", content="a")),
        {"text": ["hm", "a"]},
    ),
    "tool call": (
        sse(
            delta(tool_calls=[CALL]),
            delta(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]),
            delta("tool_calls"),
        ),
        {"text": ["sail", "{}"], "finish_reason": "tool_calls"},
    ),
    "refusal": (sse(delta("stop", refusal="No.")), {"text": ["No."]}),
    "usage frame without choices": (chat("ab", USAGE), {"chunks": 2, "output_tokens": 9, "prompt_tokens": 5}),
    "usage on every frame": (
        sse(
            *[
                delta("stop" if n == 2 else None, content="a") | {"usage": USAGE | {"completion_tokens": n}}
                for n in (1, 2)
            ]
        ),
        {"chunks": 2, "output_tokens": 2},
    ),
    "no usage": (
        sse(delta(content="ab") | {"usage": None}, delta("length", content="cd"), {"choices": None}),
        {"chunks": 2, "output_tokens": None},
    ),
    "comments": ([b": ping\n\n", *chat("ab")[:2], b":\n\n", *chat("ab")[2:]], {"chunks": 2}),
    "many in one piece": ([b"".join(chat("abc"))], {"chunks": 3}),
    "one in many pieces": ([bytes([byte]) for byte in b"".join(chat("a"))], {"chunks": 1, "text": ["a"]}),
    "CR alone": ([b"".join(chat("ab")).replace(b"\n", b"\r")], {"chunks": 2}),
    "no end but a finish reason": (chat("ab")[:-1], {"chunks": 2}),
    "end without finish reason": (sse(delta(content="a"), b"[DONE]"), {"chunks": 1}),
    "finish without a token": (sse(delta("stop", content=""), b"[DONE]"), {"chunks": 0, "finish_reason": "stop"}),
    "ends too early": (sse(delta(content="a")), {"error": "broken_stream", "chunks": 1}),
    "no token": (sse(delta(role="assistant"), b"[DONE]"), {"error": "bad_answer"}),
    "error in the middle": (
        sse(delta(content="a"), {"error": {"message": "It died.", "type": "x", "code": "engine_failed"}}, b"[DONE]"),
        {"error": "engine_failed", "message": "It died.", "chunks": 1},
    ),
    "error with a number": (sse(delta(content="a"), {"error": {"message": "x", "code": 400}}), {"error": "http_400"}),
    "error without a code": (
        sse(delta(content="a"), {"error": {"message": "x", "code": None}}),
        {"error": "broken_stream", "message": "x"},
    ),
    "error as vLLM had it": (sse({"object": "error", "message": "x", "code": 500}), {"error": "http_500"}),
    "not JSON in the middle": (sse(delta(content="a"), b"{]", delta("stop", content="b")), {"error": "bad_answer"}),
}


@pytest.mark.parametrize(("parts", "expected"), STREAMS.values(), ids=STREAMS)
def test_openai_streams(driver: Driver, server: InferenceServer, parts: list[bytes], expected: dict[str, Any]) -> None:
    server.plays.append(Play(parts))
    trace = driver.trace(server, "openai-chat")
    expected = {"error": ""} | expected
    assert {name: trace[name] for name in expected} == expected


@pytest.mark.parametrize("api", ["openai-chat", "openai-completions"])
def test_openai_without_streaming_is_one_chunk(driver: Driver, server: InferenceServer, api: str) -> None:
    said = {"message": {"role": "assistant", "content": "Arr"}} if api == "openai-chat" else {"text": "Arr"}
    server.plays.append(json_play({"choices": [{"index": 0, "finish_reason": "stop", **said}], "usage": USAGE}))
    trace = driver.trace(server, api)
    assert (trace["error"], trace["text"], trace["output_tokens"]) == ("", ["Arr"], 9)


REFUSALS: dict[str, tuple[Play, dict[str, Any]]] = {
    "rate limit": (openai_error(429, "rate_limited", "Slow."), {"error": "rate_limited", "message": "Slow."}),
    "a number as code": (openai_error(404, 404), {"error": "http_404"}),
    "no code": (openai_error(400, None), {"error": "http_400", "message": "No."}),
    "a code that is a text": (openai_error(400, "this is no code"), {"error": "http_400"}),
    "no JSON": (Play([b"Bad Gateway"], status=502, type="text/plain"), {"error": "http_502", "message": "Bad Gateway"}),
    "no body": (Play([], status=503), {"error": "http_503", "not_ready": False}),
    "elsewhere": (Play([], status=307, headers={"Location": "/"}), {"error": "http_307"}),
    "llama.cpp loads": (openai_error(503, 503, "Loading model"), {"error": "not_ready", "not_ready": True}),
    "Hugging Face loads": (
        json_play({"error": "Model m is currently loading", "estimated_time": 20.0}, 503),
        {"error": "not_ready", "not_ready": True},
    ),
    "Bedrock": (
        json_play({"message": "Wait."}, 429, **{"x-amzn-errortype": "ModelNotReadyException:http://x/"}),
        {"error": "not_ready", "not_ready": True},
    ),
    "ready is another word in a 400": (openai_error(400, None, "It is not ready."), {"error": "http_400"}),
    "ready is another word with a code of overload": (
        openai_error(503, "queue_timeout", "No engine is not ready."),
        {"error": "queue_timeout", "not_ready": False},
    ),
    "a date in Retry-After": (
        openai_error(503, "queue_full", **{"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}),
        {"error": "queue_full", "retry_after_s": None},
    ),
}


@pytest.mark.parametrize(("play", "expected"), REFUSALS.values(), ids=REFUSALS)
def test_refusals(driver: Driver, server: InferenceServer, play: Play, expected: dict[str, Any]) -> None:
    server.plays.append(play)
    trace, then = driver.run(server, "openai-chat", {}, {})["traces"]
    assert {name: trace[name] for name in expected} == expected
    assert (trace["status"], then["error"], server.connections) == (play.status, "", 1)


# TGI


def test_huggingface_hub_reads_the_same_answer(driver: Driver, server: InferenceServer) -> None:
    client = InferenceClient(base_url=server.url, timeout=10)
    read = list(client.text_generation("Ahoy?", stream=True, details=True, max_new_tokens=3))
    trace = driver.trace(server, "tgi")
    assert [frame.token.text for frame in read if not frame.token.special] == [text for text in trace["text"] if text]
    details = read[-1].details
    assert details is not None
    assert (details.generated_tokens, details.input_length) == (trace["output_tokens"], trace["prompt_tokens"])
    assert details.finish_reason == trace["finish_reason"]


@pytest.mark.parametrize(
    ("play", "expected"),
    [
        (json_play({"error": "Model is overloaded", "error_type": "overloaded"}, 429), {"error": "overloaded"}),
        (json_play({"error": "Too long", "error_type": "validation"}, 422), {"error": "validation"}),
        (
            Play([*tgi("a")[:1], b'data:{"error":"It died","error_type":"generation"}\n\n']),
            {"error": "generation", "message": "It died", "chunks": 1},
        ),
        (json_play([{"generated_text": "Arr"}]), {"error": "", "text": ["Arr"]}),
    ],
    ids=["overloaded", "refused", "error in the middle", "without streaming"],
)
def test_what_tgi_says(driver: Driver, server: InferenceServer, play: Play, expected: dict[str, Any]) -> None:
    server.plays.append(play)
    trace = driver.trace(server, "tgi")
    assert {name: trace[name] for name in expected} == expected
    assert not trace["not_ready"]


# SageMaker


def cut_anew(parts: list[bytes], size_bytes: int) -> list[bytes]:
    whole = b"".join(parts)
    return [whole[start : start + size_bytes] for start in range(0, len(whole), size_bytes)]


BODIES: dict[str, tuple[list[bytes], dict[str, Any]]] = {
    "LMI": (lmi("abc"), {"text": ["a", "b", "c"], "output_tokens": 3, "finish_reason": "length"}),
    "LMI in parts of 7 bytes": (cut_anew(lmi("abc"), 7), {"text": ["a", "b", "c"]}),
    "LMI in one part": (cut_anew(lmi("abc"), 10_000), {"text": ["a", "b", "c"]}),
    "the last line without its end": ([b"".join(lmi("ab")).rstrip()], {"text": ["a", "b"], "finish_reason": "length"}),
    "TGI's frames in parts of 11 bytes": (cut_anew(tgi("ab"), 11), {"text": ["a", "b", ""], "output_tokens": 3}),
    "TGI's frames as lines": (
        [json.dumps(frame).encode() + b"\n" for frame in tgi_frames("ab")],
        {"text": ["a", "b", ""]},
    ),
    "static batch": ([b'{"outputs": ["a"]}\n{"outputs": ["b"]}\n'], {"text": ["a", "b"]}),
    "whole": ([b'{"generated_text": "Arr"}'], {"text": ["Arr"]}),
    "LMI fails": (
        [
            lmi("ab")[0],
            b'{"token": {"id": -1, "text": ""}, "generated_text": "", "details": {"finish_reason": "error"}}\n',
        ],
        {"error": "broken_stream", "chunks": 1},
    ),
    "LMI says an error": ([b'{"error": "Bad input", "code": 424}'], {"error": "http_424", "message": "Bad input"}),
    "ends too early": (lmi("ab")[:1], {"error": "broken_stream", "chunks": 1}),
}


@pytest.mark.parametrize(("parts", "expected"), BODIES.values(), ids=BODIES)
def test_sagemaker_bodies(
    driver: Driver, server: InferenceServer, parts: list[bytes], expected: dict[str, Any]
) -> None:
    server.plays.append(Play([payload_part(part) for part in parts], type=AWS_STREAM))
    trace = driver.trace(server, "sagemaker")
    expected = {"error": ""} | expected
    assert {name: trace[name] for name in expected} == expected


@pytest.mark.parametrize("size_bytes", [13, 10_000])
def test_sagemaker_with_openais_body(driver: Driver, server: InferenceServer, size_bytes: int) -> None:
    server.plays.append(Play([payload_part(part) for part in cut_anew(chat("ab", USAGE), size_bytes)], type=AWS_STREAM))
    extra = {"EndpointName": "shop", "form": "openai-chat", "top_p": 0.5}
    trace = driver.trace(server, "sagemaker", target={"extra": extra})
    assert (trace["error"], trace["text"], trace["output_tokens"]) == ("", ["a", "b"], 9)
    body = server.heard[0].body
    assert body["messages"] == [{"role": "user", "content": "Ahoy?"}]
    assert (body["top_p"], body["stream"]) == (0.5, True)
    assert not {"EndpointName", "form", "region"} & body.keys()


SAGEMAKER_SAYS: dict[str, tuple[Play, dict[str, Any]]] = {
    "model stream error": (
        Play([payload_part(lmi("ab")[0]), stream_exception("ModelStreamError", Message="It died.")], type=AWS_STREAM),
        {"error": "ModelStreamError", "message": "It died.", "chunks": 1, "status": 200},
    ),
    "internal stream failure": (
        Play([stream_exception("InternalStreamFailure", Message="Hm.")], type=AWS_STREAM),
        {"error": "InternalStreamFailure", "message": "Hm."},
    ),
    "not ready": (
        json_play({"Message": "Wait."}, 429, **{"x-amzn-errortype": "ModelNotReadyException"}),
        {"error": "not_ready", "not_ready": True, "message": "Wait."},
    ),
    "scaled to zero": (
        json_play(
            {"Message": "Inference Component has no capacity to process this request. ApplicationAutoScaling may be "},
            400,
            **{"x-amzn-errortype": "ValidationError"},
        ),
        {"error": "not_ready", "not_ready": True},
    ),
    "validation": (
        json_play({"Message": "Endpoint shop not found."}, 400, **{"x-amzn-errortype": "ValidationError"}),
        {"error": "ValidationError", "not_ready": False, "status": 400},
    ),
    "throttled": (
        json_play({"Message": "Rate exceeded"}, 400, **{"x-amzn-errortype": "ThrottlingException"}),
        {"error": "ThrottlingException", "not_ready": False},
    ),
    "a wrong CRC": (
        Play([payload_part(lmi("ab")[0])[:-1] + b"\0"], type=AWS_STREAM),
        {"error": "bad_answer", "chunks": 0},
    ),
    "another event": (
        Play(
            [
                event_message(b"{}", {":message-type": "event", ":event-type": "Ping"}),
                *(payload_part(line) for line in lmi("ab")),
            ],
            type=AWS_STREAM,
        ),
        {"error": "", "chunks": 2},
    ),
}


@pytest.mark.parametrize(("play", "expected"), SAGEMAKER_SAYS.values(), ids=SAGEMAKER_SAYS)
def test_what_sagemaker_says(driver: Driver, server: InferenceServer, play: Play, expected: dict[str, Any]) -> None:
    server.plays.append(play)
    trace, then = driver.run(server, "sagemaker", {}, {})["traces"]
    assert {name: trace[name] for name in expected} == expected
    assert then["error"] == ""
    assert len(server.heard) == 2


# LiteLLM


def test_litellm_gives_the_providers_count_or_none(driver: Driver, server: InferenceServer) -> None:
    server.plays += [Play(chat("ab", USAGE)), Play(chat("ab"))]
    counted, uncounted = driver.run(server, "litellm", {}, {})["traces"]
    assert (counted["prompt_tokens"], counted["output_tokens"]) == (5, 9)
    assert (uncounted["prompt_tokens"], uncounted["output_tokens"], uncounted["chunks"]) == (None, None, 2)


@pytest.mark.parametrize("name", ["reasoning first", "tool call", "comments", "error in the middle"])
def test_litellm_streams(driver: Driver, server: InferenceServer, name: str) -> None:
    parts, expected = STREAMS[name]
    server.plays.append(Play(parts))
    trace = driver.trace(server, "litellm")
    expected = {key: value for key, value in ({"error": ""} | expected).items() if key != "message"}
    assert {key: trace[key] for key in expected} == expected


def test_litellm_without_a_token(driver: Driver, server: InferenceServer) -> None:
    server.plays.append(Play([b"<html>"], type="text/html"))
    assert driver.trace(server, "litellm")["error"] == "bad_answer"


def test_what_litellm_refuses_itself(driver: Driver, server: InferenceServer) -> None:
    trace = driver.trace(server, "litellm", {"model": "nobody/pirate"})
    assert (trace["error"], trace["status"]) == ("BadRequestError", 0)
    assert server.heard == []


def test_bedrock_that_is_not_ready(driver: Driver, server: InferenceServer) -> None:
    model = "bedrock/llama/arn:aws:bedrock:us-east-1:123456789012:imported-model/abc"
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "aws_region_name": "us-east-1"}
    message = "Model is not ready for inference. Wait and try your request again."
    for headers in ({}, {"x-amzn-errortype": "ModelNotReadyException"}):
        server.plays.append(json_play({"message": message}, 429, **headers))
        trace = driver.trace(server, "litellm", {"model": model, "extra": keys})
        assert (trace["error"], trace["not_ready"], trace["message"]) == ("not_ready", True, message)
    assert len(server.heard) == 2
