"""An endpoint on loopback that speaks OpenAI's, TGI's and SageMaker's interfaces, and can be told to speak them badly.

Forms: OpenAI's streams as vLLM sends them; TGI's `/generate_stream` (huggingface_hub's own client reads it in a test);
SageMaker's in AWS' event stream encoding, with LMI's JSON lines within. Source of the encoding:
https://smithy.io/2.0/aws/amazon-eventstream.html.
"""

import json
import ssl
import struct
import sys
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Literal

LIMIT_S = 10.0

GATE = b"<gate>"
"""Among the parts of an answer: it goes on when somebody has called `/go`."""


@dataclass(frozen=True)
class Play:
    """One answer, as it goes over the wire."""

    parts: Sequence[bytes]
    status: int = 200
    type: str = "text/event-stream"
    headers: Mapping[str, str] = field(default_factory=dict)
    framing: Literal["chunked", "length", "close"] = "chunked"
    cut: bool = False
    """The connection closes in place of the end."""
    hang_up: bool = False
    """The connection closes after the end, and nothing said so."""
    raw: bool = False
    """The parts are all that is sent, head and framing included; then the connection closes."""


@dataclass(frozen=True)
class Heard:
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass
class InferenceServer:
    """Each request is answered by the next of `plays`, and in its interface's own form where there is none."""

    url: str = ""
    plays: deque[Play] = field(default_factory=deque)
    heard: list[Heard] = field(default_factory=list)
    connections: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    closed: threading.Event = field(default_factory=threading.Event)
    """A client has gone while it was answered."""


def sse(*frames: Any) -> list[bytes]:
    return [
        b"data: " + (frame if isinstance(frame, bytes) else json.dumps(frame).encode()) + b"\n\n" for frame in frames
    ]


def json_play(content: Any, status: int = 200, **headers: str) -> Play:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Play([body], status=status, type="application/json", framing="length", headers=headers)


def openai_error(status: int, code: Any, message: str = "No.", **headers: str) -> Play:
    return json_play({"error": {"message": message, "type": "x", "param": None, "code": code}}, status, **headers)


def chat(words: Iterable[str], usage: Mapping[str, int] | None = None) -> list[bytes]:
    """Chunks of a chat, with a role first; the last word has the finish reason; `usage` has a frame of its own."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": word} for word in words)]
    frames: list[Any] = [
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": "length" if delta is deltas[-1] else None}],
        }
        for delta in deltas
    ]
    return sse(*frames, *_usage(usage, "chat.completion.chunk"), b"[DONE]")


def completions(words: Iterable[str], usage: Mapping[str, int] | None = None) -> list[bytes]:
    given = list(words)
    frames = [
        {
            "id": "cmpl-1",
            "object": "text_completion",
            "choices": [{"index": 0, "text": word, "finish_reason": "length" if number == len(given) else None}],
        }
        for number, word in enumerate(given, 1)
    ]
    return sse(*frames, *_usage(usage, "text_completion"), b"[DONE]")


def _usage(usage: Mapping[str, int] | None, kind: str) -> list[Any]:
    return (
        []
        if usage is None
        else [{"id": "1", "object": kind, "created": 1, "model": "m", "choices": [], "usage": usage}]
    )


def tgi_frames(words: Iterable[str]) -> list[dict[str, Any]]:
    """As TGI 3 sends them: the last is a special token, with the whole text and the details."""
    given = [*words, "</s>"]
    frames: list[dict[str, Any]] = [
        {
            "index": number,
            "token": {"id": number, "text": word, "logprob": -0.5, "special": number == len(given)},
            "generated_text": None,
            "details": None,
        }
        for number, word in enumerate(given, 1)
    ]
    frames[-1]["generated_text"] = "".join(given[:-1])
    frames[-1]["details"] = {
        "finish_reason": "eos_token",
        "generated_tokens": len(given),
        "seed": None,
        "input_length": 7,
    }
    return frames


def tgi(words: Iterable[str]) -> list[bytes]:
    return [b"data:" + json.dumps(frame).encode() + b"\n\n" for frame in tgi_frames(words)]


def lmi(words: Iterable[str]) -> list[bytes]:
    """JSON lines, as LMI sends them with `details`."""
    given = list(words)
    frames: list[dict[str, Any]] = [
        {"token": {"id": number, "text": word, "log_prob": -0.5}} for number, word in enumerate(given)
    ]
    frames[-1]["generated_text"] = "".join(given)
    frames[-1]["details"] = {"finish_reason": "length", "generated_tokens": len(given), "inputs": "?"}
    return [json.dumps(frame).encode() + b"\n" for frame in frames]


def event_message(payload: bytes, headers: Mapping[str, str]) -> bytes:
    """One message of AWS' event stream: prelude with its CRC, headers of text (type 7), payload, CRC of all."""
    head = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + head + payload
    return message + struct.pack("!I", zlib.crc32(message))


