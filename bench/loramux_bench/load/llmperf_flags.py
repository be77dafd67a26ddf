"""LLMPerf's flags, and the scenario that they mean.

Source: `token_benchmark_ray.py` and `ray_clients` of https://github.com/ray-project/llmperf: names, defaults,
environment variables, and what is sent.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loramux_bench.errors import ScenarioError
from loramux_bench.scenario import Scenario, parse

NAME = "llmperf"
"""Of the scenario."""

LLM_APIS = ("openai", "litellm", "anthropic", "sagemaker")
"""What `--llm-api` may be here."""

REQUEST_TIMEOUT_S = 300.0
"""Of one request, and how long those under way at the end are waited for: LLMPerf waits for all of them."""

_LITELLM_PREFIXES = {"litellm": "", "anthropic": "anthropic/"}
"""What goes before the model where LiteLLM sends, by `--llm-api`."""

_SAGEMAKER_URLS = ("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", "AWS_ENDPOINT_URL")
"""As the AWS SDKs read them; the first that is set."""


@dataclass(frozen=True, slots=True)
class TokenFlags:
    """A field for each of LLMPerf's flags, with its default."""

    model: str
    mean_input_tokens: int = 550
    stddev_input_tokens: int = 150
    mean_output_tokens: int = 150
    stddev_output_tokens: int = 80
    num_concurrent_requests: int = 10
    timeout_s: int = 90
    """`--timeout`: no request is sent after it."""
    max_num_completed_requests: int = 10
    additional_sampling_params: str = "{}"
    """A JSON object."""
    results_dir: str = ""
    """Empty: LLMPerf's files are not written."""
    llm_api: str = "openai"
    metadata: str = ""
    """`key=value,key=value`."""

    def sampling_params(self) -> dict[str, Any]:
        """Further fields of every body. Raises `ScenarioError`."""
        try:
            params = json.loads(self.additional_sampling_params, parse_constant=_refused)
        except ValueError as error:
            raise ScenarioError(f"--additional-sampling-params must be a JSON object: {error}.") from error
        if not isinstance(params, dict):
            raise ScenarioError(f"--additional-sampling-params must be a JSON object; {params!r} is none.")
        return params

    def user_metadata(self) -> dict[str, str]:
        """Further keys of the summary. Raises `ScenarioError`."""
        found: dict[str, str] = {}
        for item in self.metadata.split(",") if self.metadata else ():
            key, equals, value = item.partition("=")
            if not (key and equals):
                raise ScenarioError(f"--metadata has the form key=value,key=value; {item!r} is not of it.")
            found[key] = value
        return found


def scenario(flags: TokenFlags, environment: Mapping[str, str] = os.environ) -> Scenario:
    """The load that LLMPerf makes of these flags: a closed loop that ends with the requests or with the time.

    Bodies get what LLMPerf sends and no more (no `ignore_eos`, no temperature); `--additional-sampling-params` adds to
    it. Unlike LLMPerf it waits for an endpoint that says "not ready", and that time is counted apart.

    Raises `ScenarioError` for flags or variables that are missing, wrong, or of an interface that is not spoken here.
    """
    flags.user_metadata()  # a fault in it must show before the load, not after it
    target = _target(flags, environment)
    # A provider has neither our admin interface nor metrics to read.
    ours = target["api"] != "litellm"
    content = {
        "name": NAME,
        "about": f"LLMPerf's flags, for {flags.model}.",
        "targets": [{**target, "model": f"{_prefix(flags)}{flags.model}", "extra": flags.sampling_params()}],
        "load": {
            "shape": "closed",
            "users": flags.num_concurrent_requests,
            "requests": flags.max_num_completed_requests,
            "duration_s": flags.timeout_s,
            "timeout_s": REQUEST_TIMEOUT_S,
            "drain_s": REQUEST_TIMEOUT_S,
        },
        "prompts": {
            "input_tokens": {"mean": flags.mean_input_tokens, "stddev": flags.stddev_input_tokens},
            "output_tokens": {"mean": flags.mean_output_tokens, "stddev": flags.stddev_output_tokens},
            "ignore_eos": False,
            "temperature": None,
        },
        "adapters": {"names": [flags.model], "choice": "one"},
        "scrape": {"metrics": ours, "admin": ours},
    }
    return parse(content, "of these flags")


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no value of JSON")


def _prefix(flags: TokenFlags) -> str:
    return _LITELLM_PREFIXES.get(flags.llm_api, "")


def _target(flags: TokenFlags, environment: Mapping[str, str]) -> dict[str, Any]:
    if flags.llm_api == "openai":
        return {"name": "openai", "api": "openai-chat", **_openai_place(environment)}
    if flags.llm_api in _LITELLM_PREFIXES:
        return {"name": flags.llm_api, "api": "litellm", "admin": False}
    if flags.llm_api == "sagemaker":
        return {"name": "sagemaker", "api": "sagemaker", "url": _sagemaker_url(environment)}
    known = ", ".join(LLM_APIS)
    raise ScenarioError(
        f"--llm-api is one of {known}, not {flags.llm_api!r}. LiteLLM speaks with most others: give --llm-api litellm, "
        "and its provider before the model, as in --model vertex_ai/<model>."
    )


def _openai_place(environment: Mapping[str, str]) -> dict[str, str]:
    base = environment.get("OPENAI_API_BASE", "").rstrip("/")
    if not base:
        # The scenario's own default, a loramux gateway; a key that is meant for OpenAI must not go there.
        return {}
    url, slash, last = base.rpartition("/")
    if not slash or last != "v1":
        raise ScenarioError(f"OPENAI_API_BASE must end in /v1, as in http://127.0.0.1:8080/v1; it is {base}.")
    if not environment.get("OPENAI_API_KEY"):
        raise ScenarioError(
            "OPENAI_API_BASE is set, and OPENAI_API_KEY is not: set it to the endpoint's key, or to any text where the "
            "endpoint wants none."
        )
    return {"url": url, "key_env": "OPENAI_API_KEY"}


def _sagemaker_url(environment: Mapping[str, str]) -> str:
    for name in _SAGEMAKER_URLS:
        if environment.get(name):
            return environment[name].rstrip("/")
    raise ScenarioError(
        f"--llm-api sagemaker speaks with the endpoint in {_SAGEMAKER_URLS[0]}, which is not set. For Amazon's own "
        "give --llm-api litellm --model sagemaker/<endpoint>."
    )
