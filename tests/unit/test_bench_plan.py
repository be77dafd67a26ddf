"""A plan is a function of scenario and index: the same in every process, shared out without gaps, and what the scenario
asks for."""

import hashlib
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loramux_bench.errors import ScenarioError
from loramux_bench.load.plan import Plan
from loramux_bench.load.prompts import Source
from loramux_bench.load.tokenizers import Calibration
from loramux_bench.load.trace import Entry
from loramux_bench.scenario import parse

ADAPTERS = ("pirate", "shop-sql", "ticket-json")
SOURCE = Source.load()


def plan(
    *, names: tuple[str, ...] = ADAPTERS, base: str = "base", trace: tuple[Entry, ...] = (), **content: Any
) -> Plan:
    """Of this scenario, at an endpoint with these adapters and this base."""
    scenario = parse({"name": "test", "load": {"requests": 100}} | content, "test")
    return Plan(scenario, adapters=names, base=base, ruler=Calibration(1.2), source=SOURCE, trace=trace)


def digest(wanted: Plan, count: int = 30) -> str:
    return hashlib.sha256(repr([wanted.shot(index) for index in range(count)]).encode()).hexdigest()


MIXED: dict[str, Any] = {
    "seed": 5,
    "prompts": {"input_tokens": {"mean": 40, "stddev": 9}, "output_tokens": {"mean": 30, "stddev": 5}},
    "adapters": {"choice": "zipf", "base_share": 0.2},
    "tenants": [{"name": "a", "weight": 3}, {"name": "b"}],
    "targets": [{"name": "left", "weight": 2}, {"name": "right"}],
}

ELSEWHERE = """
import runpy, sys
sys.path.insert(0, sys.argv[1])
here = runpy.run_path(sys.argv[2])
print(here["digest"](here["plan"](**here["MIXED"])))
"""


