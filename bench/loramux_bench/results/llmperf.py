"""LLMPerf's two result files, made of this bench's records, so that scripts for LLMPerf go on working.

Keys, their order, nesting and types are those that LLMPerf writes for its OpenAI client (its results' version is
2023-08-31). Meanings are its own too, where they are sound:

- `inter_token_latency_s`: of each response, from the request to the last token, divided by the output tokens. The time
  to the first token is in it, so that it is near E2E / N, and above the ITL and the TPOT of this bench's own report.
  LLMPerf's OpenAI client divides by frames, of which the role's is one: at N tokens it is lower by 1 in N + 1.
- `request_output_throughput_token_per_s`: output tokens of a response by its end-to-end time.
- `mean_output_throughput_token_per_s`, `num_completed_requests_per_min`: over the wall time of the measured load, from
  its first request to its last end. LLMPerf counts the start of its clients too, and requests beyond the last that it
  sends and throws away.
- `num_requests_started`: requests that have ended, well or with an error. Errors are in no other figure but their own.
- Quantiles are interpolated linearly; `stddev` is that of a sample (ddof 1).
- `min` and `max` of `number_input_tokens` and `number_output_tokens` are strings: LLMPerf writes NumPy's integers so.

Different on purpose, in the same keys:

- Tokens are the endpoint's count, else the model's own tokenizer's, and not always Llama's; reasoning and tool calls
  are tokens too, so that the first of them ends the TTFT; a usage frame is no error. A response without any token has
  null for the two latencies that need one, and is left out of their statistics (LLMPerf: 0).
- Where LLMPerf would write NaN, which is no JSON (a `stddev` of one request, anything of none), there is null.
- In LLMPerf an error ends the thread that meets it, and is not counted. Here errors are written as its code means them:
  with the HTTP status, else the code in the stream, else -1, and zeros for the times. `error_code_frequency` is the
  text of a Python dict with plain integers; pandas would make it `{500.0: 3}` or `{500.0: np.int64(3)}`.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loramux_bench.errors import ResultsError
from loramux_bench.load.llmperf_flags import TokenFlags
from loramux_bench.record import RequestRecord

VERSION = "2023-08-31"

Response = dict[str, Any]
"""One request, in LLMPerf's keys."""

_LATENCIES = ("inter_token_latency_s", "ttft_s", "end_to_end_latency_s", "request_output_throughput_token_per_s")
_COUNTS = ("number_input_tokens", "number_output_tokens")
_QUANTILES = (25, 50, 75, 90, 95, 99)
_NO_CODE = -1
_WITHOUT_CODE = frozenset({"connect", "timeout", "broken_stream", "not_ready", "bad_answer"})
"""Errors of `RequestRecord` that the bench itself names: the endpoint gave no code."""


@dataclass(frozen=True, slots=True)
class Written:
    """Where the two files are."""

    summary: Path
    individual_responses: Path


def slug(flags: TokenFlags) -> str:
    """What both files are named after."""
    name = f"{flags.model}_{flags.mean_input_tokens}_{flags.mean_output_tokens}"
    return re.sub(r"-{2,}", "-", re.sub(r"[^\w-]+", "-", name))


def individual_responses(records: Iterable[RequestRecord]) -> list[Response]:
    """The measured requests in the order that they ended; without warm-up, and without those under way at the end."""
    counted = (record for record in records if not (record.warmup or record.cut))
    return [_response(record) for record in sorted(counted, key=lambda record: record.end_s)]


def summary(flags: TokenFlags, responses: Sequence[Response], *, elapsed_s: float, at: float) -> dict[str, Any]:
    """Of `individual_responses`. `elapsed_s`: from the begin of the measured load to the end of its last request;
    `at`: Unix seconds. Raises `ScenarioError` for flags that can not be read."""
    content: dict[str, Any] = {
        "version": VERSION,
        "name": f"{slug(flags)}_summary",
        "model": flags.model,
        "mean_input_tokens": flags.mean_input_tokens,
        "stddev_input_tokens": flags.stddev_input_tokens,
        "mean_output_tokens": flags.mean_output_tokens,
        "stddev_output_tokens": flags.stddev_output_tokens,
        "num_concurrent_requests": flags.num_concurrent_requests,
        "additional_sampling_params": flags.sampling_params(),
        "results": _results(responses, elapsed_s),
    }
    return _flat({**content, **flags.user_metadata(), "timestamp": int(at)})


