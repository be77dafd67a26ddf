"""What every client of an interface does, against an endpoint that speaks it, well and badly. The clients run below
gevent, in a process of their own."""

import socket
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.driven_clients import TARGETS, Driver, make_certificate
from tests.fakes.inference_server import (
    AWS_STREAM,
    GATE,
    InferenceServer,
    Play,
    chat,
    completions,
    inference_server,
    json_play,
    lmi,
    openai_error,
    payload_part,
    tgi,
)

# Every interface


@pytest.mark.parametrize("api", TARGETS)
def test_an_answer(driver: Driver, server: InferenceServer, api: str) -> None:
    trace = driver.trace(server, api)
    words = [" w0", " w1", ""] if api == "tgi" else [" w0", " w1", " w2"]
    assert (trace["error"], trace["message"], trace["status"]) == ("", "", 200)
    assert (trace["text"], trace["chunks"], trace["output_tokens"]) == (words, 3, 3)
    assert trace["finish_reason"] == ("eos_token" if api == "tgi" else "length")
    assert trace["prompt_tokens"] == {"tgi": 7, "sagemaker": None}.get(api, 5)
    assert len(trace["gaps_s"]) == 2
    assert trace["sent_at"] < trace["first_token_at"] <= trace["last_token_at"] <= trace["end_at"]
    assert sum(trace["gaps_s"]) == pytest.approx(trace["last_token_at"] - trace["first_token_at"])
    assert not trace["not_ready"]


GATED = {
    "openai-chat": Play([*chat("ab")[:2], GATE, *chat("ab")[2:]]),
    "openai-completions": Play([*completions("ab")[:1], GATE, *completions("ab")[1:]]),
    "tgi": Play([*tgi("a")[:1], GATE, *tgi("a")[1:]]),
    "sagemaker": Play([payload_part(lmi("ab")[0]), GATE, payload_part(lmi("ab")[1])], type=AWS_STREAM),
    "litellm": Play([*chat("ab")[:2], GATE, *chat("ab")[2:]]),
}


@pytest.mark.parametrize("api", TARGETS)
def test_a_token_is_seen_as_soon_as_it_is_sent(driver: Driver, server: InferenceServer, api: str) -> None:
    server.plays.append(GATED[api])  # goes on only when the client has seen the first token
    trace = driver.trace(server, api, go=f"{server.url}/go")
    assert server.gate.is_set()
    assert (trace["error"], trace["chunks"]) == ("", 2)


def ungated(api: str) -> Play:
    return Play([part for part in GATED[api].parts if part != GATE], type=GATED[api].type)


@pytest.mark.parametrize("api", TARGETS)
def test_a_time_out_keeps_what_was_seen(driver: Driver, server: InferenceServer, api: str) -> None:
    server.plays += [ungated(api), GATED[api]]
    _, trace, then = driver.run(server, api, {}, {"timeout_s": 0.5}, {})["traces"]
    assert (trace["error"], trace["chunks"], trace["finish_reason"]) == ("timeout", 1, "")
    assert trace["end_at"] > trace["last_token_at"]
    assert server.closed.wait(5)
    assert (then["error"], then["chunks"]) == ("", 3)


def test_another_time_out_passes_through(driver: Driver, server: InferenceServer) -> None:
    server.plays += [ungated("openai-chat"), GATED["openai-chat"]]
    answer = driver.run(server, "openai-chat", {}, {}, others_timeout_s=0.5)
    assert answer["passed_through"]
    assert (answer["traces"][1]["error"], answer["traces"][1]["chunks"]) == ("", 1)


@pytest.mark.parametrize("api", TARGETS)
def test_a_killed_greenlet_keeps_what_was_seen_and_closes_its_connection(
    driver: Driver, server: InferenceServer, api: str
) -> None:
    server.plays.append(GATED[api])
    trace, then = driver.run(server, api, {}, {}, kill=True)["traces"]
    assert (trace["error"], trace["chunks"], trace["finish_reason"]) == ("", 1, "")
    assert trace["end_at"] >= trace["last_token_at"]
    assert server.closed.wait(5)
    assert (then["error"], then["chunks"]) == ("", 3)


@pytest.mark.parametrize("api", TARGETS)
def test_a_stream_that_is_cut_off(driver: Driver, server: InferenceServer, api: str) -> None:
    gated = GATED[api]
    server.plays.append(Play(gated.parts[: gated.parts.index(GATE)], type=gated.type, cut=True))
    trace = driver.trace(server, api)
    assert (trace["error"], trace["chunks"]) == ("broken_stream", 1)


@pytest.mark.parametrize("api", TARGETS)
def test_nobody_listens(driver: Driver, api: str) -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        trace = driver.trace(f"http://127.0.0.1:{unused.getsockname()[1]}", api)
    assert (trace["error"], trace["status"], trace["not_ready"]) == ("connect", 0, False)
    assert 0 < trace["sent_at"] <= trace["end_at"]


