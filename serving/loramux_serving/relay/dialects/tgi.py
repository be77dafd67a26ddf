"""The words of Hugging Face's Text Generation Inference: `/generate`, `/generate_stream` and `/`. Pure.

After TGI 3's own source (`router/src/lib.rs`, `validation.rs`, `server.rs`).
"""

import secrets
from collections.abc import Callable

from loramux_adapters.errors import LoramuxError
from loramux_serving.relay.dialect import Asked, Words
from loramux_serving.relay.dialects.openai import bearer
from loramux_serving.relay.dialects.tgi_errors import tgi_words
from loramux_serving.relay.dialects.tgi_parameters import decode
from loramux_serving.relay.dialects.tgi_request import Path, TgiRequest, of_decoded
from loramux_serving.relay.framing import Headers
from loramux_serving.relay.headers import REQUEST_ID, as_json
from loramux_serving.relay.refusal import Refusal

PATHS: tuple[Path, ...] = ("/generate", "/generate_stream", "/")
"""What TGI serves for POST, and `TgiDialect` speaks."""


class TgiDialect:
    """`relay.dialect.Dialect`, for one path of TGI's interface."""

    id_headers: tuple[bytes, ...] = (REQUEST_ID,)

    def __init__(
        self, base_name: str, path: Path, *, max_total_tokens: int = 0, draw_seed: Callable[[], int] | None = None
    ) -> None:
        """`base_name` answers requests without `adapter_id`. `max_total_tokens` bounds how much is generated where a
        request does not say; 0: not known. `draw_seed` gives a seed where one is to be told."""
        self._base_name = base_name
        self._path = path
        self._max_total_tokens = max_total_tokens
        self._draw_seed = draw_seed or _random_seed

    def engine_headers(self, headers: Headers) -> Headers:
        return as_json(headers)

    def signed(self, asked: Asked) -> bool:
        return False

    def credentials(self, asked: Asked, body: bytes) -> str | None:
        return bearer(asked)

    def decode(self, asked: Asked, body: bytes) -> TgiRequest:
        return of_decoded(
            decode(body),
            self._path,
            base_name=self._base_name,
            max_total_tokens=self._max_total_tokens,
            draw_seed=self._draw_seed,
        )

    def error(self, error: LoramuxError | Refusal) -> Words:
        return tgi_words(error)


def _random_seed() -> int:
    return secrets.randbits(62)
