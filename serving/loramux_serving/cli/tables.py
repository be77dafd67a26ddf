"""The gateway's views as tables. Pure: JSON and the time in, something to print out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from loramux_serving.cli import canary_facts
from loramux_serving.cli.gateway import printable
from loramux_serving.cli.tier_columns import TierColumns, counted
from loramux_serving.cli.units import ago, moment, optional, size

View = Mapping[str, Any]

_COLOURS = {"ready": "green", "failed": "red", "deleting": "yellow", "arriving": "yellow", "draining": "yellow"}


def adapters(views: Sequence[View], now_s: float) -> Table:
    tiers = TierColumns.of(view["tiers"] for view in views)
    rows = []
    for view in views:
        live = _live(view)
        rows.append(
            (
                view["name"],
                view["state"],
                optional(view["live"]),
                canary(view),
                *tiers.cells(view["tiers"], view["residency"]),
                optional(view["pin"]),
                optional(live.get("rank")),
                size(live.get("bytes")),
                str(view["requests"]),
                ago(view["last_used_at"], now_s),
                ", ".join(view["aliases"]) or "-",
            )
        )
    before, after = ("NAME", "STATE", "LIVE", "CANARY"), ("PIN", "RANK", "SIZE", "REQUESTS", "LAST USED", "ALIASES")
    return _table((*before, *tiers.names, *after), rows, right=("LIVE", "RANK", "SIZE", "REQUESTS"))


def adapter(view: View, now_s: float) -> Group:
    """One adapter and all of its versions."""
    facts = _facts(
        ("name", view["name"]),
        ("state", view["state"]),
        ("base", view["base"]),
        ("live", optional(view["live"])),
        ("previous", optional(view["previous"])),
        ("canary", canary(view)),
        *canary_facts.facts(view, now_s),
        ("aliases", ", ".join(view["aliases"]) or "-"),
        ("pin", optional(view["pin"])),
        ("running", f"{view['running']}, {view['queued']} queued"),
        ("requests", str(view["requests"])),
        ("last used", ago(view["last_used_at"], now_s)),
        ("created", moment(view["created_at"])),
        ("updated", moment(view["updated_at"])),
    )
    tiers = TierColumns.of(version["tiers"] for version in view["versions"])
    rows = [
        (
            str(version["number"]),
            version["state"],
            *tiers.cells(version["tiers"], {}),
            optional(version["rank"]),
            ", ".join(version["modules"]) or "-",
            size(version["bytes"]),
            (version["sha256"] or "-")[:12],
            version["source"],
            reason(version["reason"]),
        )
        for version in view["versions"]
    ]
    columns = ("VERSION", "STATE", *tiers.names, "RANK", "MODULES", "SIZE", "SHA256", "SOURCE", "REASON")
    warnings = [
        Text(printable(f"version {version['number']}: {warning}"), style="yellow")
        for version in view["versions"]
        for warning in version["warnings"]
    ]
    versions = _table(columns, rows, right=("VERSION", "RANK", "SIZE"))
    return Group(facts, Text(), residency(view), Text(), versions, *warnings)


def residency(view: View) -> Table:
    """Where the live version is, by the engines' own reports."""
    rows = [
        (replica, found["tier"], optional(found["pin"]), size(found["bytes"]), f"{found['age_s']:.1f} s")
        for replica, found in view["residency"].items()
    ]
    return _table(("REPLICA", "TIER", "PINNED", "MEMORY", "REPORTED"), rows, right=("MEMORY", "REPORTED"))


def aliases(views: Sequence[View]) -> Table:
    rows = [(view["name"], view["adapter"], optional(view["version"] or "live")) for view in views]
    return _table(("ALIAS", "ADAPTER", "VERSION"), rows)


def keys(views: Sequence[View]) -> Table:
    rows = [
        (
            view["id"],
            view["name"],
            view["role"],
            optional(view["access_key_id"]),
            ", ".join(view["adapters"]) or "all",
            optional(view["requests_per_minute"]),
            optional(view["tokens_per_minute"]),
            moment(view["created_at"]),
            moment(view["revoked_at"]),
        )
        for view in views
    ]
    columns = ("ID", "NAME", "ROLE", "ACCESS KEY ID", "ADAPTERS", "REQUESTS/MIN", "TOKENS/MIN", "CREATED", "REVOKED")
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
            occupancy(view["slots"]),
            occupancy(view["host"]),
            "-" if view["host"] is None else size(view["host"]["bytes"] or None),
            {True: "yes", False: "no"}.get(view["staging"], "-"),
            counted(view["adapters"].values()),
            optional(view["detail"]),
        )
        for view in views
    ]
    columns = (
        *("ID", "STATE", "URL", "REQUESTS", "RESTARTS", "SINCE"),
        *("SLOTS", "HOST", "BYTES", "STAGES", "ADAPTERS", "DETAIL"),
    )
    return _table(columns, rows, right=("REQUESTS", "RESTARTS", "SLOTS", "HOST", "BYTES"))


def occupancy(found: View | None) -> str:
    """`3/8`, `3/8 1 pinned`; `-` where it is not known."""
    if found is None:
        return "-"
    pinned = f" {found['pinned']} pinned" if found["pinned"] else ""
    return f"{found['used']}/{found['total']}{pinned}"


def canary(view: View) -> str:
    found = view["canary"]
    if found is None:
        return "-"
    return f"{found['version']} ({found['weight']:.0%}{', by key' if found['sticky'] == 'key' else ''})"


def reason(failure: View | None) -> str:
    return "-" if failure is None else f"{failure['code']}: {failure['message']}"


def _live(view: View) -> View:
    return next((version for version in view["versions"] if version["number"] == view["live"]), {})


def _facts(*facts: tuple[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in facts:
        table.add_row(Text(name, style="bold"), cell(value))
    return table


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(cell(column), justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell(value) for value in row))
    return table


def cell(value: str) -> Text:
    """States have a colour; nothing in a value is taken for markup or for a terminal's commands."""
    return Text(printable(value), style=_COLOURS.get(value, ""))
