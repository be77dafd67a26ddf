"""What studies ask, and what they make of the answers."""

import math
from collections import Counter

import pytest

from loramux_bench.record import RequestRecord
from loramux_bench.studies import cost, scale, slots
from loramux_bench.studies.draw import asks, choices, names_of, prompts
from loramux_bench.studies.figures import evenness, figures, worst
from loramux_bench.studies.ratio import over, over_rounds


def record(
    adapter: str = "a",
    *,
    sent_s: float = 0.0,
    ttft_s: float = 0.1,
    e2e_s: float = 1.0,
    tokens: int = 10,
    error: str = "",
) -> RequestRecord:
    return RequestRecord(
        index=0,
        target="",
        api="openai-completions",
        adapter=adapter,
        sent_s=sent_s,
        first_token_s=None if error else sent_s + ttft_s,
        end_s=sent_s + e2e_s,
        prompt_tokens_wanted=0,
        output_tokens=None if error else tokens,
        output_tokens_wanted=tokens,
        error=error,
    )


class TestDraw:
    def test_the_same_for_the_same_seed_and_another_for_another(self) -> None:
        names = names_of(50)
        drawn = [choices(names, 200, "zipf", alpha=1.0, seed=seed) for seed in ("1", "1", "2")]
        assert drawn[0] == drawn[1] != drawn[2]
        texts = [prompts(5, 32, seed=seed) for seed in ("1", "1", "2")]
        assert texts[0] == texts[1] != texts[2]

    def test_zipf_prefers_the_first_names_and_uniform_none(self) -> None:
        names = names_of(100)
        zipf = Counter(choices(names, 4000, "zipf", alpha=1.0, seed="1"))
        even = Counter(choices(names, 4000, "uniform", alpha=1.0, seed="1"))
        share = 1 / sum(1 / rank for rank in range(1, 101))
        assert zipf[names[0]] / 4000 == pytest.approx(share, rel=0.15)
        assert zipf[names[0]] > 5 * zipf[names[50]]
        assert max(even.values()) < 3 * 40

    def test_fewer_adapters_are_the_first_of_more(self) -> None:
        assert names_of(1000)[:10] == names_of(10)

    def test_no_two_prompts_begin_alike(self) -> None:
        texts = prompts(100, 32, seed="1")
        assert len({text.split()[0] for text in texts}) == 100

    def test_answers_are_greedy_and_of_a_fixed_length(self) -> None:
        (one,) = asks(["a"], ["Hello"], max_tokens=7)
        assert (one.model, one.max_tokens, one.ignore_eos, one.temperature) == ("a", 7, True, 0.0)


class TestRatio:
    def test_of_equal_rounds_there_is_no_doubt(self) -> None:
        found = over_rounds([2.0, 2.0, 2.0])
        assert found is not None
        assert (found.value, found.low, found.high, found.rounds) == pytest.approx((2.0, 2.0, 2.0, 3))

    def test_the_interval_is_student_s_of_the_logarithms(self) -> None:
        found = over_rounds([1.0, math.e])
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        # Two values, 1 degree of freedom: t is 12.706, their standard error 0.5.
        assert math.log(found.value) == pytest.approx(0.5)
        assert math.log(found.high) == pytest.approx(0.5 + 12.706 * 0.5, rel=1e-3)
        assert math.log(found.low) == pytest.approx(0.5 - 12.706 * 0.5, rel=1e-3)

    def test_rounds_without_a_ratio_are_left_out(self) -> None:
        found = over_rounds([None, 3.0])
        assert found is not None
        assert (found.rounds, found.low, str(found)) == (1, None, "3.00")
        assert over_rounds([None]) is None

    def test_nothing_is_divided_by_nothing(self) -> None:
        assert (over(1.0, 0.0), over(None, 1.0), over(1.0, 2.0)) == (None, None, 0.5)


