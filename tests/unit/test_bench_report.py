"""The report's page as text; how it looks in a browser is tests/integration/test_bench_report_browser.py's."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import loramux_bench.report
from loramux_bench.record import RequestRecord
from loramux_bench.report import figures
from loramux_bench.report.charts import Chart, time_charts
from loramux_bench.report.histograms import histogram, round_width
from loramux_bench.report.html import embedded, render
from loramux_bench.report.notices import notices
from loramux_bench.report.tables import MAX_ROWS, groups, objectives
from loramux_bench.results.series import series
from loramux_bench.results.summary import summarise
from loramux_bench.run_dir import RunInfo
from tests.fakes.bench_run import HOSTILE, MadeRun, MadeUp

ASSETS = Path(loramux_bench.report.__file__).parent / "assets"


def page_of(run: MadeRun) -> str:
    return render(
        info=run.info,
        summary=summarise(run.info, run.requests, run.samples, run.churn),
        series=series(run.requests, run.samples),
        requests=run.requests,
        churn=run.churn,
    )


class Read(HTMLParser):
    """What a parser of HTML finds in a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open][-1] += data

    def charts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.texts["script"][0])
        return found


def test_the_page_begins_as_html_and_reaches_for_nothing() -> None:
    page = page_of(MadeUp().make())
    assert page.startswith("<!DOCTYPE html>")
    read = Read(page)
    assert [tag for tag, _ in read.tags if tag in ("link", "img", "iframe", "object", "base", "form")] == []
    assert [attributes for _, attributes in read.tags if "src" in attributes or "href" in attributes] == []


def test_the_policy_lets_exactly_the_pages_own_scripts_and_styles_run() -> None:
    read = Read(page_of(MadeUp().make()))
    policy = next(attributes["content"] for _, attributes in read.tags if "http-equiv" in attributes)
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))

    def hashes(texts: list[str]) -> list[str]:
        return [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts]

    assert rules["default-src"] == "'none'"
    assert rules["script-src"].split() == hashes(read.texts["script"][1:])
    assert rules["style-src"].split() == hashes(read.texts["style"])


def test_what_comes_from_outside_is_text() -> None:
    run = MadeUp(scenario={"about": HOSTILE}).make()
    run.info.environment["command"] = HOSTILE
    run.info.outcome, run.info.failure = "failed", HOSTILE
    page = page_of(run)
    assert HOSTILE not in page
    read = Read(page)
    assert HOSTILE in read.texts["td"]
    assert HOSTILE in read.texts["dd"]
    assert HOSTILE in read.texts["p"]
    assert any(HOSTILE in text for text in read.texts["pre"])


def test_data_holds_no_character_that_html_knows() -> None:
    text = f"{HOSTILE} & <!-- \u2028 \u2029 ]]>"
    chart = Chart(id="a", kind="time", title=text, unit="", x=[], x_label="", axes=[], series=[])
    data = embedded([chart])
    assert not set("<>&\u2028\u2029") & set(data)
    assert json.loads(data)[0]["title"] == text


def test_the_verdict_is_the_summarys() -> None:
    run = MadeUp().make()
    summary = summarise(run.info, run.requests, run.samples, run.churn)
    text = re.sub(r"<[^>]+>", " ", page_of(run))
    shown = " ".join(text.split())
    ttft, itl = summary.total.measures["ttft"], summary.total.measures["itl"]
    assert f"Answered {summary.total.answered} of {summary.total.sent}" in shown
    assert f"TTFT p50 / p99, ms {ttft.p50 * 1000:.2f} / {ttft.p99 * 1000:.1f}" in shown
    assert f"ITL p50 / p99, ms {itl.p50 * 1000:.2f} / {itl.p99 * 1000:.2f}" in shown
    assert f"Throughput, tok/s {summary.total.throughput:.1f}" in shown
    assert f"Goodput, req/s {summary.total.goodput:.2f}" in shown


