"""The CPU engine's LoRA against vLLM's own and against float64, over random shapes, and how it comes into vLLM."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from vllm.lora.layers import (
    LogitsProcessorWithLoRA,
    LoRAMapping,
    MergedQKVParallelLinearWithLoRA,
    RowParallelLinearWithLoRA,
    VocabParallelEmbeddingWithLoRA,
)
from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform
from vllm.utils.import_utils import resolve_obj_by_qualname

from loramux_serving.engine.plugin.cpu_lora import install
from loramux_serving.engine.plugin.cpu_lora.runs import RUN_ROWS, SHORT_ROWS, runs
from loramux_serving.engine.plugin.cpu_lora.slice_weights import COPY_BYTES, SPREAD_STEPS, known_weights, slice_weights
from loramux_serving.engine.plugin.cpu_lora.slot_notes import forget_slot, note_reset, note_slot, watch
from loramux_serving.engine.plugin.cpu_lora.wrapper import SegmentedPunicaWrapperCPU

BASE = -1
STEPS = SPREAD_STEPS + 2
"""After so many calls a slot's copies are made, and used."""


@dataclass
class Module:
    """What the wrapper and the notes see of one of vLLM's wrapped modules."""

    lora_a_stacked: tuple[torch.Tensor, ...]
    lora_b_stacked: tuple[torch.Tensor, ...]
    output_slices: tuple[int, ...]

    def fill(self, slot: int, ranks: Sequence[int], random_: torch.Generator, *, noted: bool = True) -> None:
        """As vLLM does: all is 0 first."""
        for a, b, rank in zip(self.lora_a_stacked, self.lora_b_stacked, ranks, strict=True):
            a[slot], b[slot] = 0, 0
            a[slot, 0, :rank] = torch.randn(rank, a.shape[-1], generator=random_).to(a.dtype) / a.shape[-1] ** 0.5
            b[slot, 0, :, :rank] = torch.randn(b.shape[-2], rank, generator=random_).to(b.dtype)
        if noted:
            note_slot(self, slot, ranks)


def module(inputs: int, outputs: Sequence[int], slots: int, max_rank: int, dtype: torch.dtype) -> Module:
    return Module(
        tuple(torch.zeros(slots, 1, max_rank, inputs, dtype=dtype) for _ in outputs),
        tuple(torch.zeros(slots, 1, size, max_rank, dtype=dtype) for size in outputs),
        tuple(outputs),
    )


def wrappers(slots_by_row: Sequence[int], slots: int) -> tuple[SegmentedPunicaWrapperCPU, PunicaWrapperCPU]:
    """Ours and vLLM's, both told of one batch, with a prompt for each row. Slot i holds adapter 10 + i."""
    rows = len(slots_by_row)
    ids = tuple(0 if slot == BASE else 10 + slot for slot in slots_by_row)
    both = SegmentedPunicaWrapperCPU(rows, rows, "cpu"), PunicaWrapperCPU(rows, rows, "cpu")
    for wrapper in both:
        wrapper.update_metadata(LoRAMapping(ids, ids, is_prefill=True), [10 + i for i in range(slots)], slots + 1, 99)
    return both


def exact(of: Module, y: torch.Tensor, x: torch.Tensor, slots_by_row: Sequence[int]) -> torch.Tensor:
    """In float64, row by row, from all of the slot."""
    result = y.double()
    for row, slot in enumerate(slots_by_row):
        offset = 0
        for a, b, size in zip(of.lora_a_stacked, of.lora_b_stacked, of.output_slices, strict=True):
            if slot != BASE:
                result[row, offset : offset + size] += b[slot, 0].double() @ (a[slot, 0].double() @ x[row].double())
            offset += size
    return result


