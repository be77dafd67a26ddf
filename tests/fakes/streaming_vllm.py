"""As `vllm_server.py`, and it answers completions: a stream of as many tokens as are asked for, all at once. Started as
vLLM is: `python streaming_vllm.py -m … --port N --served-model-name NAME`."""

import json
import sys
from typing import Any

from tests.fakes import vllm_server


class Streaming(vllm_server.Handler):
    """Of a model that is not there it says 404, as vLLM does."""

    def do_POST(self) -> None:
        if self.path != "/v1/completions":
            return super().do_POST()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["model"] not in (self.engine.base, *self.engine.names):
            return self.answer(404, {"error": {"message": f"The model `{body['model']}` does not exist.", "code": 404}})
        said: list[dict[str, Any]] = [{"choices": [{"index": 0, "text": " a"}]} for _ in range(body["max_tokens"])]
        said.append({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": body["max_tokens"]}})
        lines = [f"data: {json.dumps({'model': body['model'], **frame})}\n\n" for frame in said]
        content = "".join([*lines, "data: [DONE]\n\n"]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        return None


if __name__ == "__main__":
    vllm_server.Handler = Streaming  # type: ignore[misc]
    sys.argv.append("--plugin")
    vllm_server.main()
