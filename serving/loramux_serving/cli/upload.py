"""An adapter on this machine as the body of a request, streamed."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from loramux_serving.cli.gateway import Fault
from loramux_serving.cli.session import Session

_CONFIG = "adapter_config.json"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""Weights of every kind are sent, those that the gateway refuses too: it says why."""
_CHUNK_BYTES = 256 * 1024


@contextmanager
def body_of(path: Path, session: Session) -> Iterator[dict[str, Any]]:
    """What httpx takes as a body: an archive as it is, or the files of a directory as multipart. Raises `Fault`
    where there is neither."""
    with ExitStack() as opened:
        try:
            if path.is_dir():
                yield {"files": [("file", (file.name, opened.enter_context(file.open("rb")))) for file in _files(path)]}
                return
            archive = opened.enter_context(path.open("rb"))
        except OSError as error:
            raise Fault(f"{path} can not be read: {error.strerror or error}.") from error
        size_bytes = path.stat().st_size
        headers = {"Content-Length": str(size_bytes), "Content-Type": "application/octet-stream"}
        yield {"content": _read(archive, size_bytes, session), "headers": headers}


def _files(directory: Path) -> list[Path]:
    files = [
        path
        for path in sorted(directory.iterdir())
        if path.is_file() and (path.name == _CONFIG or path.suffix.lower() in _WEIGHTS)
    ]
    if not any(path.name == _CONFIG for path in files):
        raise Fault(f"{directory} is no adapter: it has no {_CONFIG}.")
    return files


def _read(archive: BinaryIO, size_bytes: int, session: Session) -> Iterator[bytes]:
    columns = (TextColumn("sending"), BarColumn(), DownloadColumn())
    hidden = session.as_json or not session.err.is_terminal
    with Progress(*columns, console=session.err, transient=True, disable=hidden) as bar:
        task = bar.add_task("", total=size_bytes)
        while chunk := archive.read(_CHUNK_BYTES):
            bar.update(task, advance=len(chunk))
            yield chunk
