"""Which tier an adapter was in when a request for it was sent."""

from hypothesis import given
from hypothesis import strategies as st

from loramux_bench.record import RequestRecord
from loramux_bench.results.residency import tiers_at_sending
from loramux_bench.run_dir import Sample


def _request(sent_s: float, adapter: str = "pirate", target: str = "loramux") -> RequestRecord:
    return RequestRecord(
        index=0,
        target=target,
        api="openai-chat",
        adapter=adapter,
        sent_s=sent_s,
        end_s=sent_s + 1,
        prompt_tokens_wanted=1,
        output_tokens_wanted=1,
    )


SAMPLES = [
    Sample(at_s=1.0, tiers={"pirate": "disk", "poet": "gpu"}),
    Sample(at_s=2.0),
    Sample(at_s=3.0, tiers={"pirate": "cpu"}),
    Sample(at_s=5.0, tiers={"pirate": "gpu"}),
]


def test_the_last_sample_at_or_before_the_sending_counts() -> None:
    times = (0.5, 1.0, 2.9, 3.0, 4.99, 5.0, 99.0)
    found = tiers_at_sending([_request(sent_s) for sent_s in times], SAMPLES)
    assert found == ["unknown", "disk", "disk", "cpu", "cpu", "gpu", "gpu"]


def test_each_adapter_has_its_own_tier_and_the_base_none() -> None:
    requests = [_request(1.5, "poet"), _request(3.5, "poet"), _request(0.0, "smollm2"), _request(4.0, "smollm2")]
    assert tiers_at_sending(requests, SAMPLES, base="smollm2") == ["gpu", "unknown", "base", "base"]
    assert tiers_at_sending(requests[2:], SAMPLES) == ["unknown", "unknown"]


def test_samples_say_nothing_of_another_endpoint() -> None:
    requests = [_request(4.0, target="bedrock"), _request(4.0)]
    assert tiers_at_sending(requests, SAMPLES, untold={"bedrock"}) == ["unknown", "cpu"]


def test_order_of_samples_does_not_matter_and_nothing_is_known_without_them() -> None:
    assert tiers_at_sending([_request(4.0)], SAMPLES[::-1]) == ["cpu"]
    assert tiers_at_sending([_request(4.0)], [Sample(at_s=0.0)]) == ["unknown"]
    assert tiers_at_sending([], SAMPLES) == []


@given(
    told=st.lists(st.tuples(st.integers(0, 20), st.sampled_from(["gpu", "cpu", "disk"])), unique_by=lambda one: one[0]),
    sent=st.lists(st.integers(0, 20)),
)
def test_it_is_what_going_through_all_samples_finds(told: list[tuple[int, str]], sent: list[int]) -> None:
    samples = [Sample(at_s=float(at_s), tiers={"pirate": tier}) for at_s, tier in told]
    expected = []
    for sent_s in sent:
        tier = "unknown"
        for at_s, seen in sorted(told):
            if at_s <= sent_s:
                tier = seen
        expected.append(tier)
    assert tiers_at_sending([_request(float(sent_s)) for sent_s in sent], samples) == expected
