"""What `docs/bench.md` and the README tell of the bench is there: commands, scenarios, files, figures, variables."""

import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.main

from loramux_bench.apis.sagemaker import SageMakerOptions
from loramux_bench.cli import app
from loramux_bench.decide.compare import GATES
from loramux_bench.errors import BenchError
from loramux_bench.launch import Interrupted
from loramux_bench.load.llmperf_flags import LLM_APIS
from loramux_bench.load.trace import Entry, parse_trace
from loramux_bench.mock.settings import parse as parse_mock
from loramux_bench.results.measures import MEASURES, RUN_MEASURES
from loramux_bench.results.slo import STATISTICS
from loramux_bench.results.slo import parse as parse_slo
from loramux_bench.run_dir import RunDir
from loramux_bench.scenario import Adapters, Arrivals, Scenario, Target, available, load_scenario, parse

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "bench.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_BENCH = ["loramux", "bench"]
_COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def blocks(page: str, *languages: str) -> list[str]:
    return [body for language, body in _BLOCK.findall(page) if language in languages]


def shell_lines(page: str) -> list[list[str]]:
    """Words of each simple command of the page's blocks, its path and variables left out."""
    lines = []
    for line in "\n".join(blocks(page, "sh", "yaml", "")).replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&")
        lexer.whitespace_split = True
        words: list[str] = []
        try:
            words = list(lexer)
        except ValueError:
            assert "loramux bench" not in line, line
        for start in range(len(words) - 1):
            if [words[start].rpartition("/")[2], words[start + 1]] in (_BENCH, ["python", "-m"]):
                end = next((place for place in range(start, len(words)) if set(words[place]) <= set(";|&")), None)
                lines.append([words[start].rpartition("/")[2], *words[start + 1 : end]])
    return lines


@dataclass(frozen=True)
class Told:
    """A command of the bench, as the real one has parsed it."""

    line: str
    name: str
    values: dict[str, Any]


def told_commands() -> list[Told]:
    found = []
    for page in (PAGE, README):
        for words in shell_lines(page):
            if words[:2] == _BENCH:
                name, *arguments = words[2:]
                context = _COMMANDS[name].make_context(name, list(arguments))
                found.append(Told(shlex.join(words), name, context.params))
    return found


def example(text: str) -> Scenario:
    content = tomllib.loads(text)
    load = content.setdefault("load", {})
    if not {"requests", "duration_s"} & set(load) and "trace" not in load.get("arrivals", {}):
        load["requests"] = 1
    return parse({"name": "example", **content}, "of the page")


def examples() -> dict[str, Scenario]:
    """By the file's name, which is the block's first line; others by their place."""
    found = {}
    for number, body in enumerate(blocks(PAGE, "toml")):
        first = body.partition("\n")[0]
        found[first.removeprefix("# ") if first.startswith("# ") else str(number)] = example(body)
    return found


def rows(heading: str) -> list[list[str]]:
    """Cells of the table whose first column is called so."""
    body = PAGE.split(f"\n| {heading} |")[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in body.splitlines()[2:]]


def test_every_command_is_one_that_the_bench_takes() -> None:
    told = told_commands()  # raises for an option or a command that does not exist
    assert {command.name for command in told} == set(_COMMANDS)


def test_every_command_that_is_mentioned_exists() -> None:
    words = [text.split() for page in (PAGE, README) for text in _INLINE.findall(page)]
    mentioned = {text[2] for text in words if text[:2] == _BENCH and len(text) > 2}
    assert mentioned
    assert mentioned <= set(_COMMANDS)


def test_every_option_that_is_mentioned_exists() -> None:
    options = {option for command in _COMMANDS.values() for parameter in command.params for option in parameter.opts}
    mentioned = {text for text in _INLINE.findall(PAGE) if re.fullmatch(r"--[a-z-]+", text)}
    assert "--tolerance" in mentioned
    assert mentioned <= options


def test_every_scenario_and_override_is_one() -> None:
    files = examples()
    told = told_commands()
    assert any(command.values.get("overrides") for command in told)
    for command in told:
        name = str(command.values.get("name") or command.values.get("scenario") or "")
        if not name or name in files or name.startswith("results/"):
            continue
        assert name in available(), command.line
        load_scenario(name, [text for text in command.values.get("overrides") or () if "$" not in text])


