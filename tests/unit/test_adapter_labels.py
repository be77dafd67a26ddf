from hypothesis import given
from hypothesis import strategies as st

from loramux_serving.telemetry.adapter_labels import NONE, OTHER, AdapterLabels


def test_the_first_keep_their_own_and_the_rest_share_one() -> None:
    labels = AdapterLabels(2)
    assert [labels.label(name) for name in ("a", "b", "c", "a", "d")] == ["a", "b", OTHER, "a", OTHER]


def test_what_is_forgotten_sets_a_label_free() -> None:
    labels = AdapterLabels(1)
    assert [labels.label("a"), labels.label("b")] == ["a", OTHER]
    assert labels.forget("a")
    assert [labels.label("b"), labels.label("a")] == ["b", OTHER]
    assert not labels.forget("a")


def test_the_base_has_its_label_besides() -> None:
    labels = AdapterLabels(1, always=["base"])
    assert [labels.label(name) for name in ("a", "base", "b")] == ["a", "base", OTHER]
    assert not labels.forget("base")
    assert labels.own() == {"a"}


def test_an_adapter_called_other_shares_the_label() -> None:
    labels = AdapterLabels(5, always=[OTHER])
    assert labels.label(OTHER) == OTHER
    assert not labels.forget(OTHER)
    assert labels.own() == frozenset()


def test_no_adapter_has_the_empty_label() -> None:
    assert AdapterLabels(1).label(None) == NONE == ""


@given(
    max_adapters=st.integers(1, 5), steps=st.lists(st.tuples(st.booleans(), st.sampled_from("abcdefgh")), max_size=60)
)
def test_labels_are_bounded_and_stay(max_adapters: int, steps: list[tuple[bool, str]]) -> None:
    labels = AdapterLabels(max_adapters)
    held: set[str] = set()
    for forget, name in steps:
        if forget:
            assert labels.forget(name) == (name in held)
            held.discard(name)
            continue
        label = labels.label(name)
        assert label in (name, OTHER)
        assert (label == name) == (name in held or len(held) < max_adapters)
        if label == name:
            held.add(name)
        assert labels.own() == held
        assert len(held) <= max_adapters
