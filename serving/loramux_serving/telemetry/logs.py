"""What the gateway writes to standard error: lines for people on a terminal, JSON lines elsewhere.

The standard library's logging, and so uvicorn's, SQLAlchemy's and Alembic's, goes the same way and has the same
form. Fields that were bound to the context, such as a request's id, are in every line that it causes.
"""

import logging
import re
import sys
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from loramux_serving.auth.api_keys import PREFIX
from loramux_serving.settings import LogSettings

_UVICORN = ("uvicorn", "uvicorn.error", "uvicorn.access")

_TALKATIVE = (
    "alembic",
    "asyncio",
    "boto3",
    "botocore",
    "filelock",
    "fsspec",
    "httpcore",
    "httpcore2",
    "httpx",
    "httpx2",
    "huggingface_hub",
    "s3transfer",
    "sqlalchemy",
    "sse_starlette",
    "urllib3",
)
"""Libraries of which only warnings are written: below that they tell of each step, and some of them of credentials."""

_SECRET = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{8,}}")


def configure(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging for this process, in place of what was set up before.
    `stream` None: standard error. Called once at the start, before anything is logged."""
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(), _drop_colours],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(settings, stream),
                _hide_secrets,
            ],
        )
    )
    _route_standard_logging(handler, settings.level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def written(settings: LogSettings, level: str) -> bool:
    """Whether lines of that level are."""
    ranks = logging.getLevelNamesMapping()
    return ranks[level.upper()] >= ranks[settings.level.upper()]


def json_lines(settings: LogSettings, stream: TextIO) -> bool:
    """Whether they are JSON there."""
    return settings.format == "json" or (settings.format == "auto" and not stream.isatty())


def hide_secrets(text: str) -> str:
    """`text` with loramux's keys cut."""
    return _SECRET.sub(f"{PREFIX}…", text) if PREFIX in text else text


def _renderers(settings: LogSettings, stream: TextIO) -> list[Processor]:
    if not json_lines(settings, stream):
        # Plain tracebacks: Rich's would show local variables, and with them secrets.
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]


def _drop_colours(logger: WrappedLogger, method: str, line: EventDict) -> EventDict:
    """uvicorn sends each message twice, once with colour codes."""
    line.pop("color_message", None)
    return line


def _hide_secrets(logger: WrappedLogger, method: str, line: EventDict) -> str:
    """The last of the formatter's processors: it gets the rendered line. Keys that slipped into it are cut."""
    return hide_secrets(cast(str, line))


def _route_standard_logging(handler: logging.Handler, level: str) -> None:
    root = logging.getLogger()
    for former in root.handlers[:]:
        root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _UVICORN:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
