"""The report in a real browser: drawn, sorted, searched; in light, dark and narrow; without a network."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import pytest
from playwright.sync_api import Browser, Page

from loramux_bench.report.html import render
from loramux_bench.results.series import series
from loramux_bench.results.summary import Summary, summarise
from tests.fakes.bench_run import HOSTILE, MadeRun, MadeUp

if TYPE_CHECKING:  # pytest wants to be the first to load it
    from tests.fixtures.browser import BrowserThread

T = TypeVar("T")

INK = """() => {
  const tones = getComputedStyle(document.documentElement);
  const rgb = (tone) => tones.getPropertyValue("--" + tone).match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16));
  const charts = JSON.parse(document.getElementById("chart-data").textContent);
  return charts.flatMap((chart) => {
    const canvas = document.querySelector("#" + chart.id + " canvas");
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    return chart.series.map((curve) => {
      const [r, g, b] = rgb(curve.tone);
      let inked = 0;
      for (let i = 0; i < pixels.length; i += 4) {
        const near = Math.abs(pixels[i] - r) + Math.abs(pixels[i + 1] - g) + Math.abs(pixels[i + 2] - b) < 24;
        if (near && pixels[i + 3] > 200) inked += 1;
      }
      return [chart.id + ": " + curve.label, inked];
    });
  });
}"""
"""For each curve of each chart: how many pixels of its canvas have its colour."""


@dataclass(slots=True)
class Heard:
    """What the browser asked for, what of it failed and why, and what it complained of."""

    requests: list[str] = field(default_factory=list)
    failures: dict[str, str | None] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Report:
    """A page on disk, and the summary that it was made of."""

    path: Path
    summary: Summary
    browser: "BrowserThread"

    def look(
        self,
        work: Callable[[Page, Heard], T],
        *,
        width: int = 1280,
        scheme: Literal["light", "dark"] = "light",
    ) -> T:
        """What `work` gives for the page, opened from its file, offline, and drawn."""

        def open_and_work(browser: Browser) -> T:
            with _opened(browser, self.path, width, scheme) as (page, heard):
                return work(page, heard)

        return self.browser.run(open_and_work)


def until(page: Page, condition: str, timeout_s: float = 20) -> None:
    """Until an expression is true. Playwright's own wait is text that a page's policy does not let run."""
    deadline = time.monotonic() + timeout_s
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


@contextmanager
def _opened(browser: Browser, path: Path, width: int, scheme: Literal["light", "dark"]) -> Iterator[tuple[Page, Heard]]:
    heard = Heard()
    context = browser.new_context(offline=True, viewport={"width": width, "height": 900}, color_scheme=scheme)
    try:
        page = context.new_page()
        page.on("request", lambda request: heard.requests.append(request.url))
        page.on("requestfailed", lambda request: heard.failures.update({request.url: request.failure}))
        page.on("console", lambda message: heard.complaints.append(message.text))
        page.on("pageerror", lambda error: heard.complaints.append(str(error)))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-drawn]", state="attached", timeout=20_000)
        yield page, heard
    finally:
        context.close()


def report_of(run: MadeRun, path: Path, browser: "BrowserThread") -> Report:
    summary = summarise(run.info, run.requests, run.samples, run.churn)
    page = render(
        info=run.info,
        summary=summary,
        series=series(run.requests, run.samples),
        requests=run.requests,
        churn=run.churn,
    )
    path.write_text(page, "utf-8")
    return Report(path, summary, browser)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, browser_thread: "BrowserThread") -> Report:
    return report_of(MadeUp().make(), tmp_path_factory.mktemp("report") / "report.html", browser_thread)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_every_curve_is_drawn_without_a_network(
    report: Report, width: int, scheme: Literal["light", "dark"], tmp_path: Path
) -> None:
    def work(page: Page, heard: Heard) -> tuple[list[tuple[str, int]], tuple[int, int], Heard]:
        page.screenshot(path=tmp_path / f"report-{width}-{scheme}.png", full_page=True)
        return page.evaluate(INK), page.evaluate("[document.documentElement.scrollWidth, innerWidth]"), heard

    ink, (content_px, window_px), heard = report.look(work, width=width, scheme=scheme)
    assert heard.requests == [report.path.as_uri()]
    assert heard.complaints == []
    assert len({label.partition(":")[0] for label, _ in ink}) == 13
    assert [label for label, inked in ink if inked < 5] == []
    assert content_px <= window_px


def test_charts_follow_a_change_of_the_scheme_and_of_the_width(report: Report) -> None:
    def work(page: Page, heard: Heard) -> tuple[Any, Any, list[int]]:
        page.emulate_media(color_scheme="dark")
        until(page, f"({INK})().every(([label, inked]) => inked >= 5)")
        dark = page.evaluate(INK)
        page.set_viewport_size({"width": 700, "height": 900})
        narrower = "[...document.querySelectorAll('.plot')].map((plot) => plot.scrollWidth - plot.clientWidth)"
        until(page, f"{narrower}.every((over) => over <= 0)")
        until(page, f"({INK})().every(([label, inked]) => inked >= 5)")
        return dark, page.evaluate(INK), page.evaluate(narrower)

    dark, narrow, over = report.look(work)
    assert all(inked >= 5 for _, inked in dark + narrow)
    assert max(over) <= 0


def test_the_figures_are_the_summarys(report: Report) -> None:
    def work(page: Page, heard: Heard) -> tuple[dict[str, str], dict[str, list[str]]]:
        tiles = page.eval_on_selector_all(
            ".verdict > div",
            "all => Object.fromEntries(all.map(d => [d.children[0].innerText, d.children[1].innerText.trim()]))",
        )
        rows = page.eval_on_selector_all(
            "#latencies tbody tr", "all => all.map(row => [...row.cells].map(cell => cell.innerText))"
        )
        return tiles, {row[0]: row[1:] for row in rows}

    tiles, rows = report.look(work)
    total = report.summary.total
    assert tiles["Answered"] == f"{total.answered} of {total.sent}"
    assert tiles["Errors"] == f"{total.errors} {100 * total.error_rate:.2f} %"
    assert tiles["Throughput, tok/s"] == f"{total.throughput:.1f}"
    for name, title in (("ttft", "TTFT"), ("itl", "ITL"), ("tpot", "TPOT"), ("e2e", "E2E")):
        spread = total.measures[name]
        shown = [float(text.replace(",", "")) for text in rows[f"{title}, ms"]]
        wanted = [1000 * getattr(spread, at) for at in ("mean", "stddev", "min", "p25", "p50", "p75", "p90", "p95")]
        assert shown[0] == spread.count
        assert shown[1:9] == pytest.approx(wanted, abs=0.51, rel=1e-3)
        assert shown[9:] == pytest.approx([1000 * spread.p99, 1000 * spread.max], abs=0.51, rel=1e-3)
    first, last = (float(part.replace(",", "")) for part in tiles["TTFT p50 / p99, ms"].split(" / "))
    assert (first, last) == pytest.approx(
        (1000 * total.measures["ttft"].p50, 1000 * total.measures["ttft"].p99), rel=1e-3
    )


def test_a_table_is_sorted_by_the_column_that_is_clicked(report: Report) -> None:
    def column(page: Page, place: int) -> list[str]:
        found: list[str] = page.eval_on_selector_all(
            "#by-adapter tbody tr", f"all => all.map(row => row.cells[{place}].innerText)"
        )
        return found

    def work(page: Page, heard: Heard) -> list[list[str]]:
        heads = page.locator("#by-adapter thead th")
        place = next(i for i, text in enumerate(heads.all_inner_texts()) if text.startswith("TTFT p99"))
        seen = [column(page, 1)]
        for click in (place, place, 0):
            heads.nth(click).locator("button").click()
            seen.append(column(page, click))
        return seen

    sent, falling, rising, names = report.look(work)
    number = [float(text.replace(",", "")) for text in rising]
    assert [int(text) for text in sent] == sorted((int(text) for text in sent), reverse=True)
    assert number == sorted(number)
    assert falling == rising[::-1]
    assert len(set(number)) > 5
    assert names == sorted(names)


def test_a_long_table_is_opened_and_searched(report: Report) -> None:
    def work(page: Page, heard: Heard) -> list[list[str]]:
        def shown() -> list[str]:
            return page.locator("#by-version tbody tr:visible td:first-child").all_inner_texts()

        tools = page.locator("[data-table=by-version]")
        seen = [shown()]
        tools.locator("button").click()
        seen.append(shown())
        tools.locator("input").fill("ADAPTER-07")
        seen.append(shown())
        tools.locator("input").fill("")
        tools.locator("button").click()
        return [*seen, shown()]

    few, every, searched, again = report.look(work)
    assert len(few) == 20
    assert len(every) == len(report.summary.by_version) > 20
    assert sorted(searched) == ["adapter-07@1", "adapter-07@2"]
    assert again == few


def test_hostile_names_and_messages_are_text(report: Report) -> None:
    def work(page: Page, heard: Heard) -> tuple[Any, list[str], list[str]]:
        facts = page.evaluate("[window.broken === undefined, document.images.length]")
        names = page.locator("#by-adapter tbody td:first-child").all_text_contents()
        return facts, names, page.locator("#errors tbody td.long").all_text_contents()

    facts, names, messages = report.look(work)
    assert facts == [True, 0]
    assert HOSTILE in names
    assert set(messages) == {HOSTILE}


def test_no_other_script_may_run_and_nothing_be_loaded(report: Report) -> None:
    """The second line of defence, should a text ever be taken for markup."""

    def work(page: Page, heard: Heard) -> tuple[bool, dict[str, str | None], list[str]]:
        page.evaluate("""() => {
          const script = document.createElement("script");
          script.textContent = "window.broken = 1";
          document.body.append(script);
          document.body.insertAdjacentHTML("beforeend", "<img src='http://127.0.0.1:9/x' onerror='window.broken = 1'>");
        }""")
        until(page, "document.images[0].complete")
        return page.evaluate("window.broken === undefined"), heard.failures, heard.complaints

    quiet, failures, complaints = report.look(work)
    assert quiet
    assert failures == {"http://127.0.0.1:9/x": "csp"}
    assert any("Content Security Policy" in complaint for complaint in complaints)


def test_one_cursor_reads_all_charts_over_time(report: Report) -> None:
    def work(page: Page, heard: Heard) -> dict[str, list[str]]:
        page.locator("#time-ttft").scroll_into_view_if_needed()
        page.locator("#time-ttft .u-over").hover()
        return {
            name: page.locator(f"#{name} .u-legend .u-value").all_inner_texts()
            for name in ("time-ttft", "time-requests", "histogram-ttft")
        }

    legends = report.look(work)
    assert legends["time-ttft"][0] == legends["time-requests"][0]
    assert ":" in legends["time-ttft"][0]
    assert "–" not in legends["time-requests"]
    assert set(legends["histogram-ttft"]) == {"–"}


def test_it_prints_and_comes_back(report: Report, tmp_path: Path) -> None:
    def work(page: Page, heard: Heard) -> tuple[bytes, Any, list[str]]:
        before = page.evaluate("document.querySelector('.uplot').clientWidth")
        pdf = page.pdf(path=tmp_path / "report.pdf")
        width = "document.querySelector('.uplot').clientWidth"
        until(page, f"{width} === {before}")
        return pdf, page.evaluate(INK), heard.complaints

    pdf, ink, complaints = report.look(work, scheme="dark")
    assert pdf.startswith(b"%PDF")
    assert [label for label, inked in ink if inked < 5] == []
    assert complaints == []


@pytest.mark.parametrize("what", ["nothing", "errors", "one"])
def test_a_page_with_little_to_show_is_whole(what: str, tmp_path: Path, browser_thread: "BrowserThread") -> None:
    made = MadeUp(error_share=1.0 if what == "errors" else 0.0).make()
    answered = [record for record in made.requests if record.ok and not record.warmup]
    run = {
        "nothing": MadeRun(made.info, [], [], []),
        "errors": made,
        "one": MadeRun(made.info, answered[:1], [], []),
    }[what]

    def work(page: Page, heard: Heard) -> tuple[list[tuple[str, int]], Heard, Any]:
        page.screenshot(path=tmp_path / f"{what}.png", full_page=True)
        return page.evaluate(INK), heard, page.evaluate("document.querySelectorAll('.plot').length")

    ink, heard, plots = report_of(run, tmp_path / "report.html", browser_thread).look(work)
    assert heard.complaints == []
    assert len({label.partition(":")[0] for label, _ in ink}) == plots
    # Of equal values the curve on top hides the other.
    assert len({label.partition(":")[0] for label, inked in ink if inked >= 5}) == plots
