"""Faster LoRA on vLLM's CPU engine.

vLLM's own way (`vllm/lora/punica_wrapper/punica_cpu.py`, the same in 0.26 to 0.32) copies, for every token of a step, a
whole pair of matrices of the largest rank, for every slice of every wrapped module, targeted or not. Here:

- consecutive tokens of the same adapter are one segment, and tokens without an adapter cost nothing (`runs.py`);
- a slot's true rank is known, so that only it is computed, and nothing where an adapter targets nothing
  (`slot_notes.py`);
- the few tokens of a decode step are multiplied with float32 copies, all adapters of the step at once, since oneDNN
  takes 15 to 20 µs for a bfloat16 product of any size, and float32 takes 2 (`slice_weights.py`);
- long segments are multiplied with views of vLLM's slots.

Results are vLLM's within rounding, with one exception: in a batch with both kinds of tokens, vLLM gives those without
an adapter the last slot's, at the logits, the embedding and every linear module. Here they stay the base's.

It is Python that depends on the batch. vLLM never compiles the model where it has LoRA on a CPU (`CpuPlatform.
check_and_update_config`, in 0.26 to 0.32), so nothing has to be traced. If it were, vLLM's own code would be traced.

`install.py` puts it in place.
"""
