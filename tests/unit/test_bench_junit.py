"""JUnit XML: what Jenkins and GitLab read of it, and text that XML can not hold."""

from xml.etree import ElementTree as xml

import pytest

from loramux_bench.decide.gate import Check, Verdict, judge
from loramux_bench.decide.junit import junit
from loramux_bench.results.slo import parse
from tests.fakes.bench_rounds import MadeRound, made_rounds

MIXED = Verdict(
    (
        Check("runs", "passed", "Every run is whole.", 12.5),
        Check("slo ttft:p99:500ms", "failed", "TTFT p99 was 612 ms, over the limit of 500 ms."),
        Check("regression e2e p50", "undecided", "It may be noise."),
    ),
    None,
    ("Mind <this> & that.",),
)


def test_outcomes_are_counted_and_told_apart() -> None:
    suites = xml.fromstring(junit(MIXED, name="nightly", at=1_790_000_000.0))
    assert suites.tag == "testsuites"
    (suite,) = suites
    for element in (suites, suite):
        counts = {key: element.get(key) for key in ("name", "tests", "failures", "errors", "time")}
        assert counts == {"name": "nightly", "tests": "3", "failures": "1", "errors": "1", "time": "12.500"}
    assert suite.get("skipped") == "0"
    assert suite.get("timestamp") == "2026-09-21T14:13:20"
    passed, failed, undecided = suite.findall("testcase")
    assert passed.attrib == {"classname": "bench.nightly", "name": "runs", "time": "12.500"}
    assert [child.tag for child in passed] == ["system-out"]
    assert passed.findtext("system-out") == "Every run is whole."
    assert [(child.tag, child.get("message"), child.get("type")) for child in failed] == [
        ("failure", "TTFT p99 was 612 ms, over the limit of 500 ms.", "failed")
    ]
    assert [(child.tag, child.get("message")) for child in undecided] == [("error", "It may be noise.")]
    assert suite.findtext("system-out") == "Mind <this> & that."


def test_elements_are_those_of_the_schema_in_its_order() -> None:
    """`junit-10.xsd` of Jenkins' xUnit plugin: the elements, and what each may hold."""
    baseline, candidate = made_rounds(MadeRound(), MadeRound(slowness=1.3))
    verdict = judge([candidate], [baseline], [parse("ttft:p50:1ms"), parse("ttft:p99:+20%")], resamples=50)
    allowed = {
        "testsuites": ({"name", "time", "tests", "failures", "errors"}, ["testsuite"]),
        "testsuite": (
            {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"},
            ["properties", "testcase", "system-out"],
        ),
        "properties": (set(), ["property"]),
        "property": ({"name", "value"}, []),
        "testcase": ({"name", "classname", "time"}, ["error", "failure", "system-out"]),
        "failure": ({"message", "type"}, []),
        "error": ({"message", "type"}, []),
        "system-out": (set(), []),
    }
    seen = set()
    for element in xml.fromstring(junit(verdict, name="nightly", at=0.0)).iter():
        attributes, children = allowed[element.tag]
        assert set(element.attrib) <= attributes
        places = [children.index(child.tag) for child in element]
        assert places == sorted(places)
        seen.add(element.tag)
    assert seen == set(allowed)


def test_figures_are_properties() -> None:
    baseline, candidate = made_rounds(MadeRound(noise=0), MadeRound(noise=0, slowness=1.5))
    verdict = judge([candidate], [baseline], (), resamples=50)
    suites = xml.fromstring(junit(verdict, name="nightly", properties={"baseline": "results/a", "tolerance": 0.05}))
    properties = {one.get("name"): one.get("value") for one in suites.iter("property")}
    assert properties["baseline"] == "results/a"
    assert properties["tolerance"] == "0.05"
    assert properties["ttft.p50.candidate"] == "0.15"
    assert properties["ttft.p50.baseline"] == "0.1"
    assert properties["ttft.p50.ratio"] == "1.5"
    assert properties["error_rate.candidate"] == "0"
    assert "error_rate.ratio" not in properties


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\x0b", "\ud800", "\ufffe"])
def test_characters_that_xml_forbids_are_left_out(character: str) -> None:
    verdict = Verdict((Check(f"na{character}me", "failed", f"It{character} failed.\n<b>ü 😀"),), None)
    suites = xml.fromstring(junit(verdict, name=f"nigh{character}tly", properties={f"k{character}": f"v{character}"}))
    (case,) = suites.iter("testcase")
    assert case.get("name") == "name"
    assert case.get("classname") == "bench.nightly"
    assert case.findtext("failure") == "It failed.\n<b>ü 😀"
    (figure,) = suites.iter("property")
    assert (figure.get("name"), figure.get("value")) == ("k", "v")
