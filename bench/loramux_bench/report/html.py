"""The report: one page of HTML that needs no network. Its tables are plain HTML; its script draws charts and sorts."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from loramux_bench.record import RequestRecord
from loramux_bench.report import figures, tables
from loramux_bench.report.charts import Chart, churn_legend, time_charts
from loramux_bench.report.histograms import histograms
from loramux_bench.report.notices import notices
from loramux_bench.results.series import Series
from loramux_bench.results.summary import Summary
from loramux_bench.run_dir import ChurnRecord, RunInfo
from loramux_bench.scenario import Load
from loramux_bench.scenario import parse as parse_scenario

_HERE = Path(__file__).parent
_STYLES = ("uPlot.min.css", "report.css")
_SCRIPTS = ("uPlot.iife.min.js", "report.js")


def render(
    *,
    info: RunInfo,
    summary: Summary,
    series: Series,
    requests: Sequence[RequestRecord],
    churn: Sequence[ChurnRecord] = (),
) -> str:
    """The whole page. It grows with the number of adapters, not of requests: below 3 MB for 100,000 of them.

    Whatever comes from outside (names, messages) is shown as text. `churn` puts marks into the charts over time.

    Raises `ScenarioError` for a scenario in `run.json` that this version does not read.
    """
    scenario = parse_scenario(info.scenario, f"of the run {info.name}")
    over_time = time_charts(series, summary, churn) if summary.total.sent else []
    spread = histograms(requests)
    styles = [_asset(name) for name in _STYLES]
    scripts = [_asset(name) for name in _SCRIPTS]
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        ms=figures.milliseconds,
        rate=figures.rate,
        percent=figures.percent,
        duration=figures.duration,
        money=figures.money,
        plain=figures.plain,
        moment=_moment,
    )
    return environment.get_template("page.html.j2").render(
        info=info,
        summary=summary,
        policy=_policy(scripts=scripts, styles=styles),
        styles=[Markup(style) for style in styles],
        scripts=[Markup(script) for script in scripts],
        data=embedded([*over_time, *spread]),
        notices=notices(info, summary),
        time_charts=over_time,
        histograms=spread,
        marks=churn_legend(churn) if over_time else [],
        tables=tables,
        few=tables.FEW_ROWS,
        requests=requests,
        series_width=series.width_s,
        unsampled=_unsampled(series),
        several_versions=len(summary.by_version) > len({name.rpartition("@")[0] for name in summary.by_version}),
        scenario=scenario,
        load=_load(scenario.load),
        environment_facts=list(_flat(info.environment)),
        scenario_json=msgspec.json.format(msgspec.json.encode(info.scenario), indent=2).decode(),
    )


def embedded(charts: Sequence[Chart]) -> Markup:
    """JSON that no parser of HTML takes for anything but text: within strings, the only place where they can be, the
    characters that mean something to one are written as escapes."""
    text = msgspec.json.encode(charts).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _policy(*, scripts: Sequence[str], styles: Sequence[str]) -> str:
    """A content security policy that lets exactly these texts run, and nothing be loaded or sent."""
    return (
        f"default-src 'none'; script-src {' '.join(map(_source, scripts))}; "
        f"style-src {' '.join(map(_source, styles))}; base-uri 'none'; form-action 'none'"
    )


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _asset(name: str) -> str:
    return (_HERE / "assets" / name).read_text("utf-8")


def _moment(unix_s: float) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _unsampled(series: Series) -> str:
    """Which charts are not there because nobody said, in a sentence; empty where all are."""
    parts = {"replicas": series.replicas, "tiers of adapters": series.tiers, "the load generator": series.generator_cpu}
    missing = [name for name, values in parts.items() if not values]
    return f"No charts of {', '.join(missing)}: there are no samples of them." if missing else ""


def _load(load: Load) -> str:
    """The load in a few words, such as `open loop, poisson arrivals at 12 a second`."""
    if load.shape == "closed":
        return f"closed loop, {load.users} user{'' if load.users == 1 else 's'}"
    arrivals = load.arrivals
    if arrivals.trace:
        return f"open loop, arrivals of the trace {arrivals.trace}"
    if arrivals.stages:
        return f"open loop, {arrivals.kind} arrivals in {len(arrivals.stages)} stages"
    return f"open loop, {arrivals.kind} arrivals at {figures.plain(arrivals.rate_per_s)} a second"


def _flat(facts: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Names with a dot for each level, and values as text; what is empty is left out."""
    found: list[tuple[str, str]] = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            found.extend(_flat(value, f"{before}{name}."))
        elif value not in ("", None, [], ()):
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            if name.endswith("_bytes") and isinstance(value, int):
                name, shown = name.removesuffix("_bytes"), f"{value / 2**30:.1f} GiB"
            found.append((f"{before}{name}".replace("_", " "), shown))
    return found