def test_every_objective_is_one() -> None:
    for command in told_commands():
        for text in command.values.get("slos") or ():
            parse_slo(text)
    for scenario in examples().values():
        for text in scenario.slos:
            parse_slo(text)
    told = [text for cell, *_ in rows("SLO") for text in _INLINE.findall(cell)]
    assert len(told) == 4
    for text in told:
        parse_slo(text)
    assert [name for name in (*MEASURES, *RUN_MEASURES, *STATISTICS) if f"`{name}`" not in PAGE] == []


def test_the_examples_are_scenarios_and_a_trace() -> None:
    assert {"replay.toml", "tenants.toml", "two.toml"} <= set(examples())
    (trace,) = blocks(PAGE, "json")
    assert len(parse_trace(trace.encode().splitlines(), "of the page")) == 3
    assert [name for name in Entry.__struct_fields__ if f'"{name}"' not in trace] == []


def test_the_files_of_a_run_are_those_that_it_writes() -> None:
    run = RunDir(Path("run"))
    written = {getattr(run, name).name for name in dir(RunDir) if name.endswith("_path")}
    assert {text for cell, *_ in rows("file") for text in _INLINE.findall(cell)} == written


def test_every_figure_is_defined() -> None:
    defined = {text for cell, *_ in rows("figure") for text in _INLINE.findall(cell)}
    assert defined == {*MEASURES, *RUN_MEASURES}


def test_the_figures_that_gate_are_told() -> None:
    (regressions,) = [cells[0] for cells in rows("checked") if cells[0].startswith("against a baseline")]
    assert GATES == (("ttft", "p50"), ("tpot", "p50"), ("e2e", "p50"), ("e2e", "mean"), ("throughput", ""))
    assert "p50 of TTFT, TPOT and E2E, mean of E2E, throughput" in regressions


@pytest.mark.parametrize(
    ("heading", "statuses"),
    [
        ("exit status of `run`, `report`, `token`, `compare`", {0, BenchError.exit_status, Interrupted.exit_status}),
        ("exit status of `gate`", {0, 1, 2, Interrupted.exit_status}),
    ],
)
def test_exit_statuses_are_told(heading: str, statuses: set[int]) -> None:
    assert {int(cells[0]) for cells in rows(heading)} == statuses


def test_every_choice_is_told() -> None:
    choices = [
        *get_args(Target.model_fields["api"].annotation),
        *get_args(Arrivals.model_fields["kind"].annotation),
        *get_args(Adapters.model_fields["choice"].annotation),
        *SageMakerOptions.model_fields,
        *LLM_APIS,
    ]
    assert [choice for choice in choices if f"`{choice}`" not in PAGE] == []


def test_variables_of_the_locust_file_are_those_that_it_reads() -> None:
    code = (ROOT / "bench" / "loramux_bench" / "locustfile.py").read_text("utf-8")
    read = set(re.findall(r'environ\.get\("(LORAMUX_BENCH_\w+)"', code))
    told = {text for cell, *_ in rows("variable") for text in _INLINE.findall(cell)}
    assert told == read
    assert read


def test_the_mock_takes_its_options() -> None:
    mocks = [words for words in shell_lines(PAGE) if words[:3] == ["python", "-m", "loramux_bench.mock"]]
    assert mocks
    for words in mocks:
        settings = parse_mock(words[3:])
        assert [name for name in re.findall(r"`(mock-\w+)`", PAGE) if name not in settings.models] == []


def test_files_and_targets_of_the_checkout_are_there() -> None:
    paths = re.findall(r"-f (\S+\.py)", PAGE)
    assert paths
    assert [path for path in paths if not (ROOT / path).is_file()] == []
    makefile = (ROOT / "Makefile").read_text("utf-8").replace("$(VENV)", ".venv")
    targets = {target for page in (PAGE, README) for target in re.findall(r"\bmake ([a-z.][\w./-]*)`", page)}
    assert {"bench-smoke", ".venv/.bench"} <= targets
    assert [target for target in targets if not re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE)] == []
