from loramux_bench.apis.openai import OpenAiApi
from loramux_bench.apis.port import Api
from loramux_bench.scenario import Target


def connect(target: Target, *, url: str, key: str, timeout_s: float) -> Api:
    return OpenAiApi(url, key, "chat")
