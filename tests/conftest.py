"""Fixtures that more than one room of the tests uses."""

pytest_plugins = [
    "tests.fixtures.browser",
    "tests.fixtures.driven",
    "tests.fixtures.postgres",
    "tests.fixtures.s3",
    "tests.fixtures.vllm",
]
