"""Settings that the environment gives as text."""

import pytest

from loramux_adapters.errors import SettingsInvalid
from loramux_serving.settings import load


def test_the_largest_rank_can_be_given_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAMUX_ENGINE__MAX_LORA_RANK", "64")
    assert load().engine.max_lora_rank == 64


@pytest.mark.parametrize("text", ["7", "-8", "many"])
def test_a_rank_that_no_engine_takes_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("LORAMUX_ENGINE__MAX_LORA_RANK", text)
    with pytest.raises(SettingsInvalid, match=r"engine\.max_lora_rank"):
        load()
