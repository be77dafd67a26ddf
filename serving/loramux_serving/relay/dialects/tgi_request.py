"""A request in TGI's words, ready to be asked of vLLM. Pure."""

from collections.abc import Callable
from typing import Literal

import msgspec

from loramux_serving.relay.dialects.completion import COMPLETIONS, GREEDY, Generation, Sampling, completion_body
from loramux_serving.relay.dialects.tgi_form import Shape, TgiForm
from loramux_serving.relay.dialects.tgi_parameters import Generate, Parameters, constraint, validate

Path = Literal["/generate", "/generate_stream", "/"]

DEFAULT_NEW_TOKENS = 1024
"""What TGI's OpenAPI names for `max_new_tokens`."""


class TgiRequest(msgspec.Struct, frozen=True):
    """`relay.dialect.InferenceRequest`."""

    model: str
    generation: Generation
    shape: Shape

    @property
    def stream(self) -> bool:
        return self.generation.stream

    @property
    def path(self) -> str:
        return COMPLETIONS

    def body(self, engine_name: str) -> bytes:
        return completion_body(self.generation, engine_name)

    def form(self, engine_name: str) -> TgiForm:
        return TgiForm(self.shape, engine_name, self.model)


def of_decoded(
    request: Generate, path: Path, *, base_name: str, max_total_tokens: int, draw_seed: Callable[[], int]
) -> TgiRequest:
    """Raises `RequestInvalid`. A seed is drawn only where the answer tells it: with one, vLLM draws tokens more
    slowly."""
    asked = request.parameters
    streamed = path == "/generate_stream" or (path == "/" and request.stream)
    validate(request, streamed=streamed)
    detailed = asked.details or (asked.decoder_input_details and not streamed)
    seed = asked.seed
    if seed is None and asked.samples and detailed:
        seed = draw_seed()
    best_of = max(1, asked.best_of or 1)
    generation = Generation(
        prompt=request.inputs,
        max_new_tokens=asked.max_new_tokens or min(DEFAULT_NEW_TOKENS, max_total_tokens or DEFAULT_NEW_TOKENS),
        sampling=_sampling(asked, seed),
        sequences=best_of,
        stop=asked.stop,
        truncate=asked.truncate,
        grammar=constraint(asked.grammar),
        tokens=streamed or detailed or best_of > 1,
        prompt_tokens=asked.decoder_input_details,
        stream=streamed,
    )
    shape = Shape(
        prompt=request.inputs,
        full_text=bool(asked.return_full_text),
        detailed=detailed,
        listed=path == "/",
        seed=seed if asked.samples else None,
    )
    return TgiRequest(asked.adapter_id or base_name, generation, shape)


def _sampling(asked: Parameters, seed: int | None) -> Sampling:
    """Penalties are for a greedy choice too."""
    samples = asked.samples
    return Sampling(
        temperature=(asked.temperature or 1.0) if samples else GREEDY.temperature,
        top_k=asked.top_k or 0,
        top_p=asked.top_p or 1.0,
        repetition_penalty=asked.repetition_penalty or 1.0,
        frequency_penalty=asked.frequency_penalty or 0.0,
        seed=seed if samples else None,
    )
