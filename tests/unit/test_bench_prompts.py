"""Prompts have the lengths that were asked for: by words, and by tokenizers of two families, made here from the bench's
own text."""

import random
import re
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from loramux_bench.errors import EndpointError, ScenarioError
from loramux_bench.load.prompts import INSTRUCTION, OWN_TEXT, Source, Writer
from loramux_bench.load.tokenizers import TOKENS_PER_WORD, Calibration, Ruler, Tokenizer, fit, ruler_for
from loramux_bench.scenario import Prompts

OWN = OWN_TEXT.read_text("utf-8").splitlines()


def byte_level() -> tokenizers.Tokenizer:
    """As SmolLM2, Llama 3 and Qwen have it: no token reaches over the space before a word."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>"]
    made.train_from_iterator(
        OWN, trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False, special_tokens=special)
    )
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return made


def sentence_piece() -> tokenizers.Tokenizer:
    """As Llama 2 and Mistral have it: a mark before the text and for each space, and tokens that reach over words."""
    made = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.train_from_iterator(OWN, trainers.BpeTrainer(vocab_size=900, show_progress=False, special_tokens=["<unk>"]))
    return made


BYTE_LEVEL = Tokenizer.parse(byte_level().to_str(), "tokenizer.json")


@pytest.fixture(scope="module", params=[byte_level, sentence_piece])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    make: Callable[[], tokenizers.Tokenizer] = request.param
    return Tokenizer.parse(make().to_str(), "tokenizer.json")


@pytest.fixture(scope="module")
def source() -> Source:
    return Source.load()


def written(source: Source, ruler: Ruler, tokens: int, count: int = 40, kind: str = "") -> list[str]:
    writer = Writer(source, ruler)
    return [writer.write(index, tokens, random.Random(index), kind) for index in range(count)]


def test_the_own_text_is_long_enough_and_no_line_comes_twice() -> None:
    assert len(OWN) == len(set(OWN)) >= 150
    assert all(line == line.strip() and line for line in OWN)


@pytest.mark.parametrize("tokens", [1, 2, 7, 16, 31, 48, 64, 200, 550])
def test_with_a_tokenizer_lengths_are_exact_to_a_token(source: Source, tokenizer: Tokenizer, tokens: int) -> None:
    counts = [tokenizer.count(text) for text in written(source, tokenizer, tokens)]
    assert all(abs(count - tokens) <= 1 for count in counts)
    assert statistics.mode(counts) == tokens


def test_no_space_hangs_on_a_prompts_ends(source: Source, tokenizer: Tokenizer) -> None:
    """A chat template would take it off, and the endpoint would count less."""
    assert all(text == text.strip() for tokens in (5, 40, 300) for text in written(source, tokenizer, tokens))


@pytest.mark.parametrize("tokens", [20, 64, 500])
def test_by_calibration_lengths_are_right_on_average(source: Source, tokens: int) -> None:
    """A tokenizer plays the endpoint, with a chat template of 31 tokens."""
    ruler = fit([(len(text.split()), BYTE_LEVEL.count(text) + 31) for text in map(source.sample, (10, 150))])
    assert ruler.overhead_tokens == pytest.approx(31, abs=5)
    counts = [BYTE_LEVEL.count(text) for text in written(source, ruler, tokens, count=200)]
    assert statistics.fmean(counts) == pytest.approx(tokens, rel=0.12)


@pytest.mark.parametrize("tokens", [8, 12, 64, 500])
def test_every_prompt_differs_at_its_beginning(source: Source, tokenizer: Tokenizer, tokens: int) -> None:
    texts = written(source, tokenizer, tokens, count=300)
    assert len({text[:6] for text in texts[:200]}) > 100
    assert len({text[:14] for text in texts}) == 300


def test_marks_do_not_come_again(source: Source) -> None:
    marks = [source.mark(number) for number in range(5_000)]
    assert len(set(marks)) == 5_000
    assert all(re.fullmatch(r"[A-Z][a-z]+ [a-z]+ [a-z]+\.", mark) for mark in marks)
    firsts = [mark.split()[0] for mark in marks[:300]]
    assert len(set(firsts)) == 300


def test_loads_of_one_source_have_marks_of_their_own(source: Source) -> None:
    one, other = (written(source, Calibration(), 64, kind=kind) for kind in ("1/left", "1/right"))
    marked = {text.split(".")[0] for text in one}
    assert marked.isdisjoint(text.split(".")[0] for text in other)
    # And the same text after it.
    assert [text.partition(". ")[2] for text in one] == [text.partition(". ")[2] for text in other]


def test_the_instruction_is_there_from_a_certain_length_on(source: Source, tokenizer: Tokenizer) -> None:
    room = tokenizer.count(f"{source.mark(0)} {INSTRUCTION}")
    for text in written(source, tokenizer, room + 12):
        assert text.split(". ", 1)[1].startswith(INSTRUCTION)
    for text in written(source, tokenizer, room - 12):
        assert INSTRUCTION[:12] not in text


def test_the_same_again_and_something_else_by_another_stream(source: Source) -> None:
    writer = Writer(source, Calibration())
    assert writer.write(3, 80, random.Random(1)) == writer.write(3, 80, random.Random(1))
    assert writer.write(3, 80, random.Random(1)) != writer.write(3, 80, random.Random(2))


def test_prompts_from_a_file_of_any_language(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "text.txt"
    path.write_text("  Größe über alles, naïve Straßen.  \n\nДва брата чинят одну сеть.\n船は朝に出る。🙂🙂\n", "utf-8")
    source = Source.load(str(path))
    assert source.lines == ("Größe über alles, naïve Straßen.", "Два брата чинят одну сеть.", "船は朝に出る。🙂🙂")
    counts = [tokenizer.count(text) for text in written(source, tokenizer, 120)]
    # A character can be of four tokens or more; between them there is no cut.
    assert all(abs(count - 120) <= 3 for count in counts)


def test_texts_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="not there"):
        Source.load(str(tmp_path / "absent.txt"))
    (tmp_path / "empty.txt").write_text(" \n\n")
    with pytest.raises(ScenarioError, match="empty"):
        Source.load(str(tmp_path / "empty.txt"))
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ScenarioError, match="can not be read"):
        Source.load(str(tmp_path / "bytes.txt"))
    with pytest.raises(ScenarioError, match="can not be read"):
        Source.load(str(tmp_path))


def test_a_tokenizer_from_a_file_or_its_directory(tmp_path: Path, tokenizer: Tokenizer) -> None:
    made = byte_level()
    made.enable_truncation(4)
    made.enable_padding(length=16)
    made.save(str(tmp_path / "tokenizer.json"))
    for place in (tmp_path, tmp_path / "tokenizer.json"):
        ruler = ruler_for(Prompts(tokenizer=str(place)), [(1, 1)])
        assert isinstance(ruler, Tokenizer)
        # Neither cut to 4, nor filled to 16, nor with the token that begins every text.
        assert ruler.count(OWN[0]) == len(byte_level().encode(OWN[0], add_special_tokens=False)) not in (4, 16)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"model": {"type": "Odd"}}'])
def test_files_that_hold_no_tokenizer(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ScenarioError, match="tokenizer"):
        Tokenizer.load(str(tmp_path))


def test_a_tokenizer_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="can not be read"):
        Tokenizer.load(str(tmp_path))
    with pytest.raises(ScenarioError, match="not there"):
        Tokenizer.load(str(tmp_path / "absent"))


@given(text=st.text(max_size=60), tokens=st.integers(1, 30))
def test_a_cut_is_a_beginning(text: str, tokens: int) -> None:
    for ruler in (BYTE_LEVEL, Calibration(1.3)):
        cut = ruler.cut(text, tokens)
        assert text.startswith(cut)
        if cut != text:
            assert cut
            assert ruler.count(cut) <= tokens + 4


@given(
    slope=st.floats(0.5, 5), overhead=st.integers(0, 100), words=st.sets(st.integers(10, 900), min_size=2, max_size=6)
)
def test_what_was_put_in_is_fitted(slope: float, overhead: int, words: set[int]) -> None:
    if max(words) - min(words) < 100:
        words.add(max(words) + 100)
    found = fit([(count, round(slope * count) + overhead) for count in words])
    assert found.tokens_per_word == pytest.approx(slope, abs=0.02)
    assert found.overhead_tokens == pytest.approx(overhead, abs=10)
    assert found.overhead_tokens >= 0


def test_few_observations() -> None:
    assert fit([]) == Calibration(TOKENS_PER_WORD, 0)
    assert fit([(10, 20)]) == Calibration(2.0, 0.0)
    assert ruler_for(Prompts(), [(10, 25), (110, 225)]) == Calibration(2.0, 5.0)


@pytest.mark.parametrize("observations", [[(10, 5), (100, 5)], [(10, 50), (100, 5)], [(10, 0)], [(0, 7)]])
def test_an_endpoint_that_can_not_count(observations: list[tuple[int, int]]) -> None:
    with pytest.raises(EndpointError, match=r"prompts\.tokenizer"):
        fit(observations)


def test_samples_have_so_many_words() -> None:
    own = Source.load()
    assert [len(own.sample(words).split()) for words in (1, 10, 150)] == [1, 10, 150]
    assert own.sample(150) == Source.load().sample(150)
