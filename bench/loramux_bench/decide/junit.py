"""A verdict as JUnit XML, in the form that Jenkins and GitLab read (the schema of Jenkins' xUnit plugin,
`junit-10.xsd`): what failed is a `failure`, what is undecided an `error`."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from xml.etree import ElementTree as xml

from loramux_bench.decide.compare import Row
from loramux_bench.decide.gate import Check, Verdict

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Not a character of XML 1.0 (section 2.2), not even as a reference."""


def junit(
    verdict: Verdict, *, name: str, at: float | None = None, properties: Mapping[str, str | float] | None = None
) -> bytes:
    """A whole document, UTF-8. `name`: of the suite, such as the scenario's. `at`: Unix seconds of the verdict.
    `properties` come before the comparison's figures, which are there by `measure.statistic.candidate`, `.baseline`
    and `.ratio`."""
    counts = {
        "tests": len(verdict.checks),
        "failures": sum(check.outcome == "failed" for check in verdict.checks),
        "errors": sum(check.outcome == "undecided" for check in verdict.checks),
    }
    attributes = {key: str(value) for key, value in counts.items()}
    attributes["time"] = _seconds(sum(check.seconds for check in verdict.checks))
    suites = xml.Element("testsuites", {"name": _clean(name), **attributes})
    suite = xml.SubElement(suites, "testsuite", {"name": _clean(name), **attributes, "skipped": "0"})
    if at is not None:
        suite.set("timestamp", datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S"))
    figures = {**(properties or {}), **_figures(verdict)}
    if figures:
        listed = xml.SubElement(suite, "properties")
        for key, value in figures.items():
            xml.SubElement(listed, "property", {"name": _clean(key), "value": _clean(_text(value))})
    for check in verdict.checks:
        _case(suite, check, name)
    if verdict.warnings:
        xml.SubElement(suite, "system-out").text = _clean("\n".join(verdict.warnings))
    xml.indent(suites)
    return bytes(xml.tostring(suites, encoding="utf-8", xml_declaration=True)) + b"\n"


def _case(suite: xml.Element, check: Check, name: str) -> None:
    case = xml.SubElement(
        suite,
        "testcase",
        {"classname": f"bench.{_clean(name)}", "name": _clean(check.name), "time": _seconds(check.seconds)},
    )
    sentence = _clean(check.sentence)
    if check.outcome == "passed":
        xml.SubElement(case, "system-out").text = sentence
        return
    tag = "failure" if check.outcome == "failed" else "error"
    xml.SubElement(case, tag, {"message": sentence, "type": check.outcome}).text = sentence


def _figures(verdict: Verdict) -> dict[str, float]:
    if verdict.comparison is None:
        return {}
    found = {}
    for row in verdict.comparison.rows:
        place = _place(row)
        for part, value in (("candidate", row.b), ("baseline", row.a), ("ratio", row.ratio)):
            if value is not None and math.isfinite(value):
                found[f"{place}.{part}"] = value
    return found


def _place(row: Row) -> str:
    return f"{row.measure}.{row.statistic}" if row.statistic else row.measure


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"


def _seconds(value: float) -> str:
    return f"{value:.3f}"


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("", text)