def check_linear(of: Module, slots_by_row: Sequence[int], dtype: torch.dtype, seed: int, steps: int = STEPS) -> None:
    """Each of some calls is as near to float64 as vLLM's own, and leaves the base's rows as they are."""
    random_ = torch.Generator().manual_seed(seed)
    ours, stock = wrappers(slots_by_row, of.lora_b_stacked[0].shape[0])
    x = torch.randn(len(slots_by_row), of.lora_a_stacked[0].shape[-1], generator=random_).to(dtype)
    y = torch.randn(len(slots_by_row), sum(of.output_slices), generator=random_).to(dtype)
    base = torch.tensor([slot == BASE for slot in slots_by_row])
    want = exact(of, y, x, slots_by_row)
    got = y.clone()
    stock.add_lora_linear(got, x, of.lora_a_stacked, of.lora_b_stacked, 1.0, of.output_slices)
    near = _error(got[~base], want[~base])
    # A handful of roundings of the largest value: in float32 sums of other order, in bfloat16 the result's own.
    roundings = 32 if dtype == torch.float32 else 2
    allowed = max(2 * near, roundings * torch.finfo(dtype).eps * float(want.abs().max()))
    for _ in range(steps):
        got = y.clone()
        ours.add_lora_linear(got, x, of.lora_a_stacked, of.lora_b_stacked, 1.0, of.output_slices)
        assert torch.equal(got[base], y[base])
        assert _error(got[~base], want[~base]) <= allowed


def _error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.double() - want).abs().max()) if got.numel() else 0.0


BATCHES = st.lists(
    st.tuples(st.integers(BASE, 4), st.sampled_from([1, 1, 1, 1, 2, SHORT_ROWS, SHORT_ROWS + 1, 40])),
    min_size=1,
    max_size=20,
)


def rows_of(batch: Sequence[tuple[int, int]], slots: int) -> list[int]:
    return [slot for wanted, rows in batch for slot in [min(wanted, slots - 1)] * rows]


