"""LLMPerf's flags and files, against files that the real LLMPerf wrote (tests/fixtures/llmperf/README.md)."""

import ast
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loramux_bench.errors import ResultsError, ScenarioError
from loramux_bench.load.llmperf_flags import TokenFlags, scenario
from loramux_bench.record import RequestRecord
from loramux_bench.results.llmperf import individual_responses, slug, summary, write
from loramux_bench.scenario import Normal, endpoint_key, endpoint_url

GOLDEN = Path(__file__).parents[1] / "fixtures" / "llmperf"
TTFT_S = 0.1
ITL_S = 0.02
"""Of the mock in every golden run."""
SLACK_S = 0.015
"""What LLMPerf saw above the mock's times: its own work, and a connection for each request."""
CLEAN, ONE, ERRORS = "clean", "one", "errors_counted"


@dataclass(frozen=True)
class Golden:
    """What one run of LLMPerf wrote, and the flags that it had."""

    flags: TokenFlags
    summary: dict[str, Any]
    responses: list[dict[str, Any]]
    names: set[str]

    @property
    def elapsed_s(self) -> float:
        minutes = (
            self.summary["results_num_completed_requests"] / self.summary["results_num_completed_requests_per_min"]
        )
        return float(minutes * 60)

    def records(self) -> list[RequestRecord]:
        """The same requests, as the bench records them when the mock keeps its times to the microsecond."""
        return [_mocked(index, response) for index, response in enumerate(self.responses)]


def _golden(name: str) -> Golden:
    files = sorted((GOLDEN / name).iterdir())
    (told,) = (json.loads(path.read_text("utf-8")) for path in files if path.name.endswith("_summary.json"))
    (responses,) = (
        json.loads(path.read_text("utf-8")) for path in files if path.name.endswith("_individual_responses.json")
    )
    flags = TokenFlags(
        model=told["model"],
        mean_input_tokens=120,
        stddev_input_tokens=10,
        mean_output_tokens=40,
        stddev_output_tokens=5,
        num_concurrent_requests=1 if name == ONE else 2,
        max_num_completed_requests=1 if name == ONE else 20,
        additional_sampling_params='{"top_p": 0.9, "stream_options": {"include_usage": false}}',
        metadata="run=golden" if name in (CLEAN, ONE) else "run=golden,name=mine",
    )
    return Golden(flags, told, responses, {path.name for path in files})


def _mocked(index: int, response: dict[str, Any]) -> RequestRecord:
    if response["error_code"] is not None:
        return _record(
            index,
            chunks=0,
            prompt_tokens=response["number_input_tokens"],
            status=response["error_code"],
            error=f"http_{response['error_code']}",
            message=response["error_msg"],
        )
    # By its time, and not by `number_output_tokens`: LLMPerf's tokenizer makes two tokens of some of the mock's words.
    tokens = round((response["end_to_end_latency_s"] - TTFT_S) / ITL_S) + 1
    return _record(index, chunks=tokens, output_tokens=tokens, prompt_tokens=response["number_input_tokens"])


def _record(index: int = 0, *, chunks: int = 3, sent_s: float | None = None, **more: Any) -> RequestRecord:
    sent_s = float(index) if sent_s is None else sent_s
    end_s = sent_s + TTFT_S + (chunks - 1) * ITL_S if chunks else sent_s + 0.005
    return RequestRecord(
        **{
            "index": index,
            "target": "openai",
            "api": "openai-chat",
            "adapter": "mock-0",
            "sent_s": sent_s,
            "first_token_s": sent_s + TTFT_S if chunks else None,
            "end_s": end_s,
            "gaps_s": (ITL_S,) * max(0, chunks - 1),
            "chunks": chunks,
            "prompt_tokens_wanted": 120,
            "output_tokens_wanted": 40,
            "status": 200,
            **more,
        }
    )