@pytest.mark.parametrize("api", TARGETS)
@pytest.mark.parametrize(("code", "not_ready"), [("engine_unavailable", True), ("queue_full", False)])
def test_not_ready_is_told_from_overload(
    driver: Driver, server: InferenceServer, api: str, code: str, not_ready: bool
) -> None:
    refusal = openai_error(503, code, "No.", **{"Retry-After": "2"})
    if api == "sagemaker":
        model_error = {"Message": "Received server error", "OriginalStatusCode": 503}
        model_error["OriginalMessage"] = refusal.parts[0].decode()
        refusal = json_play(model_error, 424, **{"x-amzn-errortype": "ModelError", "Retry-After": "2"})
    server.plays.append(refusal)
    trace = driver.trace(server, api)
    assert (trace["error"], trace["not_ready"]) == ("not_ready" if not_ready else code, not_ready)
    assert (trace["message"], trace["retry_after_s"]) == ("No.", 2.0)
    assert trace["status"] == (424 if api == "sagemaker" else 503)
    assert len(server.heard) == 1


@pytest.mark.parametrize("api", TARGETS)
def test_a_refusal_is_not_tried_again(driver: Driver, server: InferenceServer, api: str) -> None:
    server.plays.append(json_play(b"oops", 500))
    trace = driver.trace(server, api)
    assert (trace["error"], trace["status"]) == ("http_500", 500)
    assert len(server.heard) == 1


@pytest.mark.parametrize("api", ["openai-chat", "openai-completions", "tgi", "sagemaker"])
@pytest.mark.parametrize(
    "play",
    [Play([b"<html>sorry</html>\n\n"], type="text/html"), json_play({"ok": True}), Play([b"data: {]\n\n"]), Play([])],
    ids=["html", "json", "rubbish", "nothing"],
)
def test_an_answer_of_another_kind(driver: Driver, server: InferenceServer, api: str, play: Play) -> None:
    if api == "sagemaker":
        play = Play([payload_part(part) for part in play.parts], type=AWS_STREAM)
    server.plays.append(play)
    assert driver.trace(server, api)["error"] == "bad_answer"


# What is asked


def test_what_openai_is_asked(driver: Driver, server: InferenceServer) -> None:
    ask = {"temperature": 0.0, "extra": {"top_p": 0.5, "max_tokens": 4}}
    driver.run(server, "openai-chat", ask, {"ignore_eos": False, "key": "lmx_2"})
    first, second = server.heard
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    assert first.path == "/v1/chat/completions"
    assert first.headers["authorization"] == "Bearer lmx_1"
    assert first.headers["host"] == server.url.removeprefix("http://")
    assert first.body == {
        "model": "pirate",
        "messages": [{"role": "user", "content": "Ahoy?"}],
        "max_tokens": 4,
        "temperature": 0.0,
        "top_p": 0.5,
        "ignore_eos": True,
        **stream,
    }
    assert second.headers["authorization"] == "Bearer lmx_2"
    assert second.body.keys() == {"model", "messages", "max_tokens", *stream}
    driver.run(server, "openai-completions", key="")
    assert server.heard[2].body == {"model": "pirate", "prompt": "Ahoy?", "max_tokens": 3, "ignore_eos": True, **stream}
    assert "authorization" not in server.heard[2].headers


def test_what_tgi_is_asked(driver: Driver, server: InferenceServer) -> None:
    driver.run(
        server,
        "tgi",
        {"temperature": 0.0},
        {"model": "", "temperature": 0.7, "extra": {"parameters": {"top_k": 4}, "stream": True}},
    )
    first, second = server.heard
    assert (first.path, first.headers["authorization"]) == ("/generate_stream", "Bearer lmx_1")
    parameters = {"max_new_tokens": 3, "details": True}
    assert first.body == {"inputs": "Ahoy?", "parameters": parameters | {"do_sample": False, "adapter_id": "pirate"}}
    sampled = parameters | {"do_sample": True, "temperature": 0.7, "top_k": 4}
    assert second.body == {"inputs": "Ahoy?", "parameters": sampled, "stream": True}


def test_what_sagemaker_is_asked(driver: Driver, server: InferenceServer) -> None:
    driver.run(server, "sagemaker", {}, {"model": "", "key": "OTHER:secret"})
    first, second = server.heard
    assert first.path == "/endpoints/shop/invocations-response-stream"
    assert first.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKID/")
    assert "/eu-west-1/sagemaker/aws4_request" in first.headers["authorization"]
    assert first.headers["x-amzn-sagemaker-inference-component"] == "pirate"
    assert first.body == {
        "inputs": "Ahoy?",
        "parameters": {"max_new_tokens": 3, "details": True, "ignore_eos_token": True},
        "stream": True,
    }
    assert "x-amzn-sagemaker-inference-component" not in second.headers
    assert "Credential=OTHER/" in second.headers["authorization"]