def payload_part(payload: bytes) -> bytes:
    return event_message(
        payload,
        {":message-type": "event", ":event-type": "PayloadPart", ":content-type": "application/octet-stream"},
    )


def stream_exception(kind: str, **members: str) -> bytes:
    headers = {":message-type": "exception", ":exception-type": kind, ":content-type": "application/json"}
    return event_message(json.dumps(members).encode(), headers)


AWS_STREAM = "application/vnd.amazon.eventstream"


def _own_form(heard: Heard) -> Play:
    body = heard.body
    if heard.path.endswith("/completions"):
        return _openai(body["max_tokens"], chatting=heard.path.endswith("/chat/completions"), body=body)
    if heard.path.endswith("/invocations-response-stream"):
        return Play([payload_part(line) for line in lmi(_words(body["parameters"]["max_new_tokens"]))], type=AWS_STREAM)
    return Play(tgi(_words(body["parameters"]["max_new_tokens"] - 1)))


def _openai(count: int, *, chatting: bool, body: Mapping[str, Any]) -> Play:
    asked = str(body["messages"] if chatting else body["prompt"])
    prompt_tokens = 5 if body.get("stream", False) else len(asked.split())
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": count, "total_tokens": prompt_tokens + count}
    if body.get("stream", False):
        return Play(chat(_words(count), usage) if chatting else completions(_words(count), usage))
    text = "".join(_words(count))
    choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if chatting else {"text": text}
    return json_play({"choices": [{"index": 0, "finish_reason": "length", **choice}], "usage": usage})


def _words(count: int) -> list[str]:
    return [f" w{number}" for number in range(count)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = LIMIT_S
    state: InferenceServer

    def setup(self) -> None:
        super().setup()
        self.state.connections += 1

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/go":
            self.state.gate.set()
            self._play(Play([b"{}"], type="application/json", framing="length"))
            return
        heard = Heard(self.path, {name.lower(): value for name, value in self.headers.items()}, json.loads(data))
        self.state.heard.append(heard)
        try:
            self._play(self.state.plays.popleft() if self.state.plays else _own_form(heard))
        except ConnectionError:
            self.state.closed.set()
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _play(self, play: Play) -> None:
        frame: Callable[[bytes], bytes] = lambda part: part  # noqa: E731
        if not play.raw:
            self.send_response(play.status)
            self.send_header("Content-Type", play.type)
            for name, value in play.headers.items():
                self.send_header(name, value)
            if play.framing == "chunked":
                self.send_header("Transfer-Encoding", "chunked")
                frame = _chunk
            elif play.framing == "length":
                self.send_header("Content-Length", str(sum(len(part) for part in play.parts) + play.cut))
            else:
                self.send_header("Connection", "close")
            self.end_headers()
        for part in play.parts:
            if part == GATE:
                self._wait()
            else:
                self.wfile.write(frame(part))
        if play.framing == "chunked" and not (play.cut or play.raw):
            self.wfile.write(b"0\r\n\r\n")
        if play.cut or play.raw or play.hang_up or play.framing == "close":
            self.close_connection = True

    def _wait(self) -> None:
        """Until the gate opens, or the client is gone."""
        self.connection.settimeout(0.02)
        for _ in range(int(LIMIT_S / 0.02)):
            if self.state.gate.is_set():
                break
            try:
                if not self.connection.recv(1):
                    raise ConnectionResetError
            except TimeoutError:
                continue
        self.connection.settimeout(LIMIT_S)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone, or trusts nobody, is no fault of the server's."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _chunk(part: bytes) -> bytes:
    return b"%x\r\n" % len(part) + part + b"\r\n"


@contextmanager
def inference_server(certificate: Path | None = None) -> Iterator[InferenceServer]:
    """With `certificate`, a file with key and certificate, over TLS."""
    state = InferenceServer()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    state.url = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