def make_room(results_dir: Path) -> None:
    """The directory for the two files, made where it is missing. Raises `ResultsError`."""
    try:
        results_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_written(results_dir, error) from error


def write(
    results_dir: Path, flags: TokenFlags, records: Iterable[RequestRecord], *, elapsed_s: float, at: float
) -> Written:
    """Both files, below a directory that is made where it is missing; files of the same name are replaced.

    Raises `ResultsError`, and `ScenarioError` for flags that can not be read.
    """
    responses = individual_responses(records)
    written = Written(
        summary=results_dir / f"{slug(flags)}_summary.json",
        individual_responses=results_dir / f"{slug(flags)}_individual_responses.json",
    )
    make_room(results_dir)
    try:
        written.summary.write_text(_json(summary(flags, responses, elapsed_s=elapsed_s, at=at)), "utf-8")
        written.individual_responses.write_text(_json(responses), "utf-8")
    except OSError as error:
        raise _not_written(results_dir, error) from error
    return written


def _not_written(results_dir: Path, error: OSError) -> ResultsError:
    return ResultsError(f"LLMPerf's files can not be written below {results_dir}: {error.strerror}.")


def _response(record: RequestRecord) -> Response:
    tokens = record.tokens
    asked = next(
        count
        for count in (record.prompt_tokens, record.prompt_tokens_local, record.prompt_tokens_wanted)
        if count is not None
    )
    times: tuple[float | None, float | None, float, float]
    if not record.ok:
        times = (0, record.ttft_s or 0, 0, 0.0)
    elif record.ttft_s is None or not tokens:
        times = (None, None, record.e2e_s, 0.0)
    else:
        times = (
            (record.ttft_s + math.fsum(record.gaps_s)) / tokens,
            record.ttft_s,
            record.e2e_s,
            tokens / record.e2e_s if record.e2e_s > 0 else 0.0,
        )
    return {
        "error_code": None if record.ok else _error_code(record),
        "error_msg": record.message or record.error,
        **dict(zip(_LATENCIES, times, strict=True)),
        "number_total_tokens": asked + tokens,
        "number_output_tokens": tokens,
        "number_input_tokens": asked,
    }


def _error_code(record: RequestRecord) -> int | str:
    if record.status and not 200 <= record.status < 300:
        return record.status
    if record.error in _WITHOUT_CODE:
        return _NO_CODE
    code = record.error.removeprefix("http_")
    return int(code) if code.isdecimal() else record.error


def _results(responses: Sequence[Response], elapsed_s: float) -> dict[str, Any]:
    answered = [response for response in responses if response["error_code"] is None]
    codes = Counter(response["error_code"] for response in responses if response["error_code"] is not None)
    errors = codes.total()
    tokens = sum(response["number_output_tokens"] for response in answered)
    found: dict[str, Any] = {}
    for name in (*_LATENCIES, *_COUNTS):
        values = [response[name] for response in answered if response[name] is not None]
        found[name] = _statistics(values, whole=name in _COUNTS)
    return {
        **found,
        "num_requests_started": len(responses),
        "error_rate": errors / len(responses) if responses else 0,
        "number_errors": errors,
        "error_code_frequency": str(dict(codes.most_common())),
        "mean_output_throughput_token_per_s": tokens / elapsed_s if elapsed_s > 0 else 0.0,
        "num_completed_requests": len(answered),
        "num_completed_requests_per_min": len(answered) / elapsed_s * 60 if elapsed_s > 0 else 0.0,
    }


def _statistics(values: Sequence[float], *, whole: bool) -> dict[str, Any]:
    if not values:
        return {"quantiles": {f"p{q}": None for q in _QUANTILES}, **dict.fromkeys(("mean", "min", "max", "stddev"))}
    series = np.array(values, dtype=np.float64)
    least, most = float(series.min()), float(series.max())
    return {
        "quantiles": {f"p{q}": float(np.quantile(series, q / 100)) for q in _QUANTILES},
        "mean": float(series.mean()),
        "min": str(int(least)) if whole else least,
        "max": str(int(most)) if whole else most,
        "stddev": float(series.std(ddof=1)) if len(series) > 1 else None,
    }


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Inner dictionaries dissolved, their keys joined by underscores; an empty one leaves nothing."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        found.update(_flat(value, f"{prefix}{key}_") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return found


def _json(content: Any) -> str:
    return json.dumps(content, indent=4, allow_nan=False)
