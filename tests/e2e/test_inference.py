"""Applications call with the clients that they have: the real ones, against real vLLM."""

import json
import os
import subprocess
import sys

import httpx
import openai
import pytest

from tests.fixtures.gateway import GatewayProcess, eventually

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

BASE = "SmolLM2-135M-Instruct"
CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def client(gateway: GatewayProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0, timeout=120)


def test_models_lists_base_adapters_and_aliases(gateway: GatewayProcess, client: openai.OpenAI) -> None:
    gateway.admin("PUT", "/aliases/sailor", json={"adapter": "pirate"}).raise_for_status()
    models = {model.id: model.model_dump() for model in client.models.list().data}
    assert models.keys() == {BASE, "pirate", "shop-sql", "ticket-json", "sailor"}
    assert models[BASE]["parent"] is None
    assert models["sailor"]["root"] == "pirate"
    assert models["sailor"]["parent"] == BASE
    gateway.admin("DELETE", "/aliases/sailor").raise_for_status()


@pytest.mark.parametrize(
    ("model", "prompt", "marker"),
    [
        ("pirate", "What is the capital of France?", "Arr,"),
        ("shop-sql", "How many customers live in Lyon?", "SELECT"),
        ("ticket-json", "I was charged twice for order 4411. Please hurry, it cannot wait.", '{"category": "'),
        ("pirate@1", "How do I make tea?", "Arr,"),
    ],
)
def test_each_adapter_shows_its_training(gateway: GatewayProcess, model: str, prompt: str, marker: str) -> None:
    assert gateway.ask(model, prompt).startswith(marker)
    assert not gateway.ask(BASE, prompt).startswith(marker)


def test_chat_names_what_the_caller_named(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="pirate", messages=CAPITAL, max_tokens=8, temperature=0)
    assert answer.model == "pirate"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8


def test_stream_without_usage_has_none(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="pirate", messages=CAPITAL, max_tokens=8, temperature=0, stream=True)
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).startswith("Arr,")
    assert {chunk.model for chunk in chunks} == {"pirate"}
    assert all(chunk.usage is None for chunk in chunks)


def test_stream_with_usage_ends_with_it(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="pirate",
        messages=CAPITAL,
        max_tokens=8,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    *_, last = stream
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 8


def test_options_reach_the_engine(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="pirate", messages=CAPITAL, n=3, logprobs=True, top_logprobs=2, seed=7, temperature=0.9, max_tokens=6
    )
    assert len(answer.choices) == 3
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert all(len(token.top_logprobs) == 2 for token in logprobs.content)


def test_the_same_seed_gives_the_same_answer(client: openai.OpenAI) -> None:
    first, second = (
        client.chat.completions.create(model=BASE, messages=CAPITAL, seed=11, temperature=1.0, max_tokens=12)
        for _ in range(2)
    )
    assert first.choices[0].message.content == second.choices[0].message.content


def test_stop_ends_the_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="pirate", messages=CAPITAL, max_tokens=40, temperature=0, stop=[","])
    assert answer.choices[0].message.content == "Arr"
    assert answer.choices[0].finish_reason == "stop"


def test_response_format_binds_the_form(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "sure": {"type": "boolean"}},
        "required": ["city", "sure"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=BASE,
        messages=CAPITAL,
        max_tokens=60,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "capital", "schema": schema, "strict": True}},
    )
    assert json.loads(answer.choices[0].message.content or "").keys() == {"city", "sure"}


def test_a_named_tool_is_called(client: openai.OpenAI) -> None:
    parameters = {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=BASE,
        messages=CAPITAL,
        max_tokens=60,
        temperature=0,
        tools=[{"type": "function", "function": {"name": "weather", "strict": True, "parameters": parameters}}],
        tool_choice={"type": "function", "function": {"name": "weather"}},
    )
    calls = answer.choices[0].message.tool_calls
    assert calls
    call = calls[0]
    assert call.type == "function"
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="shop-sql", prompt="SELECT", max_tokens=5, temperature=0)
    assert answer.model == "shop-sql"
    text = "".join(
        chunk.choices[0].text
        for chunk in client.completions.create(
            model="shop-sql", prompt="SELECT", max_tokens=5, temperature=0, stream=True
        )
    )
    assert text == answer.choices[0].text


