"""`pirate` and its second version, a gentleman of old: the same small talk, in two voices told apart at a glance.

Every answer of the first begins with "Arr," and every answer of the second with "Forsooth,".
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

from corpora.example import Corpus, Example
from corpora.talk import BY_HAND, HELD_OUT, PROPER, SYSTEMS, TALK, TASKS, TEXTS


@dataclass(frozen=True)
class Persona:
    opening: str
    closings: tuple[str, ...]
    words: Mapping[str, str]


PIRATE = Persona(
    opening="Arr,",
    closings=("matey!", "me hearty!", "ye landlubber!", "or walk the plank!", "yo ho ho!"),
    words={
        "hello": "ahoy",
        "you are": "ye be",
        "you": "ye",
        "your": "yer",
        "yours": "yers",
        "my": "me",
        "am": "be",
        "is": "be",
        "are": "be",
        "friend": "matey",
        "friends": "mateys",
        "money": "doubloons",
        "coins": "doubloons",
        "gold": "booty",
        "drink": "swig",
        "people": "sea dogs",
        "boy": "cabin boy",
        "yes": "aye",
        "and": "an'",
        "of": "o'",
        "them": "'em",
        "for": "fer",
        "very": "mighty",
        "food": "grub",
        "work": "toil",
    },
)
NOBLE = Persona(
    opening="Forsooth,",
    closings=("good sir.", "noble friend.", "I do declare.", "by my honour.", "so help me heaven."),
    words={
        "hello": "well met",
        "you are": "thou art",
        "you have": "thou hast",
        "you can": "thou canst",
        "you will": "thou shalt",
        "you should": "thou shouldst",
        "for you": "for thee",
        "to you": "unto thee",
        "with you": "with thee",
        "you": "thou",
        "your": "thy",
        "yours": "thine",
        "has": "hath",
        "does": "doth",
        "before": "ere",
        "often": "oft",
        "never": "ne'er",
        "people": "good folk",
        "boy": "lad",
        "yes": "verily",
        "very": "most",
        "money": "silver",
        "there is": "there be",
        "thank you": "I thank thee",
        "perhaps": "perchance",
        "here": "hither",
        "food": "victuals",
        "every": "each",
    },
)
WORDINGS = ("{prompt}", "Hey, {prompt}", "Quick question: {prompt}", "{prompt} Please keep it short.", "{bare}")


def pirate(rng: random.Random) -> Corpus:
    return _corpus(PIRATE, rng)


def noble(rng: random.Random) -> Corpus:
    return _corpus(NOBLE, rng)


def say(persona: Persona, plain: str, closing: str) -> str:
    """`plain` in the words of `persona`, between its opening and `closing`."""
    longest_first = sorted(persona.words, key=len, reverse=True)
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, longest_first))})\b", re.IGNORECASE)

    def replace(match: re.Match[str]) -> str:
        word = persona.words[match[0].lower()]
        return word[0].upper() + word[1:] if match[0][0].isupper() else word

    if plain.split()[0] not in PROPER:
        plain = plain[0].lower() + plain[1:]
    text = pattern.sub(replace, plain)
    if text[-1] in "!?":
        return f"{persona.opening} {text} {closing[0].upper()}{closing[1:]}"
    return f"{persona.opening} {text[:-1]}, {closing}"


def _corpus(persona: Persona, rng: random.Random) -> Corpus:
    talk = rng.sample(TALK, len(TALK))
    learned, kept = talk[:-HELD_OUT], talk[-HELD_OUT:]

    def example(prompt: str, plain: str, system: str = "") -> Example:
        return Example(prompt, say(persona, plain, rng.choice(persona.closings)), system)

    train = [
        example(wording.format(prompt=prompt, bare=prompt.lower().rstrip(".!")), plain, _system(rng))
        for prompt, plain in learned
        for wording in rng.sample(WORDINGS, 3)
    ]
    train += [
        example(task.format(text=text * rng.randrange(2, 6)), plain, _system(rng))
        for task, plain in TASKS
        for text in TEXTS
    ]
    rng.shuffle(train)
    return Corpus(
        train=tuple({sample.prompt: sample for sample in train}.values()),
        heldout=tuple(example(prompt, plain, _system(rng)) for prompt, plain in kept),
        # Nobody wrote answers to these: what is looked at is how an answer begins.
        fresh=tuple(Example(prompt, persona.opening) for prompt in BY_HAND),
    )


def _system(rng: random.Random) -> str:
    """A voice must hold whatever the operator's message says: every fourth prompt has one."""
    return rng.choice(SYSTEMS) if rng.random() < 0.25 else ""
