"""`loramux bench token` as its users call it, held against files that the real LLMPerf wrote of the same mock
(tests/fixtures/llmperf/README.md)."""

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.gateway import free_port
from tests.fixtures.mock_endpoint import MockEndpoint

COMMAND = Path(sys.executable).with_name("loramux")
GOLDEN = Path(__file__).parents[1] / "fixtures" / "llmperf" / "clean"
MODEL = "acme/mock--1.5b"
TTFT_S = 0.1
ITL_S = 0.02
POLL_S = 0.25
"""By how much a chunk may be told early where the machine kept its reader waiting (`loramux_bench.apis.arrival`)."""
LATE_S = 1.0
"""What a busy machine may add to half of the requests: wrong units and wrong origins are further off."""
USERS = 2
REQUESTS = 20
TIMEOUT_S = 90.0
"""Of one command; on a free machine it takes a sixth."""

GOLDEN_FLAGS = (
    *("--mean-input-tokens", "120", "--stddev-input-tokens", "10"),
    *("--mean-output-tokens", "40", "--stddev-output-tokens", "5"),
    *("--num-concurrent-requests", str(USERS), "--timeout", "120"),
)
USAGE = '{"top_p": 0.9, "stream_options": {"include_usage": false}}'
RUN_FLAGS = (*GOLDEN_FLAGS, "--max-num-completed-requests", str(REQUESTS), "--additional-sampling-params", USAGE)


@dataclass(frozen=True)
class Done:
    """How one command ended, what it wrote, and what the endpoint saw of it meanwhile: the streams alone, as prompts
    are measured with answers that are not streamed."""

    status: int
    out: str
    err: str
    results: Path
    runs: Path
    streams: list[dict[str, Any]]

    def read(self, ending: str) -> Any:
        (path,) = self.results.glob(f"*_{ending}.json")
        return strict(path)

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = self.read("summary")
        return found

    @property
    def responses(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.read("individual_responses")
        return found


def strict(path: Path) -> Any:
    """Python writes NaN, which is no JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in {path}")

    return json.loads(path.read_text("utf-8"), parse_constant=refuse)


def start(where: Path, environment: Mapping[str, str], *flags: str) -> "subprocess.Popen[str]":
    ours = ("OPENAI_", "LORAMUX_", "LITELLM_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.Popen(
        [COMMAND, "bench", "token", "--results-dir", "out/files", "--runs", "out/runs", *flags],
        cwd=where,
        env={**clean, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def openai(url: str) -> dict[str, str]:
    return {"OPENAI_API_BASE": f"{url}/v1", "OPENAI_API_KEY": "none"}


def short(model: str, api: str) -> tuple[str, ...]:
    """Flags of a run that is not held against the golden one."""
    return ("--model", model, "--llm-api", api, *GOLDEN_FLAGS, "--max-num-completed-requests", "6")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Done]]:
    """All that put on load, at the same time: each waits for its endpoint nearly all of the time."""
    where = tmp_path_factory.mktemp("token")
    tokenizer = halving_tokenizer(where / "tokenizer.json")
    golden = ("--model", MODEL, "--llm-api", "openai", *RUN_FLAGS, "--metadata", "run=golden")
    commands = {
        "plain": ({}, golden),
        "tokenizer": ({}, (*golden, "--tokenizer", str(tokenizer))),
        "usage": ({}, short("mock-0", "openai")),
        "litellm": ({}, short("openai/mock-0", "litellm")),
        "http": ({"fault": "http-500"}, short("mock-0", "openai")),
        "frame": ({"fault": "error-frame"}, short("mock-0", "openai")),
    }
    with ExitStack() as stack:
        started = {}
        for name, (faults, flags) in commands.items():
            mock = stack.enter_context(MockEndpoint(ttft=TTFT_S, itl=ITL_S, base=MODEL, **faults))
            (where / name).mkdir()
            process = start(where / name, openai(mock.url), *flags)
            stack.callback(process.wait)
            stack.callback(process.kill)
            started[name] = (mock, process)
        done = {}
        for name, (mock, process) in started.items():
            out, err = process.communicate(timeout=TIMEOUT_S)
            streams = [entry for entry in mock.log()["requests"] if entry["stream"]]
            out_dir = where / name / "out"
            done[name] = Done(process.returncode, out, err, out_dir / "files", out_dir / "runs", streams)
        yield done


def halving_tokenizer(path: Path) -> Path:
    """Two tokens for each word of two letters or more, one for a letter by itself; the mock counts one a word."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    inner = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"^\S"), "isolated")]
    )
    inner.save(str(path))
    return path