def test_another_process_plans_the_same() -> None:
    found = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(Path(__file__).parents[2] / "bench"), __file__],
        env={"PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert found.stdout.strip() == digest(plan(**MIXED))


def test_order_of_asking_does_not_matter_and_the_seed_does() -> None:
    one, other = plan(**MIXED), plan(**MIXED)
    assert [one.shot(index) for index in (7, 3, 7, 0)] == [other.shot(index) for index in (7, 3, 7, 0)]
    assert digest(one) != digest(plan(**(MIXED | {"seed": 6})))


def test_changing_one_section_leaves_the_others_draws() -> None:
    zipf, uniform = plan(**MIXED), plan(**(MIXED | {"adapters": {"choice": "uniform"}}))
    pairs = [(zipf.shot(index), uniform.shot(index)) for index in range(50)]
    assert any(one.adapter != other.adapter for one, other in pairs)
    for one, other in pairs:
        assert (one.target, one.tenant, one.prompt, one.output_tokens) == (
            other.target,
            other.tenant,
            other.prompt,
            other.output_tokens,
        )


def test_what_a_shot_holds() -> None:
    shot = plan(
        load={"requests": 9, "warmup_requests": 2},
        prompts={"input_tokens": {"mean": 30}, "output_tokens": {"mean": 12}},
    ).shot(1, 2.5)
    assert (shot.index, shot.target, shot.adapter, shot.tenant) == (1, "loramux", "shop-sql", "")
    assert (shot.input_tokens, shot.output_tokens, shot.due_s, shot.warmup) == (30, 12, 2.5, True)
    assert Calibration(1.2).count(shot.prompt) == 30


def test_warm_up_is_the_first() -> None:
    wanted = plan(load={"requests": 4, "warmup_requests": 2})
    assert wanted.total == 6
    assert [wanted.shot(index).warmup for index in wanted.indices(0, 1)] == [True, True, False, False, False, False]


def test_targets_and_tenants_by_weight_and_the_base_by_its_share() -> None:
    shots = list(map(plan(**MIXED).shot, range(3000)))
    targets, tenants = Counter(shot.target for shot in shots), Counter(shot.tenant for shot in shots)
    assert targets["left"] / 3000 == pytest.approx(2 / 3, abs=0.035)
    assert tenants["a"] / 3000 == pytest.approx(3 / 4, abs=0.032)
    assert sum(shot.adapter == "base" for shot in shots) / 3000 == pytest.approx(0.2, abs=0.03)


def test_two_targets_are_asked_the_same_but_for_the_mark() -> None:
    """They may lead to one engine, whose prefix cache would help the second."""
    left = plan(targets=[{"name": "left"}]).shot(3)
    right = plan(targets=[{"name": "right"}]).shot(3)
    assert left.prompt.partition(".")[0] != right.prompt.partition(".")[0]
    assert left.prompt.partition(".")[2] == right.prompt.partition(".")[2]
    assert (left.adapter, left.input_tokens) == (right.adapter, right.input_tokens)


def test_a_target_of_one_model_has_neither_adapters_nor_tenants() -> None:
    content: dict[str, Any] = {
        "targets": [{"name": "ours"}, {"name": "theirs", "model": "other/model"}],
        "tenants": [{"name": "a"}],
    }
    asked = {(shot.target, shot.adapter, shot.tenant) for shot in map(plan(**content).shot, range(60))}
    assert asked == {("theirs", "other/model", "")} | {("ours", name, "a") for name in ADAPTERS}
    alone = plan(names=(), base="", targets=[{"model": "other/model"}])
    assert alone.shot(0).adapter == "other/model"


def test_a_tenant_asks_only_for_what_it_may_call() -> None:
    wanted = plan(
        adapters={"base_share": 0.5},
        tenants=[
            {"name": "all"},
            {"name": "two", "adapters": ["ticket-json", "pirate"]},
            {"name": "base only", "adapters": ["base"]},
            {"name": "both", "adapters": ["base", "pirate"]},
        ],
    )
    seen: dict[str, set[str]] = {}
    for shot in map(wanted.shot, range(400)):
        seen.setdefault(shot.tenant, set()).add(shot.adapter)
    assert seen == {
        "all": {*ADAPTERS, "base"},
        "two": {"ticket-json", "pirate"},
        "base only": {"base"},
        "both": {"base", "pirate"},
    }


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"names": ()}, "no adapter to ask for"),
        ({"base": "", "adapters": {"base_share": 0.5}}, r"set adapters\.base"),
        ({"tenants": [{"name": "a", "adapters": ["pirate", "gone"]}]}, "'a' names gone"),
        ({"tenants": [{"name": "a", "adapters": ["base"]}]}, "may call base only"),
    ],
)
def test_what_nobody_can_ask_for_is_refused_before_the_load(content: dict[str, Any], why: str) -> None:
    with pytest.raises(ScenarioError, match=why):
        plan(**content)


def test_the_base_alone_needs_no_adapters() -> None:
    wanted = plan(names=(), adapters={"base_share": 1.0})
    assert {shot.adapter for shot in map(wanted.shot, range(20))} == {"base"}


@given(total=st.integers(1, 60), warmup=st.integers(0, 9), workers=st.integers(1, 7))
def test_workers_of_a_closed_loop_share_all_indices(total: int, warmup: int, workers: int) -> None:
    wanted = plan(load={"requests": total, "warmup_requests": warmup})
    shares = [list(wanted.indices(worker, workers)) for worker in range(workers)]
    assert sorted(index for share in shares for index in share) == list(range(total + warmup))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_closed_loop_that_only_time_ends_has_no_last_index() -> None:
    wanted = plan(load={"duration_s": 1, "warmup_requests": 3})
    assert wanted.total is None
    assert list(islice(wanted.indices(1, 3), 4)) == [1, 4, 7, 10]


@given(workers=st.integers(1, 7), warmup=st.integers(0, 5))
@settings(deadline=None)
def test_workers_of_an_open_loop_share_one_schedule(workers: int, warmup: int) -> None:
    wanted = plan(load={"shape": "open", "requests": 40, "warmup_requests": warmup, "arrivals": {"rate_per_s": 3}})
    whole = list(wanted.dues(0, 1))
    assert [index for index, _ in whole] == list(range(40 + warmup))
    shares = [list(wanted.dues(worker, workers)) for worker in range(workers)]
    assert sorted(due for share in shares for due in share) == whole


