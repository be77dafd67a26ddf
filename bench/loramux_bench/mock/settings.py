"""What the mock endpoint is told on its command line: names, defaults and help in one table."""

import argparse
import sys
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, field

from loramux_bench.errors import ScenarioError

Fault = Literal["none", "rubbish", "break", "error-frame", "http-500"]

Seconds = Annotated[float, Meta(ge=0, le=86_400)]
Count = Annotated[int, Meta(ge=0)]


class MockSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Each field is an option: `ttft` is `--ttft 0.1`, `tokens_per_chunk` is `--tokens-per-chunk 2`."""

    host: Annotated[str, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535, description="0: any free one, which the first line of output says.")] = 0

    ttft_s: Annotated[Seconds, Meta(description="From a request's last byte to its first chunk.")] = field(
        default=0.1, name="ttft"
    )
    itl_s: Annotated[Seconds, Meta(description="From chunk to chunk.")] = field(default=0.02, name="itl")
    slow: Annotated[float, Meta(gt=0, le=1_000, description="Both times are multiplied by it.")] = 1.0
    jitter: Annotated[
        float, Meta(ge=0, le=10, description="Noise in both times: standard deviation relative to the mean, lognormal.")
    ] = 0.0
    concurrency: Annotated[
        Count, Meta(description="Requests answered at a time; the others wait, first come first served. 0: all.")
    ] = 0

    tokens_per_chunk: Annotated[int, Meta(ge=1, description="Tokens in each chunk.")] = 1
    tokens_per_word: Annotated[
        float, Meta(ge=0, le=1_000, description="Prompt tokens for each word between white space.")
    ] = 1.0
    template_tokens: Annotated[Count, Meta(description="Prompt tokens of the chat template.")] = 0
    reasoning: Annotated[Count, Meta(description="The first so many tokens are reasoning.")] = 0
    reasoning_field: Annotated[
        Literal["reasoning_content", "reasoning"],
        Meta(description="How it is called. vLLM 0.32 says `reasoning`, earlier ones and others `reasoning_content`."),
    ] = "reasoning_content"
    comments: Annotated[bool, Meta(description="An SSE comment before every frame.")] = False
    continuous_usage: Annotated[bool, Meta(description="Usage on every frame.")] = False
    early_role: Annotated[
        bool, Meta(description="The role's frame is sent when the request starts. Else with the first token, as vLLM.")
    ] = False

    base: Annotated[str, Meta(description="Name of the base.")] = "mock-base"
    adapters: Annotated[int, Meta(ge=0, le=10_000, description="So many adapters: mock-0, mock-1, ...")] = 4
    key: Annotated[str, Meta(description="The only key that is let in. Empty: any, or none.")] = ""

    not_ready_s: Annotated[Seconds, Meta(description="503 for so long after the start.")] = 0.0
    fault: Annotated[Fault, Meta(description="What goes wrong.")] = "none"
    fault_share: Annotated[float, Meta(ge=0, le=1, description="With this share of the requests.")] = 1.0

    seed: Annotated[int, Meta(description="Of the noise and the faults.")] = 1
    log_requests: Annotated[int, Meta(ge=1, description="How many of the last requests /mock/log tells of.")] = 20_000

    @property
    def models(self) -> tuple[str, ...]:
        """What may be asked for, the base first."""
        return (self.base, *(f"mock-{number}" for number in range(self.adapters)))


def parse(arguments: Sequence[str]) -> MockSettings:
    """From the command line. Raises `ScenarioError` for a value out of its range; ends the process for an option that
    does not exist, as argparse does."""
    parser = argparse.ArgumentParser(
        prog=f"{sys.executable} -m loramux_bench.mock",
        description="An endpoint of known timing, which answers as vLLM does.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for option in msgspec.structs.fields(MockSettings):
        told = f"{_description(option.type)} Default: {option.default!r}.".replace("%", "%%")
        flag = f"--{option.encode_name.replace('_', '-')}"
        if isinstance(option.default, bool):
            parser.add_argument(flag, dest=option.encode_name, action="store_true", help=told)
        else:
            parser.add_argument(flag, dest=option.encode_name, metavar="VALUE", help=told)
    try:
        return msgspec.convert(vars(parser.parse_args(arguments)), MockSettings, strict=False)
    except msgspec.ValidationError as error:
        raise ScenarioError(f"The mock endpoint can not be set so: {error}.") from error


def _description(annotated: object) -> str:
    metas = getattr(annotated, "__metadata__", ())
    return next((meta.description for meta in reversed(metas) if meta.description), "")
