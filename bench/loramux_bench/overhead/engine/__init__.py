"""The engine that every side is in front of: a plain vLLM to look at, whose answers are made beforehand.

It is as fast as it can be, so that it is not what is measured; `loramux_bench.mock` is the one that keeps books.
"""