class TestFigures:
    def test_rates_are_over_the_rounds_own_lengths(self) -> None:
        found = figures([[record(sent_s=0.0), record(sent_s=1.0)], [record(sent_s=100.0), record(sent_s=101.0)]])
        assert (found.requests, found.errors, found.rps, found.tokens_a_second) == (4, 0, 1.0, 10.0)

    def test_errors_are_counted_and_in_no_time(self) -> None:
        found = figures([[record(ttft_s=0.2), record(error="http_500")]])
        assert (found.requests, found.errors) == (2, 1)
        assert found.ttft_max_s == pytest.approx(0.2)

    def test_without_answers_there_are_no_times(self) -> None:
        found = figures([[record(error="connect")]])
        assert (found.rps, found.ttft_p50_s, worst([record(error="connect")]), evenness([])) == (0.0, None, None, None)

    def test_the_worst_adapter_is_the_one_that_waits_longest(self) -> None:
        found = worst(
            [record("a", ttft_s=0.1), record("a", ttft_s=0.3), record("b", ttft_s=9.0), record("a", ttft_s=0.2)]
        )
        assert found is not None
        assert (found.name, found.share) == ("b", 0.25)
        assert found.ttft_p50_s == pytest.approx(9.0)

    def test_evenness_is_one_for_equals_and_falls(self) -> None:
        assert evenness([record("a"), record("b")]) == pytest.approx(1.0)
        # Speeds 10 and 0.1: nearly all is one's.
        assert evenness([record("a"), record("b", e2e_s=100.0)]) == pytest.approx(0.51, abs=0.01)


class TestCost:
    LOAD = cost.Load(streams=(1, 4), rounds=3)

    def test_a_round_asks_base_and_adapters_with_the_same_prompts(self) -> None:
        batches = [one for one in cost.plan(self.LOAD, "base") if one.round == 1 and one.streams == 4]
        texts = [[ask.prompt for ask in batch.asks] for batch in batches]
        assert texts[0] == texts[1] == texts[2]
        models = {batch.kind: [ask.model for ask in batch.asks] for batch in batches}
        assert models["base"] == ["base"] * 4
        assert models["adapter"] == ["study-0000"] * 4
        assert models["mixed"] == ["study-0001", "study-0002", "study-0003", "study-0004"]

    def test_no_prompt_is_asked_of_one_model_twice(self) -> None:
        asked = [(ask.model, ask.prompt) for batch in cost.plan(self.LOAD, "base") for ask in batch.asks]
        assert len(asked) == len(set(asked))

    def test_rounds_take_turns_in_who_is_first(self) -> None:
        batches = cost.plan(self.LOAD, "base")
        firsts = [next(one.kind for one in batches if one.round == number and one.streams == 4) for number in range(3)]
        assert firsts == ["base", "adapter", "mixed"]

    def test_one_stream_has_no_mixture(self) -> None:
        assert {one.kind for one in cost.plan(self.LOAD, "base") if one.streams == 1} == {"base", "adapter"}

    def test_ratios_are_taken_within_rounds(self) -> None:
        def answered(number: int, kind: cost.Kind, e2e_s: float) -> cost.Answered:
            return cost.Answered(cost.Batch(number, 1, kind, ()), (record(ttft_s=e2e_s / 10, e2e_s=e2e_s, tokens=10),))

        # The machine is three times as slow in the second round.
        found = cost.rows(
            "stock",
            [answered(0, "base", 1), answered(0, "adapter", 2), answered(1, "base", 3), answered(1, "adapter", 6)],
        )
        (row,) = found
        assert (row.side, row.streams, row.kind, row.errors) == ("stock", 1, "adapter", 0)
        assert (row.e2e.value, row.e2e.low, row.ttft.value) == pytest.approx((2.0, 2.0, 2.0))
        assert (row.base_ms_a_token, row.ms_a_token) == pytest.approx((200.0, 400.0))

    def test_a_round_with_an_error_gives_no_ratio(self) -> None:
        def answered(number: int, kind: cost.Kind, *records: RequestRecord) -> cost.Answered:
            return cost.Answered(cost.Batch(number, 2, kind, ()), records)

        found = cost.rows(
            "stock",
            [
                answered(0, "base", record(), record()),
                answered(0, "adapter", record(), record(error="http_500")),
                answered(1, "base", record(), record()),
                answered(1, "adapter", record(e2e_s=1.5), record(e2e_s=1.5)),
            ],
        )
        (row,) = found
        assert (row.e2e.rounds, row.errors) == (1, 1)
        assert row.e2e.value == pytest.approx(1.5)


