"""Lists: what a caller asked for of all that there is, a page at a time; pure.

A page's token says where it ended, so what comes or goes meanwhile does not disturb the rest.
"""

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from loramux_adapters.errors import RequestInvalid
from loramux_serving.sagemaker.shapes.basics import ListInput

_PAGE = 10
"""The service's own."""


@dataclass(frozen=True, slots=True)
class Row:
    """One of the list, as far as lists look into it; times in Unix seconds."""

    name: str
    created_at: float
    modified_at: float
    status: str = ""
    endpoint: str = ""
    variant: str = ""


def page(rows: Iterable[Row], query: ListInput) -> tuple[list[Row], str | None]:
    """The page, and the token of the next one; None on the last. The newest come first where nothing else is asked.
    Raises `RequestInvalid` for a token that is none."""
    by = query.sort_by or "CreationTime"
    descending = (query.sort_order or "Descending") == "Descending"
    ordered = sorted((row for row in rows if _wanted(row, query)), key=lambda row: _key(row, by), reverse=descending)
    if query.next_token:
        last = _read(query.next_token, by)
        ordered = [row for row in ordered if (_key(row, by) < last if descending else _key(row, by) > last)]
    limit = query.max_results or _PAGE
    rest = ordered[:limit]
    return rest, _token(_key(rest[-1], by), by) if len(ordered) > limit else None


def _wanted(row: Row, query: ListInput) -> bool:
    def asked(name: str) -> str | float | None:
        found: str | float | None = getattr(query, name, None)
        return found

    def between(at: float, before: str | float | None, after: str | float | None) -> bool:
        return (before is None or at < float(before)) and (after is None or at > float(after))

    return (
        (query.name_contains or "").lower() in row.name.lower()
        and between(row.created_at, query.creation_time_before, query.creation_time_after)
        and between(row.modified_at, asked("last_modified_time_before"), asked("last_modified_time_after"))
        and asked("status_equals") in (None, row.status)
        and asked("endpoint_name_equals") in (None, row.endpoint)
        and asked("variant_name_equals") in (None, row.variant)
    )


_Key = tuple[str | float, str]


def _key(row: Row, by: str) -> _Key:
    """Names are unique, so no two rows are equal."""
    match by:
        case "Name":
            return row.name, row.name
        case "Status":
            return row.status, row.name
        case _:
            return row.created_at, row.name


def _token(last: _Key, by: str) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([by, *last])).decode()


def _read(token: str, by: str) -> _Key:
    try:
        told = msgspec.json.decode(base64.urlsafe_b64decode(token.encode()), type=tuple[str, str | float, str])
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        raise RequestInvalid("Invalid pagination token.") from error
    if told[0] != by or isinstance(told[1], str) is (by == "CreationTime"):
        raise RequestInvalid("Invalid pagination token: it is of a list in another order.")
    return told[1], told[2]
