"""`engine.max_prompt_tokens` in real vLLM: what is too long is refused before anything is answered, in streams too."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.tiny_model import write_tiny_model
from tests.fixtures.vllm import SETTINGS, RealVllm, running

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]

LIMIT = 16
CHAT = [{"role": "user", "content": "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"}]


@pytest.fixture(scope="module")
def limited(vllm_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealVllm]:
    base = write_tiny_model(vllm_base, tmp_path_factory.mktemp("bases") / "tiny")
    with running(base, SETTINGS.model_copy(update={"max_prompt_tokens": LIMIT, "max_model_len": 256})) as real:
        yield replace(real, base=base)


def ask(vllm: RealVllm, route: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{vllm.url}/v1/{route}", json={"model": vllm.name, "max_tokens": 4, **body}, timeout=120.0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("completions", {"prompt": [5] * (LIMIT + 1)}),
        ("completions", {"prompt": "word " * 200}),
        ("chat/completions", {"messages": CHAT}),
    ],
)
def test_a_prompt_over_the_limit_is_refused(limited: RealVllm, route: str, body: dict[str, Any], stream: bool) -> None:
    answer = ask(limited, route, stream=stream, **body)

    assert answer.status_code == 400, answer.text
    assert f"at most {LIMIT} tokens are allowed" in answer.json()["error"]["message"]


def test_a_prompt_up_to_the_limit_is_answered(limited: RealVllm) -> None:
    answer = ask(limited, "completions", prompt=[5] * LIMIT, max_tokens=200, ignore_eos=True).raise_for_status().json()

    assert answer["usage"] == answer["usage"] | {"prompt_tokens": LIMIT, "completion_tokens": 200}
