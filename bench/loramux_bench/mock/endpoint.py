"""What the mock answers to each call, and which requests have a place."""

import asyncio
import time
from collections import deque
from itertools import count
from random import Random

import msgspec

from loramux_bench.mock import asking, forms
from loramux_bench.mock.connection import Connection, Request
from loramux_bench.mock.deadlines import Deadlines
from loramux_bench.mock.generation import Generation
from loramux_bench.mock.ledger import Entry, Ledger
from loramux_bench.mock.settings import MockSettings
from loramux_bench.mock.timing import lognormal, offsets, word_tokens

MAX_TOKENS = 131_072

_JSON = b"application/json"
_TEXT = b"text/plain; charset=utf-8"
_OK = b"200 OK"
_NOT_READY = b"503 Service Unavailable"


class Endpoint:
    """Its `connection` is the protocol factory of a server. `started_at` is of `time.perf_counter()`."""

    def __init__(self, settings: MockSettings, deadlines: Deadlines, *, started_at: float) -> None:
        self._settings = settings
        self._deadlines = deadlines
        self._started_at = started_at
        self._ledger = Ledger(settings.log_requests)
        self._forms = {
            "/v1/chat/completions": forms.Forms(settings, chat=True),
            "/v1/completions": forms.Forms(settings, chat=False),
        }
        self._models = forms.models(settings.models, int(time.time()))
        self._names = frozenset(settings.models)
        self._numbers = count(1)
        # Two, so that the noise is the same with and without faults.
        self._noise = lognormal(settings.jitter, Random(settings.seed))
        self._chance = Random(settings.seed)
        self._running = 0
        self._waiting: deque[Generation] = deque()
        self._totals = {"prompt": 0, "generation": 0, "requests": 0}

    def connection(self) -> asyncio.Protocol:
        return Connection(self.answer)

    def answer(self, connection: Connection, request: Request) -> None:
        match request.method, request.path:
            case "POST", "/v1/chat/completions" | "/v1/completions":
                self._generate(connection, request)
            case "GET", "/v1/models":
                if (refused := self._unauthenticated(request)) is not None:
                    connection.send(b"401 Unauthorized", _JSON, refused, b"www-authenticate: Bearer\r\n")
                else:
                    connection.send(_OK, _JSON, self._models)
            case "GET", "/healthz":
                connection.send(_OK, _JSON, b'{"status":"ok"}')
            case "GET", "/health":
                connection.send(_OK if self._ready(request) else _NOT_READY, _TEXT, b"")
            case "GET", "/readyz":
                if self._ready(request):
                    connection.send(_OK, _JSON, b'{"status":"ready"}')
                else:
                    missing = msgspec.json.encode({"status": "not ready", "missing": [self._settings.base]})
                    connection.send(_NOT_READY, _JSON, missing, b"retry-after: 1\r\n")
            case "GET", "/metrics":
                connection.send(_OK, b"text/plain; version=1.0.0; charset=utf-8", self._metrics())
            case "GET", "/mock/log":
                connection.send(_OK, _JSON, msgspec.json.encode(self._ledger.told()))
            case "DELETE", "/mock/log":
                self._ledger.clear()
                connection.send(_OK, _JSON, b"{}")
            case _:
                connection.send(b"404 Not Found", _JSON, b'{"detail":"Not Found"}')

    def _generate(self, connection: Connection, request: Request) -> None:
        form = self._forms[request.path]
        request_id = request.request_id or f"{next(self._numbers):016x}"
        entry = Entry(
            id=form.id(request_id),
            request_id=request_id,
            path=request.path,
            key=_key(request.authorization),
            received_at=request.received_at,
        )
        if (refused := self._unauthenticated(request)) is not None:
            self._refuse(connection, entry, b"401 Unauthorized", refused, b"www-authenticate: Bearer\r\n")
            return
        if not self._ready(request):
            said = forms.error("The engine is starting.", "server_error", "engine_unavailable")
            self._refuse(connection, entry, _NOT_READY, said, b"retry-after: 1\r\n")
            return
        try:
            body = asking.decode(request.body)
        except msgspec.DecodeError as error:
            self._refuse(connection, entry, b"400 Bad Request", _bad_request(str(error)))
            return
        entry.model, entry.stream = body.model, body.stream
        if not 1 <= body.tokens <= MAX_TOKENS:
            said = _bad_request(f"max_tokens must be 1 to {MAX_TOKENS}, got {body.tokens}.")
            self._refuse(connection, entry, b"400 Bad Request", said)
        elif body.model not in self._names:
            said = forms.error(f"The model `{body.model}` does not exist.", "NotFoundError", 404, "model")
            self._refuse(connection, entry, b"404 Not Found", said)
        else:
            entry.fault = self._drawn_fault()
            self._admit(connection, entry, body, form)

    def _admit(self, connection: Connection, entry: Entry, body: asking.Body, form: forms.Forms) -> None:
        if entry.fault == "rubbish":
            self._ledger.open(entry)
            entry.ended_s = 0.0
            connection.send(_OK, b"text/html", b"<html><body><h1>It works!</h1></body></html>\n")
            return
        if entry.fault == "http-500" or (entry.fault and not body.stream):
            said = forms.error("The engine failed.", "InternalServerError", 500)
            self._refuse(connection, entry, b"500 Internal Server Error", said)
            return
        settings = self._settings
        entry.prompt_tokens = word_tokens(
            body.words, tokens_per_word=settings.tokens_per_word, template_tokens=settings.template_tokens
        )
        entry.chunks = len(form.pieces(body.tokens))
        self._ledger.open(entry)
        generation = Generation(
            settings,
            form,
            body,
            entry,
            connection,
            self._deadlines,
            offsets(
                entry.chunks,
                ttft_s=settings.ttft_s * settings.slow,
                itl_s=settings.itl_s * settings.slow,
                noise=self._noise,
            ),
            created=int(time.time()),
            on_end=self._ended,
        )
        generation.open()
        if settings.concurrency and self._running >= settings.concurrency:
            self._waiting.append(generation)
        else:
            self._running += 1
            generation.start(entry.received_at, at_once=True)

    def _ended(self, generation: Generation, at: float) -> None:
        self._totals["requests"] += 1
        self._totals["prompt"] += generation.entry.prompt_tokens
        self._totals["generation"] += generation.entry.tokens
        if generation.entry.started_s is None:
            self._waiting.remove(generation)
            return
        if self._waiting:
            following = self._waiting.popleft()
            following.start(max(at, following.entry.received_at), at_once=False)
        else:
            self._running -= 1

    def _refuse(self, connection: Connection, entry: Entry, status: bytes, said: bytes, headers: bytes = b"") -> None:
        entry.status = int(status[:3])
        entry.ended_s = 0.0
        self._ledger.open(entry)
        connection.send(status, _JSON, said, headers)

    def _unauthenticated(self, request: Request) -> bytes | None:
        """As loramux says it."""
        wanted = self._settings.key
        if not wanted or _key(request.authorization) == wanted:
            return None
        said = (
            "The key is not known here."
            if request.authorization
            else "This call needs a key: send the header `Authorization: Bearer <key>`."
        )
        return forms.error(said, "authentication_error", "unauthenticated")

    def _ready(self, request: Request) -> bool:
        return request.received_at >= self._started_at + self._settings.not_ready_s

    def _drawn_fault(self) -> str:
        if self._settings.fault == "none" or self._chance.random() >= self._settings.fault_share:
            return ""
        return self._settings.fault

    def _metrics(self) -> bytes:
        labels = f'{{engine="0",model_name="{self._settings.base}"}}'
        lines = [
            "# TYPE vllm:num_requests_running gauge",
            f"vllm:num_requests_running{labels} {float(self._running)}",
            "# TYPE vllm:num_requests_waiting gauge",
            f"vllm:num_requests_waiting{labels} {float(len(self._waiting))}",
            "# TYPE vllm:prompt_tokens_total counter",
            f"vllm:prompt_tokens_total{labels} {float(self._totals['prompt'])}",
            "# TYPE vllm:generation_tokens_total counter",
            f"vllm:generation_tokens_total{labels} {float(self._totals['generation'])}",
            "# TYPE vllm:request_success_total counter",
            f'vllm:request_success_total{{engine="0",finished_reason="length",model_name="{self._settings.base}"}} '
            f"{float(self._totals['requests'])}",
        ]
        return ("\n".join(lines) + "\n").encode()


def _key(authorization: str) -> str:
    scheme, _, key = authorization.strip().partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _bad_request(message: str) -> bytes:
    return forms.error(message, "BadRequestError", 400)
