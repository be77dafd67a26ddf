"""What runs inside vLLM's own processes. The only code that imports vllm."""