def _strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def _kinds(content: dict[str, Any]) -> list[tuple[str, type]]:
    """Keys in their order, with their types; NaN counts as null."""
    return [
        (key, type(None) if isinstance(value, float) and math.isnan(value) else type(value))
        for key, value in content.items()
    ]


@pytest.mark.parametrize("name", [CLEAN, ONE, ERRORS])
def test_files_have_the_names_keys_order_and_types_of_llmperf(tmp_path: Path, name: str) -> None:
    golden = _golden(name)
    written = write(tmp_path / "new", golden.flags, golden.records(), elapsed_s=golden.elapsed_s, at=1795246609.75)

    assert {path.name for path in (tmp_path / "new").iterdir()} == golden.names
    ours = _strict(written.summary.read_text("utf-8"))
    assert _kinds(ours) == _kinds(golden.summary)
    assert ours["timestamp"] == 1795246609
    responses = _strict(written.individual_responses.read_text("utf-8"))
    assert [_kinds(response) for response in responses] == [_kinds(response) for response in golden.responses]


def test_files_are_laid_out_as_llmperf_does(tmp_path: Path) -> None:
    golden = _golden(CLEAN)
    written = write(tmp_path, golden.flags, golden.records(), elapsed_s=golden.elapsed_s, at=0.0)
    for path in (written.summary, written.individual_responses):
        ours, theirs = path.read_text("utf-8"), (GOLDEN / CLEAN / path.name).read_text("utf-8")
        assert [line.partition(":")[0] for line in ours.splitlines()] == [
            line.partition(":")[0] for line in theirs.splitlines()
        ]
        assert ours.endswith("\n") == theirs.endswith("\n")


@pytest.mark.parametrize("name", [CLEAN, ONE, "errors", ERRORS])
def test_the_summary_of_llmperfs_own_responses_is_its_own(name: str) -> None:
    golden = _golden(name)
    ours = summary(golden.flags, golden.responses, elapsed_s=golden.elapsed_s, at=golden.summary["timestamp"])
    frequency = "results_error_code_frequency"
    theirs = {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in golden.summary.items()
        if not (key == frequency and name == ERRORS)
    }
    for key, value in theirs.items():
        assert ours[key] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value), key
    if name == ERRORS:
        assert golden.summary[frequency] == "{500.0: np.int64(7)}"
        assert ours[frequency] == "{500: 7}"


def test_values_that_the_mock_determines_agree() -> None:
    golden = _golden(CLEAN)
    for record, ours, theirs in zip(
        golden.records(), individual_responses(golden.records()), golden.responses, strict=True
    ):
        assert ours["ttft_s"] == pytest.approx(TTFT_S)
        assert TTFT_S <= theirs["ttft_s"] < TTFT_S + SLACK_S
        assert abs(ours["end_to_end_latency_s"] - theirs["end_to_end_latency_s"]) < SLACK_S
        assert ours["number_input_tokens"] == theirs["number_input_tokens"]
        # LLMPerf divides by frames, of which the first carries the role only: one more than tokens.
        frames = record.tokens + 1
        assert ours["inter_token_latency_s"] * record.tokens == pytest.approx(
            theirs["inter_token_latency_s"] * frames, abs=SLACK_S
        )


def test_errors_are_written_as_llmperf_means_them() -> None:
    golden = _golden(ERRORS)
    ours = [row for row in individual_responses(golden.records()) if row["error_code"] is not None]
    assert ours == [row for row in golden.responses if row["error_code"] is not None]
    assert len(ours) == 7


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (429, "rate_limited", 429),
        (503, "not_ready", 503),
        (200, "broken_stream", -1),
        (0, "connect", -1),
        (0, "timeout", -1),
        (200, "http_500", 500),
        (200, "engine_dead", "engine_dead"),
    ],
)
def test_an_error_has_the_status_else_the_streams_code_else_minus_one(status: int, error: str, code: int | str) -> None:
    (response,) = individual_responses([_record(status=status, error=error, message="Why.")])
    assert (response["error_code"], response["error_msg"]) == (code, "Why.")


