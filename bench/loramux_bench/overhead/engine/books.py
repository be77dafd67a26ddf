"""Which models the engine has, and how fast it streams."""

import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from loramux_bench.mock import forms
from loramux_bench.overhead.engine.answers import Answers

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"


class Pace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of every stream that begins from now on. `itl_s` is of whole milliseconds; 0: each frame is written as soon as
    the one before is."""

    ttft_s: float = 0.0
    itl_s: float = 0.0


class Load(msgspec.Struct):
    """`/v1/load_lora_adapter`, and without the path `/v1/unload_lora_adapter`."""

    lora_name: str
    lora_path: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """Anything but a generated answer."""

    status: bytes
    content_type: bytes
    body: bytes

    @property
    def encoded(self) -> bytes:
        head = b"HTTP/1.1 %b\r\ncontent-length: %d\r\n" % (self.status, len(self.body))
        return head + b"content-type: %b\r\n\r\n%b" % (self.content_type, self.body)


class Books:
    """`answers` by name of a model: the base and what was loaded."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.pace = Pace()
        self._created = int(time.time())
        self._roots = {base: f"/{base}"}
        self.answers = {base: Answers(base, self._created)}

    def reply(self, method: bytes, path: bytes, body: bytes) -> Reply:
        match method, path:
            case b"GET", b"/health":
                return Reply(b"200 OK", TEXT, b"")
            case b"GET", b"/version":
                return _said({"version": "0.32.0"})
            case b"GET", b"/v1/models":
                return Reply(b"200 OK", JSON, self._models())
            case b"GET", b"/metrics":
                return Reply(b"200 OK", TEXT, self._metrics())
            case b"POST", b"/v1/load_lora_adapter":
                return self._load(msgspec.json.decode(body, type=Load))
            case b"POST", b"/v1/unload_lora_adapter":
                return self._unload(msgspec.json.decode(body, type=Load))
            case b"POST", b"/mock/pace":
                self.pace = msgspec.json.decode(body, type=Pace)
                return _said({})
            case _:
                return Reply(b"404 Not Found", JSON, b'{"detail":"Not Found"}')

    def _load(self, order: Load) -> Reply:
        name = order.lora_name
        if name in self.answers:
            return refusal(b"400 Bad Request", f"The lora adapter '{name}' has already been loaded.")
        if not (Path(order.lora_path) / "adapter_config.json").is_file():
            return refusal(b"404 Not Found", f"No adapter found for '{name}' at {order.lora_path}.")
        self._roots[name] = order.lora_path
        self.answers[name] = Answers(name, self._created)
        return Reply(b"200 OK", TEXT, f"Success: LoRA adapter '{name}' added successfully.".encode())

    def _unload(self, order: Load) -> Reply:
        if order.lora_name == self.base or self.answers.pop(order.lora_name, None) is None:
            return refusal(b"404 Not Found", f"The lora adapter '{order.lora_name}' cannot be found.")
        del self._roots[order.lora_name]
        return Reply(b"200 OK", TEXT, f"Success: LoRA adapter '{order.lora_name}' removed successfully.".encode())

    def _models(self) -> bytes:
        said = msgspec.json.decode(forms.models(list(self.answers), self._created))
        for model in said["data"]:
            model["root"] = self._roots[model["id"]]
        return msgspec.json.encode(said)

    def _metrics(self) -> bytes:
        labels = f'{{engine="0",model_name="{self.base}"}}'
        gauges = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
        return "".join(f"# TYPE {name} gauge\n{name}{labels} 0.0\n" for name in gauges).encode()


def refusal(status: bytes, message: str) -> Reply:
    """In OpenAI's shape."""
    kind = {b"404": "NotFoundError", b"400": "BadRequestError"}.get(status[:3], "InternalServerError")
    return Reply(status, JSON, forms.error(message, kind, int(status[:3])))


def _said(content: object) -> Reply:
    return Reply(b"200 OK", JSON, msgspec.json.encode(content))
