"""When a signature is good, and how often."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from loramux_adapters.errors import Unauthenticated
from loramux_serving.auth.seen_signatures import SeenSignatures
from loramux_serving.auth.sigv4 import INVALID, TIMESTAMP, read, seconds
from loramux_serving.auth.verifier import Verifier
from loramux_serving.relay.signed_request import SignedRequest
from tests.fakes.clock import FakeClock
from tests.fakes.signed_requests import NOW, SECRET, signed

SKEW_S = 300.0


def request(timestamp: str = NOW, number: int = 0, *, single_use: bool = True) -> SignedRequest:
    headers = {"amz-sdk-invocation-id": str(number)} if single_use else {"X-Custom": str(number)}
    return read(signed(headers=headers, timestamp=timestamp), b"{}")


def verifier(clock: FakeClock, max_remembered: int = 1000) -> Verifier:
    return Verifier(clock, clock_skew_s=SKEW_S, max_remembered=max_remembered)


def refusal(of: Verifier, signed_request: SignedRequest, secret: str = SECRET) -> str:
    with pytest.raises(Unauthenticated) as raised:
        of.verify(signed_request, secret)
    assert raised.value.details == {"aws_code": INVALID}
    return raised.value.message


@pytest.mark.parametrize("off_s", [-SKEW_S, -1.0, 0.0, 1.0, SKEW_S])
def test_a_clock_that_is_near_enough(off_s: float) -> None:
    verifier(FakeClock(now=seconds(NOW) + off_s)).verify(request(), SECRET)


def test_a_signature_that_is_too_old_says_by_how_much() -> None:
    message = refusal(verifier(FakeClock(now=seconds(NOW) + SKEW_S + 1)), request())
    assert message == (
        "Signature expired: 20260131T235900Z is now earlier than 20260131T235901Z (20260201T000401Z - 300 s)."
    )


def test_a_signature_from_the_future() -> None:
    message = refusal(verifier(FakeClock(now=seconds(NOW) - SKEW_S - 1)), request())
    assert message == (
        "Signature not yet current: 20260131T235900Z is still later than 20260131T235859Z (20260131T235359Z + 300 s)."
    )


def test_another_secret() -> None:
    assert "does not match the signature you provided" in refusal(
        verifier(FakeClock(now=seconds(NOW))), request(), "another"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"signature": "0" * 64},
        {"scope": "20260131/eu-west-1/sagemaker/aws4_request"},
        {"scope": "20260130/us-east-1/sagemaker/aws4_request"},
        {"string_to_sign": "AWS4-HMAC-SHA256"},
    ],
)
def test_no_part_can_be_changed(change: dict[str, str]) -> None:
    assert "does not match" in refusal(verifier(FakeClock(now=seconds(NOW))), replace(request(), **change))


def test_a_signature_for_one_use_passes_once() -> None:
    clock = FakeClock(now=seconds(NOW))
    of = verifier(clock)
    of.verify(request(number=1), SECRET)
    of.verify(request(number=2), SECRET)
    for _ in range(3):
        assert "has come before" in refusal(of, request(number=1))
        clock.advance(99)
    clock.advance(4)
    assert "expired" in refusal(of, request(number=1))


def test_one_that_was_signed_ahead_of_time_passes_once_for_as_long_as_it_is_good() -> None:
    clock = FakeClock(now=seconds(NOW) - SKEW_S)
    of = verifier(clock)
    of.verify(request(), SECRET)
    clock.advance(2 * SKEW_S)
    assert "has come before" in refusal(of, request())


def test_a_wrong_signature_uses_nothing_up() -> None:
    of = verifier(FakeClock(now=seconds(NOW)))
    refusal(of, request(), "another")
    of.verify(request(), SECRET)


def test_one_without_a_number_may_come_again_while_it_is_good() -> None:
    """As botocore's do: two equal requests of one second have one signature."""
    clock = FakeClock(now=seconds(NOW))
    of = verifier(clock)
    for _ in range(3):
        of.verify(request(single_use=False), SECRET)
    clock.advance(SKEW_S + 1)
    assert "expired" in refusal(of, request(single_use=False))


def test_a_clock_that_steps_back_is_no_way_to_pass_twice() -> None:
    clock = FakeClock(now=seconds(NOW))
    of = verifier(clock)
    of.verify(request(), SECRET)
    clock.advance(10)
    of.verify(request(number=1), SECRET)
    clock._now -= 60
    assert "has come before" in refusal(of, request())


def test_what_is_forgotten_early_is_too_old_from_then_on() -> None:
    clock = FakeClock(now=seconds(NOW) + 10)
    of = verifier(clock, max_remembered=4)
    early = [request(number=number) for number in range(3)]
    later = [request("20260131T235905Z", number) for number in range(3)]
    for each in (*early, *later):
        of.verify(each, SECRET)
    for each in early:
        assert "more requests than can be remembered" in refusal(of, each)
    assert "more requests" in refusal(of, request(number=99))
    for each in later:
        assert "has come before" in refusal(of, each)


# --- what is remembered ---


def test_nobody_is_made_to_forget_by_another() -> None:
    seen = SeenSignatures(10)
    assert seen.use("quiet", 5, f"{1:064x}"[::-1])
    for number in range(100):
        assert seen.use("busy", 1000 + number, f"{number:016x}" + "0" * 48)
        assert len(seen) <= 10
    assert not seen.is_too_old("quiet", 5)
    assert not seen.use("quiet", 5, f"{1:064x}"[::-1])
    assert seen.is_too_old("busy", 1000)
    assert not seen.is_too_old("busy", 1099)


SIGNATURES = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 5), st.integers(0, 8), st.integers(0, 3)), max_size=60
)


@given(SIGNATURES, st.integers(1, 8))
def test_nothing_passes_twice_while_it_counts(uses: list[tuple[str, int, int, int]], capacity: int) -> None:
    """Against a memory that forgets nothing; time goes on by the last number of each use."""
    seen, ever, now = SeenSignatures(capacity), set(), 0
    for key, second, number, passing in uses:
        now += passing
        oldest = now - 3
        seen.forget_before(oldest)
        if second < oldest or seen.is_too_old(key, second):
            continue
        use = (key, second, f"{number:016x}" + "0" * 48)
        assert seen.use(*use) == (use not in ever)
        ever.add(use)
        assert len(seen) <= capacity


def test_all_is_forgotten_in_time() -> None:
    seen = SeenSignatures(4)
    for second in range(10):
        seen.use("key", second, f"{second:016x}")
    seen.forget_before(100)
    assert len(seen) == 0
    assert not seen.is_too_old("key", 3)


def test_the_written_times_are_read_again() -> None:
    assert TIMESTAMP == "%Y%m%dT%H%M%SZ"
    assert seconds(NOW) == 1769903940.0