def test_the_frequency_of_errors_can_be_read_as_python() -> None:
    errors = [_record(index, chunks=0, status=status, error="x") for index, status in enumerate((503, 429, 429))]
    responses = individual_responses([*errors, _record(3, chunks=0, status=0, error="connect"), _record(4)])
    told = summary(TokenFlags(model="m"), responses, elapsed_s=2.0, at=0.0)
    assert told["results_error_code_frequency"] == "{429: 2, 503: 1, -1: 1}"
    assert ast.literal_eval(told["results_error_code_frequency"]) == {429: 2, 503: 1, -1: 1}
    assert told["results_error_rate"] == 0.8
    assert told["results_num_requests_started"] == 5
    assert told["results_num_completed_requests_per_min"] == 30.0


def test_warm_up_and_requests_under_way_are_left_out_and_the_rest_is_in_order_of_ends() -> None:
    records = [
        _record(0, warmup=True),
        _record(1, sent_s=5.0, prompt_tokens=11),
        _record(2, sent_s=4.0, prompt_tokens=22),
        _record(3, cut=True),
    ]
    assert [row["number_input_tokens"] for row in individual_responses(records)] == [22, 11]


def test_tokens_are_counted_by_the_endpoint_and_not_by_chunks() -> None:
    (row,) = individual_responses([_record(chunks=3, output_tokens=12, prompt_tokens=100)])
    assert (row["number_output_tokens"], row["number_total_tokens"]) == (12, 112)
    assert row["inter_token_latency_s"] == pytest.approx((TTFT_S + 2 * ITL_S) / 12)
    assert row["request_output_throughput_token_per_s"] == pytest.approx(12 / (TTFT_S + 2 * ITL_S))


def test_a_response_without_tokens_is_completed_and_has_no_latencies_of_tokens() -> None:
    responses = individual_responses([_record(0, chunks=0, output_tokens=0), _record(1)])
    assert (responses[0]["ttft_s"], responses[0]["inter_token_latency_s"]) == (None, None)
    told = summary(TokenFlags(model="m"), responses, elapsed_s=1.0, at=0.0)
    assert told["results_num_completed_requests"] == 2
    assert told["results_ttft_s_min"] == pytest.approx(TTFT_S)


@pytest.mark.parametrize("records", [[], [_record(chunks=0, status=500, error="http_500")]])
def test_a_run_without_any_answer_still_gives_valid_files(tmp_path: Path, records: list[RequestRecord]) -> None:
    written = write(tmp_path, TokenFlags(model="m"), records, elapsed_s=0.0, at=0.0)
    told = _strict(written.summary.read_text("utf-8"))
    assert told["results_ttft_s_quantiles_p99"] is None
    assert told["results_ttft_s_min"] is None
    assert told["results_num_completed_requests_per_min"] == 0
    assert told["results_number_errors"] == len(records)


def test_metadata_may_rename_the_results() -> None:
    told = summary(TokenFlags(model="m", metadata="name=foo,bar=1=2"), [], elapsed_s=1.0, at=7.9)
    assert list(told)[:2] == ["version", "name"]
    assert (told["name"], told["bar"], told["timestamp"]) == ("foo", "1=2", 7)
    assert list(told)[-2:] == ["bar", "timestamp"]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("meta-llama/Llama-2-7b.gguf", "meta-llama-Llama-2-7b-gguf_550_150"),
        ("bedrock/arn:aws:x--y", "bedrock-arn-aws-x-y_550_150"),
        ("pirat_ä ", "pirat_ä-_550_150"),
    ],
)
def test_files_are_named_by_a_slug(model: str, expected: str) -> None:
    assert slug(TokenFlags(model=model)) == expected


def test_a_directory_that_can_not_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="can not be written below"):
        write(tmp_path / "file", TokenFlags(model="m"), [], elapsed_s=1.0, at=0.0)


