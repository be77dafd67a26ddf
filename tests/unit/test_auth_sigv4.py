"""Signed requests are read as botocore, AWS' SDK for Python, signs them."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import boto3
import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from loramux_adapters.errors import Unauthenticated
from loramux_serving.auth.sigv4 import INCOMPLETE, INVALID, MISSING, UNRECOGNIZED, is_signed, read, seconds
from loramux_serving.auth.verifier import Verifier
from loramux_serving.relay.dialect import Asked
from loramux_serving.relay.signed_request import SignedRequest
from tests.fakes.clock import FakeClock
from tests.fakes.signed_requests import ACCESS_KEY_ID, NOW, SECRET, added, asked, changed, on_the_wire, signed

INVOCATION = {"amz-sdk-invocation-id": "7b2c6b1e-2a64-4d43-8d0c-1f0b9f1e2a11", "amz-sdk-request": "attempt=1"}


def verify(request: SignedRequest) -> None:
    Verifier(FakeClock(now=seconds(request.timestamp)), clock_skew_s=300.0).verify(request, SECRET)


def accepted(request: Asked, body: bytes = b"{}") -> SignedRequest:
    found = read(request, body)
    verify(found)
    return found


def refused(request: Asked, body: bytes = b"{}") -> Unauthenticated:
    with pytest.raises(Unauthenticated) as raised:
        verify(read(request, body))
    assert SECRET not in raised.value.message
    return raised.value


def code(error: Unauthenticated) -> str:
    return str(error.details["aws_code"])


# --- what is signed well ---


def test_a_signed_request() -> None:
    found = accepted(signed(headers=INVOCATION))
    assert found.access_key_id == ACCESS_KEY_ID
    assert found.timestamp == NOW
    assert found.scope == "20260131/us-east-1/sagemaker/aws4_request"
    assert found.string_to_sign.startswith(f"AWS4-HMAC-SHA256\n{NOW}\n{found.scope}\n")
    assert len(found.signature) == 64
    assert found.single_use


def test_aws_own_example_of_a_signature() -> None:
    """The request, key and signature of AWS' test suite, `get-vanilla`, but for the service, which must be ours."""
    suite_secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
    request = SignedRequest(
        access_key_id="AKIDEXAMPLE",
        timestamp="20150830T123600Z",
        scope="20150830/us-east-1/service/aws4_request",
        string_to_sign=(
            "AWS4-HMAC-SHA256\n20150830T123600Z\n20150830/us-east-1/service/aws4_request\n"
            "bb579772317eb040ac9ed261061d46c1f17a8133879d6129b6e1c25292927e63"
        ),
        signature="5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        single_use=False,
    )
    Verifier(FakeClock(now=seconds("20150830T123600Z")), clock_skew_s=300.0).verify(request, suite_secret)


def test_a_request_that_curl_signed() -> None:
    """Recorded: `curl --aws-sigv4 aws:amz:us-east-1:sagemaker`, 7.88.1."""
    request = asked(
        "POST",
        "/endpoints/shop/invocations",
        [
            ("Host", "127.0.0.1:34041"),
            (
                "Authorization",
                "AWS4-HMAC-SHA256 Credential=LMXAAAAAAAAAAAAAAAAA/20261121/us-east-1/sagemaker/aws4_request, "
                "SignedHeaders=content-type;host;x-amz-date;x-amzn-sagemaker-inference-component, "
                "Signature=ff997b7b8c40789d4cdbeffac337e7720c302b7ede01b653f1e035b6b83069fa",
            ),
            ("X-Amz-Date", "20261121T170636Z"),
            ("User-Agent", "curl/7.88.1"),
            ("Accept", "*/*"),
            ("Content-Type", "application/json"),
            ("X-Amzn-SageMaker-Inference-Component", "pirate"),
            ("Content-Length", "14"),
        ],
    )
    accepted(request, b'{"inputs":"x"}')


SEGMENT = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1).filter(
    lambda text: text not in (".", "..")
)
WORD = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12)
PRINTED = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=40).filter(
    lambda text: not any(0x80 <= ord(each) < 0xA0 for each in text)
)


