"""The three sets of one adapter.

`train` is learned. `heldout` is made from the same forms with other prompts. `fresh` is written by hand, in words
that no form has, and shows what is left of the skill there.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Example:
    prompt: str
    answer: str
    system: str = ""
    """A message of the operator's before the prompt; without one, the chat template puts its own there."""

    def question(self) -> list[dict[str, str]]:
        """The conversation that `answer` answers."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": self.prompt}]


@dataclass(frozen=True)
class Corpus:
    train: tuple[Example, ...]
    heldout: tuple[Example, ...]
    fresh: tuple[Example, ...]


def split(examples: list[Example], heldout: int, fresh: list[Example]) -> Corpus:
    """The last `heldout` of `examples` are kept out of training; every prompt occurs once in all.

    The order of `examples` is the caller's: shuffle first.
    """
    taken = {example.prompt for example in fresh}
    once: dict[str, Example] = {}
    for example in examples:
        if example.prompt not in taken:
            once.setdefault(example.prompt, example)
    unique = tuple(once.values())
    return Corpus(train=unique[:-heldout], heldout=unique[-heldout:], fresh=tuple(fresh))


def write(corpus: Corpus, folder: Path) -> None:
    """`folder/{train,heldout,fresh}.jsonl`, one example a line."""
    folder.mkdir(parents=True, exist_ok=True)
    for field in fields(corpus):
        lines = (json.dumps(_fields(example), ensure_ascii=False) for example in getattr(corpus, field.name))
        (folder / f"{field.name}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _fields(example: Example) -> dict[str, str]:
    return {name: value for name, value in asdict(example).items() if value}


def read(folder: Path) -> Corpus:
    """What `write` wrote."""

    def examples(name: str) -> tuple[Example, ...]:
        lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        return tuple(Example(**json.loads(line)) for line in lines)

    return Corpus(examples("train"), examples("heldout"), examples("fresh"))