@pytest.mark.parametrize("what", ["nothing", "errors", "unsampled", "one"])
def test_a_page_with_little_to_show_has_no_empty_charts(what: str) -> None:
    whole = MadeUp(error_share=1.0 if what == "errors" else 0.0).make()
    info: RunInfo = whole.info
    answered = [record for record in whole.requests if record.ok and not record.warmup]
    run = {
        "nothing": MadeRun(info, [], [], []),
        "errors": whole,
        "unsampled": MadeRun(info, whole.requests, [], []),
        "one": MadeRun(info, answered[:1], [], []),
    }[what]
    page = page_of(run)
    read = Read(page)
    shown = [chart["id"] for chart in read.charts()]
    assert shown == [attributes["id"] for _, attributes in read.tags if attributes.get("class") == "plot"]
    for chart in read.charts():
        assert any(value for curve in chart["series"] for value in curve["values"]), chart["id"]
    if what == "nothing":
        assert shown == []
        assert "No request was measured" in page
    if what == "errors":
        assert not any("ttft" in name or name.startswith("histogram") for name in shown)
        assert "measured requests was answered" in page
    if what == "unsampled":
        assert "time-ttft" in shown
        assert not {"time-replicas", "time-tiers", "time-generator"} & set(shown)
        assert page.count("there are no samples of them") == 1
    if what == "one":
        assert "histogram-ttft" in shown


def test_a_run_that_ended_early_says_so() -> None:
    run = MadeUp().make()
    told = []
    for outcome in ("done", "interrupted", "failed", "running"):
        run.info.outcome, run.info.failure = outcome, "The endpoint went away."
        summary = summarise(run.info, run.requests, run.samples, run.churn)
        told.append([notice.text for notice in notices(run.info, summary) if notice.bad])
    whole, interrupted, failed, killed = told
    assert set(interrupted) - set(whole) == {
        "The run was interrupted before its end: the figures are of what was recorded until then."
    }
    assert set(failed) - set(whole) == {"The run failed: The endpoint went away. What it recorded is below."}
    assert "it was killed" in next(iter(set(killed) - set(whole)))


def test_a_generator_at_its_limit_and_errors_are_told_first() -> None:
    run = MadeUp(error_share=0.2).make()
    busy = [
        msgspec.structs.replace(sample, generator=msgspec.structs.replace(sample.generator, cpu=0.99))
        for sample in run.samples
        if sample.generator is not None
    ]
    summary = summarise(run.info, run.requests, busy, [])
    told = notices(run.info, summary)
    assert [notice.bad for notice in told] == sorted((notice.bad for notice in told), reverse=True)
    texts = " ".join(notice.text for notice in told)
    assert "The load generator was a limit in this run" in texts
    assert summary.generator.reasons[0] in texts
    assert f"{summary.total.errors} of {summary.total.answered + summary.total.errors} requests" in texts


def test_objectives_say_kept_or_missed_and_leave_baselines_alone() -> None:
    run = MadeUp().make()
    table = objectives(summarise(run.info, run.requests, run.samples, run.churn))
    assert [(row[0].text, row[2].text) for row in table.rows] == [
        ("ttft:p99:2s", "kept"),
        ("ttft:p90:250ms", "missed"),
        ("error_rate:10%", "kept"),
        ("throughput:-5%", "needs a baseline"),
    ]


def test_a_hundred_thousand_requests_of_a_thousand_adapters_fit_into_three_megabytes() -> None:
    run = MadeUp(seconds=200, rate_per_s=100, adapters=1200, tokens=2).make()
    page = page_of(replace(run, requests=run.requests * 5))
    assert len(run.requests * 5) == 100_000
    assert len(page.encode()) < 3_000_000
    assert "more rows, with fewer requests, are in summary.json" in page


def test_groups_stand_in_the_order_of_their_requests() -> None:
    run = MadeUp(adapters=12).make()
    by = summarise(run.info, run.requests, run.samples, run.churn).by_adapter
    sent = [row[1].value for row in groups("adapter", "adapter", by).rows]
    assert sent == sorted((group.sent for group in by.values()), reverse=True)
    many = {f"adapter-{number}": next(iter(by.values())) for number in range(MAX_ROWS + 7)}
    table = groups("adapter", "adapter", many)
    assert (len(table.rows), table.left_out) == (MAX_ROWS, 7)