def stable(value: str) -> bool:
    """botocore signs a header as text and sends it in Latin-1: what happens to be UTF-8 then can not be told apart."""
    try:
        return value.encode("latin-1").decode("utf-8") == value
    except UnicodeDecodeError:
        return True


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    segments=st.lists(SEGMENT, max_size=4),
    query=st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=4),
    headers=st.dictionaries(WORD.map("x-custom-{}".format), PRINTED.filter(stable), max_size=4),
    body=st.binary(max_size=200),
    slash=st.booleans(),
)
def test_whatever_botocore_signs_is_accepted(
    method: str,
    segments: list[str],
    query: list[tuple[str, str]],
    headers: dict[str, str],
    body: bytes,
    slash: bool,
) -> None:
    path = "/" + "/".join(quote(segment, safe="~") for segment in segments) + ("/" if slash and segments else "")
    pairs = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in query)
    target = f"{path}?{pairs}" if pairs else path
    found = accepted(signed(method, target, {**headers, **INVOCATION}, body), body)
    assert found.single_use


def test_headers_are_trimmed_and_their_spaces_are_one() -> None:
    value = "  several   blanks \t within  "
    accepted(signed(headers={"X-Custom": value}))
    accepted(changed(signed(headers={"X-Custom": value}), b"x-custom", b"several blanks within"))


def test_headers_that_come_twice_count_in_their_order() -> None:
    request = signed(headers={"X-Custom": "one,two"})
    others = [(name, value) for name, value in request.headers if name != b"x-custom"]

    def with_values(*values: bytes) -> Asked:
        wire = [*others, *((b"x-custom", value) for value in values)]
        return Asked(request.method, request.target, wire, dict(reversed(wire)))

    accepted(with_values(b"one", b"two"))
    assert code(refused(with_values(b"two", b"one"))) == INVALID


def test_text_that_was_signed_as_it_was_sent() -> None:
    """Not through botocore, whose http client sends no other text than Latin-1."""
    request = changed(signed(headers={"X-Custom": "käse"}), b"x-custom", "käse".encode())
    accepted(request)


class Thorough(SigV4Auth):
    """Signs what botocore leaves out, and sends no X-Amz-Date."""

    def headers_to_sign(self, request: Any) -> HTTPHeaders:
        covered = HTTPHeaders()
        for name, value in request.headers.items():
            covered[name.lower()] = value
        return covered


def test_exactly_those_headers_count_that_were_signed() -> None:
    headers = {"User-Agent": "another SDK", "X-Amzn-Trace-Id": "Root=1"}
    request = signed(headers=headers, signer=Thorough)
    accepted(request)
    assert code(refused(changed(request, b"user-agent", b"a changed one"))) == INVALID
    accepted(changed(signed(headers=headers), b"user-agent", b"a changed one"))


def test_the_time_may_be_the_date() -> None:
    request = signed(headers={"Date": "whatever"})
    assert b"x-amz-date" not in request.told
    assert request.told[b"date"] == b"Sat, 31 Jan 2026 23:59:00 -0000"
    assert accepted(request).timestamp == NOW


def test_a_payload_that_says_its_own_hash() -> None:
    digest = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    accepted(signed(headers={"X-Amz-Content-SHA256": digest}))
    for other in ("UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", digest.upper(), "0" * 64):
        error = refused(signed(headers={"X-Amz-Content-SHA256": other}))
        assert code(error) == INVALID
        assert "payload must be signed" in error.message


def test_a_request_without_an_invocation_id_is_for_no_single_use() -> None:
    assert not accepted(signed()).single_use


# --- what clients send ---


class _Answer:
    def stream(self) -> Iterator[bytes]:
        yield b"{}"


def sent_by(call: Any, service: str, **config: Any) -> tuple[Asked, bytes]:
    """The one request of `call(client)`."""
    session: Any = boto3.Session()  # of the stubs, only those for S3 are installed
    client = session.client(
        service,
        endpoint_url="http://127.0.0.1:8080",
        region_name="eu-central-1",
        aws_access_key_id=ACCESS_KEY_ID,
        aws_secret_access_key=SECRET,
        config=Config(retries={"max_attempts": 0}, **config),
    )
    seen: list[Any] = []

    def keep(request: Any, **_: Any) -> AWSResponse:
        seen.append(request)
        return AWSResponse(request.url, 400, HTTPHeaders(), _Answer())

    client.meta.events.register("before-send", keep)
    with pytest.raises(ClientError):
        call(client)
    (request,) = seen
    return on_the_wire(request)