def kinds(content: dict[str, Any]) -> list[tuple[str, type]]:
    """Keys in their order, with their types."""
    return [(key, type(value)) for key, value in content.items()]


@pytest.mark.parametrize("name", ["plain", "tokenizer"])
def test_the_files_are_llmperfs_in_names_keys_order_and_types(runs: dict[str, Done], name: str) -> None:
    done = runs[name]
    assert done.status == 0, done.err
    assert {path.name for path in done.results.iterdir()} == {path.name for path in GOLDEN.iterdir()}
    (golden_summary,) = (json.loads(path.read_text("utf-8")) for path in GOLDEN.glob("*_summary.json"))
    (golden_responses,) = (json.loads(path.read_text("utf-8")) for path in GOLDEN.glob("*_responses.json"))

    assert kinds(done.summary) == kinds(golden_summary)
    assert [kinds(response) for response in done.responses] == [kinds(response) for response in golden_responses]
    told = {key: value for key, value in golden_summary.items() if not key.startswith("results_")}
    measured = ("num_requests_started", "number_errors", "error_rate", "error_code_frequency", "num_completed_requests")
    told |= {f"results_{key}": golden_summary[f"results_{key}"] for key in measured}
    del told["timestamp"]
    assert {key: done.summary[key] for key in told} == told
    for key in ("number_input_tokens_mean", "number_input_tokens_stddev"):
        # Drawn of the same distribution, with another generator, always the same: 20 of N(120, 10).
        assert done.summary[f"results_{key}"] == pytest.approx(golden_summary[f"results_{key}"], abs=8)
    for path in done.results.iterdir():
        assert path.name in done.out


@pytest.mark.parametrize("name", ["plain", "usage", "litellm"])
def test_each_response_is_what_the_mock_sent(runs: dict[str, Done], name: str) -> None:
    done = runs[name]
    assert done.status == 0, done.err
    responses = done.responses
    for mine, its in (("number_output_tokens", "tokens"), ("number_input_tokens", "prompt_tokens")):
        assert sorted(response[mine] for response in responses) == sorted(entry[its] for entry in done.streams)
    tokens = [response["number_output_tokens"] for response in responses]
    due_s = [TTFT_S + (count - 1) * ITL_S for count in tokens]
    near([response["ttft_s"] for response in responses], [TTFT_S] * len(responses))
    near([response["end_to_end_latency_s"] for response in responses], due_s)
    # The time to the first token is in it, as LLMPerf has it.
    near([r["inter_token_latency_s"] * count for r, count in zip(responses, tokens, strict=True)], due_s)


def near(measured_s: Sequence[float], due_s: Sequence[float]) -> None:
    """The mock is never early, and a busy machine makes all late; what was read late is told by an earlier poll."""
    off_s = [measured - due for measured, due in zip(measured_s, due_s, strict=True)]
    assert min(off_s) > -POLL_S
    assert -0.001 < statistics.median(off_s) < LATE_S


@pytest.mark.parametrize("name", ["plain", "tokenizer", "usage", "litellm"])
def test_the_figures_of_a_response_agree(runs: dict[str, Done], name: str) -> None:
    done = runs[name]
    assert len(done.streams) == len(done.responses) == done.summary["results_num_completed_requests"]
    for response in done.responses:
        tokens, e2e_s = response["number_output_tokens"], response["end_to_end_latency_s"]
        last_token_s = response["inter_token_latency_s"] * tokens
        assert 0 < response["ttft_s"] < last_token_s < e2e_s + 0.001
        assert response["request_output_throughput_token_per_s"] == pytest.approx(tokens / e2e_s)
        assert response["number_total_tokens"] == response["number_input_tokens"] + tokens


def test_with_a_tokenizer_tokens_are_its_own(runs: dict[str, Done]) -> None:
    """No usage comes, as the flags of the golden run turn it off."""
    plain, counted = runs["plain"], runs["tokenizer"]
    asked = sorted(response["number_input_tokens"] for response in counted.responses)
    assert asked == sorted(response["number_input_tokens"] for response in plain.responses)
    for mine, words in zip(asked, sorted(entry["prompt_tokens"] for entry in counted.streams), strict=True):
        assert mine / 2 <= words < mine * 0.75, "two tokens for nearly every word"
    outputs = sorted(response["number_output_tokens"] for response in counted.responses)
    for mine, words in zip(outputs, sorted(entry["tokens"] for entry in counted.streams), strict=True):
        # The mock's thirteen words have an "a" among them.
        assert 2 * words - math.ceil(words / 13) <= mine <= 2 * words - words // 13


