"""Fixtures that more than one room of the tests uses, and how long property tests run."""

import os

from hypothesis import settings

settings.register_profile("long", max_examples=5_000, deadline=None)
if chosen := os.environ.get("HYPOTHESIS_PROFILE"):
    settings.load_profile(chosen)

pytest_plugins = [
    "tests.fixtures.browser",
    "tests.fixtures.driven",
    "tests.fixtures.postgres",
    "tests.fixtures.s3",
    "tests.fixtures.vllm",
    "tests.fixtures.doors",  # uses what is above
]
