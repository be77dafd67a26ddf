"""A stand-in for vLLM's API server, run as a process: `python vllm_server.py [options] …vLLM's own options…`.

It answers what the gateway asks of vLLM while it starts, loads and frees: `/health`, `/v1/models`, `/version`, the
load and unload routes, and (`--plugin`) the routes of our plugin, with 8 slots and 32 places in host memory; with
`--no-staging` as where the plugin can not stage. Like vLLM it has a child process that does not end by itself when its
parent is killed. An adapter is refused where its path has no `adapter_config.json`.

    --start-s S       seconds before it listens        --crash TEXT    write TEXT and end with status 1 at once
    --die-after-s S   end with status 1 after S        --ignore-term   do not end on SIGTERM
    --children FILE   write its child's pid there      --noise N       write N lines of output
    --chunk N         write one line of N bytes

`GET /hang` stops it answering at all, `GET /ill` makes `/health` answer 503, `GET /drop/NAME` drops an adapter's
weights as vLLM's own cache does.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

MAX_LORAS = 8
MAX_CPU_LORAS = 32


class Engine:
    """What the server holds. `held` are the names whose weights are in host memory, and `slots` those in a slot, both
    in the order of use; `pins` the tier in which a name is kept."""

    def __init__(self, base: str, *, plugin: bool, staging: bool) -> None:
        self.base = base
        self.plugin = plugin
        self.staging = staging
        self.names: dict[str, tuple[int, str]] = {}
        self.held: list[str] = []
        self.slots: list[str] = []
        self.pins: dict[str, str] = {}
        self.ill = False
        self.hung = False
        self.lock = threading.Lock()
        self._last = 0

    def load(self, name: str, path: str, *, slot: bool = True) -> tuple[int, Any]:
        if not (Path(path) / "adapter_config.json").is_file():
            return 404, _error(f"No adapter found for\n{name!r} at {path}")
        rank = json.loads((Path(path) / "adapter_config.json").read_text())["r"]
        if rank > 16:
            return 500, _error(f"Call to add_lora method failed: LoRA rank {rank} is greater than max_lora_rank 16.")
        self._last += 1
        self.names[name] = (self._last, path)
        self._hold(name)
        if slot:
            self.activate(name, ())
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def plugin_load(self, order: dict[str, Any]) -> tuple[int, Any]:
        name, path, keep = order["name"], order["path"], order.get("keep", [])
        known = self.names.get(name)
        if known is not None and known[1] != path:
            self.free(name)
        if name not in self.names:
            status, said = self.load(name, path, slot=False)
            if status != 200:
                return status, said
        elif name not in self.held:
            self._hold(name)
        if order.get("tier", "gpu") == "gpu" or not self.staging:
            self.activate(name, keep)
        return 200, {"name": name, "state": "held", "tier": "gpu" if name in self.slots else "cpu"}

    def _hold(self, name: str) -> None:
        if name in self.held:
            self.held.remove(name)
        while len(self.held) >= MAX_CPU_LORAS:
            self.drop(next(one for one in self.held if one not in self.pins))
        self.held.append(name)

    def activate(self, name: str, keep: Collection[str]) -> bool:
        if name in self.slots:
            self.slots.remove(name)
        elif len(self.slots) >= MAX_LORAS:
            free = [one for one in self.slots if one not in keep and self.pins.get(one) != "gpu"]
            if not free:
                return False
            self.slots.remove(free[0])
        self.slots.append(name)
        return True

    def pin(self, name: str, tier: str) -> tuple[int, Any]:
        others = sum(kept == "gpu" for one, kept in self.pins.items() if one != name)
        if tier == "gpu" and (others >= MAX_LORAS - 1 or not self.activate(name, ())):
            return 409, _error(f"{others} of {MAX_LORAS} slots are pinned")
        self.pins[name] = tier
        return 204, ""

    def drop(self, name: str) -> None:
        """The weights go; the name answers on."""
        self.pins.pop(name, None)
        for place in (self.held, self.slots):
            if name in place:
                place.remove(name)

    def free(self, name: str) -> None:
        if self.names.pop(name, None) is not None:
            self.drop(name)

    def adapter(self, name: str) -> dict[str, Any]:
        number, path = self.names[name]
        tier = "gpu" if name in self.slots else "cpu" if name in self.held else "disk"
        order = {"gpu": self.slots, "cpu": self.held}.get(tier, [name])
        return {
            "name": name,
            "path": path,
            "id": number,
            "tier": tier,
            "bytes": 1000 if name in self.held else 0,
            "recency": order.index(name),
            "pin": self.pins.get(name),
        }


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "Error", "code": 0}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine: Engine

    def do_GET(self) -> None:
        engine = self.engine
        path = unquote(self.path)
        if engine.hung:
            time.sleep(3600)
        if path == "/health":
            self.answer(503 if engine.ill else 200, "")
        elif path == "/version":
            self.answer(200, {"version": "0.0.0+fake"})
        elif path == "/v1/models":
            cards = [{"id": engine.base, "root": "/base", "parent": None}]
            cards += [{"id": name, "root": at, "parent": engine.base} for name, (_, at) in engine.names.items()]
            self.answer(200, {"object": "list", "data": cards})
        elif path == "/hang":
            engine.hung = True
            self.answer(200, "")
        elif path == "/ill":
            engine.ill = True
            self.answer(200, "")
        elif path.startswith("/drop/"):
            engine.drop(path.removeprefix("/drop/"))
            self.answer(200, "")
        elif engine.plugin and path == "/loramux/v1/engine":
            limits = {"max_loras": MAX_LORAS, "max_cpu_loras": MAX_CPU_LORAS, "max_lora_rank": 16}
            able = {"dynamic_lora": True, "evict": True, "staging": engine.staging}
            self.answer(200, {"vllm_version": "0.0.0+fake", **limits, **able})
        elif engine.plugin and path == "/loramux/v1/adapters":
            self.answer(200, [engine.adapter(name) for name in engine.names])
        else:
            self.answer(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        engine = self.engine
        with engine.lock:
            if self.path == "/v1/load_lora_adapter":
                if body["lora_name"] in engine.names:
                    self.answer(400, _error(f"The lora adapter '{body['lora_name']}' has already been loaded."))
                else:
                    self.answer(*engine.load(body["lora_name"], body["lora_path"]))
            elif self.path == "/v1/unload_lora_adapter":
                known = body["lora_name"] in engine.names
                engine.free(body["lora_name"])
                self.answer(200 if known else 404, "Success" if known else _error("gone"))
            elif engine.plugin and self.path == "/loramux/v1/adapters":
                self.answer(*engine.plugin_load(body))
            elif engine.plugin and self.path.startswith("/loramux/v1/adapters/"):
                name, _, action = unquote(self.path).removeprefix("/loramux/v1/adapters/").rpartition("/")
                self.answer(*self.act(name, action, body))
            elif self.path == "/v1/completions":
                found = body["model"] == engine.base or body["model"] in engine.names
                self.answer(200, {"model": body["model"]}) if found else self.answer(404, _error("no such model"))
            else:
                self.answer(404, {"detail": "Not Found"})

    def act(self, name: str, action: str, body: dict[str, Any]) -> tuple[int, Any]:
        engine = self.engine
        if action == "unpin":
            engine.pins.pop(name, None)
            return 204, ""
        if name not in engine.held:
            return 404, _error(f"The engine has no adapter {name!r}.")
        if action == "activate":
            return 200, {"active": engine.staging and engine.activate(name, body.get("keep", ()))}
        if action == "deactivate":
            if name in engine.slots and engine.staging and engine.pins.get(name) != "gpu":
                engine.slots.remove(name)
            return 200, {"active": name in engine.slots}
        return engine.pin(name, body["tier"]) if engine.staging else (204, "")

    def do_DELETE(self) -> None:
        name = unquote(self.path).removeprefix("/loramux/v1/adapters/")
        if not self.engine.plugin:
            self.answer(404, {"detail": "Not Found"})
            return
        self.engine.free(name)
        self.answer(204, "")

    def answer(self, status: int, said: Any) -> None:
        body = said.encode() if isinstance(said, str) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def listening(handler: type[Handler], engine: Engine) -> Iterator[str]:
    """In this process, on a port of its own, until the block ends; gives the URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (handler,), {"engine": engine}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(20)


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", default="base")
    parser.add_argument("--plugin", action="store_true")
    parser.add_argument("--no-staging", action="store_true")
    parser.add_argument("--start-s", type=float, default=0.0)
    parser.add_argument("--die-after-s", type=float)
    parser.add_argument("--crash")
    parser.add_argument("--ignore-term", action="store_true")
    parser.add_argument("--children", type=Path)
    parser.add_argument("--noise", type=int, default=0)
    parser.add_argument("--chunk", type=int, default=0)
    options, _ = parser.parse_known_args()
    print("fake vLLM is starting", flush=True)
    for number in range(options.noise):
        print(f"line {number}", flush=True)
    if options.chunk:
        print("x" * options.chunk, flush=True)
    if options.crash:
        print(options.crash, file=sys.stderr, flush=True)
        os._exit(1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if options.ignore_term else lambda *_: os._exit(0))
    if options.children:
        worker = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(3600)"])
        options.children.write_text(f"{os.getpid()} {worker.pid}")
    time.sleep(options.start_s)
    if options.die_after_s is not None:
        threading.Timer(options.die_after_s, lambda: os._exit(1)).start()
    Handler.engine = Engine(options.served_model_name, plugin=options.plugin, staging=not options.no_staging)
    ThreadingHTTPServer.request_queue_size = 64
    ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
