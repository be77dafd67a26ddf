"""As `vllm_server.py` with the plugin, and completions take their time: one token each 20 ms, as many as are asked for,
streamed or not. `GET /fake/most` tells how many requests were under way at the same time at most."""

import json
import sys
import threading
import time

from tests.fakes import vllm_server

TOKEN_S = 0.02


class Slow(vllm_server.Handler):
    """One token for each frame. Of a model that is not there it says 404, as vLLM does."""

    counted = False
    lock = threading.Lock()
    now = 0
    most = 0

    def do_GET(self) -> None:
        if self.path == "/fake/most":
            return self.answer(200, Slow.most)
        return super().do_GET()

    def do_POST(self) -> None:
        if self.path != "/v1/completions":
            return super().do_POST()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["model"] not in (self.engine.base, *self.engine.names):
            return self.answer(404, {"error": {"message": f"The model `{body['model']}` does not exist.", "code": 404}})
        with Slow.lock:
            Slow.now += 1
            Slow.most = max(Slow.most, Slow.now)
        self.counted = True
        try:
            self.complete(body["model"], body["max_tokens"], body.get("stream", False))
        except ConnectionError:
            self.close_connection = True
        finally:
            self.uncount()
        return None

    def uncount(self) -> None:
        """Before its last bytes: who has them may send the next request at once."""
        with Slow.lock:
            Slow.now -= self.counted
        self.counted = False

    def complete(self, model: str, tokens: int, stream: bool) -> None:
        usage = {"prompt_tokens": 9, "completion_tokens": tokens}
        if not stream:
            time.sleep(tokens * TOKEN_S)
            choices = [{"index": 0, "text": " a" * tokens}]
            self.uncount()
            return self.answer(200, {"model": model, "choices": choices, "usage": usage})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(tokens):
            time.sleep(TOKEN_S)
            self.frame(json.dumps({"model": model, "choices": [{"index": 0, "text": " a"}]}))
        self.frame(json.dumps({"model": model, "choices": [], "usage": usage}))
        self.uncount()
        self.frame("[DONE]")
        self.wfile.write(b"0\r\n\r\n")
        return None

    def frame(self, data: str) -> None:
        line = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))


if __name__ == "__main__":
    vllm_server.Handler = Slow  # type: ignore[misc]
    sys.argv.append("--plugin")
    vllm_server.main()
