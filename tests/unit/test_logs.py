import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import structlog
from structlog.contextvars import bound_contextvars

from loramux_serving.settings import LogSettings
from loramux_serving.telemetry.logs import configure


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Logging belongs to the process: leave it as it was."""
    root = logging.getLogger()
    known = {name: logger for name, logger in root.manager.loggerDict.items() if isinstance(logger, logging.Logger)}
    levels = {name: (logger.level, logger.propagate, logger.handlers[:]) for name, logger in known.items()}
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, (was, propagate, held) in levels.items():
        known[name].setLevel(was)
        known[name].propagate = propagate
        known[name].handlers[:] = held


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def started(
    level: Literal["debug", "info", "warning", "error"] = "info",
    form: Literal["auto", "console", "json"] = "json",
    stream: io.StringIO | None = None,
) -> io.StringIO:
    stream = stream or io.StringIO()
    configure(LogSettings(level=level, format=form), stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_of_ours() -> None:
    stream = started()
    structlog.get_logger("loramux").info("adapter ready", adapter="law", version=3)
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "adapter ready", "level": "info", "logger": "loramux", "adapter": "law", "version": 3}


@pytest.mark.parametrize("name", ["uvicorn.error", "uvicorn.access", "anything"])
def test_the_standard_librarys_lines_have_the_same_form(name: str) -> None:
    logger = logging.getLogger(name)
    logger.addHandler(logging.StreamHandler(io.StringIO()))
    stream = started()
    if name == "anything":
        logger.handlers.clear()
    logger.info("listening on %s", "8080", extra={"color_message": "\x1b[1mlistening", "port": 8080})
    (line,) = lines(stream)
    line.pop("timestamp")
    assert line == {"event": "listening on 8080", "level": "info", "logger": name, "port": 8080}


@pytest.mark.parametrize("name", ["sqlalchemy.engine.Engine", "alembic.runtime.migration", "botocore.auth", "httpx"])
def test_libraries_tell_of_warnings_only(name: str) -> None:
    stream = started(level="debug")
    logging.getLogger(name).info("each step")
    logging.getLogger(name).warning("trouble")
    assert [line["event"] for line in lines(stream)] == ["trouble"]


@pytest.mark.parametrize(("level", "written"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_levels(level: Literal["debug", "info", "warning", "error"], written: int) -> None:
    stream = started(level=level)
    for logger in (structlog.get_logger("loramux"), logging.getLogger("uvicorn")):
        for method in ("debug", "info", "warning", "error"):
            getattr(logger, method)("x")
    assert len(lines(stream)) == 2 * written


async def test_a_requests_id_is_in_all_that_it_causes_and_in_nothing_else() -> None:
    stream = started()

    async def request(number: str) -> None:
        with bound_contextvars(request_id=number, adapter="law"):
            await asyncio.sleep(0)
            structlog.get_logger("loramux").info("x")
            await asyncio.create_task(asyncio.to_thread(logging.getLogger("uvicorn").info, "y"))

    await asyncio.gather(request("r1"), request("r2"))
    structlog.get_logger("loramux").info("z")
    seen = [(line["event"], line.get("request_id"), line.get("adapter")) for line in lines(stream)]
    assert sorted(seen[:4]) == [("x", "r1", "law"), ("x", "r2", "law"), ("y", "r1", "law"), ("y", "r2", "law")]
    assert seen[4:] == [("z", None, None)]


def test_the_id_goes_on_error() -> None:
    stream = started()
    with pytest.raises(ZeroDivisionError), bound_contextvars(request_id="r1"):
        raise ZeroDivisionError
    structlog.get_logger("loramux").info("x")
    assert "request_id" not in lines(stream)[0]


@pytest.mark.parametrize("form", ["json", "console"])
def test_keys_are_cut_out_of_every_line(form: Literal["json", "console"]) -> None:
    stream = started(form=form)
    secret = "lmx_" + "Ab1-_" * 8
    structlog.get_logger("loramux").info(f"key {secret}", header=f"Bearer {secret}")
    logging.getLogger("uvicorn").error("got %s", {"authorization": secret})
    try:
        raise ValueError(secret)
    except ValueError:
        structlog.get_logger("loramux").exception("failed")
    text = stream.getvalue()
    assert "Ab1" not in text
    assert text.count("lmx_…") >= 4
    assert "Traceback" in text


@pytest.mark.parametrize(
    ("form", "stream", "is_json", "coloured"),
    [
        ("auto", io.StringIO, True, False),
        ("auto", Terminal, False, True),
        ("json", Terminal, True, False),
        ("console", io.StringIO, False, False),
    ],
)
def test_forms(
    form: Literal["auto", "console", "json"], stream: type[io.StringIO], is_json: bool, coloured: bool
) -> None:
    written = started(form=form, stream=stream())
    structlog.get_logger("loramux").info("adapter ready", adapter="law")
    text = written.getvalue()
    assert text.startswith("{") == is_json
    assert ("\x1b[" in text) == coloured
    assert "adapter ready" in text


def test_local_variables_are_not_in_tracebacks() -> None:
    stream = started(form="console")
    hidden = "not-for-the-log"
    try:
        raise ValueError("x")
    except ValueError:
        structlog.get_logger("loramux").exception("failed")
    assert hidden not in stream.getvalue()


def test_to_configure_again_replaces() -> None:
    first = started()
    second = started()
    structlog.get_logger("loramux").info("x")
    assert (first.getvalue(), len(lines(second))) == ("", 1)
