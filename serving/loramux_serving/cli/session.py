"""What one run of the command line has: a gateway, and a way to print."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from loramux_serving.cli.gateway import Fault, Gateway, printable

_PIPE_COLUMNS = 240
"""Width of tables that no terminal bounds."""


class Session:
    """Answers go to standard output; progress and remarks to standard error."""

    def __init__(self, gateway: Gateway, *, as_json: bool) -> None:
        self.gateway = gateway
        self.as_json = as_json
        self.out = Console(markup=False, highlight=False, emoji=False)
        if not self.out.is_terminal:
            self.out.width = _PIPE_COLUMNS
        self.err = Console(stderr=True, markup=False, highlight=False, emoji=False)

    def show(self, answer: Any, human: RenderableType) -> None:
        """`answer` is the gateway's JSON, `human` the same for people."""
        if self.as_json:
            self.dump(answer)
        else:
            self.out.print(_safe(human))

    def dump(self, answer: Any) -> None:
        """JSON and nothing else."""
        self.out.file.write(json.dumps(answer, ensure_ascii=False, indent=2) + "\n")

    def remark(self, text: str) -> None:
        """One line that is not part of the answer; none in scripts."""
        if not self.as_json:
            self.err.print(_safe(text))


def _safe(human: RenderableType) -> RenderableType:
    return Text(printable(human)) if isinstance(human, str) else human


def default_url(environment: Mapping[str, str]) -> str:
    """Where a gateway with this environment listens, as seen from its own machine."""
    host = environment.get("LORAMUX_HOST") or "127.0.0.1"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  not bound here
    port = environment.get("LORAMUX_PORT") or environment.get("PORT") or 8080  # PORT is TGI's, which `serve` heeds
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def admin_key(environment: Mapping[str, str]) -> str | None:
    """The key that a gateway with this environment keeps, None where it has made none. Raises `Fault`."""
    home = environment.get("LORAMUX_HOME") or "~/.local/share/loramux"
    path = Path(home).expanduser() / "admin.key"
    try:
        return path.read_text("utf-8").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Fault(f"The admin key {path} can not be read ({error}); give one with --key.") from error