class TestSlots:
    LOAD = slots.Load(slots=2, requests=20, rounds=2)

    def test_counts_go_from_the_slots_to_eight_times_as_many(self) -> None:
        assert slots.Load(slots=4).counts == (4, 5, 8, 32)
        assert slots.Load(slots=1).counts == (1, 2, 8)

    def test_rounds_go_forwards_and_backwards(self) -> None:
        cells = slots.plan(self.LOAD)
        order = [[cell.adapters for cell in cells if cell.round == number] for number in (0, 1)]
        assert order[0] == sorted(order[0])
        assert order[1] == order[0][::-1]

    def test_the_warm_up_asks_every_adapter_once(self) -> None:
        first = slots.plan(self.LOAD)[0]
        assert first.round == -1
        assert sorted(ask.model for ask in first.asks) == sorted(self.LOAD.adapters)

    def test_cells_differ_in_what_they_ask(self) -> None:
        asked = [tuple(ask.prompt for ask in cell.asks) for cell in slots.plan(self.LOAD)]
        assert len(set(asked)) == len(asked)

    def test_throughput_is_held_against_as_many_adapters_as_slots(self) -> None:
        def answered(number: int, count: int, e2e_s: float) -> slots.Answered:
            return slots.Answered(
                slots.Cell(number, "uniform", count, ()), (record(e2e_s=e2e_s), record("b", e2e_s=e2e_s))
            )

        found = slots.rows("stock", [answered(n, count, e2e) for n in (0, 1) for count, e2e in ((2, 1.0), (16, 4.0))])
        assert [row.adapters for row in found] == [2, 16]
        assert [row.throughput.value for row in found if row.throughput] == pytest.approx([1.0, 0.25])
        assert found[1].figures.tokens_a_second == pytest.approx(5.0)
        assert found[1].evenness == pytest.approx(1.0)


class TestScale:
    def books(self, **given: float) -> scale.Books:
        values = {"first_page_s": 0.01, "list_s": 0.01, "ready_s": 1.0, **given}
        return scale.Books(memory_bytes=int(values.pop("memory_bytes", 0)), **values)

    def test_both_sides_are_asked_the_same(self) -> None:
        load = scale.Load(requests=30)
        assert scale.traffic(load, 100) == scale.traffic(load, 100)
        assert {ask.model for ask in scale.traffic(load, 10)} <= set(names_of(10))

    def test_what_one_more_adapter_costs_is_the_slope(self) -> None:
        rows = [
            scale.row("loramux", count, books=self.books(memory_bytes=50_000_000 + 2_000 * count, list_s=0.001 * count))
            for count in (0, 10, 1000)
        ]
        found = scale.slopes(rows)
        assert found is not None
        assert (found.memory_bytes, found.list_s) == pytest.approx((2_000, 0.001))
        assert scale.slopes(rows[:1]) is None

    def test_a_restart_is_held_against_one_without_adapters(self) -> None:
        rows = [
            scale.row("loramux", count, books=self.books(ready_s=ready))
            for count, ready in ((0, 2.0), (10, 2.1), (1000, 4))
        ]
        assert scale.restart_cost_s(rows) == {10: pytest.approx(0.1), 1000: pytest.approx(2.0)}
        assert scale.restart_cost_s(rows[1:]) == {}
