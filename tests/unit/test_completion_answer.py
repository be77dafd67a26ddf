"""vLLM's completions, written by its own hand, read as tokens."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramux_adapters.errors import EngineFailed
from loramux_serving.relay.dialects import completion_answer
from loramux_serving.relay.dialects.completion import GREEDY, Generation, Sampling, completion_body
from loramux_serving.relay.dialects.completion_answer import (
    CompletionStream,
    Delta,
    Ending,
    EngineFault,
    read_answer,
    read_fault,
)
from loramux_serving.relay.dialects.completion_tokens import Token

ANSWERS = Path(__file__).parents[1] / "fixtures" / "vllm_completions"
SCRIPTS = "日本語のテキスト 👩‍👩‍👧‍👦 مرحبا é क्षि"
STREAMS = sorted(path.name for path in ANSWERS.glob("*_stream*.txt"))


def recorded(name: str) -> bytes:
    return (ANSWERS / name).read_bytes()


def pieces_of(data: Sequence[bytes], *, lagging: bool = False) -> tuple[list[Delta | EngineFault], CompletionStream]:
    reader = CompletionStream(lagging=lagging)
    brought = [piece for part in data for piece in reader.feed(part)]
    return brought + reader.finish(), reader


def read(name: str, *, lagging: bool = False) -> tuple[str, list[Token], Ending | None, CompletionStream]:
    brought, reader = pieces_of([recorded(name)], lagging=lagging)
    deltas = [piece for piece in brought if isinstance(piece, Delta)]
    tokens = [token for delta in deltas for token in delta.tokens]
    return "".join(delta.text for delta in deltas), tokens, deltas[-1].ending, reader


def text_of(tokens: Sequence[Token]) -> str:
    return "".join(token.text for token in tokens if not token.special)


def test_a_stream_token_by_token() -> None:
    text, tokens, ending, reader = read("numbers_stream.txt")

    assert text == text_of(tokens) == " 10,"
    assert [token.text for token in tokens] == [" ", "1", "0", ","]
    assert tokens[0] == Token(216, " ", -0.3265414834022522)
    assert ending == Ending("length")
    assert reader.prompt_length == 11
    assert reader.usage is not None
    assert (reader.usage.prompt, reader.usage.completion) == (11, 4)
    assert reader.done


@pytest.mark.parametrize("name", ["scripts_stream.txt", "scripts_stream_interval.txt"])
def test_any_script_in_a_stream(name: str) -> None:
    text, tokens, ending, reader = read(name)

    assert text == text_of(tokens) == SCRIPTS
    assert [token.text for token in tokens if token.special] == ["<|im_end|>"]
    assert ending == Ending("eos")
    assert reader.usage is not None
    assert reader.usage.completion == len(tokens)


def test_tokens_are_the_same_however_many_come_at_a_time() -> None:
    one_by_one, five_by_five = read("scripts_stream.txt")[1], read("scripts_stream_interval.txt")[1]

    assert [(token.id, token.text) for token in five_by_five] == [(token.id, token.text) for token in one_by_one]


def test_any_script_in_a_document() -> None:
    answer = read_answer(recorded("scripts.json"))

    (sequence,) = answer.sequences
    assert sequence.text == text_of(sequence.tokens) == SCRIPTS
    assert [token.text for token in answer.prompt[:3]] == ["Say", " it", ":"]
    assert "".join(token.text for token in answer.prompt) == "Say it: 日本👩‍👩‍👧‍👦"
    assert answer.prompt[0].logprob is None
    assert all(token.logprob is not None for token in answer.prompt[1:])


@pytest.mark.parametrize("name", STREAMS)
@given(data=st.data())
def test_cuts_make_no_difference(name: str, data: st.DataObject) -> None:
    whole = recorded(name)
    if data.draw(st.booleans(), label="crlf"):
        whole = whole.replace(b"\n", b"\r\n")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    parts = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

    assert pieces_of(parts)[0] == pieces_of([recorded(name)])[0]


def test_a_token_at_a_time_byte_by_byte() -> None:
    whole = recorded("numbers_stream.txt")

    assert pieces_of([whole[at : at + 1] for at in range(len(whole))])[0] == pieces_of([whole])[0]


def test_the_end_of_sequence_is_a_special_token() -> None:
    text, tokens, ending, _ = read("eos_stream.txt")
    (sequence,) = read_answer(recorded("eos.json")).sequences

    assert text == ""
    assert [(token.text, token.special) for token in tokens] == [("<|im_end|>", True)]
    assert sequence.tokens == tokens
    assert ending == sequence.ending == Ending("eos")


def test_a_stop_string_within_a_token() -> None:
    text, tokens, ending, _ = read("stop_stream.txt")
    (sequence,) = read_answer(recorded("stop.json")).sequences

    assert (text, ending) == (" dog", Ending("stop_string", "og"))
    assert [token.text for token in tokens] == [" dog"]
    assert (sequence.text, sequence.tokens, sequence.ending) == (text, tokens, ending)


def test_text_that_lags_makes_no_token_special() -> None:
    text, tokens, _, _ = read("stop_dropped_stream.txt", lagging=True)

    assert not any(token.special for token in tokens)
    assert text == text_of(tokens)
    assert len(tokens) == 20


def test_several_sequences() -> None:
    answer = read_answer(recorded("best_of.json"))

    assert [sequence.text for sequence in answer.sequences] == ["-by-become", "-by-date reprodu"]
    assert [len(sequence.tokens) for sequence in answer.sequences] == [5, 5]
    assert (answer.usage.prompt, answer.usage.completion) == (1, 10)


def test_a_truncated_prompt_keeps_its_end() -> None:
    answer = read_answer(recorded("truncate.json"))

    assert [token.text for token in answer.prompt] == [" five", " six"]


def test_text_alone() -> None:
    answer = read_answer(recorded("plain.json"))

    assert answer.sequences[0].text == " 10,"
    assert answer.sequences[0].tokens == answer.prompt == []


def test_a_refusal() -> None:
    fault = read_fault(400, recorded("refused.json"))

    assert fault.message.startswith("max_tokens=100000 cannot be greater than max_model_len=1024")
    assert (fault.status, fault.param) == (400, "max_tokens")


def test_a_refusal_in_a_stream() -> None:
    brought, reader = pieces_of([recorded("refused_stream.txt")])

    (fault,) = brought
    assert isinstance(fault, EngineFault)
    assert fault.status == 400
    assert fault.message.startswith("Grammar error")
    assert reader.usage is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"Internal Server Error", "Internal Server Error"),
        (b"", "The engine said 500."),
        (b'{"error":"no"}', "no"),
        (b'{"detail":[{"msg":"x"}]}', '[{"msg":"x"}]'),
        (b"{}", "The engine said 500."),
    ],
)
def test_refusals_in_other_words(body: bytes, message: str) -> None:
    assert read_fault(500, body) == EngineFault(500, message)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"choices":[]}', b'{"choices":[{"text":1}]}', b"\xff"])
def test_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(EngineFailed):
        read_answer(body)


def test_tokens_without_logprobs_are_no_answer() -> None:
    with pytest.raises(EngineFailed):
        read_answer(b'{"choices":[{"text":"a","token_ids":[1],"finish_reason":"stop"}]}')


def test_usage_is_counted_until_it_is_told() -> None:
    reader = CompletionStream()
    frames = recorded("numbers_stream.txt").split(b"\n\n")

    assert reader.usage is None
    reader.feed(frames[0] + b"\n\n" + frames[1] + b"\n\n")

    assert reader.usage is not None
    assert (reader.usage.prompt, reader.usage.completion) == (11, 2)


def test_a_frame_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion_answer, "MAX_FRAME_BYTES", 100)
    reader = CompletionStream()

    assert reader.feed(b"data: " + b"x" * 90) == []
    (fault,) = reader.feed(b"x" * 10)

    assert fault == EngineFault(502, "The engine sent a frame larger than 100 bytes.")
    assert reader.feed(b"x\n\n") == reader.finish() == []


@pytest.mark.parametrize("frame", [b"data: {", b'data: {"choices":[{"text":"a","token_ids":[1]}]}', b"data: \xff"])
def test_what_came_before_a_frame_that_can_not_be_read(frame: bytes) -> None:
    good = recorded("numbers_stream.txt").split(b"\n\n")

    brought, _ = pieces_of([b"\n\n".join([good[0], frame, *good[1:]])])

    first, fault = brought
    assert isinstance(first, Delta)
    assert first.text == " "
    assert isinstance(fault, EngineFault)
    assert fault.status == 502


def test_an_abort_is_an_ending() -> None:
    brought = CompletionStream().feed(b'data: {"choices":[{"text":"","finish_reason":"abort"}]}\n\n')

    assert brought == [Delta("", [], Ending("broken_off"))]


def test_everything_that_the_model_could_decide_is_said() -> None:
    body = msgspec.json.decode(completion_body(Generation("Hi", 5), "base"))

    assert body == {
        "model": "base",
        "prompt": "Hi",
        "max_tokens": 5,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "skip_special_tokens": True,
        "include_stop_str_in_output": True,
    }


def test_all_that_can_be_asked() -> None:
    generation = Generation(
        "Hi",
        5,
        GREEDY,
        stop=["."],
        keep_stop=False,
        stop_token_ids=[7],
        ignore_eos=True,
        truncate=3,
        add_special_tokens=False,
        skip_special_tokens=False,
        grammar={"regex": "a"},
        tokens=True,
        stream=True,
        further={"min_tokens": 2, "top_k": 9},
    )

    body = msgspec.json.decode(completion_body(generation, "base"))

    assert body["temperature"] == 0.0
    assert (body["stop"], body["stop_token_ids"], body["ignore_eos"]) == (["."], [7], True)
    assert "include_stop_str_in_output" not in body
    assert (body["truncate_prompt_tokens"], body["truncation_side"]) == (3, "left")
    assert (body["add_special_tokens"], body["skip_special_tokens"]) == (False, False)
    assert body["structured_outputs"] == {"regex": "a"}
    assert (body["logprobs"], body["return_token_ids"]) == (0, True)
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})
    assert (body["min_tokens"], body["top_k"]) == (2, 9)


@given(st.integers(-(2**63), 2**64 - 1))
def test_seeds_fit_into_what_vllm_takes(seed: int) -> None:
    body = msgspec.json.decode(completion_body(Generation("Hi", 1, Sampling(seed=seed)), "base"))

    assert -(2**63) <= body["seed"] < 2**63
    assert body["seed"] != -1
