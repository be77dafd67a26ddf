"""The same load by vLLM's own `bench serve`, where vLLM is installed, so that two tools' figures stand side by side.

Differences by definition (`vllm/benchmarks/serve.py`, `lib/endpoint_request_func.py` of vLLM 0.32):

- its ITL pools gaps between stream chunks with `choices`, ours between chunks that carry tokens: the role's empty
  chunk, which comes with the first token, makes one more gap of about 0 there, and none here;
- its TPOT is (latency - TTFT) / (output tokens - 1), as ours, but its latency ends with the last chunk that it counts,
  and ours with the end of the stream;
- its duration, and with it every rate, holds the set-up of its clients' sessions.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from loramux_bench.errors import ResultsError

_RUN = """
import argparse
from vllm.benchmarks.serve import add_cli_args, main
parser = argparse.ArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
_TIMEOUT_S = 600


def available() -> bool:
    return find_spec("vllm") is not None


def measure(
    url: str, model: str, tokenizer: Path, *, requests: int, streams: int, prompt_tokens: int, tokens: int
) -> Mapping[str, float]:
    """Its figures of a load with so many requests at a time: in seconds and per second, by our names. `tokenizer` is a
    directory, which its random prompts are made with. Raises `ResultsError` where it fails."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-c", _RUN, "--backend", "openai-chat", "--endpoint", "/v1/chat/completions"]
        command += [
            "--base-url",
            url,
            "--model",
            model,
            "--tokenizer",
            str(tokenizer),
            "--disable-tqdm",
            "--ignore-eos",
        ]
        command += [
            "--dataset-name",
            "random",
            "--random-input-len",
            str(prompt_tokens),
            "--random-output-len",
            str(tokens),
        ]
        command += ["--random-range-ratio", "0", "--num-prompts", str(requests)]
        command += ["--max-concurrency", str(streams), "--percentile-metrics", "ttft,itl,tpot,e2el"]
        command += ["--metric-percentiles", "50,99", "--save-result", "--result-dir", scratch]
        command += ["--result-filename", "result.json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, cwd=scratch)
        try:
            result = json.loads((Path(scratch) / "result.json").read_text("utf-8"))
        except OSError:
            raise ResultsError(f"vLLM's bench serve failed: {done.stderr[-1500:]}") from None
    found = {
        f"{ours} {statistic}": result[f"{statistic}_{theirs}_ms"] / 1000
        for ours, theirs in (("TTFT", "ttft"), ("ITL", "itl"), ("E2E", "e2el"))
        for statistic in ("mean", "p50", "p99")
    }
    return {**found, "requests/s": result["request_throughput"], "tokens/s": result["output_throughput"]}