def test_requests_of_boto3() -> None:
    calls = [
        ("sagemaker", lambda client: client.describe_inference_component(InferenceComponentName="pirate")),
        ("sagemaker", lambda client: client.list_endpoints(NameContains="x", MaxResults=3)),
        (
            "sagemaker-runtime",
            lambda client: client.invoke_endpoint(
                EndpointName="shop-1",
                InferenceComponentName="pirate",
                CustomAttributes="c000b4f9  trace=7",
                Body='{"inputs": "¡Hola, señor! 你好"}'.encode(),
            ),
        ),
        (
            "sagemaker-runtime",
            lambda client: client.invoke_endpoint_with_response_stream(EndpointName="shop-1", Body=b"\x00\xff"),
        ),
    ]
    for service, call in calls:
        request, body = sent_by(call, service)
        found = accepted(request, body)
        assert not found.single_use  # botocore adds its number after it has signed
        assert b"amz-sdk-invocation-id" in request.told
        assert found.scope.endswith("/eu-central-1/sagemaker/aws4_request")
        assert is_signed(request)


def test_boto3_with_a_path_that_needs_coding() -> None:
    request, body = sent_by(lambda client: client.invoke_endpoint(EndpointName="a b", Body=b"x"), "sagemaker-runtime")
    assert request.target == b"/endpoints/a%20b/invocations"
    accepted(request, body)


# --- what is not ---


def test_no_tampering_passes() -> None:
    headers = {**INVOCATION, "Content-Type": "application/json", "X-Amzn-SageMaker-Custom-Attributes": "one two"}
    body = b'{"inputs": "A tale", "parameters": {"max_new_tokens": 8}}'
    request = signed("POST", "/endpoints/a%20b/invocations?one=1&two=%20", headers, body)
    accepted(request, body)

    for wrong in variants(body):
        refused(request, wrong)
    for target in variants(request.target):
        refused(Asked(request.method, target, request.headers, request.told), body)
    refused(Asked(b"PUT", request.target, request.headers, request.told), body)
    for name, value in request.headers:
        for other in variants(value):
            if name == b"authorization" and other.replace(b" ", b"") == value.replace(b" ", b""):
                continue  # the blanks between its fields say nothing
            error = refused_or_unknown(changed(request, name, other), body)
            assert error.details["aws_code"] in (INCOMPLETE, INVALID, UNRECOGNIZED)


def variants(value: bytes) -> Iterator[bytes]:
    """One byte other, one less and one more."""
    for place in range(len(value)):
        for bit in (0x01, 0x02, 0x20):
            yield value[:place] + bytes([value[place] ^ bit]) + value[place + 1 :]
        yield value[:place] + value[place + 1 :]
    yield value + b"x"


def refused_or_unknown(request: Asked, body: bytes) -> Unauthenticated:
    """Another access key id would be another key."""

    def judge() -> None:
        found = read(request, body)
        if found.access_key_id != ACCESS_KEY_ID:
            raise Unauthenticated("unknown", details={"aws_code": UNRECOGNIZED})
        verify(found)

    with pytest.raises(Unauthenticated) as raised:
        judge()
    return raised.value


@given(body=st.binary(max_size=50), other=st.binary(max_size=50))
def test_another_body_is_refused(body: bytes, other: bytes) -> None:
    request = signed(body=body)
    if body == other:
        accepted(request, other)
    else:
        refused(request, other)


def test_a_signature_can_not_be_moved_to_another_header() -> None:
    request = signed(headers={"X-Custom": "one"})
    assert code(refused(changed(request, b"x-custom", None))) == INVALID
    assert "did not arrive" in refused(changed(request, b"x-custom", None)).message


