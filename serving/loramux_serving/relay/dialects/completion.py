"""How vLLM's `/v1/completions` is asked, from generation parameters that belong to no interface. Pure.

Everything that vLLM would otherwise take from the model's `generation_config.json` is said, so that an absent
parameter means what the caller's interface says that it means. A vLLM that does not know one of the fields ignores it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

COMPLETIONS = "/v1/completions"


class Sampling(msgspec.Struct, frozen=True, gc=False):
    """How a token is chosen. The defaults change nothing; `GREEDY` takes the likeliest."""

    temperature: float = 1.0
    """0 is greedy."""
    top_k: int = 0
    """0: all of them."""
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    """64 bits, with a sign or without. With several sequences the nth has `seed` + n."""


GREEDY = Sampling(temperature=0.0)


class Generation(msgspec.Struct, frozen=True):
    """One prompt, and what is wanted of it."""

    prompt: str
    max_new_tokens: int
    """vLLM ends earlier where its context is full, and refuses more than a whole context."""
    sampling: Sampling = Sampling()
    sequences: int = 1
    """More than one is drawn from the same prompt; not for streams."""
    stop: Sequence[str] = ()
    keep_stop: bool = True
    """The stop string stays at the end of the text. Without it, vLLM holds back text that could become one."""
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    truncate: int | None = None
    """Only this many tokens of the prompt's end are used."""
    add_special_tokens: bool = True
    """As the tokenizer does with a prompt: its first token, for the most part."""
    skip_special_tokens: bool = True
    """Special tokens are no text."""
    grammar: Mapping[str, Any] | None = None
    """vLLM's `structured_outputs`: one of `json`, `regex`, `choice`, `grammar`."""
    tokens: bool = False
    """The answer names each token; else its text alone comes, which costs vLLM less."""
    prompt_tokens: bool = False
    """It names those of the prompt too; not for streams."""
    stream: bool = False
    further: Mapping[str, Any] = {}
    """Fields of vLLM's, over all others."""


def completion_body(generation: Generation, model: str) -> bytes:
    """The request's body; `model` is the name at the engine."""
    sampling = generation.sampling
    fields: dict[str, Any] = {
        "model": model,
        "prompt": generation.prompt,
        "max_tokens": generation.max_new_tokens,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "skip_special_tokens": generation.skip_special_tokens,
    }
    if sampling.seed is not None:
        fields["seed"] = _signed_seed(sampling.seed)
    if generation.sequences > 1:
        fields["n"] = generation.sequences
    if generation.stop:
        fields["stop"] = list(generation.stop)
    if generation.stop_token_ids:
        fields["stop_token_ids"] = list(generation.stop_token_ids)
    if generation.keep_stop:
        fields["include_stop_str_in_output"] = True
    if generation.ignore_eos:
        fields["ignore_eos"] = True
    if generation.truncate is not None:
        fields |= {"truncate_prompt_tokens": generation.truncate, "truncation_side": "left"}
    if not generation.add_special_tokens:
        fields["add_special_tokens"] = False
    if generation.grammar is not None:
        fields["structured_outputs"] = dict(generation.grammar)
    if generation.tokens or generation.prompt_tokens:
        # No alternatives: the logprob of what was chosen is always there.
        fields |= {"logprobs": 0, "return_token_ids": True, "return_tokens_as_token_ids": False}
    if generation.prompt_tokens:
        # With `prompt_logprobs` alone the first token of the prompt has no text.
        fields["echo"] = True
    if generation.stream:
        fields |= {"stream": True, "stream_options": {"include_usage": True}}
    return msgspec.json.encode(fields | dict(generation.further))


def _signed_seed(seed: int) -> int:
    """vLLM takes 64 bits with a sign, and -1 as none."""
    return seed if -(2**63) <= seed < 2**63 and seed != -1 else seed % 2**63
