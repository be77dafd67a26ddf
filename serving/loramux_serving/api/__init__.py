"""Everything over HTTP that is not on the way of an inference request: plain FastAPI."""