def test_what_litellm_is_asked(driver: Driver, server: InferenceServer) -> None:
    driver.run(server, "litellm", {"temperature": 0.5, "extra": {"top_p": 0.5}})
    (heard,) = server.heard
    assert (heard.path, heard.headers["authorization"]) == ("/v1/chat/completions", "Bearer lmx_1")
    asked = {name: heard.body[name] for name in ("model", "max_tokens", "temperature", "top_p", "ignore_eos")}
    assert asked == {"model": "pirate", "max_tokens": 3, "temperature": 0.5, "top_p": 0.5, "ignore_eos": True}
    assert heard.body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("api", "changes", "says"),
    [
        ("openai-chat", {"url": "ftp://host"}, "http://"),
        ("tgi", {"url": "http://host:many"}, "can not be read"),
        ("openai-chat", {"key": "lmx\n"}, "key"),
        ("sagemaker", {"target": {"extra": {}}}, "EndpointName"),
        ("sagemaker", {"key": "lmx_1"}, "AWS_ACCESS_KEY_ID"),
        ("sagemaker", {"key": "lmx_1", "target": {"key_env": "SHOP_KEY"}}, "SHOP_KEY"),
        ("sagemaker", {"url": "", "target": {"extra": {"EndpointName": "shop"}}}, "region"),
    ],
)
def test_a_target_that_can_not_be(driver: Driver, api: str, changes: dict[str, Any], says: str) -> None:
    answer = driver.run(changes.pop("url", "http://127.0.0.1:9"), api, **changes)
    assert answer["raised"] == "ScenarioError"
    assert says in answer["says"]


# Connections


def test_a_connection_is_kept_and_replaced_when_it_was_closed(driver: Driver, server: InferenceServer) -> None:
    server.plays += [Play(chat("ab")), Play(chat("ab"), hang_up=True), Play(chat("ab"))]
    traces = driver.run(server, "openai-chat", {}, {}, {})["traces"]
    assert [(trace["error"], trace["chunks"]) for trace in traces] == [("", 2)] * 3
    assert server.connections == 2
    assert len(server.heard) == 3


INTERIM = b"HTTP/1.1 103 Early Hints\r\n\r\n"


@pytest.mark.parametrize(
    "play",
    [
        Play([b"".join(chat("ab"))], framing="close"),
        Play([b"".join(chat("ab"))], framing="length"),
        Play([INTERIM, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", *chat("ab")], raw=True),
        Play([INTERIM, GATE, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", *chat("ab")], raw=True),
    ],
    ids=["until it closes", "by length", "interim answer first", "interim answer alone"],
)
def test_framings(driver: Driver, server: InferenceServer, play: Play) -> None:
    server.plays.append(play)
    opened = threading.Timer(0.2, server.gate.set)  # the sooner it opens, the less is shown; nothing fails
    opened.start()
    trace, then = driver.run(server, "openai-chat", {}, {})["traces"]
    opened.join()
    assert (trace["error"], trace["text"]) == ("", ["a", "b"])
    assert then["error"] == ""


@pytest.mark.parametrize(
    ("play", "error"),
    [
        (Play([], raw=True), "broken_stream"),
        (Play([b"HTTP/1.1 200 OK\r\nContent-"], raw=True), "broken_stream"),
        (Play([b"SSH-2.0-OpenSSH\r\n"], raw=True), "bad_answer"),
        (Play([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"], raw=True), "bad_answer"),
        (Play([b"".join(chat("ab"))[:-20]], framing="length", cut=True), "broken_stream"),
        (Play([*chat("a")[:2], b"data: " + b"x" * 17_000_000]), "bad_answer"),
    ],
    ids=["closed", "half a head", "another protocol", "bad chunk", "short of its length", "endless line"],
)
def test_what_is_no_http(driver: Driver, server: InferenceServer, play: Play, error: str) -> None:
    server.plays.append(play)
    trace, then = driver.run(server, "openai-chat", {}, {})["traces"]
    assert (trace["error"], then["error"]) == (error, "")


def test_tls(driver: Driver, certificate: Path, tmp_path: Path) -> None:
    with inference_server(certificate) as server:
        traces = driver.run(server, "openai-chat", {}, {})["traces"]
        assert [(trace["error"], trace["chunks"]) for trace in traces] == [("", 3)] * 2
        assert server.connections == 1
    with inference_server(make_certificate(tmp_path / "unknown.pem")) as server:
        trace = driver.trace(server, "openai-chat")
        assert trace["error"] == "connect"
        assert "certificate" in trace["message"]
        assert server.heard == []


def test_headers_of_loramux(driver: Driver, server: InferenceServer) -> None:
    told = {"x-request-id": "r-1", "x-loramux-version": "3", "x-loramux-replica": "engine-0"}
    plays = {
        "openai-chat": Play(chat("ab"), headers=told),
        "tgi": Play(tgi("ab"), headers=told),
        "litellm": Play(chat("ab"), headers=told),
        "sagemaker": Play(
            [payload_part(line) for line in lmi("ab")], headers=told | {"x-amzn-requestid": "r-1"}, type=AWS_STREAM
        ),
    }
    for api, play in plays.items():
        server.plays.append(play)
        trace = driver.trace(server, api)
        assert (trace["request_id"], trace["version"], trace["replica"]) == ("r-1", "3", "engine-0"), api