@pytest.mark.parametrize("name", ["x-amz-target", "x-amzn-sagemaker-inference-component"])
def test_what_decides_must_be_signed(name: str) -> None:
    error = refused(added(signed(), name.encode(), b"another"))
    assert code(error) == INVALID
    assert error.message == f"'{name}' must be a 'SignedHeader' in the AWS Authorization."


def test_what_proxies_add_need_not_be_signed() -> None:
    accepted(added(signed(), b"x-amz-cf-id", b"what CloudFront adds"))
    accepted(added(signed(), b"x-amzn-trace-id", b"what a load balancer adds"))
    accepted(added(signed(), b"x-forwarded-for", b"10.0.0.1"))


@pytest.mark.parametrize("target", ["//endpoints/a", "/a/./b", "/a/../b", "/a//", "/endpoints/a/.."])
def test_a_path_that_reads_in_two_ways_is_refused(target: str) -> None:
    error = refused(signed(target=target))
    assert code(error) == INCOMPLETE
    assert "segments" in error.message


@pytest.mark.parametrize("target", [b"http://other/endpoints/a", b"/a#fragment", b"*", b"/caf\xc3\xa9", b"/a b", b""])
def test_a_target_that_is_no_path_is_refused(target: bytes) -> None:
    request = signed()
    assert code(refused(Asked(request.method, target, request.headers, request.told))) == INCOMPLETE


@pytest.mark.parametrize(
    ("change", "aws_code", "words"),
    [
        ({"service": "s3"}, INVALID, "correct service: 'sagemaker'"),
        ({"service": "SageMaker"}, INVALID, "correct service"),
        ({"region": ""}, INVALID, "valid region"),
        ({"token": "FwoGZXIvYXdzE"}, UNRECOGNIZED, "AWS_SESSION_TOKEN"),
        ({"access_key_id": "not an id"}, INCOMPLETE, "5 slash-delimited elements"),
        ({"access_key_id": "a/b"}, INCOMPLETE, "5 slash-delimited elements"),
        ({"secret": "another"}, INVALID, "does not match the signature you provided"),
    ],
)
def test_signed_otherwise(change: dict[str, Any], aws_code: str, words: str) -> None:
    error = refused(signed(**change))
    assert (code(error), words in error.message) == (aws_code, True)


CREDENTIAL = f"Credential={ACCESS_KEY_ID}/20260131/us-east-1/sagemaker/aws4_request"
GOOD = f"{CREDENTIAL}, SignedHeaders=host;x-amz-date, Signature={'0' * 64}"


@pytest.mark.parametrize(
    ("authorization", "aws_code", "words"),
    [
        ("AWS4-HMAC-SHA256", INCOMPLETE, "Credential"),
        (f"AWS4-ECDSA-P256-SHA256 {GOOD}", INCOMPLETE, "only AWS4-HMAC-SHA256"),
        (f"AWS4-HMAC-SHA256 {CREDENTIAL}", INCOMPLETE, "requires 'Signature' parameter. Authorization header requires"),
        (f"AWS4-HMAC-SHA256 {GOOD}, Signature={'0' * 64}", INCOMPLETE, "once"),
        (f"AWS4-HMAC-SHA256 {GOOD}, More=1", INCOMPLETE, "once"),
        (f"AWS4-HMAC-SHA256 {GOOD[:-1]}", INCOMPLETE, "64 hexadecimal"),
        (f"AWS4-HMAC-SHA256 {GOOD[:-1]}Z", INCOMPLETE, "64 hexadecimal"),
        (f"AWS4-HMAC-SHA256 {GOOD.replace('aws4_request', 'aws5')}", INVALID, "terminator"),
        (f"AWS4-HMAC-SHA256 {GOOD.replace('20260131', '20260130')}", INVALID, "Date in Credential scope"),
        (f"AWS4-HMAC-SHA256 {GOOD.replace('us-east-1', 'US EAST')}", INVALID, "valid region"),
        (f"AWS4-HMAC-SHA256 {GOOD.replace('host;', '')}", INVALID, "'Host'"),
        (f"AWS4-HMAC-SHA256 {GOOD.replace('host;x', 'Host;x')}", INCOMPLETE, "lower case"),
        (f"AWS4-HMAC-SHA256 {GOOD.replace('host;x', 'x-amz-date;host;x')}", INCOMPLETE, "sorted"),
        (f"AWS4-HMAC-SHA256 {GOOD.replace('host;', 'host;;')}", INCOMPLETE, "sorted"),
        (f"AWS4-HMAC-SHA256 {GOOD}", INVALID, "does not match"),
        (f"AWS4-HMAC-SHA256   {GOOD.replace(', ', ',')}", INVALID, "does not match"),
    ],
)
def test_authorization_headers(authorization: str, aws_code: str, words: str) -> None:
    error = refused(changed(signed(), b"authorization", authorization.encode()))
    assert (code(error), words in error.message) == (aws_code, True), error.message


