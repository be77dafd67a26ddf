"""LMI's bodies and SageMaker's runtime before real vLLM: what LMI documents is what comes."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.fixtures.gateway import GatewayProcess

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(300)]

PROMPT = "The quick brown fox"
FEW = {"max_new_tokens": 5}


@pytest.fixture
def caller(gateway: GatewayProcess) -> Iterator[httpx.Client]:
    with gateway.client() as client:
        yield client


@pytest.fixture(scope="module")
def runtime(gateway: GatewayProcess) -> Iterator[Any]:
    """boto3's client, signing with a key of the gateway's."""
    made = gateway.admin("POST", "/keys", json={"name": "notebook", "aws": True}).raise_for_status().json()
    client = boto3.session.Session().client(
        "sagemaker-runtime",
        endpoint_url=gateway.url,
        region_name="us-east-1",
        aws_access_key_id=made["access_key_id"],
        aws_secret_access_key=made["secret_access_key"],
        config=Config(retries={"total_max_attempts": 1}),
    )
    yield client
    client.close()


def invoke(caller: httpx.Client, inputs: Any = PROMPT, **parameters: Any) -> Any:
    answer = caller.post("/invocations", json={"inputs": inputs, "parameters": {**FEW, **parameters}})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_details_of_the_answer_and_of_the_prompt(caller: httpx.Client) -> None:
    found = invoke(caller, details=True, decoder_input_details=True)
    details = found["details"]
    assert (details["finish_reason"], details["generated_tokens"], details["inputs"]) == ("length", 5, PROMPT)
    assert "".join(token["text"] for token in details["tokens"]) == found["generated_text"]
    assert all(token["log_prob"] <= 0 for token in details["tokens"])
    assert "".join(token["text"] for token in details["prefill"]) == PROMPT
    assert details["prefill"][0]["log_prob"] is None


def test_several_inputs_and_sequences(caller: httpx.Client) -> None:
    several = invoke(caller, [PROMPT, "One, two,"], n=2, do_sample=True, decoder_input_details=False)
    assert [one["details"]["inputs"] for one in several] == [PROMPT, "One, two,"]
    assert [len(one["details"]["best_of_sequences"]) for one in several] == [1, 1]
    best = invoke(caller, do_sample=True, best_of=3, seed=7)["details"]
    likelihoods = [sum(token["log_prob"] for token in one["tokens"]) for one in (best, *best["best_of_sequences"])]
    assert len(likelihoods) == 3
    assert max(likelihoods) == likelihoods[0]


def test_beams(caller: httpx.Client) -> None:
    found = invoke(caller, num_beams=3)
    assert len(found["details"]["beam_sequences"]) == 2
    assert "".join(token["text"] for token in found["details"]["tokens"]) == found["generated_text"]


def test_an_adapter_through_boto3(caller: httpx.Client, gateway: GatewayProcess, runtime: Any) -> None:
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 12, "details": True}, "stream": True}
    events = runtime.invoke_endpoint_with_response_stream(
        EndpointName="shop", InferenceComponentName="pirate", Body=json.dumps(body)
    )["Body"]
    lines = [json.loads(line) for line in b"".join(each["PayloadPart"]["Bytes"] for each in events).splitlines()]
    plain = {"model": "pirate", "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
    with gateway.client() as client:
        expected = client.post("/v1/completions", json=plain).json()["choices"][0]["text"]
    assert lines[-1]["generated_text"] == expected
    assert "".join(line["token"]["text"] for line in lines if not line["token"].get("special_token")) == expected
    assert invoke(caller, max_new_tokens=12)["generated_text"] != expected


def test_what_vllm_refuses_is_a_model_error(runtime: Any) -> None:
    body = json.dumps({"inputs": PROMPT, "parameters": {"do_sample": True, "top_p": 7}, "stream": True})
    for call in (runtime.invoke_endpoint, runtime.invoke_endpoint_with_response_stream):
        with pytest.raises(ClientError) as caught:
            call(EndpointName="shop", Body=body)
        response: Any = caught.value.response
        assert response["Error"]["Code"] == "ModelError"
        assert response["OriginalStatusCode"] == 400
        assert "top_p" in json.loads(response["OriginalMessage"])["error"]
