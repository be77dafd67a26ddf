"""Good bodies with something else at one place of them, at every door: none is a fault of the gateway's."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fixtures.doors import ADAPTER, BASE, ENDPOINT, REGION, Doors
from tests.fixtures.vllm import NAME

pytestmark = [
    pytest.mark.timeout(240),
    # moto and botocore, not this code, use what their own dependencies have deprecated.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(moto|botocore|werkzeug).*"),
]

NAMED = {"InferenceComponentName": "nobody"}
OF_S3 = {"ArtifactUrl": "s3://shop/one.tar.gz"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
SPECIFICATION = {"BaseInferenceComponentName": BASE, "Container": OF_S3}
VARIANT = {"VariantName": "AllTraffic", "InstanceType": "ml.g5.xlarge", "InitialInstanceCount": 1}
TAG = {"Key": "a", "Value": "b"}
OPERATIONS: Mapping[str, dict[str, Any]] = {
    "CreateModel": {"ModelName": "m", "PrimaryContainer": {"Image": "lmi", "Environment": {"HF_MODEL_ID": NAME}}},
    "CreateEndpointConfig": {"EndpointConfigName": "c", "ProductionVariants": [VARIANT]},
    "CreateEndpoint": {"EndpointName": "e", "EndpointConfigName": "c"},
    "UpdateEndpoint": {"EndpointName": "e", "EndpointConfigName": "c"},
    "DescribeEndpoint": {"EndpointName": ENDPOINT},
    "CreateInferenceComponent": {"InferenceComponentName": BASE, "Specification": SPECIFICATION},
    "UpdateInferenceComponent": {**NAMED, "Specification": SPECIFICATION},
    "UpdateInferenceComponentRuntimeConfig": {**NAMED, "DesiredRuntimeConfig": {"CopyCount": 1}},
    "DeleteInferenceComponent": NAMED,
    "ListInferenceComponents": {"MaxResults": 1, "SortBy": "Name", "NextToken": "x", "NameContains": "shop"},
    "AddTags": {"ResourceArn": f"arn:aws:sagemaker:{REGION}:000000000000:model/shop", "Tags": [TAG]},
}
PARAMETERS = {"do_sample": True, "top_p": 0.5, "top_k": 3, "seed": 1, "stop": ["x"], "details": True, "truncate": 5}
BODIES: Mapping[str, Any] = {
    "/v1/completions": {"model": ADAPTER, "prompt": "Hello", "max_tokens": 4, "stream": True, "stream_options": {}},
    "/v1/chat/completions": {"model": ADAPTER, "messages": [{"role": "user", "content": "Hello"}]},
    "/generate": {"inputs": "Hello", "parameters": {**PARAMETERS, "grammar": {"type": "regex", "value": "a"}}},
    "/generate_stream": {"inputs": "Hello", "parameters": PARAMETERS},
    "/invocations": {"inputs": ["Hello"], "parameters": {**PARAMETERS, "n": 2}, "adapters": [ADAPTER]},
    "/adapters": {"name": ADAPTER, "src": "s3://shop/one.tar.gz", "preload": True, "pin": False},
}


@st.composite
def bent(draw: st.DrawFn, body: Any) -> Any:
    """The body with something else at one place of it."""
    match body:
        case dict() if body and draw(st.booleans()):
            name = draw(st.sampled_from(sorted(body)))
            return {**body, name: draw(bent(body[name]))}
        case list() if body and draw(st.booleans()):
            return [draw(bent(body[0])), *body[1:]]
        case _:
            return draw(JSON)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_no_body_is_too_bad(doors: Doors, data: st.DataObject) -> None:
    """What of OpenAI's bodies goes to the engine as it came, the stand-in may not bear: then no engine answers."""
    if data.draw(st.booleans()):
        operation = data.draw(st.sampled_from(sorted(OPERATIONS)))
        answer = doors.control(operation, data.draw(bent(OPERATIONS[operation])))
        assert answer.status_code < 500, answer.text
        return
    path = data.draw(st.sampled_from(sorted(BODIES)))
    body = data.draw(bent(BODIES[path]))
    answer = doors.as_admin("POST", path, body)
    borne = (503,) if path.startswith("/v1/") else ()
    assert answer.status_code < 500 or answer.status_code in borne, answer.text
    if path == "/invocations":
        assert doors.invoke(body).status_code < 500
