"""The class that vLLM asks to add adapters' parts to what its modules computed, in place of its own for CPUs."""

from collections.abc import Sequence
from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from loramux_serving.engine.plugin.cpu_lora.runs import Run, Segment, runs
from loramux_serving.engine.plugin.cpu_lora.slice_weights import SliceWeights, known_weights, slice_weights


class SegmentedPunicaWrapperCPU(PunicaWrapperCPU):  # type: ignore[misc]
    """Same results as its base class within rounding, but tokens without an adapter stay as they are. What it does not
    know, such as a buffer of the caller's or other row counts than the step's, it leaves to its base class."""

    _tokens: tuple[Run, ...] = ()
    _token_rows = 0
    _prompts: tuple[Run, ...] = ()
    _prompt_rows = 0

    def update_metadata(
        self, mapping: Any, lora_index_to_id: list[int | None], max_loras: int, vocab_size: int, **kwargs: Any
    ) -> None:
        super().update_metadata(mapping, lora_index_to_id, max_loras, vocab_size, **kwargs)
        slot = {number: index for index, number in enumerate(lora_index_to_id) if number is not None}
        self._tokens = runs([slot[number] if number > 0 else -1 for number in mapping.index_mapping])
        self._token_rows = len(mapping.index_mapping)
        self._prompts = runs([slot[number] if number > 0 else -1 for number in mapping.prompt_mapping])
        self._prompt_rows = len(mapping.prompt_mapping)

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: tuple[torch.Tensor, ...] | None = None,
        **kwargs: Any,
    ) -> None:
        """y[:, slice i] += scale * x @ a_i^T @ b_i^T for the rows of each adapter."""
        if torch.compiler.is_compiling() or buffer is not None or kwargs or y.dim() != 2:
            super().add_lora_linear(y, x, lora_a_stacked, lora_b_stacked, scale, output_slices, buffer=buffer, **kwargs)
            return
        if not self._tokens:
            return
        if x.shape[0] != self._token_rows or x.dim() != 2:
            super().add_lora_linear(y, x, lora_a_stacked, lora_b_stacked, scale, output_slices)
            return
        slices = [slice_weights(a, b) for a, b in zip(lora_a_stacked, lora_b_stacked, strict=True)]
        for run in self._tokens:
            _add_run(run, slices, output_slices, y, x, scale)

    def add_shrink(
        self,
        y: tuple[torch.Tensor, ...] | torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        scale: float,
        **kwargs: Any,
    ) -> None:
        """y[i] = scale * x @ a_i^T for the rows of each adapter."""
        x = x.view(-1, x.shape[-1])
        if torch.compiler.is_compiling() or (self._tokens and x.shape[0] != self._token_rows):
            super().add_shrink(y, x, lora_a_stacked, scale, **kwargs)
            return
        for index, stacked in enumerate(lora_a_stacked):
            buffer = y[index].view(-1, y[index].shape[-1])
            for segment in _segments(self._tokens):
                rank = _rank(stacked, segment.slot)
                if rank != 0:
                    a = stacked[segment.slot, 0, :rank].t()
                    shrunk = _product(x[segment.start : segment.end], a, buffer.dtype)
                    buffer[segment.start : segment.end, : a.shape[1]] = shrunk.mul_(scale)

    def add_expand(
        self,
        y: torch.Tensor,
        x: tuple[torch.Tensor, ...] | torch.Tensor,
        lora_b_stacked: tuple[torch.Tensor, ...],
        output_slices: tuple[int, ...],
        offset_start: int = 0,
        add_inputs: bool = True,
        **kwargs: Any,
    ) -> None:
        """y[:, slice i] (+)= x[i] @ b_i^T for the rows of each adapter."""
        y = y.view(-1, y.shape[-1])
        if torch.compiler.is_compiling() or (self._tokens and y.shape[0] != self._token_rows):
            super().add_expand(y, x, lora_b_stacked, output_slices, offset_start, add_inputs, **kwargs)
            return
        for buffer, stacked, size in zip(x, lora_b_stacked, output_slices, strict=True):
            _expand(y[:, offset_start : offset_start + size], buffer, stacked, self._tokens, add_inputs)
            offset_start += size

    def add_lora_embedding(
        self, y: torch.Tensor, x: torch.Tensor, lora_b_stacked: torch.Tensor, add_inputs: bool = True, **kwargs: Any
    ) -> None:
        """y (+)= x @ b^T for the rows of each adapter."""
        if torch.compiler.is_compiling() or (self._tokens and y.shape[0] != self._token_rows):
            super().add_lora_embedding(y, x, lora_b_stacked, add_inputs, **kwargs)
            return
        _expand(y, x, lora_b_stacked, self._tokens, add_inputs)

    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        *,
        buffer: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        """y += scale * x @ a^T @ b^T, with a row for each token that is sampled."""
        y = y.view(-1, y.shape[-1])
        x = x.view(-1, x.shape[-1])
        known = buffer is None and not (self._prompts and y.shape[0] != self._prompt_rows)
        if torch.compiler.is_compiling() or not known:
            super().add_lora_logits(y, x, lora_a_stacked, lora_b_stacked, scale, buffer=buffer, **kwargs)
            return
        weights = slice_weights(lora_a_stacked, lora_b_stacked)
        # The vocabulary may be padded, by other amounts in the logits and in the adapter.
        width = min(y.shape[1], lora_b_stacked.shape[-2])
        for segment in _segments(self._prompts):
            if weights.ranks[segment.slot] != 0:
                rows = slice(segment.start, segment.end)
                a, b = weights.shrink(segment.slot), weights.expand(segment.slot)[:, :width]
                _add_views(y[rows, :width], x[rows], a, b, scale)