@given(
    batch=BATCHES,
    inputs=st.sampled_from([1, 24, 64, 200]),
    outputs=st.lists(st.sampled_from([1, 16, 48, 130]), min_size=1, max_size=3),
    slots=st.integers(1, 5),
    max_rank=st.sampled_from([1, 8, 16, 64]),
    dtype=st.sampled_from([torch.bfloat16, torch.float32]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_any_batch_is_as_near_to_float64_as_vllms_own(
    batch: list[tuple[int, int]],
    inputs: int,
    outputs: list[int],
    slots: int,
    max_rank: int,
    dtype: torch.dtype,
    seed: int,
) -> None:
    of = module(inputs, outputs, slots, max_rank, dtype)
    choose, random_ = random.Random(seed), torch.Generator().manual_seed(seed)
    for slot in range(slots):
        ranks = [choose.choice([0, 1, max_rank // 2, max_rank]) for _ in outputs]
        of.fill(slot, ranks, random_, noted=choose.random() < 0.8)
    check_linear(of, rows_of(batch, slots), dtype, seed)


@given(batch=BATCHES, seed=st.integers(0, 2**32), dtype=st.sampled_from([torch.bfloat16, torch.float32]))
@settings(max_examples=20, deadline=None)
def test_a_slot_that_is_filled_anew_shows_nothing_of_before(
    batch: list[tuple[int, int]], seed: int, dtype: torch.dtype
) -> None:
    choose, random_ = random.Random(seed), torch.Generator().manual_seed(seed)
    of = module(40, [24, 8], 3, 16, dtype)
    rows = rows_of(batch, 3)
    for slot in range(3):
        of.fill(slot, (8, 8), random_)
    check_linear(of, rows, dtype, seed)
    for _ in range(4):
        of.fill(choose.randrange(3), (choose.choice([0, 2, 8, 16]), choose.choice([0, 3, 16])), random_)
        check_linear(of, rows, dtype, seed, steps=choose.choice([1, STEPS]))


@pytest.mark.parametrize("rows", [[0], [0, 1], [0, 0, BASE, 0], [1] * 20, [0, BASE] * 20])
def test_slots_that_nobody_noted_are_read_as_they_are(rows: list[int]) -> None:
    """No copy may be made of them: nobody says when they change."""
    random_ = torch.Generator().manual_seed(3)
    of = module(40, [24], 2, 16, torch.float32)
    for _ in range(2):
        for slot in range(2):
            of.fill(slot, (5,), random_, noted=False)
        check_linear(of, rows, torch.float32, 3)


def test_a_slot_that_is_forgotten_is_read_as_it_is() -> None:
    random_ = torch.Generator().manual_seed(3)
    of = module(40, [24], 2, 16, torch.float32)
    of.fill(0, (5,), random_)
    check_linear(of, [0], torch.float32, 3)
    forget_slot(of, 0)
    of.fill(0, (16,), random_, noted=False)
    check_linear(of, [0], torch.float32, 3)


def test_an_only_slot_that_is_filled_with_any_rank_after_any() -> None:
    """Larger, smaller of the same power of two, of a width that was there before, and none."""
    random_ = torch.Generator().manual_seed(3)
    of = module(40, [24], 1, 64, torch.float32)
    for rank in (8, 5, 64, 8, 0, 7, 33):
        of.fill(0, (rank,), random_)
        for rows in ([0], [0, BASE, 0]):
            check_linear(of, rows, torch.float32, 3)


def test_copies_are_as_wide_as_the_adapter_and_not_as_the_largest() -> None:
    """And a store of a width that no slot has any more is gone."""
    random_ = torch.Generator().manual_seed(3)
    of = module(40, [24], 3, 64, torch.bfloat16)
    weights = slice_weights(of.lora_a_stacked[0], of.lora_b_stacked[0])
    for ranks in ((8, 64, 5), (8, 8, 3), (0, 64, 64)):
        for slot, rank in enumerate(ranks):
            of.fill(slot, (rank,), random_)
        check_linear(of, [0, 1, 2, BASE, 1, 0], torch.bfloat16, 3)
        copies = [weights.alone(slot) for slot, rank in enumerate(ranks) if rank]
        widths = [1 << (rank - 1).bit_length() for rank in ranks if rank]
        assert [copy and copy[0].shape[1] for copy in copies] == widths
        assert sorted(weights.widths) == sorted(set(widths))


def test_large_adapters_are_not_copied() -> None:
    random_ = torch.Generator().manual_seed(3)
    of = module(COPY_BYTES // 4 // 16, [64], 2, 16, torch.bfloat16)
    of.fill(0, (16,), random_)
    of.fill(1, (2,), random_)
    check_linear(of, [0, 1, 0, BASE, 1], torch.bfloat16, 3)
    weights = known_weights(of.lora_a_stacked[0])
    assert weights is not None
    assert weights.alone(0) is None
    copy = weights.alone(1)
    assert copy is not None
    assert copy[0].shape == (of.lora_a_stacked[0].shape[-1], 2)


@pytest.mark.parametrize("poison", [float("inf"), float("nan"), 1e38])
@pytest.mark.parametrize("side", ["lora_a_stacked", "lora_b_stacked"])
def test_an_adapter_that_is_not_finite_is_its_own_trouble(poison: float, side: str) -> None:
    random_ = torch.Generator().manual_seed(3)
    of = module(40, [24], 4, 8, torch.bfloat16)
    for slot in range(4):
        of.fill(slot, (8,), random_)
    getattr(of, side)[0][1, 0, 0, 0] = poison
    note_slot(of, 1, (8,))
    for rows in ([0, 1, 2, BASE, 1, 3], [0, 2, BASE, 3]):  # the second time it is only in a slot between theirs
        ours, _ = wrappers(rows, 4)
        x, y = torch.full((len(rows), 40), 10.0, dtype=torch.bfloat16), torch.zeros(len(rows), 24, dtype=torch.bfloat16)
        others = torch.tensor([slot != 1 for slot in rows])
        want = exact(of, y, x, rows)[others]
        for _ in range(STEPS):
            got = y.clone()
            ours.add_lora_linear(got, x, of.lora_a_stacked, of.lora_b_stacked, 1.0, of.output_slices)
            assert _error(got[others], want) <= 0.02 * float(want.abs().max())
            assert not (got[~others] == 0).any()


def test_a_scale_is_applied() -> None:
    random_ = torch.Generator().manual_seed(3)
    of = module(40, [24], 2, 8, torch.float32)
    of.fill(0, (8,), random_)
    of.fill(1, (3,), random_)
    for rows in ([0], [0, 1], [0] * 40):
        ours, stock = wrappers(rows, 2)
        x = torch.randn(len(rows), 40, generator=random_)
        want, got = torch.zeros(2, len(rows), 24)
        stock.add_lora_linear(want, x, of.lora_a_stacked, of.lora_b_stacked, 0.25, of.output_slices)
        for _ in range(STEPS):
            got.zero_()
            ours.add_lora_linear(got, x, of.lora_a_stacked, of.lora_b_stacked, 0.25, of.output_slices)
            torch.testing.assert_close(got, want)


def test_other_precisions_of_rows_than_of_adapters() -> None:
    random_ = torch.Generator().manual_seed(3)
    of = module(40, [24], 2, 8, torch.bfloat16)
    of.fill(0, (8,), random_)
    of.fill(1, (3,), random_)
    for rows in ([0, 1], [0] * 40):
        check_linear(of, rows, torch.float32, 3)


@pytest.mark.parametrize("rows", [[0, 1, 2, 0], [1] * 20 + [0] * 3, [2]])
@pytest.mark.parametrize("noted", [True, False])
def test_shrink_and_expand_alone(rows: list[int], noted: bool) -> None:
    """As for fully sharded adapters: vLLM has a communication between the two."""
    random_ = torch.Generator().manual_seed(3)
    of = module(40, [24, 8], 3, 16, torch.bfloat16)
    for slot, ranks in enumerate([(16, 4), (0, 16), (3, 0)]):
        of.fill(slot, ranks, random_, noted=noted)
    both = wrappers(rows, 3)
    x = torch.randn(len(rows), 40, generator=random_).to(torch.bfloat16)
    buffers = [torch.zeros(2, len(rows), 16) for _ in both]
    for wrapper, buffer in zip(both, buffers, strict=True):
        wrapper.add_shrink(buffer, x, of.lora_a_stacked, 0.5)
    torch.testing.assert_close(*buffers)
    for add_inputs in (True, False):
        outputs = [torch.ones(len(rows), 40, dtype=torch.bfloat16) for _ in both]
        for wrapper, output in zip(both, outputs, strict=True):
            wrapper.add_expand(output, buffers[1], of.lora_b_stacked, of.output_slices, 5, add_inputs, add_input=True)
        torch.testing.assert_close(*outputs, atol=0.05, rtol=0.02)


def test_shrink_and_expand_leave_rows_of_the_base() -> None:
    of = module(40, [24], 1, 8, torch.float32)
    of.fill(0, (8,), torch.Generator().manual_seed(3))
    ours, _ = wrappers([BASE, 0, BASE], 1)
    for add_inputs in (True, False):
        buffer, y = torch.ones(1, 3, 8), torch.ones(3, 24)
        ours.add_shrink(buffer, torch.ones(3, 40), of.lora_a_stacked, 1.0)
        ours.add_expand(y, buffer, of.lora_b_stacked, of.output_slices, add_inputs=add_inputs)
        for changed in (buffer[0], y):
            assert torch.equal(changed[[0, 2]], torch.ones_like(changed[[0, 2]]))
            assert not torch.equal(changed[1], torch.ones_like(changed[1]))


@pytest.mark.parametrize("padding", [-3, 0, 3])
@pytest.mark.parametrize("noted", [True, False])
def test_logits(padding: int, noted: bool) -> None:
    random_ = torch.Generator().manual_seed(3)
    of = module(40, [50], 3, 16, torch.bfloat16)
    for slot, rank in enumerate([16, 0, 5]):
        of.fill(slot, (rank,), random_, noted=noted)
    rows = [0, 2, 2, 1, 0]
    both = wrappers(rows, 3)
    x = torch.randn(5, 40, generator=random_).to(torch.bfloat16)
    logits = [torch.ones(5, 50 + padding, dtype=torch.float32) for _ in both]
    for wrapper, y in zip(both, logits, strict=True):
        wrapper.add_lora_logits(y, x, of.lora_a_stacked[0], of.lora_b_stacked[0], 1.0)
    torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-4)
    assert not torch.equal(logits[0][0], torch.ones(50 + padding))


def test_logits_of_the_base_stay_beside_an_adapter_in_the_last_slot() -> None:
    """vLLM takes -1 for the last slot."""
    of = module(40, [50], 2, 16, torch.float32)
    of.fill(1, (16,), torch.Generator().manual_seed(3))
    ours, _ = wrappers([BASE, 1, BASE], 2)
    y = torch.zeros(3, 50)
    ours.add_lora_logits(y, torch.ones(3, 40), of.lora_a_stacked[0], of.lora_b_stacked[0], 1.0)
    assert torch.equal(y[[0, 2]], torch.zeros(2, 50))
    assert bool((y[1] != 0).all())


def test_logits_follow_prompts_and_not_tokens() -> None:
    of = module(40, [50], 2, 16, torch.float32)
    of.fill(0, (16,), torch.Generator().manual_seed(3))
    ours = SegmentedPunicaWrapperCPU(9, 9, "cpu")
    ours.update_metadata(LoRAMapping((7, 7, 7, 0), (7, 0), is_prefill=True), [7, None], 3, 99)
    y = torch.zeros(2, 50)
    ours.add_lora_logits(y, torch.ones(2, 40), of.lora_a_stacked[0], of.lora_b_stacked[0], 1.0)
    assert bool((y[0] != 0).all())
    assert torch.equal(y[1], torch.zeros(50))


@pytest.mark.parametrize("add_inputs", [True, False])
def test_embedding(add_inputs: bool) -> None:
    random_ = torch.Generator().manual_seed(3)
    of = SimpleNamespace(
        lora_a_stacked=torch.randn(3, 99, 16, generator=random_),
        lora_b_stacked=torch.randn(3, 1, 24, 16, generator=random_),
    )
    of.lora_b_stacked[1, 0, :, 4:] = 0
    of.lora_b_stacked[2] = 0
    note_slot(of, 1, (4,))
    note_reset(of, 2)
    both = wrappers([0, 1, 1, 2], 3)
    x = torch.randn(4, 16, generator=random_)
    results = [torch.ones(4, 24) for _ in both]
    for wrapper, y in zip(both, results, strict=True):
        wrapper.add_lora_embedding(y, x, of.lora_b_stacked, add_inputs, add_input=True)
    torch.testing.assert_close(*results)
    ours, _ = wrappers([0, BASE], 3)
    y = torch.ones(2, 24)
    ours.add_lora_embedding(y, x[:2], of.lora_b_stacked)
    assert torch.equal(y[1], torch.ones(24))


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Names of what torch computes meanwhile."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_nothing_is_computed_where_nobody_has_an_adapter() -> None:
    of = module(40, [24], 2, 16, torch.bfloat16)
    of.fill(0, (16,), torch.Generator().manual_seed(3))
    ours, _ = wrappers([BASE] * 30, 2)
    x, y = torch.ones(30, 40, dtype=torch.bfloat16), torch.ones(30, 24, dtype=torch.bfloat16)
    buffer = (torch.zeros(30, 16),)
    with Operations() as seen:
        ours.add_lora_linear(y, x, of.lora_a_stacked, of.lora_b_stacked, 1.0, (24,))
        ours.add_shrink(buffer, x, of.lora_a_stacked, 1.0)
        ours.add_expand(y, buffer, of.lora_b_stacked, (24,))
        ours.add_lora_logits(y, x, of.lora_a_stacked[0], of.lora_b_stacked[0], 1.0)
        ours.add_lora_embedding(y, buffer[0], of.lora_b_stacked[0])
    assert set(seen.names) <= {"view", "slice", "alias"}


@pytest.mark.parametrize("rows", [[0], [0, BASE, 1], [0] * 40])
def test_nothing_is_computed_for_slices_without_an_adapter(rows: list[int]) -> None:
    random_ = torch.Generator().manual_seed(3)
    of = module(40, [24, 16, 16], 2, 16, torch.bfloat16)
    for slot in range(2):
        of.fill(slot, (0, 8, 0), random_)
    ours, _ = wrappers(rows, 2)
    x, y = torch.ones(len(rows), 40, dtype=torch.bfloat16), torch.ones(len(rows), 56, dtype=torch.bfloat16)
    for _ in range(STEPS):
        ours.add_lora_linear(y, x, of.lora_a_stacked, of.lora_b_stacked, 1.0, of.output_slices)
    with Operations() as seen:
        ours.add_lora_linear(y, x, of.lora_a_stacked, of.lora_b_stacked, 1.0, of.output_slices)
    assert sum(name in ("mm", "addmm_") for name in seen.names) == 2


def test_many_adapters_take_no_more_calls_than_two() -> None:
    random_ = torch.Generator().manual_seed(3)
    of = module(40, [24], 8, 16, torch.bfloat16)
    for slot in range(8):
        of.fill(slot, (8,), random_)
    counts = []
    for rows in ([0, 1], [i % 8 for i in range(24)]):
        ours, _ = wrappers(rows, 8)
        x, y = torch.ones(len(rows), 40, dtype=torch.bfloat16), torch.ones(len(rows), 24, dtype=torch.bfloat16)
        for _ in range(STEPS):
            with Operations() as seen:
                ours.add_lora_linear(y, x, of.lora_a_stacked, of.lora_b_stacked, 1.0, of.output_slices)
        counts.append(len(seen.names))
    assert counts[0] == counts[1] < 10


@given(batch=BATCHES)
@settings(max_examples=200, deadline=None)
def test_every_row_with_an_adapter_is_in_one_run(batch: list[tuple[int, int]]) -> None:
    rows = rows_of(batch, 5)
    found = [BASE] * len(rows)
    made = runs(rows)
    for run in made:
        assert (run.start, run.end) == (run.segments[0].start, run.segments[-1].end)
        assert set(run.slots) == {segment.slot for segment in run.segments}
        assert run.short or len(run.segments) == 1
        assert run.end - run.start <= RUN_ROWS or len(run.segments) == 1
        for segment in run.segments:
            found[segment.start : segment.end] = [segment.slot] * (segment.end - segment.start)
        first = run.slots[0]
        foreign = run.foreign(first, 3, 2)
        for row in range(run.end - run.start):
            own = [first + column // 2 == rows[run.start + row] for column in range(6)]
            assert foreign[row].tolist() == [not mine for mine in own]
    assert found == rows
    assert all(first.end <= second.start for first, second in pairwise(made))


def test_other_row_counts_than_the_steps_are_left_to_vllm() -> None:
    of = module(40, [24], 1, 8, torch.float32)
    of.fill(0, (8,), torch.Generator().manual_seed(3))
    ours, stock = wrappers([0, 0], 1)
    for wrapper in (ours, stock):
        with pytest.raises(RuntimeError, match="subscript b"):
            wrapper.add_lora_linear(
                torch.zeros(3, 24), torch.ones(3, 40), of.lora_a_stacked, of.lora_b_stacked, 1.0, (24,)
            )


def test_a_buffer_of_the_callers_is_filled() -> None:
    of = module(40, [24], 1, 8, torch.float32)
    of.fill(0, (8,), torch.Generator().manual_seed(3))
    buffers, outputs = (torch.zeros(2, 3, 8), torch.zeros(2, 3, 24))
    for wrapper, buffer, y in zip(wrappers([0, 0, 0], 1), buffers, outputs, strict=True):
        wrapper.add_lora_linear(
            y, torch.ones(3, 40), of.lora_a_stacked, of.lora_b_stacked, 1.0, (24,), buffer=(buffer,)
        )
    torch.testing.assert_close(*buffers)
    torch.testing.assert_close(*outputs)
    assert bool(buffers[0].any())


# How vLLM's own layers note what they put into slots.


@pytest.fixture(scope="module")
def watched() -> None:
    watch([BaseLinearLayerWithLoRA, LogitsProcessorWithLoRA, VocabParallelEmbeddingWithLoRA])


def layer(of: Any, like: Module, **attributes: Any) -> Any:
    """One of vLLM's, with what `set_lora` and `reset_lora` read."""
    made = of.__new__(of)
    torch.nn.Module.__init__(made)
    made.lora_a_stacked, made.lora_b_stacked = like.lora_a_stacked, like.lora_b_stacked
    made.n_slices, made.tp_size = len(like.output_slices), 1
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def ranks_of(like: Any, slot: int) -> list[int | None]:
    stacked = like.lora_b_stacked
    known = [known_weights(b) for b in ([stacked] if isinstance(stacked, torch.Tensor) else stacked)]
    return [weights.ranks[slot] if weights is not None else None for weights in known]


@pytest.mark.usefixtures("watched")
def test_vllms_layers_note_what_they_are_given() -> None:
    like = module(40, [24, 8, 8], 2, 16, torch.float32)
    qkv = layer(MergedQKVParallelLinearWithLoRA, like)
    for ranks in ((16, 16, 0), (4, 0, 2), (0, 0, 0), (8, 8, 8)):
        a = [torch.randn(rank, 40) if rank else None for rank in ranks]
        b = [torch.randn(size, rank) if rank else None for rank, size in zip(ranks, (24, 8, 8), strict=True)]
        qkv.set_lora(1, a, b)
        assert ranks_of(like, 1) == list(ranks)
        check_linear(like, [1, BASE, 1, 1], torch.float32, 3)
    qkv.reset_lora(1)
    assert ranks_of(like, 1) == [0, 0, 0]
    assert ranks_of(like, 0) == [None, None, None]
    check_linear(like, [1, BASE, 0], torch.float32, 3)


@pytest.mark.usefixtures("watched")
def test_layers_of_one_slice() -> None:
    like = module(40, [24], 2, 16, torch.float32)
    row = layer(RowParallelLinearWithLoRA, like)
    row.set_lora(0, torch.randn(5, 40), torch.randn(24, 5))
    assert ranks_of(like, 0) == [5]
    logits = layer(
        LogitsProcessorWithLoRA,
        like,
        lora_a_stacked=torch.zeros(2, 1, 16, 40),
        lora_b_stacked=torch.zeros(2, 1, 99, 16),
    )
    logits.set_lora(1, torch.randn(5, 40), torch.randn(99, 5))
    assert [ranks_of(logits, slot) for slot in range(2)] == [[None], [5]]
    embedding = layer(
        VocabParallelEmbeddingWithLoRA,
        like,
        lora_a_stacked=torch.zeros(2, 99, 16),
        lora_b_stacked=torch.zeros(2, 1, 40, 16),
    )
    embedding.set_lora(1, torch.randn(5, 99), torch.randn(40, 5))
    assert [ranks_of(embedding, slot) for slot in range(2)] == [[None], [5]]


@pytest.mark.usefixtures("watched")
def test_a_failed_set_is_not_taken_for_known() -> None:
    like = module(40, [24], 2, 16, torch.float32)
    row = layer(RowParallelLinearWithLoRA, like)
    with pytest.raises(RuntimeError):
        row.set_lora(0, torch.randn(5, 40), torch.randn(23, 7, 2))
    assert ranks_of(like, 0) == [None]


@pytest.mark.usefixtures("watched")
def test_a_class_with_a_set_lora_of_its_own_is_not_trusted() -> None:
    """It may write after it called what notes: here more ranks than it gave."""

    class Late(RowParallelLinearWithLoRA):  # type: ignore[misc]
        def set_lora(self, index: int, lora_a: torch.Tensor, lora_b: torch.Tensor) -> None:
            super().set_lora(index, lora_a[:1], lora_b[:, :1])
            self.lora_a_stacked[0][index, 0, : len(lora_a)] = lora_a
            self.lora_b_stacked[0][index, 0, :, : len(lora_a)] = lora_b

    like = module(40, [24], 2, 16, torch.float32)
    late = layer(Late, like)
    late.set_lora(0, torch.randn(5, 40), torch.randn(24, 5))
    assert ranks_of(like, 0) == [None]
    check_linear(like, [0], torch.float32, 3)


def test_notes_of_another_shape() -> None:
    like = module(40, [24], 2, 16, torch.float32)
    with pytest.raises(ValueError, match="1 slices, not 2"):
        note_slot(like, 0, (4, 4))
    note_slot(like, 0, (17,))
    assert ranks_of(like, 0) == [None]
    sharded = Module((torch.zeros(2, 1, 8, 16),), (torch.zeros(2, 1, 24, 16),), (24,))
    note_slot(sharded, 0, (4,))
    assert ranks_of(sharded, 0) == [None]


# How it comes into vLLM.


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Any:
    """This machine's platform class, as it was afterwards."""
    kind = type(current_platform)
    monkeypatch.setattr(kind, "get_punica_wrapper", vars(kind)["get_punica_wrapper"])
    monkeypatch.delenv(install.SWITCH, raising=False)
    return current_platform


def test_this_vllm_has_all_that_is_needed() -> None:
    assert install.missing() == []


def test_vllm_is_given_our_class(platform: Any) -> None:
    install.install()
    install.install()
    name = platform.get_punica_wrapper()
    assert resolve_obj_by_qualname(name) is SegmentedPunicaWrapperCPU
    assert platform.get_punica_wrapper() == name


@pytest.mark.parametrize("value", ["0", "1"])
def test_the_switch(platform: Any, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(install.SWITCH, value)
    install.install()
    assert resolve_obj_by_qualname(platform.get_punica_wrapper()) is (
        SegmentedPunicaWrapperCPU if value == "1" else PunicaWrapperCPU
    )


def test_other_platforms_are_left_alone(platform: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(platform), "is_cpu", lambda self: False)
    install.install()
    assert resolve_obj_by_qualname(platform.get_punica_wrapper()) is PunicaWrapperCPU


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("vllm.lora.punica_wrapper.punica_cpu.PunicaWrapperCPU.add_lora_linear", ("y", "weights")),
        ("vllm.lora.punica_wrapper.punica_cpu.PunicaWrapperCPU.gone", ("y",)),
        ("vllm.lora.gone.PunicaWrapperCPU.add_shrink", ("y",)),
        ("gone.vllm", ()),
    ],
)
def test_a_vllm_that_lacks_something_stays_as_it_is(
    platform: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    parameters: tuple[str, ...],
) -> None:
    monkeypatch.setattr(install, "NEEDS", {**install.NEEDS, name: parameters})
    monkeypatch.setattr(install._logger, "propagate", True)
    install.install()
    assert install.missing() == [name]
    with caplog.at_level("WARNING", "vllm.plugins.loramux"):
        assert resolve_obj_by_qualname(platform.get_punica_wrapper()) is PunicaWrapperCPU
    assert [record.getMessage() for record in caplog.records if name in record.getMessage()]


def test_a_platform_with_a_class_of_its_own_keeps_it() -> None:
    assert install.choose("elsewhere.PunicaWrapperCPU") == "elsewhere.PunicaWrapperCPU"
