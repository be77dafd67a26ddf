"""Prompts with a limit of their own, in vLLM's own check of their length."""

from types import SimpleNamespace
from typing import Any

import pytest
import vllm.renderers.params
from vllm.exceptions import VLLMValidationError
from vllm.renderers.params import TokenizeParams

from loramux_serving.engine.plugin.prompt_limit import limit_prompts

TOKENIZER: Any = SimpleNamespace(max_chars_per_token=8, truncation_side="right")
_CHANGED = ("max_input_tokens", "_text_len_check", "_token_len_check")


@pytest.fixture(autouse=True)
def put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _CHANGED:
        monkeypatch.setattr(TokenizeParams, name, vars(TokenizeParams)[name])


def tokens(params: TokenizeParams, count: int) -> int:
    return len(params.apply_post_tokenization(TOKENIZER, {"prompt_token_ids": [1] * count})["prompt_token_ids"])


def test_a_prompt_up_to_the_limit_passes_and_a_longer_one_is_refused() -> None:
    assert limit_prompts(16)
    params = TokenizeParams(max_total_tokens=64, max_output_tokens=8)

    assert tokens(params, 16) == 16
    with pytest.raises(VLLMValidationError, match="too long: at most 16 tokens are allowed") as refused:
        tokens(params, 17)
    assert (refused.value.parameter, refused.value.value) == ("input_tokens", 17)


def test_a_text_that_can_not_fit_is_refused_before_it_is_tokenized() -> None:
    assert limit_prompts(16)
    params = TokenizeParams(max_total_tokens=64)

    assert params.apply_pre_tokenization(TOKENIZER, {"prompt": "a" * 128})["prompt"] == "a" * 128
    with pytest.raises(VLLMValidationError, match="at most 16 tokens"):
        params.apply_pre_tokenization(TOKENIZER, {"prompt": "a" * 129})


def test_truncation_stays_below_it() -> None:
    assert limit_prompts(16)

    assert tokens(TokenizeParams(max_total_tokens=64, truncate_prompt_tokens=-1), 40) == 16
    with pytest.raises(VLLMValidationError, match="truncate_prompt_tokens=32"):
        TokenizeParams(max_total_tokens=64, truncate_prompt_tokens=32)


def test_where_the_context_is_shorter_vllm_says_so_itself() -> None:
    assert limit_prompts(128)
    with pytest.raises(VLLMValidationError, match="maximum context length is 64"):
        tokens(TokenizeParams(max_total_tokens=64), 65)


def test_a_vllm_that_checks_in_another_way_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(vllm.renderers.params.TokenizeParams, "_token_len_check")
    before = TokenizeParams.max_input_tokens

    assert limit_prompts(16) is False
    assert TokenizeParams.max_input_tokens is before
