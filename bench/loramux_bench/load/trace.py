"""Arrivals that were recorded somewhere, read from a file of JSON lines.

| form | fields of a line |
|---|---|
| own | `at_s`, and if wanted `adapter`, `input_tokens`, `output_tokens`, `prompt`; no others |
| Mooncake's | `timestamp` in ms, and if wanted `input_length`, `output_length`; others are passed over |

Mooncake's is that of the public traces at https://github.com/kvcache-ai/Mooncake; a line that has `timestamp` is of it.
Empty lines are passed over.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec

from loramux_bench.errors import ScenarioError

_Count = Annotated[int, msgspec.Meta(ge=1)]
_Time = Annotated[float, msgspec.Meta(ge=0)]


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One arrival. What is None or empty the scenario decides."""

    at_s: _Time
    adapter: str = ""
    input_tokens: _Count | None = None
    output_tokens: _Count | None = None
    prompt: Annotated[str, msgspec.Meta(min_length=1)] | None = None


class _Mooncake(msgspec.Struct, frozen=True):
    timestamp: _Time
    input_length: _Count | None = None
    output_length: _Count | None = None


def read_trace(path: Path) -> tuple[Entry, ...]:
    """One at least, in ascending order of time. Raises `ScenarioError`, with the line of the fault."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ScenarioError(f"The trace {path} can not be read: {error.strerror}.") from error
    entries = parse_trace(content.splitlines(), str(path))
    if not entries:
        raise ScenarioError(f"The trace {path} holds no arrivals.")
    return entries


def parse_trace(lines: Iterable[bytes], source: str) -> tuple[Entry, ...]:
    """In ascending order of time. Raises `ScenarioError`, with the line of the fault."""
    entries: list[Entry] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = _entry(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ScenarioError(f"The trace {source} is not right: line {number}: {error}.") from error
        if entries and entry.at_s < entries[-1].at_s:
            raise ScenarioError(
                f"The trace {source} is not in order: line {number} is at {entry.at_s:g} s, the one before at "
                f"{entries[-1].at_s:g} s. Sort it by time."
            )
        entries.append(entry)
    return tuple(entries)


def _entry(line: bytes) -> Entry:
    content = msgspec.json.decode(line)
    if isinstance(content, dict) and "timestamp" in content:
        found = msgspec.convert(content, _Mooncake)
        return Entry(at_s=found.timestamp / 1000, input_tokens=found.input_length, output_tokens=found.output_length)
    return msgspec.convert(content, Entry)