@pytest.mark.parametrize("name", ["plain", "tokenizer", "usage", "litellm"])
def test_rates_are_over_the_time_of_the_load(runs: dict[str, Done], name: str) -> None:
    done = runs[name]
    summary, responses = done.summary, done.responses
    (own,) = (strict(path) for path in done.runs.glob("*/summary.json"))
    elapsed_s = own["total"]["duration_s"]
    assert summary["results_num_completed_requests_per_min"] == pytest.approx(60 * len(responses) / elapsed_s)
    assert summary["results_mean_output_throughput_token_per_s"] == pytest.approx(
        sum(response["number_output_tokens"] for response in responses) / elapsed_s
    )
    assert sum(response["end_to_end_latency_s"] for response in responses) <= USERS * (elapsed_s + 0.001)
    began = min(entry["received_at"] for entry in done.streams)
    ended = max(entry["received_at"] + entry["chunks_s"][-1] for entry in done.streams)
    assert elapsed_s > ended - began - POLL_S


@pytest.mark.parametrize("name", ["plain", "litellm"])
def test_the_environment_says_where_and_with_which_key(runs: dict[str, Done], name: str) -> None:
    done = runs[name]
    assert {entry["model"] for entry in done.streams} == {"mock-0" if name == "litellm" else MODEL}
    assert {entry["key"] for entry in done.streams} == {"none"}
    assert {entry["path"] for entry in done.streams} == {"/v1/chat/completions"}
    assert done.streams


def test_through_litellm_the_files_have_the_same_keys(runs: dict[str, Done]) -> None:
    done = runs["litellm"]
    assert {path.name for path in done.results.iterdir()} == {
        "openai-mock-0_120_40_summary.json",
        "openai-mock-0_120_40_individual_responses.json",
    }
    assert kinds(done.summary) == kinds(runs["usage"].summary)
    assert kinds(done.responses[0]) == kinds(runs["usage"].responses[0])
    assert done.summary["model"] == "openai/mock-0"


@pytest.mark.parametrize("name", ["http", "frame"])
def test_of_an_endpoint_that_fails_all_the_files_tell_the_errors(runs: dict[str, Done], name: str) -> None:
    done = runs[name]
    assert done.status == 2
    assert "None of the 6 measured requests" in done.err.splitlines()[-1]
    assert "Traceback" not in done.err
    summary, responses = done.summary, done.responses
    assert [response["error_code"] for response in responses] == [500] * 6
    assert all(response["error_msg"] for response in responses)
    assert summary["results_number_errors"] == summary["results_num_requests_started"] == 6
    assert summary["results_error_rate"] == 1.0
    assert summary["results_error_code_frequency"] == "{500: 6}"
    assert summary["results_num_completed_requests"] == 0
    assert summary["results_ttft_s_mean"] is None
    assert list(summary) == list(runs["usage"].summary)
    assert list(done.runs.glob("*/report.html"))


def test_flags_that_are_wrong_are_told_in_one_line_before_any_load(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    nobody = openai(f"http://127.0.0.1:{free_port()}")
    wrong = {
        "--additional-sampling-params must be a JSON object": (nobody, ("--additional-sampling-params", "{top_p: 1}")),
        "--llm-api is one of": (nobody, ("--llm-api", "cohere")),
        "OPENAI_API_KEY": ({**nobody, "OPENAI_API_KEY": ""}, ()),
        "--metadata": (nobody, ("--metadata", "golden")),
        "file": (nobody, ("--results-dir", str(tmp_path / "file"))),
    }
    with ExitStack() as stack:
        started = []
        for number, (sentence, (environment, flags)) in enumerate(wrong.items()):
            where = tmp_path / str(number)
            where.mkdir()
            process = stack.enter_context(start(where, environment, "--model", "m", *flags))
            stack.callback(process.kill)
            started.append((sentence, where, process))
        for sentence, where, process in started:
            out, err = process.communicate(timeout=TIMEOUT_S)
            assert process.returncode == 2, err
            assert err.count("\n") == 1, err
            assert err.startswith("error: "), err
            assert sentence in err
            assert out == ""
            assert not (where / "out" / "runs").exists()
