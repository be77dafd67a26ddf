"""The texts that are asked, made from the lines of a source text.

A prompt is a mark of three words, an instruction, and lines of the source in random order, cut to its length. The mark
differs from request to request, its first word already from one to the next, so that nothing behind it can come from a
prefix cache: else a cache would flatter every prompt after the first, as all share the instruction. It depends on the
target as well, since two targets may lead to one engine.

A length that has no room for the mark, the instruction (some 20 tokens) and a token more is made without the
instruction. Below some 8 tokens the mark is cut too: single words are left, which come again.
"""

import random
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

from loramux_bench.errors import ScenarioError
from loramux_bench.load.tokenizers import Ruler
from loramux_bench.scenario import find_source

OWN_TEXT = Path(__file__).parent / "texts" / "days.txt"

INSTRUCTION = "Do not explain the following text and do not end it, but carry on with more lines in its manner."
"""So that the model has more to say than it is asked for, as LLMPerf's prompts mean it."""

_MARK_WORDS = 3


class Source:
    """Lines to make prompts from, and words to mark them with."""

    def __init__(self, lines: Sequence[str], words: Sequence[str]) -> None:
        """One line at least; `words` are distinct."""
        self.lines = tuple(lines)
        self._words = tuple(words)

    @classmethod
    def load(cls, text: str = "") -> "Source":
        """The lines of this file, else of the bench's own text; empty ones are passed over. Raises `ScenarioError`.

        Marks are always of the own text's words: a file may be in a language that is written without spaces.
        """
        own = _lines(OWN_TEXT)
        words = dict.fromkeys(re.findall(r"\b[a-z]{3,9}\b", "\n".join(own).lower()))
        return cls(_lines(find_source(text)) if text else own, tuple(words))

    def mark(self, number: int) -> str:
        """Three words, and a full stop; another for each of some 10⁸ numbers, and another first word for the next."""
        words = []
        for _ in range(_MARK_WORDS):
            number, digit = divmod(number, len(self._words))
            words.append(self._words[digit])
        return f"{' '.join(words).capitalize()}."

    def sample(self, words: int) -> str:
        """A text of so many words of the source, always the same one: for an endpoint to count, and `fit`."""
        found: list[str] = []
        rng = random.Random("sample")
        while len(found) < words:
            found += rng.choice(self.lines).split()
        return " ".join(found[:words])


def _lines(path: Path) -> list[str]:
    try:
        content = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"The text {path} can not be read: {error}.") from error
    if not (lines := [line.strip() for line in content.splitlines() if line.strip()]):
        raise ScenarioError(f"The text {path} is empty.")
    return lines


class Writer:
    """Writes prompts of wanted lengths."""

    def __init__(self, source: Source, ruler: Ruler) -> None:
        self._source = source
        self._ruler = ruler
        self._lines = tuple((line, max(1, ruler.count(f" {line}"))) for line in source.lines)
        self._instruction_tokens = ruler.count(f" {INSTRUCTION}")

    def write(self, index: int, tokens: int, rng: random.Random, kind: str = "") -> str:
        """A text of so many tokens, by the ruler: with a tokenizer exact, or 1 off where no cut is. `kind` sets the
        marks of one load apart from another's."""
        parts = [self._source.mark(index + zlib.crc32(kind.encode()))]
        left = tokens - self._ruler.count(parts[0])
        if left > self._instruction_tokens:
            parts.append(INSTRUCTION)
            left -= self._instruction_tokens
        line, length = rng.choice(self._lines)
        while length <= left:
            parts.append(line)
            left -= length
            line, length = rng.choice(self._lines)
        last = self._ruler.cut(f" {line}", left).rstrip() if left > 0 else ""
        text = " ".join(parts) + last
        # Most tokenizers count a text as its lines, each with the space before it; of others the whole is cut.
        return text if self._ruler.count(text) == tokens else self._cut([*parts, line], tokens, rng)

    def _cut(self, parts: list[str], tokens: int, rng: random.Random) -> str:
        while (short := tokens - self._ruler.count(" ".join(parts))) > 0:
            while short > 0:
                line, length = rng.choice(self._lines)
                parts.append(line)
                short -= length
        return self._ruler.cut(" ".join(parts), tokens)
