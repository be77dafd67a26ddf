import pytest

from loramux_serving.engine.diagnosis import explain


@pytest.mark.parametrize(
    ("lines", "code", "message"),
    [
        (
            [
                "usage: api_server.py …",
                "api_server.py: error: unrecognized arguments: --nope",
                "leash: the engine ended with status 2",
            ],
            "engine_config_invalid",
            "The engine ended with status 2: api_server.py: error: unrecognized arguments: --nope",
        ),
        (
            ["/usr/bin/python3: No module named vllm", "leash: the engine ended with status 1"],
            "engine_config_invalid",
            "The engine ended with status 1: /usr/bin/python3: No module named vllm",
        ),
        (
            ["leash: can not run /no/python: No such file or directory"],
            "engine_config_invalid",
            "The engine ended: can not run /no/python: No such file or directory",
        ),
        (
            [
                "(EngineCore pid=7) ERROR 11-21 04:33:12 [core.py:72] torch.OutOfMemoryError: CUDA out of memory.",
                "(EngineCore pid=7) Process EngineCore:",
                "(APIServer pid=5) RuntimeError: Engine core initialization failed. See root cause above.",
                "leash: the engine ended with status 1",
            ],
            "engine_failed",
            "The engine ended with status 1: torch.OutOfMemoryError: CUDA out of memory.",
        ),
        (
            ["all is well", "leash: the engine ended by signal 9"],
            "engine_failed",
            "The engine ended by signal 9: all is well",
        ),
        ([], "engine_failed", "The engine ended: it wrote nothing"),
    ],
)
def test_the_most_telling_line_is_the_reason(lines: list[str], code: str, message: str) -> None:
    failure = explain(lines)

    assert (failure.code, failure.message) == (code, message)
    assert failure.retryable is (code == "engine_failed")