def test_an_open_loop_ends_by_time_counted_from_the_end_of_warm_up() -> None:
    constant = {"kind": "constant", "rate_per_s": 2}
    plain = plan(load={"shape": "open", "duration_s": 2, "arrivals": constant})
    assert [due_s for _, due_s in plain.dues(0, 1)] == [0, 0.5, 1, 1.5]
    warmed = plan(load={"shape": "open", "duration_s": 2, "warmup_requests": 3, "arrivals": constant})
    assert list(warmed.dues(0, 1)) == [(0, 0), (1, 0.5), (2, 1), (3, 1.5), (4, 2), (5, 2.5)]


def test_an_open_loop_ends_by_what_comes_first() -> None:
    load = {"shape": "open", "duration_s": 2, "requests": 3, "arrivals": {"kind": "constant", "rate_per_s": 2}}
    assert len(list(plan(load=load).dues(0, 1))) == 3
    staged = load | {"arrivals": {"kind": "constant", "stages": [{"rate_per_s": 2, "duration_s": 1}]}}
    assert len(list(plan(load=staged).dues(0, 1))) == 2


TRACE = (
    Entry(at_s=0.0, adapter="pirate", input_tokens=20, output_tokens=7),
    Entry(at_s=1.0, prompt="Say five words, no more."),
    Entry(at_s=4.0, adapter="of the trace's own"),
)
REPLAY: dict[str, Any] = {"shape": "open", "arrivals": {"kind": "trace", "trace": "t.jsonl", "speed": 2}}


def test_a_trace_says_what_it_says_and_the_scenario_the_rest() -> None:
    wanted = plan(trace=TRACE, load=REPLAY, prompts={"input_tokens": {"mean": 30}, "output_tokens": {"mean": 12}})
    assert wanted.total == 3
    first, second, third = (wanted.shot(index, due_s) for index, due_s in wanted.dues(0, 1))
    assert (first.adapter, first.input_tokens, first.output_tokens, first.due_s) == ("pirate", 20, 7, 0)
    assert Calibration(1.2).count(first.prompt) == 20
    assert (second.adapter, second.prompt, second.input_tokens) == ("shop-sql", "Say five words, no more.", 6)
    assert (second.output_tokens, second.due_s) == (12, 0.5)
    assert (third.adapter, third.input_tokens, third.due_s) == ("of the trace's own", 30, 2)


def test_a_trace_is_for_those_who_may_call() -> None:
    tenants = [{"name": "a", "adapters": ["pirate"]}, {"name": "b"}]
    wanted = plan(trace=TRACE * 30, load=REPLAY, tenants=tenants)
    asked = {(shot.tenant, shot.adapter) for shot in map(wanted.shot, range(90)) if shot.adapter != "ticket-json"}
    assert ("b", "of the trace's own") in asked
    assert ("a", "of the trace's own") not in asked
    assert {("a", "pirate"), ("b", "pirate")} <= asked
    with pytest.raises(ScenarioError, match="no tenant may call"):
        plan(trace=TRACE, load=REPLAY, tenants=tenants[:1])


def test_text_and_trace_are_read_from_where_the_scenario_says(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("Only these words here.\n")
    (tmp_path / "trace.jsonl").write_text('{"at_s": 1.5}\n{"at_s": 2, "prompt": "Hello"}\n')
    content = {
        "name": "test",
        "load": {"shape": "open", "arrivals": {"kind": "trace", "trace": str(tmp_path / "trace.jsonl")}},
        "prompts": {"text": str(tmp_path / "text.txt"), "input_tokens": {"mean": 10}},
    }
    wanted = Plan.of(parse(content, "test"), adapters=ADAPTERS, base="", ruler=Calibration(1.0))
    assert list(wanted.dues(0, 1)) == [(0, 1.5), (1, 2.0)]
    assert "Only these words here. Only these" in wanted.shot(0).prompt
    assert wanted.shot(1).prompt == "Hello"
