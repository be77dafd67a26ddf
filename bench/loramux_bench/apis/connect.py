"""Which client speaks a target's interface."""

from collections.abc import Iterable

from loramux_bench.apis.litellm import LiteLlmApi, import_litellm
from loramux_bench.apis.openai import OpenAiApi
from loramux_bench.apis.port import Api
from loramux_bench.apis.sagemaker import SageMakerApi
from loramux_bench.apis.tgi import TgiApi
from loramux_bench.errors import ScenarioError
from loramux_bench.scenario import Target


def connect(target: Target, *, url: str, key: str, timeout_s: float) -> Api:
    """A client for one user of the load; it connects when it is asked. `Target.extra` comes with each `Ask`, but for
    what SageMaker needs of it (`SageMakerOptions`). Raises `ScenarioError` for what no client can be made of."""
    match target.api:
        case "openai-chat":
            return OpenAiApi(url, key, "chat")
        case "openai-completions":
            return OpenAiApi(url, key, "completions")
        case "tgi":
            return TgiApi(url, key)
        case "sagemaker":
            if target.key_env and ":" not in key:
                raise ScenarioError(f"The target {target.name!r} needs ACCESS_KEY_ID:SECRET in {target.key_env}.")
            return SageMakerApi(url, key, target.extra, timeout_s)
        case "litellm":
            return LiteLlmApi(url, key)


def preload(targets: Iterable[Target]) -> None:
    """Import now what the first client of these targets would: LiteLLM takes seconds, in which a process reads no
    stream, and a Locust worker misses so many heartbeats that its master gives it up."""
    if any(target.api == "litellm" for target in targets):
        import_litellm()
