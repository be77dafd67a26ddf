from hypothesis import given
from hypothesis import strategies as st

from loramux_serving.admission.token_bucket import TokenBucket


def test_a_new_bucket_is_full() -> None:
    bucket = TokenBucket(60)
    assert bucket.full(0.0)
    assert bucket.wait_s(60, 0.0) == 0
    bucket.take(60, 0.0)
    assert bucket.wait_s(1, 0.0) > 0


def test_it_fills_evenly() -> None:
    bucket = TokenBucket(60)
    bucket.take(60, 10.0)
    assert bucket.wait_s(1, 10.0) == 1.0
    assert bucket.wait_s(1, 10.25) == 0.75
    assert bucket.wait_s(10, 10.0) == 10.0
    assert not bucket.full(69.9)
    assert bucket.full(70.0)


def test_a_debt_is_waited_for() -> None:
    bucket = TokenBucket(60)
    bucket.take(90, 0.0)
    assert bucket.wait_s(0, 0.0) == 30.0
    assert bucket.wait_s(0, 30.0) == 0
    assert bucket.wait_s(1, 30.0) == 1.0


@given(
    per_minute=st.integers(1, 10_000_000),
    start=st.floats(0, 1e7),
    units=st.integers(0, 1_000_000),
    asked=st.integers(0, 1),
)
def test_after_the_wait_it_is_allowed_and_just_before_not(
    per_minute: int, start: float, units: int, asked: int
) -> None:
    bucket = TokenBucket(per_minute)
    bucket.take(units, start)
    wait_s = bucket.wait_s(asked, start)
    assert bucket.wait_s(asked, start + wait_s) == 0
    if wait_s > 0.001:
        assert bucket.wait_s(asked, start + wait_s - 0.0005) > 0


@given(per_minute=st.integers(1, 1000), gaps=st.lists(st.floats(0, 30), max_size=200))
def test_never_more_than_a_minutes_worth_and_what_flowed_in(per_minute: int, gaps: list[float]) -> None:
    bucket, now, taken = TokenBucket(per_minute), 0.0, 0
    for gap in gaps:
        now += gap
        while taken < 5000 and bucket.wait_s(1, now) == 0:
            bucket.take(1, now)
            taken += 1
        assert taken <= per_minute * (1 + now / 60) + 0.001
