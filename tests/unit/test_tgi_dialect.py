"""TGI's words: requests as huggingface_hub and curl write them, answers as huggingface_hub reads them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from huggingface_hub import TextGenerationOutput, TextGenerationStreamOutput
from hypothesis import given
from hypothesis import strategies as st

from loramux_adapters import errors
from loramux_adapters.errors import EngineFailed, LoramuxError, RequestInvalid
from loramux_serving.relay.dialect import Asked, Dialect
from loramux_serving.relay.dialects.tgi import PATHS, TgiDialect
from loramux_serving.relay.dialects.tgi_form import TgiStream
from loramux_serving.relay.dialects.tgi_parameters import Parameters
from loramux_serving.relay.dialects.tgi_request import Path as Door
from loramux_serving.relay.dialects.tgi_request import TgiRequest
from loramux_serving.relay.refusal import body_too_large

ANSWERS = Path(__file__).parents[1] / "fixtures" / "vllm_completions"
SCRIPTS = "日本語のテキスト 👩‍👩‍👧‍👦 مرحبا é क्षि"
STREAMS = sorted(path.name for path in ANSWERS.glob("*_stream*.txt"))
ASKED = Asked(b"POST", b"/generate", [], {})


def read(body: Any, path: Door = "/generate", **options: Any) -> TgiRequest:
    dialect = TgiDialect("base", path, draw_seed=lambda: 42, **options)
    return dialect.decode(ASKED, body if isinstance(body, bytes) else json.dumps(body).encode())


def ask(path: Door = "/generate", **parameters: Any) -> TgiRequest:
    return read({"inputs": "Hi", "parameters": parameters}, path)


def sent(request: TgiRequest) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.json.decode(request.body("engine"))
    return body


def refused(**parameters: Any) -> str:
    with pytest.raises(RequestInvalid) as caught:
        ask(**parameters)
    return caught.value.message


def document(request: TgiRequest, name: str, status: int = 200) -> tuple[int, Any]:
    status, body = request.form("engine").document(status, (ANSWERS / name).read_bytes())
    return status, json.loads(body)


def frames(stream: bytes) -> list[dict[str, Any]]:
    events = stream.split(b"\n\n")
    assert events.pop() == b""
    assert all(event.startswith(b"data:{") for event in events)
    return [json.loads(event[5:]) for event in events]


def through(form: TgiStream, parts: Sequence[bytes]) -> bytes:
    return b"".join([*(form.feed(part) for part in parts), form.finish()])


def streamed(request: TgiRequest, name: str) -> list[dict[str, Any]]:
    return frames(through(request.form("engine").stream(), [(ANSWERS / name).read_bytes()]))


def test_it_is_a_dialect() -> None:
    dialect: Dialect = TgiDialect("base", "/generate")

    assert dialect.credentials(Asked(b"POST", b"/", [], {b"authorization": b"Bearer k"}), b"") == "Bearer k"
    assert not dialect.signed(ASKED)


# Requests


def test_defaults_are_tgis() -> None:
    request = ask()

    assert (request.model, request.stream, request.path) == ("base", False, "/v1/completions")
    assert sent(request) == {
        "model": "engine",
        "prompt": "Hi",
        "max_tokens": 1024,
        "temperature": 0.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "skip_special_tokens": True,
        "include_stop_str_in_output": True,
    }


def test_without_parameters_tgi_samples() -> None:
    assert sent(read({"inputs": "Hi"}))["temperature"] == 1.0
    assert sent(read({"inputs": "Hi", "parameters": {}}))["temperature"] == 0.0


@pytest.mark.parametrize(
    ("parameters", "temperature"),
    [
        ({"do_sample": False}, 0.0),
        ({"do_sample": True}, 1.0),
        ({"do_sample": False, "temperature": 1.0}, 0.0),
        ({"temperature": 0.5}, 0.5),
        ({"do_sample": False, "temperature": 0.5}, 0.5),
        ({"top_p": 0.9}, 1.0),
        ({"top_k": 5}, 1.0),
        ({"repetition_penalty": 1.2}, 0.0),
    ],
)
def test_when_tgi_samples(parameters: dict[str, Any], temperature: float) -> None:
    assert sent(ask(**parameters))["temperature"] == temperature


def test_each_parameter_arrives() -> None:
    request = ask(
        adapter_id="shop@3",
        do_sample=True,
        temperature=0.7,
        top_k=11,
        top_p=0.8,
        repetition_penalty=1.1,
        frequency_penalty=-0.5,
        seed=2**64 - 2,
        stop=["a", "b"],
        max_new_tokens=7,
        truncate=9,
    )
    body = sent(request)

    assert request.model == "shop@3"
    assert (body["temperature"], body["top_k"], body["top_p"]) == (0.7, 11, 0.8)
    assert (body["repetition_penalty"], body["frequency_penalty"]) == (1.1, -0.5)
    assert body["seed"] == 2**63 - 2
    assert (body["stop"], body["include_stop_str_in_output"]) == (["a", "b"], True)
    assert body["max_tokens"] == 7
    assert (body["truncate_prompt_tokens"], body["truncation_side"]) == (9, "left")


def test_a_greedy_choice_has_no_seed() -> None:
    assert "seed" not in sent(ask(seed=7))


def test_a_seed_is_drawn_where_it_is_told() -> None:
    assert "seed" not in sent(ask(do_sample=True))
    assert sent(ask(do_sample=True, details=True))["seed"] == 42


def test_tokens_are_asked_for_only_where_they_are_told() -> None:
    assert "logprobs" not in sent(ask())
    for request in (ask(details=True), ask("/generate_stream"), ask(best_of=2, do_sample=True)):
        assert (sent(request)["logprobs"], sent(request)["return_token_ids"]) == (0, True)
    assert sent(ask(best_of=2, do_sample=True))["n"] == 2
    assert sent(ask(decoder_input_details=True))["echo"] is True


@pytest.mark.parametrize(
    ("path", "stream", "expected"),
    [
        ("/generate", True, False),
        ("/generate_stream", False, True),
        ("/", False, False),
        ("/", True, True),
    ],
)
def test_which_door_streams(path: Door, stream: bool, expected: bool) -> None:
    request = read({"inputs": "Hi", "stream": stream}, path)

    assert request.stream is expected
    assert sent(request).get("stream", False) is expected


@pytest.mark.parametrize(
    ("grammar", "expected"),
    [
        ({"type": "regex", "value": "[0-9]+"}, {"regex": "[0-9]+"}),
        ({"type": "json", "value": {"properties": {}}}, {"json": {"properties": {}}}),
        ({"type": "json", "value": '{"properties":{}}'}, {"json": {"properties": {}}}),
        ({"type": "json_object", "value": {"properties": {}}}, {"json": {"properties": {}}}),
        ({"type": "json_schema", "value": {"name": "x", "schema": {"properties": {}}}}, {"json": {"properties": {}}}),
    ],
)
def test_grammars(grammar: dict[str, Any], expected: dict[str, Any]) -> None:
    assert sent(ask(grammar=grammar))["structured_outputs"] == expected


@pytest.mark.parametrize(
    "grammar",
    [{"type": "regex", "value": 1}, {"type": "json", "value": "{"}, {"type": "json", "value": 3}, {"type": "lark"}, 1],
)
def test_grammars_that_are_none(grammar: Any) -> None:
    assert refused(grammar=grammar)


def test_how_much_where_nobody_says() -> None:
    body = {"inputs": "Hi", "parameters": {}}

    assert sent(read(body, max_total_tokens=512))["max_tokens"] == 512
    assert sent(read(body, max_total_tokens=8192))["max_tokens"] == 1024


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"temperature": 0}, "`temperature` must be strictly positive"),
        ({"temperature": -1.0}, "`temperature` must be strictly positive"),
        ({"repetition_penalty": 0.0}, "`repetition_penalty` must be strictly positive"),
        ({"frequency_penalty": 2.1}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
        ({"top_p": 1.0}, "`top_p` must be > 0.0 and < 1.0"),
        ({"top_p": 0.0}, "`top_p` must be > 0.0 and < 1.0"),
        ({"typical_p": 1.0}, "`typical_p` must be > 0.0 and < 1.0"),
        ({"typical_p": 0.5}, "`typical_p` is not supported by this endpoint's engine"),
        ({"top_k": 0}, "`top_k` must be strictly positive"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be strictly positive"),
        ({"stop": ["x"] * 17}, "`stop` supports up to 16 stop sequences. Given: 17"),
        ({"best_of": 5, "do_sample": True}, "`best_of` must be > 0 and <= 4. Given: 5"),
        ({"best_of": 2}, "you must use sampling when `best_of` is > 1"),
        ({"best_of": 2, "do_sample": True, "seed": 1}, "`seed` must not be set when `best_of` > 1"),
        ({"top_n_tokens": 2}, "`top_n_tokens` != 0 is not allowed for this endpoint"),
        ({"watermark": True}, "`watermark` is not supported by this endpoint's engine"),
        ({"truncate": 0}, "`truncate` must be strictly positive. Given: 0"),
        ({"adapter_id": ""}, "`adapter_id` must not be empty"),
        ({"stop": [""]}, "`stop` must not have an empty sequence"),
        ({"seed": 2**64}, "`seed` must have 64 bits at most"),
    ],
)
def test_tgis_rules(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        ask(**parameters)

    assert caught.value.message == message
    assert caught.value.details["param"] in parameters


def test_what_a_stream_can_not_have() -> None:
    for parameters, message in (
        ({"best_of": 2, "do_sample": True}, "`best_of` != 1 is not supported when streaming tokens"),
        ({"decoder_input_details": True}, "`decoder_input_details` == true is not supported when streaming tokens"),
    ):
        with pytest.raises(RequestInvalid) as caught:
            ask("/generate_stream", **parameters)
        assert caught.value.message == message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"parameters":{}}',
        b'{"inputs":1}',
        b'{"inputs":""}',
        b'{"inputs":"x","parameters":null}',
        b'{"inputs":"x","parameters":{"max_new_tokens":-1}}',
        b'{"inputs":"x","parameters":{"do_sample":null}}',
        b'{"inputs":"x","parameters":{"top_k":1000000000000}}',
        b'{"inputs":"x","parameters":{"max_new_tokens":4294967296}}',
        b'{"inputs":"x","parameters":{"truncate":1000000000000000000000}}',
        b'{"inputs":"x","parameters":{"repetition_penalty":1e300}}',
        b'{"inputs":"\xff"}',
        b'{"inputs":"\\ud800"}',
        b"[" * 100_000,
    ],
)
def test_bodies_that_are_none(body: bytes) -> None:
    with pytest.raises(RequestInvalid):
        read(body)


def test_a_wrong_type_names_its_parameter() -> None:
    with pytest.raises(RequestInvalid) as caught:
        ask(max_new_tokens="many")

    assert caught.value.details["param"] == "max_new_tokens"


def test_unknown_fields_are_ignored_as_in_tgi() -> None:
    assert sent(read({"inputs": "Hi", "parameters": {"new": 1}, "more": 2}))["prompt"] == "Hi"


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_names = st.sampled_from([field.name for field in msgspec.structs.fields(Parameters)])


@given(st.sampled_from(PATHS), st.dictionaries(_names, _values, max_size=4), st.text(max_size=5), _values)
def test_what_is_made_up_is_asked_or_refused(path: Door, parameters: Any, inputs: str, stream: Any) -> None:
    try:
        request = read({"inputs": inputs, "parameters": parameters, "stream": stream}, path)
    except RequestInvalid:
        return
    assert sent(request)["prompt"] == inputs


# Answers


def test_a_text() -> None:
    assert document(ask(), "plain.json") == (200, {"generated_text": " 10,"})
    assert document(ask("/"), "plain.json") == (200, [{"generated_text": " 10,"}])
    assert document(ask(return_full_text=True), "plain.json")[1] == {"generated_text": "Hi 10,"}


def test_details() -> None:
    _, answer = document(ask(details=True), "scripts.json")

    details = answer["details"]
    assert list(details) == ["finish_reason", "generated_tokens", "seed", "prefill", "tokens"]
    assert (details["finish_reason"], details["seed"]) == ("eos_token", None)
    assert details["generated_tokens"] == len(details["tokens"])
    assert "".join(token["text"] for token in details["tokens"] if not token["special"]) == SCRIPTS
    assert details["tokens"][-1]["text"] == "<|im_end|>"
    parsed = TextGenerationOutput.parse_obj_as_instance(answer)
    assert parsed.generated_text == SCRIPTS


def test_the_prompts_tokens() -> None:
    _, answer = document(ask(decoder_input_details=True), "prompt.json")

    prefill = answer["details"]["prefill"]
    assert prefill[0] == {"id": 19556, "text": "Hello", "logprob": None}
    assert "".join(token["text"] for token in prefill) == "Hello 世界"


def test_the_best_of_several() -> None:
    _, answer = document(ask(best_of=2, do_sample=True, details=True), "best_of.json")

    details = answer["details"]
    assert answer["generated_text"] == "-by-become"
    assert details["seed"] == 42
    (other,) = details["best_of_sequences"]
    assert (other["generated_text"], other["seed"], other["generated_tokens"]) == ("-by-date reprodu", 43, 5)
    assert TextGenerationOutput.parse_obj_as_instance(answer).details is not None


def test_the_best_of_several_without_details() -> None:
    assert document(ask(best_of=2, do_sample=True), "best_of.json")[1] == {"generated_text": "-by-become"}


def test_a_stop_sequence_stays_in_the_text() -> None:
    _, answer = document(ask(details=True), "stop.json")

    assert answer["generated_text"] == " dog"
    assert answer["details"]["finish_reason"] == "stop_sequence"


def test_the_engines_refusal() -> None:
    status, answer = document(ask(), "refused.json", 400)

    assert status == 422
    assert answer["error_type"] == "validation"
    assert answer["error"].startswith("Input validation error: max_tokens=100000 cannot be greater")


@pytest.mark.parametrize(
    ("status", "expected", "error_type"),
    [(400, 422, "validation"), (429, 429, "overloaded"), (404, 424, "generation"), (500, 424, "generation")],
)
def test_other_refusals_of_the_engine(status: int, expected: int, error_type: str) -> None:
    body = b'{"error":{"message":"The model `engine` said no.","code":1}}'

    told, answer = ask().form("engine").document(status, body)

    assert told == expected
    assert json.loads(answer)["error_type"] == error_type
    assert json.loads(answer)["error"].endswith("The model `base` said no.")


def test_an_answer_that_was_broken_off() -> None:
    status, answer = ask().form("engine").document(200, b'{"choices":[{"text":"a","finish_reason":"abort"}]}')

    assert status == 500
    assert json.loads(answer)["error_type"] == "incomplete_generation"


# Streams


def test_a_stream() -> None:
    events = streamed(ask("/generate_stream"), "numbers_stream.txt")

    assert [event["index"] for event in events] == [1, 2, 3, 4]
    assert [event["token"]["text"] for event in events] == [" ", "1", "0", ","]
    assert events[0] == {
        "index": 1,
        "token": {"id": 216, "text": " ", "logprob": -0.3265414834022522, "special": False},
        "generated_text": None,
        "details": None,
    }
    assert [event["generated_text"] for event in events] == [None, None, None, " 10,"]


def test_a_stream_with_details() -> None:
    events = streamed(ask("/generate_stream", details=True, return_full_text=True), "numbers_stream.txt")

    assert events[-1]["generated_text"] == "Hi 10,"
    assert events[-1]["details"] == {
        "finish_reason": "length",
        "generated_tokens": 4,
        "seed": None,
        "input_length": 11,
    }
    assert all(TextGenerationStreamOutput.parse_obj_as_instance(event) for event in events)


@pytest.mark.parametrize("name", ["scripts_stream.txt", "scripts_stream_interval.txt"])
def test_a_stream_in_any_script(name: str) -> None:
    events = streamed(ask("/generate_stream", details=True), name)

    assert "".join(event["token"]["text"] for event in events if not event["token"]["special"]) == SCRIPTS
    assert events[-1]["generated_text"] == SCRIPTS
    assert events[-1]["token"]["special"]
    assert events[-1]["details"]["finish_reason"] == "eos_token"
    assert events[-1]["details"]["generated_tokens"] == len(events)


@pytest.mark.parametrize("name", STREAMS)
@given(data=st.data())
def test_cuts_make_no_difference(name: str, data: st.DataObject) -> None:
    whole = (ANSWERS / name).read_bytes()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    request = ask("/generate_stream", details=True)
    parts = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

    in_parts = through(request.form("engine").stream(), parts)

    assert in_parts == through(request.form("engine").stream(), [whole])


def test_usage_is_known_after_the_last_frame() -> None:
    form = ask("/generate_stream").form("engine").stream()
    frames_ = (ANSWERS / "numbers_stream.txt").read_bytes().split(b"\n\n")
    form.feed(b"\n\n".join(frames_[:4]) + b"\n\n")

    assert form.tokens_seen
    assert form.usage is not None
    assert (form.usage.prompt, form.usage.completion) == (11, 4)
    assert not form.failed


def test_a_refusal_in_a_stream() -> None:
    form = ask("/generate_stream").form("engine").stream()

    (event,) = frames(through(form, [(ANSWERS / "refused_stream.txt").read_bytes()]))

    assert event["error_type"] == "validation"
    assert event["error"].startswith("Input validation error: Grammar error")
    assert form.failed


def test_a_stream_that_ends_too_early() -> None:
    form = ask("/generate_stream").form("engine").stream()
    whole = (ANSWERS / "numbers_stream.txt").read_bytes()

    events = frames(through(form, [whole[: whole.index(b"\n\n") + 2]]))

    assert [event.get("error_type") for event in events] == [None, "incomplete_generation_stream"]
    assert form.failed


def test_an_engine_that_breaks_a_stream() -> None:
    form = ask("/generate_stream").form("engine").stream()

    (event,) = frames(form.broken(EngineFailed("It closed the connection.")))

    assert event == {
        "error": "Request failed during generation: It closed the connection.",
        "error_type": "generation",
    }
    assert form.broken(EngineFailed("Again.")) == b""


def test_an_abort_is_an_incomplete_stream() -> None:
    form = ask("/generate_stream").form("engine").stream()

    events = frames(through(form, [b'data: {"choices":[{"text":"","finish_reason":"abort"}]}\n\ndata: [DONE]\n\n']))

    assert [event["error_type"] for event in events] == ["incomplete_generation_stream"]


def test_an_end_without_a_token_has_a_last_frame() -> None:
    form = ask("/generate_stream").form("engine").stream()

    (event,) = frames(through(form, [b'data: {"choices":[{"text":"","finish_reason":"stop"}]}\n\n']))

    assert event["generated_text"] == ""
    assert event["token"]["special"]


def test_an_engine_that_names_no_tokens_has_failed() -> None:
    form = ask("/generate_stream").form("engine").stream()
    (event,) = frames(form.feed(b'data: {"choices":[{"text":"a"}]}\n\n'))
    assert event["error"] == "Request failed during generation: The engine does not name its tokens."
    assert form.failed
    with pytest.raises(EngineFailed, match="does not name its tokens"):
        ask(details=True).form("engine").document(200, (ANSWERS / "plain.json").read_bytes())


def test_headers() -> None:
    form = ask().form("engine")
    engine = [(b"content-type", b"text/plain"), (b"content-length", b"3"), (b"x-more", b"1")]

    assert form.headers(200, engine, b"x-own: 1\r\n", streamed=False).split(b"\r\n") == [
        b"x-more: 1",
        b"x-own: 1",
        b"x-compute-characters: 2",
        b"content-type: application/json",
        b"",
    ]
    assert b"content-type: text/event-stream\r\n" in form.headers(200, engine, b"", streamed=True)


# Errors of the gateway's own


@pytest.mark.parametrize(
    ("error", "status", "error_type"),
    [
        (errors.RequestInvalid("No."), 422, "validation"),
        (errors.ModelNotFound("No."), 422, "validation"),
        (errors.AdapterBusy("No."), 422, "validation"),
        (errors.RateLimited("No.", retry_after_s=3.0), 429, "overloaded"),
        (errors.QueueFull("No."), 429, "overloaded"),
        (errors.QueueTimeout("No."), 429, "overloaded"),
        (errors.EngineUnavailable("No."), 424, "generation"),
        (errors.EngineTimeout("No."), 424, "generation"),
        (errors.SourceUnavailable("No."), 424, "generation"),
        (errors.StorageFailed("No."), 424, "generation"),
        (errors.Unauthenticated("No."), 401, "unauthenticated"),
        (errors.Forbidden("No."), 403, "forbidden"),
        (LoramuxError("No."), 500, "incomplete_generation"),
    ],
)
def test_errors(error: LoramuxError, status: int, error_type: str) -> None:
    words = TgiDialect("base", "/").error(error)

    said = json.loads(words.body)
    assert (words.status, said["error_type"]) == (status, error_type)
    assert said["error"].endswith("No.")


@pytest.mark.parametrize("cls", list(errors.classes()))
def test_every_error_has_words(cls: type[LoramuxError]) -> None:
    words = TgiDialect("base", "/").error(cls("No."))

    assert set(json.loads(words.body)) == {"error", "error_type"}
    assert 400 <= words.status < 600


def test_who_may_come_again_is_told_when() -> None:
    words = TgiDialect("base", "/").error(errors.RateLimited("No.", retry_after_s=2.5))

    assert (b"retry-after", b"3") in words.headers


def test_a_refusal_of_the_relay() -> None:
    words = TgiDialect("base", "/").error(body_too_large(10))

    assert words.status == 413
    assert json.loads(words.body)["error_type"] == "body_too_large"


def test_all_paths() -> None:
    assert set(PATHS) == {"/generate", "/generate_stream", "/"}
