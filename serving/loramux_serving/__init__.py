"""The gateway: HTTP in, vLLM behind. May import `loramux_adapters`."""
