"""Every error code is in `docs/errors.md`, with its status and whether it is worth trying again."""

import re
from pathlib import Path

from loramux_adapters.errors import classes
from loramux_serving.http_errors import status_of
from loramux_serving.relay.refusal import body_too_large, head_too_large, malformed, request_timeout

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"

_ROW = re.compile(r"^\| `(\w+)`(?: \(base\))? \| (\d+) \| (yes|no) \| (.+) \| (.+) \|$", re.MULTILINE)


def test_every_code_is_told_with_its_status() -> None:
    rows = [(code, int(status), retry == "yes") for code, status, retry, *_ in _ROW.findall(PAGE.read_text("utf-8"))]
    expected = [(kind.code, status_of(kind("")), kind.retryable) for kind in classes()]
    refusals = (malformed(""), head_too_large(1), body_too_large(1), request_timeout("head", 1))
    expected += [(refusal.code, refusal.status, False) for refusal in refusals]
    assert sorted(rows) == sorted(expected)


def test_bases_are_told_apart() -> None:
    told = set(re.findall(r"^\| `(\w+)` \(base\)", PAGE.read_text("utf-8"), re.MULTILINE))
    parents = {kind.code for kind in classes() if kind.__subclasses__()}
    assert told == parents - {"invalid_request"}  # which is answered as it is
