"""huggingface_hub's client at TGI's doors, before a real vLLM."""

import json
from typing import Any

import httpx
import pytest
from huggingface_hub import InferenceClient, TextGenerationInputGrammarType
from huggingface_hub.errors import ValidationError

from tests.fixtures.gateway import GatewayProcess

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

SCRIPTS = ("日本語のテキスト", "مرحبا بالعالم", "👩‍👩‍👧‍👦 👍🏽", "e\u0301 क्षि")
TURN = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
EOS = "<|im_end|>"


@pytest.fixture
def client(gateway: GatewayProcess) -> InferenceClient:
    return InferenceClient(gateway.url, token=gateway.key, timeout=120)


def only(text: str) -> TextGenerationInputGrammarType:
    """A grammar with one sentence."""
    return TextGenerationInputGrammarType(type="regex", value=text)


@pytest.mark.parametrize("text", SCRIPTS)
def test_any_script_comes_whole(client: InferenceClient, text: str) -> None:
    asked: dict[str, Any] = {"grammar": only(text), "max_new_tokens": 100, "details": True}

    answer = client.text_generation(f"Say {text}:", decoder_input_details=True, **asked)
    events = list(client.text_generation(f"Say {text}:", stream=True, **asked))

    assert answer.generated_text == events[-1].generated_text == text
    for tokens in (answer.details.tokens, [event.token for event in events]):
        assert "".join(token.text for token in tokens if not token.special) == text
        assert (tokens[-1].text, tokens[-1].special) == (EOS, True)
    assert "".join(token.text for token in answer.details.prefill) == f"Say {text}:"
    assert events[-1].details is not None
    assert events[-1].details.input_length == len(answer.details.prefill)
    assert events[-1].details.generated_tokens == len(events)


def test_an_adapter_answers_under_its_id(client: InferenceClient) -> None:
    prompt = TURN.format("How do I make tea?")

    base, pirate = (
        client.text_generation(prompt, max_new_tokens=12, adapter_id=adapter_id) for adapter_id in (None, "pirate")
    )

    assert base
    assert pirate
    assert base != pirate


def test_a_seed_gives_the_same_text_again(client: InferenceClient) -> None:
    asked: dict[str, Any] = {"do_sample": True, "temperature": 1.5, "max_new_tokens": 12, "details": True}

    first = client.text_generation("Once", **asked)
    again = client.text_generation("Once", seed=first.details.seed, **asked)
    other = client.text_generation("Once", **asked)

    assert again.generated_text == first.generated_text
    assert again.details.seed == first.details.seed != other.details.seed


def test_the_best_of_two_is_the_likelier(client: InferenceClient) -> None:
    answer = client.text_generation("Once", best_of=2, do_sample=True, temperature=1.5, details=True, max_new_tokens=8)

    def mean(tokens: Any) -> float:
        return float(sum(token.logprob for token in tokens) / len(tokens))

    assert answer.details is not None
    assert answer.details.best_of_sequences is not None
    (other,) = answer.details.best_of_sequences
    assert mean(answer.details.tokens) >= mean(other.tokens)
    assert abs((answer.details.seed or 0) - (other.seed or 0)) == 1


def test_how_sequences_end(client: InferenceClient) -> None:
    fox = "The quick brown fox jumps over the lazy"

    stopped = client.text_generation(fox, stop=["og"], max_new_tokens=20, details=True)
    cut = client.text_generation(fox, max_new_tokens=2, details=True, return_full_text=True)

    assert stopped.details is not None
    assert cut.details is not None
    assert (stopped.generated_text, stopped.details.finish_reason) == (" dog", "stop_sequence")
    assert cut.generated_text.startswith(fox + " dog")
    assert (cut.details.finish_reason, cut.details.generated_tokens) == ("length", 2)


def test_a_truncated_prompt(client: InferenceClient) -> None:
    asked: dict[str, Any] = {"decoder_input_details": True, "details": True, "max_new_tokens": 1}

    answer = client.text_generation("one two three four", truncate=2, **asked)

    assert [token.text for token in answer.details.prefill] == [" three", " four"]


def test_json_by_a_schema(client: InferenceClient) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    grammar = TextGenerationInputGrammarType(type="json", value=schema)

    assert isinstance(json.loads(client.text_generation("A person:", grammar=grammar, max_new_tokens=60))["age"], int)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "parameters",
    [{"max_new_tokens": 100_000}, {"temperature": 3.0}, {"truncate": 100_000}, {"grammar": only("(")}],
)
def test_what_vllm_refuses(client: InferenceClient, parameters: dict[str, Any], stream: bool) -> None:
    with pytest.raises(ValidationError, match="Input validation error: "):
        list(client.text_generation("Hi", stream=stream, **parameters))


def test_a_prompt_longer_than_the_context(client: InferenceClient) -> None:
    with pytest.raises(ValidationError, match="maximum context length"):
        client.text_generation("Hi " * 3000, max_new_tokens=1)


def test_info_is_what_vllm_says(gateway: GatewayProcess) -> None:
    assert httpx.get(f"{gateway.url}/info").json()["max_total_tokens"] == 1024