def _add_run(
    run: Run, slices: Sequence[SliceWeights], sizes: Sequence[int], y: torch.Tensor, x: torch.Tensor, scale: float
) -> None:
    """Every call counts here: at decode it is the calls that cost, not the arithmetic."""
    start, end = run.start, run.end
    if end - start != x.shape[0]:
        x, y = x[start:end], y[start:end]
    exact: torch.Tensor | None = None
    offset = 0
    for weights, size in zip(slices, sizes, strict=True):
        first, offset = offset, offset + size
        if not weights.computes(run):
            continue
        target = y if size == y.shape[1] else y.narrow(1, first, size)
        if run.short and exact is None:
            exact = x.float()
        together = weights.together(run)
        if together is None:
            _add_segments(run, weights, target, x, exact, scale)
            continue
        assert exact is not None
        for part in together:
            shrunk = torch.mm(exact, part.a)
            if part.foreign is not None:
                # Not times 0: what another adapter makes of this row may be infinite.
                shrunk.masked_fill_(part.foreign, 0.0)
            if scale != 1.0:
                shrunk.mul_(scale)
            target.add_(torch.mm(shrunk, part.b))


def _add_segments(
    run: Run, weights: SliceWeights, y: torch.Tensor, x: torch.Tensor, exact: torch.Tensor | None, scale: float
) -> None:
    """One by one: from the copies if there are any and the run is short, else from vLLM's slots."""
    for segment in run.segments:
        if weights.ranks[segment.slot] == 0:
            continue
        rows = slice(segment.start - run.start, segment.end - run.start)
        alone = weights.alone(segment.slot) if exact is not None else None
        if alone is None or exact is None:
            _add_views(y[rows], x[rows], weights.shrink(segment.slot), weights.expand(segment.slot), scale)
        else:
            y[rows].add_(torch.mm(torch.mm(exact[rows], alone[0]), alone[1]), alpha=scale)


def _add_views(y: torch.Tensor, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float) -> None:
    """y += scale * x @ a @ b. What is between the products has the precision of `y`, as in vLLM."""
    if x.dtype == a.dtype == b.dtype == y.dtype:
        y.addmm_(torch.mm(x, a), b, alpha=scale)
    else:
        y.addmm_(_product(x, a, torch.float32).to(y.dtype), b.to(y.dtype), alpha=scale)


def _product(x: torch.Tensor, weights: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.mm(x.to(dtype), weights.to(dtype))


def _expand(y: torch.Tensor, x: torch.Tensor, stacked: torch.Tensor, tokens: tuple[Run, ...], add_inputs: bool) -> None:
    """`x` may have room for larger ranks. Without `add_inputs`, rows that have an adapter are set."""
    x = x.view(-1, x.shape[-1])
    for segment in _segments(tokens):
        rank = _rank(stacked, segment.slot)
        target = y[segment.start : segment.end, : stacked.shape[-2]]
        if not add_inputs:
            target.zero_()
        if rank != 0:
            b = stacked[segment.slot, 0, : target.shape[1], :rank].t().to(y.dtype)
            target.addmm_(x[segment.start : segment.end, : b.shape[0]].to(y.dtype), b)


def _segments(of: tuple[Run, ...]) -> list[Segment]:
    return [segment for run in of for segment in run.segments]


def _rank(stacked: torch.Tensor, slot: int) -> int | None:
    weights = known_weights(stacked)
    return None if weights is None else weights.ranks[slot]
