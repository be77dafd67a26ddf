"""Questions that take servers of their own: stock vLLM and loramux, started and ended by the command, side by side."""
