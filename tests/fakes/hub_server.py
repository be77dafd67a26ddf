"""A hub on loopback: the routes of huggingface.co that fetching an adapter needs, and its ways to refuse.

Routes and headers as the public hub answers them: `GET /api/models/<repo>/revision/<rev>?blobs=true` gives `id`, `sha`
and `siblings`; `GET /api/models/<repo>/tree/<sha>` the files as a list, for whole snapshots; `HEAD` and
`GET /<repo>/resolve/<rev>/<file>` give the file with `ETag` and `X-Repo-Commit`; errors are told by `X-Error-Code`.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

SHA = hashlib.sha1(b"commit", usedforsecurity=False).hexdigest()


@dataclass
class HubServer:
    """`repositories` maps `org/name` to its files. The rest spoils the answers."""

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    revisions: tuple[str, ...] = ("main", "refs/pr/1", SHA)
    gated: set[str] = field(default_factory=set)
    token: str | None = None
    """Where set, every request must carry it."""
    status: int | None = None
    """Answer everything with this."""
    rubbish: bool = False
    """Answer the API with what is no JSON."""
    claimed_bytes: int | None = None
    """The size that the API claims for each file."""
    cut_bytes: int = 0
    """Leave out this many of the last bytes of each file, after promising them."""
    requests: list[str] = field(default_factory=list)


@contextmanager
def hub_server() -> Iterator[HubServer]:
    hub = HubServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def log_message(self, format: str, *args: object) -> None:
            hub.requests.append(format % args)

        def _answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            if hub.status is not None:
                self._send(hub.status, b"{}", body)
            elif hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
                self._refuse(401, "RepoNotFound", body)
            elif path.startswith("/api/models/"):
                self._describe(path.removeprefix("/api/models/"), body)
            else:
                self._file(path.removeprefix("/"), body)

        def _describe(self, path: str, body: bool) -> None:
            repository, _, revision = path.partition("/revision/")
            files = hub.repositories.get(repository)
            if "/tree/" in path:
                repository, _, revision = path.partition("/tree/")
                self._list(repository, revision, body)
            elif hub.rubbish:
                self._send(200, b"<html>", body)
            elif files is None:
                self._refuse(401, "RepoNotFound", body)
            elif (revision or "main") not in hub.revisions:
                self._refuse(404, "RevisionNotFound", body)
            else:
                sizes = {n: len(c) if hub.claimed_bytes is None else hub.claimed_bytes for n, c in files.items()}
                siblings = [{"rfilename": name, "size": size} for name, size in sizes.items()]
                answer = {"id": repository, "sha": SHA, "private": False, "siblings": siblings}
                self._send(200, json.dumps(answer).encode(), body, {"Content-Type": "application/json"})

        def _list(self, repository: str, revision: str, body: bool) -> None:
            if repository not in hub.repositories or revision not in hub.revisions:
                self._refuse(404, "RepoNotFound", body)
                return
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": SHA}
                for name, content in hub.repositories[repository].items()
            ]
            self._send(200, json.dumps(entries).encode(), body, {"Content-Type": "application/json"})

        def _file(self, path: str, body: bool) -> None:
            repository, _, rest = path.partition("/resolve/")
            name = rest.partition("/")[2]
            content = hub.repositories.get(repository, {}).get(name)
            if repository in hub.gated:
                self._refuse(403, "GatedRepo", body)
            elif content is None:
                self._refuse(404, "EntryNotFound", body)
            else:
                etag = hashlib.sha256(content).hexdigest()
                self._send(200, content, body, {"ETag": f'"{etag}"', "X-Repo-Commit": SHA}, cut=hub.cut_bytes)

        def _refuse(self, status: int, code: str, body: bool) -> None:
            self._send(status, b"", body, {"X-Error-Code": code, "X-Error-Message": code})

        def _send(
            self, status: int, content: bytes, body: bool, headers: Mapping[str, str] | None = None, cut: int = 0
        ) -> None:
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            if cut:
                self.send_header("Connection", "close")
            self.end_headers()
            if body:
                self.wfile.write(content[: len(content) - cut])
            if cut:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
