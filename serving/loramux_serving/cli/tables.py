"""The gateway's views as tables. Pure: JSON and the time in, something to print out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from loramux_serving.cli.gateway import printable
from loramux_serving.cli.units import ago, moment, optional, places, size

View = Mapping[str, Any]

_COLOURS = {"ready": "green", "failed": "red", "deleting": "yellow", "arriving": "yellow", "draining": "yellow"}


def adapters(views: Sequence[View], now_s: float) -> Table:
    rows = []
    for view in views:
        live = _live(view)
        rows.append(
            (
                view["name"],
                view["state"],
                optional(view["live"]),
                canary(view),
                places(view["tiers"]),
                optional(live.get("rank")),
                size(live.get("bytes")),
                str(view["requests"]),
                ago(view["last_used_at"], now_s),
                ", ".join(view["aliases"]) or "-",
            )
        )
    columns = ("NAME", "STATE", "LIVE", "CANARY", "TIER", "RANK", "SIZE", "REQUESTS", "LAST USED", "ALIASES")
    return _table(columns, rows, right=("LIVE", "RANK", "SIZE", "REQUESTS"))


def adapter(view: View, now_s: float) -> Group:
    """One adapter and all of its versions."""
    facts = _facts(
        ("name", view["name"]),
        ("state", view["state"]),
        ("base", view["base"]),
        ("live", optional(view["live"])),
        ("canary", canary(view)),
        ("aliases", ", ".join(view["aliases"]) or "-"),
        ("pin", optional(view["pin"])),
        ("requests", str(view["requests"])),
        ("last used", ago(view["last_used_at"], now_s)),
        ("created", moment(view["created_at"])),
        ("updated", moment(view["updated_at"])),
    )
    rows = [
        (
            str(version["number"]),
            version["state"],
            places(version["tiers"]),
            optional(version["rank"]),
            ", ".join(version["modules"]) or "-",
            size(version["bytes"]),
            (version["sha256"] or "-")[:12],
            version["source"],
            reason(version["reason"]),
        )
        for version in view["versions"]
    ]
    columns = ("VERSION", "STATE", "TIER", "RANK", "MODULES", "SIZE", "SHA256", "SOURCE", "REASON")
    warnings = [
        Text(printable(f"version {version['number']}: {warning}"), style="yellow")
        for version in view["versions"]
        for warning in version["warnings"]
    ]
    return Group(facts, _table(columns, rows, right=("VERSION", "RANK", "SIZE")), *warnings)


def aliases(views: Sequence[View]) -> Table:
    rows = [(view["name"], view["adapter"], optional(view["version"] or "live")) for view in views]
    return _table(("ALIAS", "ADAPTER", "VERSION"), rows)


def keys(views: Sequence[View]) -> Table:
    rows = [
        (
            view["id"],
            view["name"],
            view["role"],
            ", ".join(view["adapters"]) or "all",
            optional(view["requests_per_minute"]),
            optional(view["tokens_per_minute"]),
            moment(view["created_at"]),
            moment(view["revoked_at"]),
        )
        for view in views
    ]
    columns = ("ID", "NAME", "ROLE", "ADAPTERS", "REQUESTS/MIN", "TOKENS/MIN", "CREATED", "REVOKED")
    return _table(columns, rows, right=("REQUESTS/MIN", "TOKENS/MIN"))


def operation(view: View) -> Table:
    return _facts(
        ("operation", view["id"]),
        ("kind", view["kind"]),
        ("adapter", view["adapter"]),
        ("version", optional(view["version"])),
        ("state", view["state"]),
        ("stage", optional(view["stage"])),
        ("progress", f"{view['progress']:.0%}"),
        ("error", reason(view["error"])),
        ("created", moment(view["created_at"])),
        ("finished", moment(view["finished_at"])),
    )


def replicas(views: Sequence[View], now_s: float) -> Table:
    rows = [
        (
            view["id"],
            view["state"],
            view["url"],
            str(view["outstanding"]),
            str(view["restarts"]),
            ago(view["since"], now_s),
            _counted(view["adapters"].values()),
            optional(view["detail"]),
        )
        for view in views
    ]
    columns = ("ID", "STATE", "URL", "REQUESTS", "RESTARTS", "SINCE", "ADAPTERS", "DETAIL")
    return _table(columns, rows, right=("REQUESTS", "RESTARTS"))


def canary(view: View) -> str:
    found = view["canary"]
    return "-" if found is None else f"{found['version']} ({found['weight']:.0%})"


def reason(failure: View | None) -> str:
    return "-" if failure is None else f"{failure['code']}: {failure['message']}"


def _live(view: View) -> View:
    return next((version for version in view["versions"] if version["number"] == view["live"]), {})


def _counted(tiers: Iterable[str]) -> str:
    held = list(tiers)
    return ", ".join(f"{held.count(tier)} {tier}" for tier in sorted(set(held))) or "-"


def _facts(*facts: tuple[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in facts:
        table.add_row(Text(name, style="bold"), _cell(value))
    return table


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    return table


def _cell(value: str) -> Text:
    """States have a colour; nothing in a value is taken for markup or for a terminal's commands."""
    return Text(printable(value), style=_COLOURS.get(value, ""))
