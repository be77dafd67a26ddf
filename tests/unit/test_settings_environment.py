"""Settings that the environment gives as text."""

import pytest

from loramux_adapters.errors import SettingsInvalid
from loramux_serving.settings_sources import load


def test_the_largest_rank_can_be_given_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAMUX_ENGINE__MAX_LORA_RANK", "64")
    assert load().settings.engine.max_lora_rank == 64


@pytest.mark.parametrize("text", ["7", "-8", "many"])
def test_a_rank_that_no_engine_takes_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("LORAMUX_ENGINE__MAX_LORA_RANK", text)
    with pytest.raises(SettingsInvalid, match=r"engine\.max_lora_rank"):
        load()


@pytest.mark.parametrize(
    ("variables", "most", "first"),
    [
        ({}, 1, 1),
        ({"REPLICAS": "4"}, 4, 4),
        ({"REPLICAS": "4", "START_REPLICAS": "0"}, 4, 0),
        ({"URLS": "http://one,http://two"}, 2, 2),
        ({"URLS": "http://one,http://two", "START_REPLICAS": "1"}, 2, 1),
    ],
)
def test_how_many_replicas_run_at_most_and_at_first(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], most: int, first: int
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"LORAMUX_ENGINE__{name}", value)
    engine = load().settings.engine
    assert (engine.most_replicas, engine.first_replicas) == (most, first)


def test_no_more_can_run_at_first_than_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAMUX_ENGINE__START_REPLICAS", "2")
    with pytest.raises(SettingsInvalid, match="start_replicas \\(2\\) is over"):
        load()
