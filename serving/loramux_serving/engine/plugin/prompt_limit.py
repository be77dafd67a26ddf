"""A limit for prompts of its own, where vLLM knows only one for prompt and answer together.

vLLM checks the length of each prompt where it is tokenized, before it answers anything (`TokenizeParams` of
`vllm/renderers/params.py`, seen in 0.32), so a prompt that is too long is refused with 400 in streams too.
"""

import importlib
from collections.abc import Callable
from typing import Any

LIMIT = "LORAMUX_MAX_PROMPT_TOKENS"
"""Tokens, in the environment; unset or 0: none."""


def limit_prompts(limit: int) -> bool:
    """Prompts with more than `limit` tokens are refused by this process from now on, where vLLM would take them. False:
    this vLLM checks in another way, and nothing was changed."""
    try:
        params: Any = importlib.import_module("vllm.renderers.params")
        asked = params.TokenizeParams
        error = params.VLLMValidationError
        longest = asked.max_input_tokens.fget
        checks = {name: getattr(asked, name) for name in ("_text_len_check", "_token_len_check")}
    except (ImportError, AttributeError):
        return False

    def max_input_tokens(self: Any) -> int:
        own = longest(self)
        return limit if own is None else min(own, limit)

    def saying_so(check: Callable[..., Any]) -> Callable[..., Any]:
        def checked(self: Any, tokenizer: Any, prompt: Any) -> Any:
            try:
                return check(self, tokenizer, prompt)
            except error as refusal:
                own = longest(self)
                if own is not None and own <= limit:
                    raise
                raise error(
                    f"The prompt is too long: at most {limit} tokens are allowed. Please shorten it.",
                    parameter=refusal.parameter,
                    value=refusal.value,
                ) from refusal

        return checked

    asked.max_input_tokens = property(max_input_tokens)
    for name, check in checks.items():
        setattr(asked, name, saying_so(check))
    return True