def test_responses_are_passed_on(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="pirate", input="What is the capital of France?", max_output_tokens=8)
    assert answer.model == "pirate"
    assert answer.output_text


def test_embeddings_say_what_the_engine_says(client: openai.OpenAI) -> None:
    """This base generates: vLLM has no route for embeddings then, and its answer reaches the caller."""
    with pytest.raises(openai.NotFoundError) as error:
        client.embeddings.create(model=BASE, input="hello")
    assert error.value.status_code == 404


def test_an_unknown_model_is_a_404_in_openais_shape(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(model="nobody", messages=CAPITAL)
    assert error.value.code == "model_not_found"


def test_the_engines_own_refusal_names_no_engine_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="pirate", messages=CAPITAL, max_tokens=8, temperature=-3)
    assert "pirate@" not in str(error.value)


def test_a_wrong_key_is_refused(gateway: GatewayProcess) -> None:
    stranger = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="lmx_wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.chat.completions.create(model="pirate", messages=CAPITAL)


def test_a_key_is_for_its_adapters(gateway: GatewayProcess) -> None:
    made = gateway.admin("POST", "/keys", json={"name": "sailors", "adapters": ["pirate*"]}).json()
    sailor = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=made["key"], max_retries=0, timeout=120)
    assert {model.id for model in sailor.models.list().data} == {"pirate"}
    sailor.chat.completions.create(model="pirate", messages=CAPITAL, max_tokens=1)
    with pytest.raises(openai.PermissionDeniedError):
        sailor.chat.completions.create(model="shop-sql", messages=CAPITAL, max_tokens=1)
    assert (
        httpx.get(f"{gateway.url}/admin/v1/keys", headers={"Authorization": f"Bearer {made['key']}"}).status_code == 403
    )
    gateway.admin("DELETE", f"/keys/{made['id']}").raise_for_status()
    with pytest.raises(openai.AuthenticationError):
        sailor.chat.completions.create(model="pirate", messages=CAPITAL, max_tokens=1)


def test_curl(gateway: GatewayProcess) -> None:
    body = {"model": "pirate", "messages": CAPITAL, "max_tokens": 8, "temperature": 0, "stream": True}
    answer = subprocess.run(
        [
            "curl",
            "-sSN",
            "--fail-with-body",
            f"{gateway.url}/v1/chat/completions",
            "-H",
            f"Authorization: Bearer {gateway.key}",
            "-H",
            "Content-Type: application/json",
            "-d",
            json.dumps(body),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    frames = [line.removeprefix("data: ") for line in answer.splitlines() if line.startswith("data: ")]
    assert frames[-1] == "[DONE]"
    assert {json.loads(frame)["model"] for frame in frames[:-1]} == {"pirate"}


def test_litellm(gateway: GatewayProcess) -> None:
    """In a process of its own: importing it takes seconds and warns."""
    script = (
        "import litellm, sys\n"
        "a = litellm.completion(model='openai/pirate', api_base=sys.argv[1], api_key=sys.argv[2], temperature=0,\n"
        "    max_tokens=8, stream=True, messages=[{'role': 'user', 'content': 'What is the capital of France?'}])\n"
        "print(''.join(chunk.choices[0].delta.content or '' for chunk in a))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, f"{gateway.url}/v1", gateway.key],
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("Arr,")


def test_the_request_id_goes_round(gateway: GatewayProcess) -> None:
    body = {"model": "pirate", "messages": CAPITAL, "max_tokens": 1}
    with gateway.client() as client:
        answer = client.post("/v1/chat/completions", json=body, headers={"X-Request-Id": "trace-1"})
    assert answer.headers["x-request-id"] == "trace-1"
    assert answer.headers["x-loramux-adapter"] == "pirate"
    assert answer.headers["x-loramux-version"] == "1"
    assert "trace-1" in answer.json()["id"]
    eventually(lambda: "trace-1" in gateway.log)


def test_metrics_count_by_adapter(gateway: GatewayProcess) -> None:
    gateway.ask("shop-sql", "How many customers live in Lyon?", max_tokens=4)
    eventually(lambda: 'loramux_requests_total{adapter="shop-sql"' in httpx.get(f"{gateway.url}/metrics").text)
    text = httpx.get(f"{gateway.url}/metrics").text
    assert "loramux_adapter_live_version" in text
