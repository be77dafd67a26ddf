"""What counts as right: one table of named checks per adapter, each a pure function of answer and expectation."""

import json
import re
import sqlite3
from collections.abc import Callable, Mapping

from corpora.shop import SCHEMA
from corpora.tickets import CATEGORIES, PRIORITIES

Check = Callable[[str, str], bool]


def exact(answer: str, expected: str) -> bool:
    return answer.strip() == expected


def is_ticket(answer: str, _expected: str = "") -> bool:
    """Whether the answer is nothing but JSON with the three keys and allowed values."""
    ticket = _object(answer)
    return (
        list(ticket) == ["category", "priority", "summary"]
        and ticket["category"] in CATEGORIES
        and ticket["priority"] in PRIORITIES
        and isinstance(ticket["summary"], str)
    )


def same_category(answer: str, expected: str) -> bool:
    return is_ticket(answer) and _object(answer)["category"] == _object(expected)["category"]


def runs(answer: str, _expected: str = "") -> bool:
    """Whether SQLite accepts the answer, or the first block of code in it, as one statement over the shop's tables."""
    fenced = re.search(r"```(?:sql)?\s*(.*?)```", answer, re.DOTALL)
    statement = (fenced[1] if fenced else answer).strip()
    with sqlite3.connect(":memory:") as shop:
        shop.executescript(SCHEMA)
        try:
            shop.execute(statement)
        except (sqlite3.Error, sqlite3.Warning):
            return False
    return bool(statement)


def starts_with(marker: str) -> Check:
    return lambda answer, _expected: answer.startswith(marker)


def _object(text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


CHECKS: Mapping[str, Mapping[str, Check]] = {
    "ticket-json": {"JSON of the agreed form": is_ticket, "right category": same_category, "exact": exact},
    "shop-sql": {"runs on the schema": runs, "exact": exact},
    "pirate": {"starts with “Arr,”": starts_with("Arr,")},
    "pirate-v2": {"starts with “Forsooth,”": starts_with("Forsooth,")},
}
NOT_FOR_FRESH = {("ticket-json", "exact")}
"""Messages written by hand name the category only."""
