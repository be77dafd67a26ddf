"""Options of the studies, as people write them."""

import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loramux_bench.cli import app
from loramux_bench.cli.side_options import largest_rank, modules_of, numbers, shape_of
from loramux_bench.errors import ScenarioError


def test_numbers_are_sorted_and_none_is_twice() -> None:
    assert numbers("4, 1,4", "--streams") == (1, 4)


@pytest.mark.parametrize("text", ["", "1,,2", "0", "-1", "1.5", "many", "²"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ScenarioError, match=f"--streams takes numbers .* not {re.escape(repr(text))}"):
        numbers(text, "--streams")


def test_modules_are_those_of_a_base() -> None:
    assert modules_of("q_proj, v_proj,q_proj") == ("q_proj", "v_proj")
    with pytest.raises(ScenarioError, match="no module 'k'"):
        modules_of("q_proj,k")


@pytest.mark.parametrize(("rank", "largest"), [(1, 16), (16, 16), (17, 32), (64, 64), (512, 512)])
def test_the_engine_is_given_a_rank_that_it_takes(rank: int, largest: int) -> None:
    assert largest_rank(rank) == largest


def test_memory_is_never_smaller_than_the_slots() -> None:
    shape = shape_of(Path("/base"), "cpu", slots=8, in_memory=2, rank=8, python="/env/bin/python")
    assert (shape.max_loras, shape.max_cpu_loras, shape.max_lora_rank) == (8, 8, 16)
    assert shape.python == "/env/bin/python"


def test_vllm_is_told_what_people_add() -> None:
    shape = shape_of(
        Path("/base"), "cpu", slots=1, in_memory=1, rank=8, max_model_len=512, extra_args=["--dtype", "bfloat16"]
    )
    assert (shape.max_model_len, shape.extra_args, shape.python) == (512, ("--dtype", "bfloat16"), sys.executable)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["cost", "--sides", "nobody"], "'nobody'"),
        (["cost", "--streams", "x"], "--streams"),
        (["cost", "--modules", "x"], "no module"),
        (["cost", "--base", "nowhere"], "no base model"),
        (["slots", "--choice", "x"], "--choice"),
        (["scale", "--counts", "0"], "--counts"),
        (["scale", "--sides", "loramux-torch"], "--sides"),
        (["tiers", "--modules", "x"], "no module"),
    ],
)
def test_a_mistake_ends_in_a_sentence_and_leaves_nothing(
    command: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [*command, "--results", str(tmp_path / "out")])
    assert done.exit_code == 2
    message = capfd.readouterr().err + done.stderr
    assert message.startswith("error: ")
    assert said in message
    assert not (tmp_path / "out").exists()