def test_cost_so_far_ends_at_the_cost_in_sum() -> None:
    run = MadeUp().make()
    summary = summarise(run.info, run.requests, run.samples, run.churn)
    charts = {chart.id: chart for chart in time_charts(series(run.requests, run.samples), summary, run.churn)}
    spent = next(curve.values for curve in charts["time-replicas"].series if curve.scale == "cost")
    assert summary.cost is not None
    assert spent[-1] == pytest.approx(summary.cost.total, rel=0.03)
    assert spent == sorted(value for value in spent if value is not None)


def test_churn_is_marked_when_it_was_acknowledged() -> None:
    run = MadeUp().make()
    summary = summarise(run.info, run.requests, run.samples, run.churn)
    chart = time_charts(series(run.requests, run.samples), summary, run.churn)[0]
    marked = sorted(at_s for mark in chart.marks for at_s in mark.at)
    assert marked == [one.at_s for one in run.churn if not one.error]


@given(
    st.lists(st.floats(1e-5, 1e4, allow_subnormal=False), min_size=1, max_size=300),
    st.lists(st.floats(1e3, 1e6), max_size=3),
)
def test_every_value_is_in_one_bar(values: list[float], tail: list[float]) -> None:
    chart = histogram("ttft", np.array(values + tail))
    assert sum(value or 0 for curve in chart.series for value in curve.values) == len(values) + len(tail)
    assert all(len(curve.values) == len(chart.x) == len(chart.x_texts) for curve in chart.series)
    assert len(chart.x) <= 53
    assert chart.x == sorted(chart.x)


def test_a_long_tail_shares_one_bar_that_says_so() -> None:
    values = np.concatenate([np.linspace(0.010, 0.020, 995), [5.0, 6.0, 7.0, 8.0, 9.0]])
    chart = histogram("itl", values)
    assert chart.series[1].label == "beyond"
    assert chart.series[1].values[-1] == 5
    assert chart.last is not None
    assert chart.last <= 25
    assert "5 gaps (0.5 %), the largest 9,000 ms" in chart.note
    assert len(histogram("itl", values[:995]).series) == 1


def test_a_histogram_of_equal_values_is_one_bar() -> None:
    chart = histogram("ttft", np.full(100, 0.25))
    assert [curve.values for curve in chart.series] == [[100]]


@pytest.mark.parametrize(("width", "rounded"), [(0.9, 1), (1.0, 1), (1.1, 2), (2.1, 2.5), (3, 5), (6, 10), (0.06, 0.1)])
def test_widths_are_round(width: float, rounded: float) -> None:
    assert round_width(width) == pytest.approx(rounded)


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (figures.milliseconds(0.01069), "10.69"),
        (figures.milliseconds(0.3784), "378.4"),
        (figures.milliseconds(10.56), "10,560"),
        (figures.milliseconds(0.099996), "100.0"),
        (figures.rate(208.04), "208.0"),
        (figures.rate(0.1867), "0.19"),
        (figures.percent(0.0), "0 %"),
        (figures.percent(1.0), "100 %"),
        (figures.percent(0.00001), "<0.01 %"),
        (figures.percent(0.999999), ">99.99 %"),
        (figures.percent(0.0275), "2.75 %"),
        (figures.duration(0.5), "0.50 s"),
        (figures.duration(245), "4 min 05 s"),
        (figures.duration(7380), "2 h 03 min"),
        (figures.money(0.0123), "0.0123"),
        (figures.money(1234.5), "1,234.50"),
    ],
)
def test_figures_are_written_for_people(shown: str, text: str) -> None:
    assert shown == text


def test_vendored_files_are_those_that_the_readme_names() -> None:
    named = re.findall(r"^\| `(uPlot[^`]+)` .*`([0-9a-f]{64})` \|$", (ASSETS / "README.md").read_text("utf-8"), re.M)
    assert len(named) == 3
    for name, digest in named:
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == digest


def test_slowest_requests_are_named() -> None:
    run = MadeUp().make()
    slowest = max((r for r in run.requests if r.ok and not r.warmup), key=lambda record: record.ttft_s or 0)
    assert isinstance(slowest, RequestRecord)
    assert slowest.request_id in Read(page_of(run)).texts["td"]
