"""vLLM as seen from the gateway: how it is started, watched and spoken to. Never imports vllm."""