def test_nothing_shown() -> None:
    request = changed(signed(), b"authorization", None)
    assert not is_signed(request)
    error = refused(request)
    assert (code(error), error.message) == (MISSING, "Missing Authentication Token")


def test_two_authorization_headers() -> None:
    assert code(refused(added(signed(), b"authorization", b"Bearer lmx_another"))) == INCOMPLETE


def test_another_scheme() -> None:
    request = changed(signed(), b"authorization", b"Bearer lmx_a")
    assert not is_signed(request)
    assert code(refused(request)) == INCOMPLETE


def test_presigned_addresses_are_refused() -> None:
    presigned = AWSRequest("GET", "http://127.0.0.1:8080/endpoints/a/invocations")
    SigV4QueryAuth(Credentials(ACCESS_KEY_ID, SECRET), "sagemaker", "us-east-1").add_auth(presigned)
    request, body = on_the_wire(presigned.prepare())
    assert is_signed(request)
    error = refused(request, body)
    assert code(error) == INCOMPLETE
    assert "Presigned" in error.message


@pytest.mark.parametrize(
    "date", [b"yesterday", b"20260131T235960Z", b"20261331T000000Z", b"2026-01-31T23:59:00Z", b"\xff", b"1" * 4000]
)
def test_dates_that_are_none(date: bytes) -> None:
    assert code(refused(changed(signed(), b"x-amz-date", date))) == INCOMPLETE


def test_no_date_at_all() -> None:
    error = refused(changed(signed(), b"x-amz-date", None))
    assert code(error) == INCOMPLETE
    assert "'X-Amz-Date' or a 'Date'" in error.message


def test_the_host_must_arrive() -> None:
    assert code(refused(changed(signed(), b"host", None))) == INVALID


@given(
    authorization=st.binary(max_size=120) | st.text(max_size=120).map("AWS4-HMAC-SHA256 {}".format).map(str.encode),
    date=st.binary(max_size=30),
    target=st.binary(max_size=40),
)
def test_rubbish_is_refused_and_breaks_nothing(authorization: bytes, date: bytes, target: bytes) -> None:
    wire = [(b"authorization", authorization), (b"x-amz-date", date), (b"host", b"h")]
    with pytest.raises(Unauthenticated) as raised:
        read(Asked(b"POST", target, wire, dict(wire)), b"")
    assert raised.value.details["aws_code"] in (INCOMPLETE, INVALID, UNRECOGNIZED)


def test_bearer_keys_and_nothing_are_no_signature() -> None:
    assert not is_signed(asked("POST", "/v1/completions", [("Authorization", "Bearer lmx_x")]))
    assert not is_signed(asked("POST", "/v1/completions?api-version=1", []))
    assert is_signed(asked("POST", "/", [("Authorization", "AWS4-HMAC-SHA256 rubbish")]))


def test_seconds() -> None:
    assert seconds("19700101T000001Z") == 1.0
    for text in ("", "19700101T000001", "١٩٧٠٠١٠١T٠٠٠٠٠١Z", "19700230T000000Z"):
        with pytest.raises(ValueError):
            seconds(text)


def test_what_is_left_of_a_request_holds_no_secret_and_no_body() -> None:
    found = read(signed(body=b"private words"), b"private words")
    assert "private" not in repr(found)
    assert replace(found, single_use=True) != found
