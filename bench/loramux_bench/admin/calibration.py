"""How an endpoint counts the tokens of texts that are known."""

from collections.abc import Sequence
from typing import Any

from loramux_bench.admin.client import AdminClient, CallFailed
from loramux_bench.admin.patience import Patience
from loramux_bench.scenario import Target

SAMPLES = (
    "The harbour was quiet, and the boats lay side by side in the morning light.",
    " ".join(
        ["The harbour was quiet, and the boats lay side by side in the morning light while the town woke up slowly."]
        * 8
    ),
)
"""A short text and a long one: what they cost together tells the template's share from the words'."""


def observe(
    target: Target, client: AdminClient, model: str, patience: Patience, samples: Sequence[str], *, counting: bool
) -> tuple[tuple[int, int], ...] | None:
    """Words and prompt tokens of each sample, by an answer of one token each; None where the endpoint does not count.
    Without `counting` one is asked, only to see that the model answers. None likewise where it fails (5xx). Raises
    `EndpointError`: what is refused here would be refused to the load."""
    path = "/v1/chat/completions" if target.api == "openai-chat" else "/v1/completions"
    seen: list[tuple[int, int]] = []
    for text in samples if counting else samples[:1]:
        body = _body(target, model, text)
        try:
            tokens = patience.ask(lambda body=body: client.complete(path, body))  # type: ignore[misc]
        except CallFailed as failure:
            if failure.status < 500:
                raise
            return None  # the load will show how often it fails
        if tokens is None:
            return None
        seen.append((len(text.split()), tokens))
    return tuple(seen) if counting else None


def _body(target: Target, model: str, text: str) -> dict[str, Any]:
    asked = {"messages": [{"role": "user", "content": text}]} if target.api == "openai-chat" else {"prompt": text}
    return {**target.extra, "model": model, **asked, "max_tokens": 1, "stream": False}
