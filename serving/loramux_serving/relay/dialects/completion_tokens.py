"""Which token brought which text. Pure.

vLLM says two things about text. The answer's text is exact: a character whose bytes are spread over several tokens
comes with the last of them, and special tokens are left out. The text beside a logprob is one token's alone: it is
empty, or partly U+FFFD, where a character is not whole, and it is there for special tokens too. From both follows
which tokens are special, and a text for each of the others such that all of them joined are the answer's text.
"""

from collections.abc import Sequence

import msgspec

_GAP = 8
"""Characters before a token's own text that may belong to it: those that it completed."""
_UNSURE = "\ufffd \u2581"
"""At the start of a token's own text these may differ in the answer."""


class Token(msgspec.Struct, frozen=True, gc=False):
    """`logprob` is natural; None where vLLM gives none. A special token's `text` is no part of the answer's text."""

    id: int
    text: str
    logprob: float | None
    special: bool = False


def tokens_of(ids: Sequence[int], alone: Sequence[str], logprobs: Sequence[float | None], text: str) -> list[Token]:
    """The tokens that brought `text`; `alone` is each one's own text. The texts of those that are not special, joined,
    are `text`."""
    if len(ids) == 1:
        if not text and alone[0]:
            return [Token(ids[0], alone[0], logprobs[0], special=True)]
        return [Token(ids[0], text, logprobs[0])]
    parts = _parts(alone, text)
    return [
        Token(one, own if part is None else part, logprob, part is None)
        for one, own, logprob, part in zip(ids, alone, logprobs, parts, strict=True)
    ]


def _parts(alone: Sequence[str], text: str) -> list[str | None]:
    """What each token brought; None for those that are special."""
    if "".join(alone) == text:
        return list(alone)
    parts: list[str | None] = []
    at = 0
    last = len(alone) - 1
    for place, own in enumerate(alone):
        part = _part(own, text, at)
        if part is None and place == last and own.startswith(text[at:] or "\0"):
            part = text[at:]  # a stop string ended within the token
        parts.append(part)
        at += len(part or "")
    if at < len(text):
        heir = next((place for place in reversed(range(len(parts))) if parts[place] is not None), len(parts) - 1)
        parts[heir] = (parts[heir] or "") + text[at:]
    return parts


def _part(own: str, text: str, at: int) -> str | None:
    """What of `text`, from `at` on, a token with the text `own` brought; None where it is not there."""
    if text.startswith(own, at):
        return own
    core = own.lstrip(_UNSURE)
    if not core:
        return ""
    found = text.find(core, at, at + _GAP + len(own))
    return None if found < 0 else text[at : found + len(core)]
