"""TGI's clients at the real command, before an engine that says what vLLM would: huggingface_hub, and curl."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import InferenceClient, TextGenerationInputGrammarType
from huggingface_hub.errors import OverloadedError, ValidationError

from loramux_serving import __version__
from loramux_serving.base.default import NAME
from tests.fakes import completing_vllm
from tests.fakes.completing_vllm import EOS, MAX_MODEL_LEN
from tests.fixtures.gateway import GatewayProcess, eventually, free_port
from tests.fixtures.vllm import random_adapter

pytestmark = pytest.mark.timeout(240)

STAND_IN = Path(completing_vllm.__file__)
ANSWERS = Path(__file__).parents[1] / "fixtures" / "vllm_completions"
SCRIPTS = (
    "plain words",
    "日本語のテキスト、そして。",
    "مرحبا بالعالم",
    "👩‍👩‍👧‍👦 🇺🇳 👍🏽",
    "e\u0301 क्षि \u0e01\u0e33",
    'quotes " and \\ and \n lines \u2028 data: [DONE]',
)


@pytest.fixture(scope="module", params=["1", "2"], ids=["one process", "workers"])
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, vllm_base: Path
) -> Iterator[GatewayProcess]:
    """With the adapter `tone`, and its version 1."""
    sources = tmp_path_factory.mktemp("sources")
    random_adapter(vllm_base, sources / "tone", rank=8)
    port = free_port()
    engine = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.completing_vllm", "--port", str(port), "--served-model-name", NAME],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    )
    process = GatewayProcess(
        tmp_path_factory.mktemp("home"),
        "--workers",
        request.param,
        LORAMUX_ENGINE__URLS=f"http://127.0.0.1:{port}",
        LORAMUX_ARTIFACTS__ROOTS=json.dumps([str(sources)]),
        LORAMUX_ADMISSION__KEY_REQUESTS_PER_MINUTE="0",
    )
    with process:
        body = {"name": "tone", "source": str(sources / "tone"), "wait": True}
        process.admin("POST", "/adapters", json=body).raise_for_status()
        process.engine_url = f"http://127.0.0.1:{port}"  # type: ignore[attr-defined]
        yield process
    engine.terminate()
    engine.wait(20)


@pytest.fixture
def client(gateway: GatewayProcess) -> InferenceClient:
    return InferenceClient(gateway.url, token=gateway.key)


def asked(gateway: GatewayProcess) -> dict[str, Any]:
    """What the engine was asked last."""
    bodies: list[dict[str, Any]] = httpx.get(f"{gateway.engine_url}/fake/asked").json()  # type: ignore[attr-defined]
    return bodies[0]


def curl(gateway: GatewayProcess, path: str, body: Any, *options: str) -> str:
    data = body if isinstance(body, str) else json.dumps(body)
    command = ["curl", "-sN", gateway.url + path, "-H", f"Authorization: Bearer {gateway.key}", *options]
    done = subprocess.run([*command, "-d", data], capture_output=True, check=True, timeout=60)
    return done.stdout.decode()


@pytest.mark.parametrize("text", SCRIPTS)
def test_text_in_any_script(client: InferenceClient, text: str) -> None:
    assert client.text_generation(text, max_new_tokens=200) == text
    # Without details huggingface_hub gives the texts of special tokens too, as with TGI.
    assert "".join(client.text_generation(text, max_new_tokens=200, stream=True)) == text + EOS


@pytest.mark.parametrize("text", SCRIPTS)
def test_details_in_any_script(client: InferenceClient, text: str) -> None:
    answer = client.text_generation(text, max_new_tokens=200, details=True, decoder_input_details=True)

    assert answer.generated_text == text
    assert answer.details is not None
    assert "".join(token.text for token in answer.details.tokens if not token.special) == text
    assert (answer.details.tokens[-1].text, answer.details.tokens[-1].special) == (EOS, True)
    assert answer.details.finish_reason == "eos_token"
    assert answer.details.generated_tokens == len(answer.details.tokens)
    assert len(answer.details.prefill) == len(answer.details.tokens) - 1


@pytest.mark.parametrize("text", SCRIPTS)
def test_a_stream_with_details_in_any_script(client: InferenceClient, text: str) -> None:
    events = list(client.text_generation(text, max_new_tokens=200, details=True, stream=True))

    assert "".join(event.token.text for event in events if not event.token.special) == text
    assert [event.index for event in events] == list(range(1, len(events) + 1))
    last = events[-1]
    assert last.generated_text == text
    assert last.details is not None
    assert (last.details.finish_reason, last.details.generated_tokens) == ("eos_token", len(events))
    assert last.details.input_length == len(events) - 1


def test_the_adapter_is_named_by_its_id(client: InferenceClient, gateway: GatewayProcess) -> None:
    for name in ("tone", "tone@1"):
        assert client.text_generation("Hi", adapter_id=name, max_new_tokens=5) == "Hi"
        assert asked(gateway)["model"].startswith("tone@")
    client.text_generation("Hi", max_new_tokens=5)
    assert asked(gateway)["model"] == NAME


def test_every_parameter_of_the_client(client: InferenceClient, gateway: GatewayProcess) -> None:
    answer = client.text_generation(
        "one two three four",
        details=True,
        do_sample=True,
        frequency_penalty=0.1,
        max_new_tokens=3,
        repetition_penalty=1.1,
        return_full_text=True,
        seed=11,
        stop=["zz"],
        temperature=0.5,
        top_k=7,
        top_p=0.9,
        truncate=2,
        watermark=False,
        grammar=TextGenerationInputGrammarType(type="regex", value=".*"),
    )

    assert answer.generated_text == "one two three fourone two t"
    assert answer.details is not None
    assert (answer.details.finish_reason, answer.details.seed) == ("length", 11)
    told = asked(gateway)
    assert (told["temperature"], told["top_k"], told["top_p"], told["seed"]) == (0.5, 7, 0.9, 11)
    assert (told["frequency_penalty"], told["repetition_penalty"]) == (0.1, 1.1)
    assert (told["truncate_prompt_tokens"], told["structured_outputs"]) == (2, {"regex": ".*"})


def test_a_stop_sequence_stays_and_ends(client: InferenceClient) -> None:
    answer = client.text_generation("one two three", stop=["tw"], details=True, max_new_tokens=20)

    assert answer.generated_text == "one tw"
    assert answer.details is not None
    assert answer.details.finish_reason == "stop_sequence"


def test_the_best_of_two(client: InferenceClient) -> None:
    answer = client.text_generation("Hello", best_of=2, do_sample=True, details=True, max_new_tokens=5)

    assert answer.details is not None
    assert answer.details.best_of_sequences is not None
    assert [one.generated_text for one in answer.details.best_of_sequences] == ["Hello"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"temperature": -1.0}, "`temperature` must be strictly positive"),
        ({"temperature": 3.0}, "temperature must be in"),
        ({"max_new_tokens": 5000}, "cannot be greater than"),
        ({"watermark": True}, "`watermark` is not supported"),
        ({"typical_p": 0.5}, "`typical_p` is not supported"),
        ({"top_n_tokens": 3}, "`top_n_tokens` != 0 is not allowed"),
        ({"adapter_id": "nobody"}, "nobody"),
        ({"adapter_id": "tone@9"}, "tone@9"),
    ],
)
def test_what_is_refused(client: InferenceClient, stream: bool, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=r"^Input validation error: ") as caught:
        list(client.text_generation("Hi", stream=stream, **parameters))

    assert message in str(caught.value)


def test_an_empty_prompt(client: InferenceClient) -> None:
    with pytest.raises(ValidationError, match="`inputs` cannot be empty"):
        client.text_generation("")


def test_a_limit_is_an_overload(gateway: GatewayProcess) -> None:
    made = gateway.admin("POST", "/keys", json={"name": "slow", "requests_per_minute": 1}).raise_for_status().json()
    slow = InferenceClient(gateway.url, token=made["secret"] if "secret" in made else made["key"])

    assert slow.text_generation("Hi", max_new_tokens=5) == "Hi"
    with pytest.raises(OverloadedError):
        slow.text_generation("Hi", max_new_tokens=5)


def test_without_a_key(gateway: GatewayProcess) -> None:
    answer = httpx.post(f"{gateway.url}/generate", json={"inputs": "Hi"})

    assert answer.status_code == 401
    assert answer.json()["error_type"] == "unauthenticated"


def test_curl_at_each_door(gateway: GatewayProcess) -> None:
    body = {"inputs": "日本", "parameters": {"max_new_tokens": 9}}

    assert json.loads(curl(gateway, "/generate", body)) == {"generated_text": "日本"}
    assert json.loads(curl(gateway, "/", body)) == [{"generated_text": "日本"}]
    stream = curl(gateway, "/generate_stream", body, "-H", "Content-Type: application/json")
    assert stream == curl(gateway, "/", {**body, "stream": True}, "-H", "Content-Type: application/json")
    events = stream.split("\n\n")
    assert events.pop() == ""
    assert all(event.startswith('data:{"index":') for event in events)
    assert json.loads(events[-1][5:])["generated_text"] == "日本"


@pytest.mark.parametrize("body", ["", "{", "[]", '{"inputs":3}', '{"inputs":"x","parameters":{"top_k":"many"}}'])
def test_bodies_that_are_none(gateway: GatewayProcess, body: str) -> None:
    answer = json.loads(curl(gateway, "/generate", body))

    assert answer["error_type"] == "validation"


def test_amazons_requests_at_the_root_are_not_tgis(gateway: GatewayProcess) -> None:
    headers = {"Authorization": f"Bearer {gateway.key}", "X-Amz-Target": "SageMaker.ListEndpoints"}
    answer = httpx.post(f"{gateway.url}/", json={"inputs": "Hi"}, headers=headers)

    assert "generated_text" not in answer.text


def test_info(gateway: GatewayProcess) -> None:
    told = httpx.get(f"{gateway.url}/info").raise_for_status().json()

    assert told["model_id"] == NAME
    assert (told["max_total_tokens"], told["max_input_tokens"]) == (MAX_MODEL_LEN, MAX_MODEL_LEN - 1)
    assert (told["router"], told["version"]) == ("loramux", __version__)
    assert told["max_concurrent_requests"] == 256 + 2048


@pytest.mark.parametrize("path", ["/health", "/"])
def test_health(gateway: GatewayProcess, path: str) -> None:
    answer = httpx.get(gateway.url + path)

    assert (answer.status_code, answer.content) == (200, b"")


def test_metrics(gateway: GatewayProcess, client: InferenceClient) -> None:
    client.text_generation("Hi", max_new_tokens=5)

    def told(name: str) -> float:
        lines = httpx.get(f"{gateway.url}/metrics").text.splitlines()
        return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name} "))

    eventually(lambda: told("tgi_request_success") >= 1)
    assert told("tgi_request_count") >= told("tgi_request_success")
    assert told("tgi_request_generated_tokens_count") >= 1


def test_usage_is_counted(gateway: GatewayProcess, client: InferenceClient) -> None:
    label = f'loramux_completion_tokens_total{{adapter="{NAME}"}}'

    def told() -> float:
        lines = httpx.get(f"{gateway.url}/metrics").text.splitlines()
        return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(label)), 0.0)

    client.text_generation("Hi", max_new_tokens=5)
    eventually(lambda: told() > 0)
    before = told()
    list(client.text_generation("Hello you", max_new_tokens=50, stream=True))

    eventually(lambda: told() == before + 4)


@pytest.mark.parametrize("name", ["scripts.json", "plain.json", "best_of.json"])
def test_the_stand_in_has_the_engines_form(name: str) -> None:
    real = json.loads((ANSWERS / name).read_bytes())
    body = {"model": "m", "prompt": "Hi", "max_tokens": 5, "temperature": 0}
    if name != "plain.json":
        body |= {"logprobs": 0, "return_token_ids": True}
    made = completing_vllm.document(body)

    assert set(made["choices"][0]) <= set(real["choices"][0])
    for field, value in made["choices"][0].items():
        if field != "stop_reason" and value is not None:
            assert type(real["choices"][0][field]) is type(value), field
    if (logprobs := made["choices"][0]["logprobs"]) is not None:
        assert set(logprobs) == set(real["choices"][0]["logprobs"])


def test_so_have_its_frames() -> None:
    real = [json.loads(frame[6:]) for frame in (ANSWERS / "eos_stream.txt").read_bytes().split(b"\n\n")[:-2]]
    body = {"model": "m", "prompt": "Hi", "max_tokens": 5, "logprobs": 0, "return_token_ids": True}
    body["stream_options"] = {"include_usage": True}
    *_, last, usage, done = completing_vllm.frames(body)

    assert done == b"data: [DONE]\n\n"
    made = json.loads(last[6:])["choices"][0]
    assert (made["token_ids"], made["text"], made["finish_reason"]) == ([2**24], "", "stop")
    assert {key: type(value) for key, value in real[0]["choices"][0].items() if key != "prompt_token_ids"} == {
        key: type(value) for key, value in made.items() if key != "prompt_token_ids"
    }
    assert set(json.loads(usage[6:])["usage"]) == set(real[1]["usage"])


def test_before_there_is_an_engine(tmp_path: Path) -> None:
    process = GatewayProcess(tmp_path, LORAMUX_ENGINE__URLS=f"http://127.0.0.1:{free_port()}")
    process.start(ready=False)
    try:
        health, info = (httpx.get(process.url + path) for path in ("/health", "/info"))
        asked_ = httpx.post(
            f"{process.url}/generate", json={"inputs": "Hi"}, headers={"Authorization": f"Bearer {process.key}"}
        )
    finally:
        process.stop()
    assert (health.status_code, health.json()) == (503, {"error": "unhealthy", "error_type": "healthcheck"})
    assert (info.status_code, info.json()["error_type"]) == (424, "generation")
    assert (asked_.status_code, asked_.json()["error_type"]) == (424, "generation")