def test_flags_make_a_closed_loop_that_sends_what_llmperf_sends() -> None:
    environment = {
        "OPENAI_API_BASE": "https://host.example/x/v1/",
        "OPENAI_API_KEY": "sk-1",
        "LORAMUX_API_KEY": "other",
    }
    flags = TokenFlags(model="pirate", num_concurrent_requests=3, additional_sampling_params='{"top_p": 0.5}')
    found = scenario(flags, environment)

    assert (found.load.shape, found.load.users, found.load.requests, found.load.duration_s) == ("closed", 3, 10, 90)
    assert found.load.warmup_requests == 0
    assert found.prompts.input_tokens == Normal(mean=550, stddev=150)
    assert found.prompts.output_tokens == Normal(mean=150, stddev=80)
    assert (found.prompts.ignore_eos, found.prompts.temperature) == (False, None)
    assert (found.adapters.names, found.adapters.choice, found.adapters.base_share) == (("pirate",), "one", 0)
    (target,) = found.targets
    assert (target.api, target.model, target.extra) == ("openai-chat", "pirate", {"top_p": 0.5})
    assert endpoint_url(target, environment) == "https://host.example/x"
    assert endpoint_key(target, environment) == "sk-1"


def test_without_a_base_url_the_target_is_loramux_and_gets_no_key_of_openai() -> None:
    environment = {"OPENAI_API_KEY": "sk-1", "LORAMUX_URL": "https://gateway.example", "LORAMUX_API_KEY": "ours"}
    (target,) = scenario(TokenFlags(model="pirate"), environment).targets
    assert endpoint_url(target, environment) == "https://gateway.example"
    assert endpoint_key(target, environment) == "ours"


@pytest.mark.parametrize(
    ("llm_api", "model", "sent"),
    [("litellm", "bedrock/x", "bedrock/x"), ("anthropic", "claude-x", "anthropic/claude-x")],
)
def test_litellm_gets_the_providers_prefix(llm_api: str, model: str, sent: str) -> None:
    found = scenario(TokenFlags(model=model, llm_api=llm_api), {})
    (target,) = found.targets
    assert (target.api, target.model, endpoint_url(target, {}), endpoint_key(target, {})) == ("litellm", sent, "", "")
    assert (found.scrape.metrics, found.scrape.admin) == (False, False)


def test_sagemaker_is_where_the_sdks_variables_say() -> None:
    environment = {"AWS_ENDPOINT_URL": "http://a.example", "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": "http://b.example/"}
    (target,) = scenario(TokenFlags(model="m", llm_api="sagemaker"), environment).targets
    assert (target.api, target.url, target.model) == ("sagemaker", "http://b.example", "m")


@pytest.mark.parametrize(
    ("more", "environment", "says"),
    [
        ({"llm_api": "vertexai"}, {}, "--llm-api is one of openai, litellm, anthropic, sagemaker"),
        ({"llm_api": "sagemaker"}, {}, "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME, which is not set"),
        ({}, {"OPENAI_API_BASE": "http://h", "OPENAI_API_KEY": "k"}, "OPENAI_API_BASE must end in /v1"),
        ({}, {"OPENAI_API_BASE": "http://h/v1"}, "OPENAI_API_KEY is not"),
        ({"additional_sampling_params": "{"}, {}, "must be a JSON object"),
        ({"additional_sampling_params": "[1]"}, {}, "must be a JSON object"),
        ({"additional_sampling_params": '{"top_p": NaN}'}, {}, "NaN is no value of JSON"),
        ({"metadata": "a=1,b"}, {}, "'b' is not of it"),
        ({"mean_input_tokens": 0}, {}, "prompts.input_tokens.mean"),
        ({"num_concurrent_requests": 0}, {}, "load.users"),
    ],
)
def test_flags_that_are_refused(more: dict[str, Any], environment: dict[str, str], says: str) -> None:
    with pytest.raises(ScenarioError, match=says):
        scenario(TokenFlags(**{"model": "m", **more}), environment)
