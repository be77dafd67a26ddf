"""LMI's words at `/invocations`: bodies as its documentation has them, answers as its clients read them."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramux_adapters import errors
from loramux_adapters.errors import EngineFailed, LoramuxError, RequestInvalid
from loramux_serving.relay.dialect import Asked, Dialect, InferenceRequest, StreamForm
from loramux_serving.relay.dialects.invocations import InvocationsDialect
from loramux_serving.relay.dialects.lmi_parameters import Parameters
from loramux_serving.relay.refusal import body_too_large
from loramux_serving.relay.request import CHAT, COMPLETIONS

ANSWERS = Path(__file__).parents[1] / "fixtures" / "vllm_completions"
CHATS = Path(__file__).parents[1] / "fixtures" / "vllm_answers"
SCRIPTS = "日本語のテキスト 👩‍👩‍👧‍👦 مرحبا é क्षि"
STREAMS = sorted(path.name for path in ANSWERS.glob("*_stream*.txt"))
DIALECT: Dialect = InvocationsDialect("base")
ENGINE = "SmolLM2-135M-Instruct"


def asked(target: str = "/invocations", **headers: str) -> Asked:
    told = {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in headers.items()}
    return Asked(b"POST", target.encode(), list(told.items()), told)


def read(body: Any, head: Asked | None = None) -> InferenceRequest:
    return DIALECT.decode(head or asked(), body if isinstance(body, bytes) else json.dumps(body).encode())


def ask(*, stream: bool = False, **parameters: Any) -> InferenceRequest:
    return read({"inputs": "Hi", "parameters": parameters, "stream": stream})


def sent(request: InferenceRequest) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.json.decode(request.body("engine"))
    return body


def refused(body: Any) -> RequestInvalid:
    with pytest.raises(RequestInvalid) as caught:
        read(body)
    return caught.value


def document(request: InferenceRequest, name: str, status: int = 200) -> tuple[int, Any]:
    status, body = request.form(ENGINE).document(status, (ANSWERS / name).read_bytes())
    return status, json.loads(body)


def lines(stream: bytes) -> list[dict[str, Any]]:
    assert stream.endswith(b"\n")
    return [json.loads(line) for line in stream[:-1].split(b"\n")]


def through(form: StreamForm, parts: Sequence[bytes]) -> bytes:
    return b"".join([*(form.feed(part) for part in parts), form.finish()])


def streamed(request: InferenceRequest, name: str) -> list[dict[str, Any]]:
    return lines(through(request.form(ENGINE).stream(), [(ANSWERS / name).read_bytes()]))


# Requests


def test_defaults_are_lmis() -> None:
    request = read({"inputs": "Hi"})
    body = sent(request)

    assert (request.model, request.stream, request.path) == ("base", False, COMPLETIONS)
    assert (body["model"], body["prompt"], body["max_tokens"]) == ("engine", "Hi", 30)
    assert body["temperature"] == 0.0
    assert (body["top_p"], body["top_k"], body["repetition_penalty"]) == (1.0, 0, 1.0)
    assert {"logprobs", "echo", "n", "seed", "stop", "stream", "ignore_eos"}.isdisjoint(body)
    assert "include_stop_str_in_output" not in body


@pytest.mark.parametrize(
    ("parameters", "temperature"),
    [
        ({}, 0.0),
        ({"do_sample": False, "temperature": 0.7}, 0.0),
        ({"do_sample": True}, 1.0),
        ({"do_sample": True, "temperature": 0.7}, 0.7),
        ({"temperature": 0.7}, 0.7),
        ({"temperature": 0}, 0.0),
        ({"do_sample": None, "temperature": None}, 0.0),
    ],
)
def test_when_it_samples(parameters: dict[str, Any], temperature: float) -> None:
    assert sent(ask(**parameters))["temperature"] == temperature


def test_every_parameter_reaches_vllm() -> None:
    body = sent(
        ask(
            do_sample=True,
            seed=42,
            temperature=0.5,
            repetition_penalty=1.1,
            top_k=5,
            top_p=0.9,
            min_p=0.1,
            presence_penalty=0.2,
            frequency_penalty=0.3,
            max_new_tokens=7,
            stop_sequences=["a", "b"],
            stop_token_ids=[3],
            include_stop_str_in_output=True,
            ignore_eos_token=True,
            skip_special_tokens=False,
            truncate=11,
            logit_bias={"5": -100},
            min_tokens=2,
            unknown="ignored",
        )
    )
    assert body == {
        "model": "engine",
        "prompt": "Hi",
        "seed": 42,
        "temperature": 0.5,
        "repetition_penalty": 1.1,
        "top_k": 5,
        "top_p": 0.9,
        "min_p": 0.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "max_tokens": 7,
        "stop": ["a", "b"],
        "stop_token_ids": [3],
        "include_stop_str_in_output": True,
        "ignore_eos": True,
        "skip_special_tokens": False,
        "truncate_prompt_tokens": 11,
        "truncation_side": "left",
        "logit_bias": {"5": -100},
        "min_tokens": 2,
    }


def test_no_parameter_changes_what_is_asked_of_whom() -> None:
    body = sent(ask(model="another", prompt="x", stream_options={}, kv_transfer_params={}, echo=True, n=1))
    assert (body["model"], body["prompt"]) == ("engine", "Hi")
    assert {"stream_options", "kv_transfer_params", "echo"}.isdisjoint(body)


def test_tokens_are_asked_for_where_they_are_told() -> None:
    plain, detailed, streamed = sent(ask()), sent(ask(details=True)), sent(ask(stream=True))
    assert "logprobs" not in plain
    assert (detailed["logprobs"], detailed["return_token_ids"]) == (0, True)
    assert (streamed["logprobs"], streamed["stream_options"]) == (0, {"include_usage": True})
    assert sent(ask(details=True, decoder_input_details=True))["echo"] is True
    assert "echo" not in sent(ask(decoder_input_details=True))


@pytest.mark.parametrize("parameters", [{"n": 3}, {"best_of": 3}, {"best_of": 3, "n": 2}])
def test_sequences(parameters: dict[str, Any]) -> None:
    body = sent(ask(do_sample=True, **parameters))
    assert (body["n"], body["logprobs"]) == (3, 0)


def test_beams() -> None:
    body = sent(ask(num_beams=4, length_penalty=0.8))
    assert (body["use_beam_search"], body["n"], body["length_penalty"]) == (True, 4, 0.8)


def test_stream_may_be_among_the_parameters() -> None:
    assert read({"inputs": "Hi", "parameters": {"stream": True}}).stream
    assert not read({"inputs": "Hi", "parameters": {"stream": True}, "stream": False}).stream


def test_a_seed_may_be_text() -> None:
    assert sent(ask(seed="7"))["seed"] == 7


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"[]", None),
        (b"{}", None),
        (b'{"inputs"', None),
        (b'{"inputs": "\xff"}', "inputs"),
        ({"inputs": 5}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": ["a", 5]}, "inputs"),
        ({"inputs": None}, "inputs"),
        ({"inputs": "a", "stream": "yes"}, "stream"),
        ({"inputs": "a", "parameters": []}, "parameters"),
        ({"inputs": "a", "parameters": {"max_new_tokens": "many"}}, "max_new_tokens"),
        ({"inputs": "a", "parameters": {"do_sample": 1}}, "do_sample"),
        ({"inputs": "a", "parameters": {"stop_sequences": [1]}}, "stop_sequences[0]"),
        ({"inputs": "a", "parameters": {"seed": "x"}}, "seed"),
        ({"inputs": "a", "parameters": {"seed": "+-5"}}, "seed"),
        ({"inputs": "a", "parameters": {"seed": "9" * 5000}}, "seed"),
        ({"inputs": "a", "parameters": {"n": 0}}, "n"),
        ({"inputs": "a", "parameters": {"typical_p": 0.5}}, "typical_p"),
        ({"inputs": "a", "parameters": {"watermark": True}}, "watermark"),
        ({"inputs": "a", "parameters": {"num_beams": 2, "early_stopping": True}}, "early_stopping"),
        ({"inputs": "a", "parameters": {"n": 2}, "stream": True}, "stream"),
        ({"inputs": ["a", "b"], "stream": True}, "inputs"),
        ({"inputs": ["a", "b"], "parameters": {"decoder_input_details": True}}, "inputs"),
        ({"inputs": "a", "parameters": {"decoder_input_details": True}, "stream": True}, "decoder_input_details"),
        ({"inputs": "a", "adapters": 5}, "adapters"),
        ({"inputs": ["a", "b"], "adapters": ["x", "y"]}, "adapters"),
        ({"messages": [], "model": 5}, "model"),
        ({"messages": [], "stream": "yes"}, "stream"),
        ({"model": "base"}, None),
    ],
)
def test_bodies_that_are_refused(body: Any, param: str | None) -> None:
    assert refused(body).details.get("param") == param


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_KEYS = st.sampled_from(["inputs", "parameters", "stream", "adapters", "model", "messages", "prompt", "stream_options"])
_NAMES = st.sampled_from(Parameters.__struct_fields__) | st.sampled_from(["logit_bias", "min_tokens"])


@given(
    st.dictionaries(_KEYS, _JSON, max_size=4), st.dictionaries(_NAMES, _JSON, max_size=4), st.sampled_from(["Hi", None])
)
def test_what_is_made_up_is_read_or_refused(body: Any, parameters: Any, inputs: str | None) -> None:
    whole = body if inputs is None else {"inputs": inputs, "parameters": parameters} | body
    try:
        request = read(whole)
    except RequestInvalid:
        return
    assert sent(request)["model"] == "engine"
    request.form("engine").stream().finish()


@given(st.binary(max_size=60))
def test_bytes_that_are_made_up_are_refused(body: bytes) -> None:
    refused(body)


def test_deep_nesting_is_refused() -> None:
    refused(b'{"inputs": "a", "parameters": ' + b"[" * 100_000)


@pytest.mark.parametrize(
    ("head", "body", "model"),
    [
        (asked(), {}, "base"),
        (asked(), {"adapters": "a"}, "a"),
        (asked(), {"adapters": ["a"]}, "a"),
        (asked(), {"adapters": [""]}, "base"),
        (asked(), {"adapters": ["a", "a"]}, "a"),
        (asked(), {"adapters": None}, "base"),
        (asked(), {"model": "m"}, "m"),
        (asked(), {"model": ""}, "base"),
        (asked(), {"model": "m", "adapters": "a"}, "a"),
        (asked(), {"model": "m", "adapters": ""}, "base"),
        (asked("/invocations?adapter=q"), {"adapters": "a"}, "q"),
        (asked("/invocations?other=1"), {}, "base"),
        (asked(x_amzn_sagemaker_custom_attributes="c=1;adapter=k"), {"adapters": "a"}, "k"),
        (asked(x_amzn_sagemaker_custom_attributes="accept_eula=true, adapter=k"), {}, "k"),
        (asked(x_amzn_sagemaker_custom_attributes="my_adapter=k"), {}, "base"),
        (
            asked("/invocations?adapter=q", x_amzn_sagemaker_adapter_identifier="h"),
            {"adapters": "a", "model": "m"},
            "h",
        ),
    ],
)
@pytest.mark.parametrize("kind", [{"inputs": "Hi"}, {"prompt": "Hi"}, {"messages": []}])
def test_which_adapter_is_meant(head: Asked, body: dict[str, Any], model: str, kind: dict[str, Any]) -> None:
    request = read({**kind, **body}, head)
    assert request.model == model
    assert sent(request)["model"] == "engine"
    assert "adapters" not in sent(request)


def test_openais_bodies_go_to_openais_routes() -> None:
    chat = read({"messages": [{"role": "user", "content": "Hi"}], "stream": True, "top_k": 3})
    completion = read({"prompt": "Hi", "model": "base"})
    assert (chat.path, chat.stream, completion.path, completion.stream) == (CHAT, True, COMPLETIONS, False)
    assert sent(chat)["top_k"] == 3
    assert sent(chat)["stream_options"] == {"include_usage": True}
    assert json.loads(completion.body("base"))["model"] == "base"


def test_the_engine_gets_json_whatever_the_caller_called_it() -> None:
    head = asked(content_type="application/octet-stream", traceparent="t")
    assert dict(DIALECT.engine_headers(head.headers)) == {b"content-type": b"application/json", b"traceparent": b"t"}


# Answers


def test_a_document() -> None:
    assert document(ask(), "plain.json") == (200, {"generated_text": " 10,"})
    assert document(ask(return_full_text=True), "plain.json") == (200, {"generated_text": "Hi 10,"})
    assert document(read({"inputs": ["Hi"]}), "plain.json") == (200, [{"generated_text": " 10,"}])


def test_a_document_with_details() -> None:
    assert document(ask(details=True), "stop.json")[1] == {
        "generated_text": " dog",
        "details": {
            "finish_reason": "stop_sequence",
            "generated_tokens": 1,
            "inputs": "Hi",
            "tokens": [{"id": 2767, "text": " dog", "log_prob": -0.10602746158838272}],
        },
    }


def test_a_special_token_is_marked_and_no_text() -> None:
    found = document(ask(details=True), "eos.json")[1]
    assert found["generated_text"] == ""
    assert found["details"]["finish_reason"] == "eos_token"
    assert found["details"]["tokens"] == [
        {"id": 2, "text": "<|im_end|>", "log_prob": -0.21294057369232178, "special_token": True}
    ]


def test_a_document_with_the_prompts_tokens() -> None:
    details = document(ask(details=True, decoder_input_details=True), "prompt.json")[1]["details"]
    assert details["prefill"][0] == {"id": 19556, "text": "Hello", "log_prob": None}
    assert all(token["log_prob"] < 0 for token in details["prefill"][1:])
    assert [token["id"] for token in details["tokens"]] == [11567, 178, 139]


def test_the_likeliest_of_several_sequences() -> None:
    found = document(ask(n=2, do_sample=True), "best_of.json")[1]
    assert found["generated_text"] == "-by-become"
    others = found["details"]["best_of_sequences"]
    assert [one["generated_text"] for one in others] == ["-by-date reprodu"]
    assert set(others[0]) == {"generated_text", "finish_reason", "generated_tokens", "tokens"}
    beams = document(ask(num_beams=2), "best_of.json")[1]["details"]
    assert [one["generated_text"] for one in beams["beam_sequences"]] == ["-by-date reprodu"]
    assert "best_of_sequences" not in beams


def test_several_inputs_are_answered_in_order() -> None:
    status, found = document(read({"inputs": ["one", "two"], "parameters": {"details": True}}), "best_of.json")
    assert (status, [one["generated_text"] for one in found]) == (200, ["-by-become", "-by-date reprodu"])
    assert [one["details"]["inputs"] for one in found] == ["one", "two"]
    assert sent(read({"inputs": ["one", "two"]}))["prompt"] == ["one", "two"]


def test_an_answer_that_lacks_sequences_is_the_engines_failure() -> None:
    with pytest.raises(EngineFailed, match="1 sequences"):
        document(ask(n=2), "plain.json")


def test_what_the_engine_refuses() -> None:
    status, found = document(ask(), "refused.json", 400)
    assert status == 400
    assert found["code"] == 400
    assert found["error"].startswith("max_tokens=100000 cannot be greater")


def test_the_engines_name_is_not_told() -> None:
    said = json.dumps({"error": {"message": f"The model `{ENGINE}` is ill.", "code": 400}}).encode()
    bodies: list[dict[str, Any]] = [{"inputs": "Hi"}, {"prompt": "Hi"}, {"messages": []}]
    for body in bodies:
        _, found = read({**body, "adapters": "shop"}).form(ENGINE).document(400, said)
        assert json.loads(found) == {"error": "The model `shop` is ill.", "code": 400}


def test_a_stream() -> None:
    found = streamed(ask(stream=True, details=True), "numbers_stream.txt")
    assert found[0] == {"token": {"id": 216, "text": " ", "log_prob": -0.3265414834022522}}
    assert [line["token"]["text"] for line in found] == [" ", "1", "0", ","]
    assert ["generated_text" in line for line in found] == [False, False, False, True]
    assert found[-1]["generated_text"] == " 10,"
    assert found[-1]["details"] == {"finish_reason": "length", "generated_tokens": 4, "inputs": "Hi"}


def test_a_stream_without_details() -> None:
    last = streamed(ask(stream=True, return_full_text=True), "numbers_stream.txt")[-1]
    assert last["generated_text"] == "Hi 10,"
    assert "details" not in last


@pytest.mark.parametrize("name", STREAMS)
def test_a_streams_tokens_are_its_text(name: str) -> None:
    dropped = {"stop": ["x"]} if "dropped" in name else {}
    found = streamed(ask(stream=True, details=True, **dropped), name)
    text = "".join(line["token"]["text"] for line in found if not line["token"].get("special_token"))
    assert text == found[-1]["generated_text"]
    if name.startswith("scripts"):
        assert text == SCRIPTS


@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 25_000), max_size=12))
def test_a_stream_does_not_depend_on_its_pieces(name: str, places: list[int]) -> None:
    data = (ANSWERS / name).read_bytes()
    ends = sorted({0, len(data), *(min(place, len(data)) for place in places)})
    parts = [data[start:end] for start, end in itertools.pairwise(ends)]
    whole = through(ask(stream=True).form(ENGINE).stream(), [data])
    assert through(ask(stream=True).form(ENGINE).stream(), parts) == whole


def test_usage_of_a_stream() -> None:
    form = ask(stream=True).form(ENGINE).stream()
    assert not form.tokens_seen
    through(form, [(ANSWERS / "numbers_stream.txt").read_bytes()])
    assert form.tokens_seen
    assert not form.failed
    assert form.usage is not None
    assert (form.usage.prompt, form.usage.completion) == (11, 4)


def error_line(message: str) -> dict[str, Any]:
    token = {"id": -1, "text": "", "log_prob": -1, "special_token": True, "error_msg": message}
    details = {"finish_reason": "error", "generated_tokens": None, "inputs": None}
    return {"token": token, "generated_text": "", "details": details}


def test_a_stream_that_the_engine_fails() -> None:
    form = ask(stream=True).form(ENGINE).stream()
    (line,) = lines(through(form, [(ANSWERS / "refused_stream.txt").read_bytes()]))
    assert form.failed
    assert line == error_line(line["token"]["error_msg"])
    assert "invalid regex" in line["token"]["error_msg"]


def test_a_stream_that_is_broken_off() -> None:
    form = ask(stream=True).form(ENGINE).stream()
    begun = form.feed((ANSWERS / "numbers_stream.txt").read_bytes()[:900])
    assert lines(begun + form.broken(EngineFailed("It has gone.")))[-1] == error_line("It has gone.")


def test_a_stream_that_ends_too_early_says_so() -> None:
    form = ask(stream=True).form(ENGINE).stream()
    data = (ANSWERS / "numbers_stream.txt").read_bytes().split(b"\n\n")[0] + b"\n\ndata: [DONE]\n\n"
    assert lines(through(form, [data]))[-1]["details"]["finish_reason"] == "error"
    assert form.failed


def test_a_stream_that_is_whole_is_not_broken() -> None:
    form = ask(stream=True).form(ENGINE).stream()
    form.feed((ANSWERS / "numbers_stream.txt").read_bytes())
    assert form.broken(EngineFailed("Late.")) == b""


@pytest.mark.parametrize(("stream", "kind"), [(True, b"application/jsonlines"), (False, b"application/json")])
def test_types_of_content(stream: bool, kind: bytes) -> None:
    engine = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"server", b"uvicorn")]
    head = ask(stream=stream).form(ENGINE).headers(200, engine, b"x-request-id: r\r\n", streamed=stream)
    assert sorted(head.split(b"\r\n")) == [b"", b"content-type: " + kind, b"server: uvicorn", b"x-request-id: r"]


def test_openais_answers_are_openais() -> None:
    request = read({"messages": [], "adapters": "shop"})
    status, body = request.form(ENGINE).document(200, (CHATS / "chat.json").read_bytes())
    assert (status, json.loads(body)["model"]) == (200, "shop")
    stream = read({"messages": [], "stream": True, "adapters": "shop"}).form(ENGINE).stream()
    passed = through(stream, [(CHATS / "chat_stream_counted.txt").read_bytes()])
    assert passed.endswith(b"data: [DONE]\n\n")
    assert ENGINE.encode() not in passed


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.RequestInvalid("no"), 424),
        (errors.ModelNotFound("no"), 424),
        (errors.Unauthenticated("no"), 401),
        (errors.Forbidden("no"), 403),
        (errors.RateLimited("no", retry_after_s=3), 429),
        (errors.QueueFull("no"), 503),
        (errors.EngineUnavailable("no"), 503),
        (errors.EngineFailed("no"), 502),
        (LoramuxError("no"), 500),
    ],
)
def test_errors_are_lmis(error: LoramuxError, status: int) -> None:
    words = DIALECT.error(error)
    assert words.status == status
    assert json.loads(words.body) == {"error": "no", "code": status}
    headers = dict(words.headers)
    assert headers[b"content-type"] == b"application/json"
    assert (b"retry-after" in headers) == (status in (429, 503))


def test_refusals_are_lmis() -> None:
    words = DIALECT.error(body_too_large(5))
    assert (words.status, json.loads(words.body)["code"]) == (413, 413)
