"""Texts of tokens. A byte-level tokenizer stands in for a real one: it says what vLLM would say, by its own rules."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from loramux_serving.relay.dialects.completion_tokens import tokens_of

SCRIPTS = ("日本語のテキスト", "مرحبا بالعالم", "👩‍👩‍👧‍👦 🇺🇳", "e\u0301 क्षि", "plain words", "<|im_end|> said", "�?")
SPECIAL = "<|im_end|>"


def alone(piece: bytes, before: bytes) -> str:
    """As vLLM says a token's own text: with what completes a character, or nothing where one is not whole."""
    text = piece.decode("utf-8", "replace")
    if not text.endswith("\ufffd"):
        return text
    for length in range(1, min(len(before), 12) + 1):
        whole = (before[-length:] + piece).decode("utf-8", "replace")
        if not whole.endswith("\ufffd"):
            return whole.lstrip("\ufffd")[-1:]
    return ""


@st.composite
def cut_texts(draw: st.DrawFn) -> tuple[str, list[bytes | None]]:
    """A text, and its bytes cut into tokens anywhere; None for special tokens between them."""
    text = draw(st.one_of(st.sampled_from(SCRIPTS), st.text(st.characters(exclude_categories=["Cs"]), min_size=1)))
    data = text.encode()
    cuts = sorted({0, len(data), *draw(st.lists(st.integers(1, len(data)), max_size=8))})
    pieces: list[bytes | None] = [data[start:end] for start, end in pairwise(cuts)]
    if draw(st.booleans()):
        pieces.append(None)
    return text, pieces


@given(cut_texts())
def test_texts_of_tokens_joined_are_the_text(case: tuple[str, list[bytes | None]]) -> None:
    text, pieces = case
    before = b""
    own = []
    for piece in pieces:
        own.append(SPECIAL if piece is None else alone(piece, before))
        before += piece or b""
    ids = range(len(pieces))

    tokens = tokens_of(ids, own, [-0.5] * len(pieces), text)

    assert "".join(token.text for token in tokens if not token.special) == text
    assert [token.id for token in tokens] == list(ids)


@given(st.lists(st.text(max_size=6), min_size=1, max_size=8), st.text(max_size=40))
def test_so_they_are_whatever_the_engine_says(own: list[str], text: str) -> None:
    tokens = tokens_of(range(len(own)), own, [None] * len(own), text)

    assert "".join(token.text for token in tokens if not token.special) == text
    assert [token.text for token in tokens if token.special] == [
        text for text, token in zip(own, tokens, strict=True) if token.special
    ]


def texts(own: list[str], text: str) -> list[tuple[str, bool]]:
    return [(token.text, token.special) for token in tokens_of(range(len(own)), own, [-1.0] * len(own), text)]


def test_a_character_comes_with_its_last_token() -> None:
    assert texts(["", "", "日", "本"], "日本") == [("", False), ("", False), ("日", False), ("本", False)]


def test_a_token_that_begins_with_the_end_of_a_character() -> None:
    assert texts([" caf", "", "\ufffd au"], " café au") == [(" caf", False), ("", False), ("é au", False)]


def test_a_token_whose_leading_blank_was_stripped() -> None:
    assert texts(["Hello", " world"], " Hello world") == [(" Hello", False), (" world", False)]


def test_special_tokens_are_no_part_of_the_text() -> None:
    assert texts(["Yes", ".", SPECIAL], "Yes.") == [("Yes", False), (".", False), (SPECIAL, True)]
    assert texts(["Yes", SPECIAL, "No"], "YesNo") == [("Yes", False), (SPECIAL, True), ("No", False)]
    assert texts([SPECIAL], "") == [(SPECIAL, True)]


def test_a_stop_string_that_ends_within_a_token() -> None:
    assert texts([" The", " world"], " The wor") == [(" The", False), (" wor", False)]
