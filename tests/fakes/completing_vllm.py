"""As `vllm_server.py` with the plugin, and it answers completions as vLLM does, in its true form: `tests/fixtures/
vllm_completions` has what vLLM sends, and a test holds this against it. Started as vLLM is:
`python completing_vllm.py -m … --port N --served-model-name NAME`.

The answer is the prompt again, then the end of sequence. A token is up to 3 bytes of UTF-8, so characters are cut by
tokens, and the id of a token is the number that its bytes are. The context is 1024 tokens. `GET /fake/asked` tells the
bodies that came, the last one first.
"""

import json
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from tests.fakes import vllm_server

MAX_MODEL_LEN = 1024
EOS = "<|im_end|>"
EOS_ID = 2**24
LOGPROB = -0.5


class Completing(vllm_server.Handler):
    """Of a model that is not there it says 404, as vLLM does."""

    asked: ClassVar[deque[dict[str, Any]]] = deque(maxlen=100)

    def do_GET(self) -> None:
        if self.path == "/fake/asked":
            return self.answer(200, list(Completing.asked))
        if self.path == "/v1/models":
            cards = [{"id": self.engine.base, "parent": None, "max_model_len": MAX_MODEL_LEN}]
            cards += [
                {"id": name, "root": at, "parent": self.engine.base} for name, (_, at) in self.engine.names.items()
            ]
            return self.answer(200, {"object": "list", "data": cards})
        return super().do_GET()

    def do_POST(self) -> None:
        if self.path != "/v1/completions":
            return super().do_POST()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Completing.asked.appendleft(body)
        if body["model"] not in (self.engine.base, *self.engine.names):
            return self.answer(404, _error(404, f"The model `{body['model']}` does not exist.", "model"))
        if (fault := refused(body)) is not None:
            return self.answer(400, fault)
        if not body.get("stream"):
            return self.answer(200, document(body))
        content = b"".join(frames(body))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        return None


def refused(body: Mapping[str, Any]) -> dict[str, Any] | None:
    if body["max_tokens"] > MAX_MODEL_LEN:
        message = f"max_tokens={body['max_tokens']} cannot be greater than max_model_len={MAX_MODEL_LEN}."
        return _error(400, message, "max_tokens")
    if body.get("temperature", 1) > 2:
        return _error(400, f"temperature must be in [0, 2], got {body['temperature']}.", "temperature")
    return None


def document(body: Mapping[str, Any]) -> dict[str, Any]:
    prompt = _cut(b"".join(_prompt(body)))
    prompt_ids = [token for token, _ in prompt]
    named = bool(body.get("return_token_ids"))
    choices = []
    for index in range(body.get("n", 1)):
        steps = list(_steps(body))
        ids = [step[0] for step in steps]
        alone = [step[1] for step in steps]
        told = ([own for _, own in prompt] if body.get("echo") else []) + alone
        choices.append(
            {
                "index": index,
                "text": "".join(step[2] for step in steps),
                "logprobs": _logprobs(told, echo=body.get("echo", False)) if "logprobs" in body else None,
                "finish_reason": steps[-1][3],
                "stop_reason": steps[-1][4],
                "token_ids": ids if named else None,
                "prompt_logprobs": None,
                "prompt_token_ids": prompt_ids if named else None,
                "routed_experts": None,
            }
        )
    return {**_head(body), "choices": choices, "usage": _usage(len(prompt), len(ids) * len(choices))}


def frames(body: Mapping[str, Any]) -> Iterator[bytes]:
    prompt = [one for one, _ in _cut(b"".join(_prompt(body)))]
    count = 0
    for number, (token, alone, text, finish, stop) in enumerate(_steps(body)):
        named = bool(body.get("return_token_ids"))
        choice = {
            "index": 0,
            "text": text,
            "logprobs": _logprobs([alone]) if "logprobs" in body else None,
            "finish_reason": finish,
            "stop_reason": stop,
            "prompt_token_ids": prompt if named and not number else None,
            "token_ids": [token] if named else None,
        }
        count += 1
        yield _frame({**_head(body), "choices": [choice]})
    if (body.get("stream_options") or {}).get("include_usage"):
        yield _frame({**_head(body), "choices": [], "usage": _usage(len(prompt), count)})
    yield b"data: [DONE]\n\n"


def _steps(body: Mapping[str, Any]) -> Iterator[tuple[int, str, str, str | None, str | None]]:
    """Each token: id, its own text, the text that it brings, why it is the last, and the stop string."""
    held, said = b"", ""
    data = body["prompt"].encode()
    tokens = [data[at : at + 3] for at in range(0, len(data), 3)]
    for number, token in enumerate(tokens, 1):
        held += token
        try:
            text, held = held.decode(), b""
        except UnicodeDecodeError as fault:
            text, held = held[: fault.start].decode(), held[fault.start :]
        said += text
        stop = next((stop for stop in body.get("stop", ()) if stop in said), None)
        if stop is not None:
            assert body["include_stop_str_in_output"]
            text = text[: len(text) - len(said.partition(stop)[2])]
        finish = "stop" if stop is not None else "length" if number == body["max_tokens"] else None
        yield int.from_bytes(token), "" if held and not text else text, text, finish, stop
        if finish:
            return
    yield EOS_ID, EOS, "", "stop", None


def _prompt(body: Mapping[str, Any]) -> list[bytes]:
    data = body["prompt"].encode()
    tokens = [data[at : at + 3] for at in range(0, len(data), 3)]
    return tokens[-body["truncate_prompt_tokens"] :] if "truncate_prompt_tokens" in body else tokens


def _cut(data: bytes) -> list[tuple[int, str]]:
    pieces = [data[at : at + 3] for at in range(0, len(data), 3)]
    return [(int.from_bytes(piece), piece.decode("utf-8", "ignore")) for piece in pieces]


def _logprobs(tokens: list[str], *, echo: bool = False) -> dict[str, Any]:
    logprobs = [None if echo and not place else LOGPROB for place in range(len(tokens))]
    tops = [None if value is None else {token: value} for token, value in zip(tokens, logprobs, strict=True)]
    offsets = [len("".join(tokens[:place])) for place in range(len(tokens))]
    return {"text_offset": offsets, "token_logprobs": logprobs, "tokens": tokens, "top_logprobs": tops}


def _head(body: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"]}


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}


def _error(code: int, message: str, param: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "BadRequestError", "param": param, "code": code}}


def _frame(value: Any) -> bytes:
    return b"data: %b\n\n" % json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


if __name__ == "__main__":
    vllm_server.Handler = Completing  # type: ignore[misc]
    sys.argv.append("--plugin")
    vllm_server.main()
