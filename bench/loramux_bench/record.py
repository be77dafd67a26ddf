"""What one request leaves: times, tokens, and how it ended.

Times are seconds since the run's start (`RunInfo.started_at`), on the clock of the process that sent the request,
rounded to microseconds. Definitions:

- origin: when the request was due. In a closed loop when it was sent; in an open loop its scheduled time (so that what
  queues inside the generator is counted), moved by the time that the endpoint said "not ready".
- TTFT: origin to the first chunk that carries a token of any kind (content, reasoning, tool call).
- ITL: gaps between chunks that carry tokens.
- TPOT: (E2E - TTFT) / (tokens - 1), for two tokens or more.
- E2E: origin to the end of the answer.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from loramux_bench.errors import ResultsError


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request of the load. `error` is empty for one that was answered in full."""

    index: int
    target: str
    api: str
    adapter: str
    tenant: str = ""
    worker: int = 0
    warmup: bool = False
    """Sent before the measured time: kept, and left out of every figure."""

    scheduled_s: float | None = None
    """None in a closed loop."""
    sent_s: float
    """Of the attempt that counts: the first that was not answered with "not ready"."""
    first_token_s: float | None = None
    end_s: float
    not_ready_s: float = 0.0
    """From the first attempt's sending to the last's."""
    attempts: int = 1
    gaps_s: tuple[float, ...] = ()
    chunks: int = 0
    """That carried tokens."""

    prompt_tokens: int | None = None
    """As the endpoint counted; None where it did not say."""
    prompt_tokens_wanted: int
    prompt_tokens_local: int | None = None
    """As the model's tokenizer counts the text, without a chat template; None without a tokenizer."""
    output_tokens: int | None = None
    output_tokens_wanted: int
    output_tokens_local: int | None = None

    status: int = 0
    """HTTP status; 0 where none came."""
    error: str = ""
    """A short code: `http_503`, `connect`, `timeout`, `broken_stream`, `not_ready`, `bad_answer`, or the endpoint's."""
    message: str = ""
    finish_reason: str = ""
    cut: bool = False
    """Under way when the run ended: neither an answer nor an error."""

    request_id: str = ""
    version: str = ""
    """Of the adapter, where the endpoint says it."""
    replica: str = ""

    @property
    def ok(self) -> bool:
        return not self.error and not self.cut

    @property
    def origin_s(self) -> float:
        return self.sent_s if self.scheduled_s is None else self.scheduled_s + self.not_ready_s

    @property
    def lag_s(self) -> float:
        """How late the generator sent it; 0 in a closed loop."""
        return max(0.0, self.sent_s - self.origin_s)

    @property
    def ttft_s(self) -> float | None:
        return None if self.first_token_s is None else self.first_token_s - self.origin_s

    @property
    def e2e_s(self) -> float:
        return self.end_s - self.origin_s

    @property
    def tokens(self) -> int:
        """Of the answer: by the endpoint's usage, else the tokenizer, else one a chunk."""
        if self.output_tokens is not None:
            return self.output_tokens
        return self.chunks if self.output_tokens_local is None else self.output_tokens_local

    @property
    def tpot_s(self) -> float | None:
        if self.first_token_s is None or self.tokens < 2:
            return None
        return (self.end_s - self.first_token_s) / (self.tokens - 1)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(RequestRecord)


def encode(record: RequestRecord) -> bytes:
    """One line of `requests.jsonl`, without its end."""
    return _encoder.encode(record)


def decode_all(lines: Iterable[bytes], source: Path) -> Iterator[RequestRecord]:
    """The records of these lines. A torn last line, as a killed writer leaves it, is passed over.

    Raises `ResultsError` for any other line that is no record.
    """
    torn: str | None = None
    for number, line in enumerate(lines, 1):
        if torn is not None:
            raise ResultsError(torn)
        if not line.strip():
            continue
        try:
            yield _decoder.decode(line)
        except msgspec.DecodeError as error:
            torn = f"{source} is not a file of requests: line {number}: {error}."
            if line.endswith(b"\n"):
                raise ResultsError(torn) from error
