"""A stand-in for vLLM whose streams stall while it loads, as vLLM's do: run as a process with vLLM's own options.

One lock is its step loop: a token of any stream, and a load, take it. `/v1/load_lora_adapter` loads at once, a request
for a name whose weights were pushed out loads them first. It keeps the last used `--max-cpu-loras`. Of its own:

    --itl S       seconds from token to token
    --load-s S    seconds of a load

`GET /fake/loads` tells how many loads there were.
"""

import argparse
import json
import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Engine:
    """Names that are known, and which of them are in memory, last used last."""

    def __init__(self, base: str, *, in_memory: int, itl_s: float, load_s: float) -> None:
        self.base = base
        self.paths: dict[str, str] = {}
        self.held: list[str] = []
        self.loads = 0
        self.itl_s = itl_s
        self.step = threading.Lock()
        self._in_memory = in_memory
        self._load_s = load_s

    def use(self, name: str) -> None:
        """Called with the lock: whoever else wants a token waits for the load."""
        if name in self.held:
            self.held.remove(name)
        else:
            self.loads += 1
            next(Path(self.paths[name]).glob("*.safetensors")).read_bytes()
            time.sleep(self._load_s)
        self.held.append(name)
        del self.held[: -self._in_memory]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine: Engine

    def do_GET(self) -> None:
        engine = self.engine
        match self.path:
            case "/health":
                self._answer(200, "")
            case "/version":
                self._answer(200, {"version": "0.0.0+fake"})
            case "/fake/loads":
                self._answer(200, engine.loads)
            case "/v1/models":
                cards = [{"id": engine.base, "root": "/base", "parent": None}]
                cards += [{"id": name, "root": at, "parent": engine.base} for name, at in engine.paths.items()]
                self._answer(200, {"object": "list", "data": cards})
            case _:
                self._answer(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        match self.path:
            case "/v1/load_lora_adapter":
                self._load(body["lora_name"], body["lora_path"])
            case "/v1/unload_lora_adapter":
                known = self.engine.paths.pop(body["lora_name"], None)
                self._answer(*((404, _error("no such adapter")) if known is None else (200, "Success")))
            case "/v1/completions":
                self._complete(body)
            case _:
                self._answer(404, {"detail": "Not Found"})

    def _load(self, name: str, path: str) -> None:
        if name in self.engine.paths:
            self._answer(400, _error(f"The lora adapter '{name}' has already been loaded."))
            return
        with self.engine.step:
            self.engine.paths[name] = path
            self.engine.use(name)
        self._answer(200, "Success")

    def _complete(self, body: dict[str, Any]) -> None:
        engine, model = self.engine, body["model"]
        if model != engine.base and model not in engine.paths:
            self._answer(404, _error(f"The model `{model}` does not exist."))
            return
        if not body.get("stream"):
            self._token(model)
            self._answer(200, {"model": model, "choices": [{"text": "x", "finish_reason": "length"}]})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for number in range(body["max_tokens"]):
                self._token(model)
                ended = "length" if number + 1 == body["max_tokens"] else None
                self._event(json.dumps({"model": model, "choices": [{"text": "x", "finish_reason": ended}]}))
            self._event("[DONE]")
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True  # the caller has left

    def _token(self, model: str) -> None:
        time.sleep(self.engine.itl_s)
        with self.engine.step:
            if model != self.engine.base:
                self.engine.use(model)

    def _event(self, data: str) -> None:
        frame = f"data: {data}\n\n".encode()
        self.wfile.write(f"{len(frame):x}\r\n".encode() + frame + b"\r\n")

    def _answer(self, status: int, said: Any) -> None:
        body = said.encode() if isinstance(said, str) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "Error", "code": 0}}


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", default="base")
    parser.add_argument("--max-cpu-loras", type=int, default=8)
    parser.add_argument("--itl", type=float, default=0.005)
    parser.add_argument("--load-s", type=float, default=0.05)
    parser.add_argument("--crash")
    options, _ = parser.parse_known_args()
    if options.crash:
        raise SystemExit(options.crash)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    Handler.engine = Engine(
        options.served_model_name, in_memory=options.max_cpu_loras, itl_s=options.itl, load_s=options.load_s
    )
    ThreadingHTTPServer.request_queue_size = 64
    ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
