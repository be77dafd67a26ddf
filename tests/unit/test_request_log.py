"""The log's line for each request, and requests recorded some at a time."""

import asyncio
import io
import json
from dataclasses import dataclass, field

import pytest
import structlog

from loramux_serving.relay.record import RequestRecord
from loramux_serving.relay.story import Story
from loramux_serving.settings import LogSettings
from loramux_serving.telemetry.logs import configure
from loramux_serving.telemetry.record_batch import MOST, RecordBatch
from loramux_serving.telemetry.request_log import RequestLog


@dataclass
class Kept:
    records: list[RequestRecord] = field(default_factory=list)

    def record(self, record: RequestRecord) -> None:
        self.records.append(record)


def story(request_id: str = "r-1") -> Story:
    told = Story(request_id, "/v1/completions", 0.0, ttft_s=0.12345678, queue_s=0.0)
    told.answered(200)
    return told


async def test_a_line_is_one_of_the_logs() -> None:
    stream, kept = io.StringIO(), Kept()
    settings = LogSettings(format="json")
    configure(settings, stream)
    structlog.get_logger("other").info("something else")
    log = RequestLog(settings, kept, stream)
    record = story().record()
    log.record(record)
    log.flush()
    other, line = map(json.loads, stream.getvalue().splitlines())
    assert other.keys() <= line.keys()
    assert (line["event"], line["level"], line["status"], line["key"], line["ttft_s"]) == (
        *("request", "info", 200, None, 0.123457),
    )
    assert abs(_seconds(line["timestamp"]) - _seconds(other["timestamp"])) < 60
    assert len(line["timestamp"]) == len(other["timestamp"])
    assert kept.records == [record]


async def test_lines_are_written_soon_without_being_asked_for() -> None:
    stream = io.StringIO()
    RequestLog(LogSettings(format="json"), Kept(), stream).record(story().record())
    async with asyncio.timeout(5):
        while not stream.getvalue():  # noqa: ASYNC110 - a stream has no event
            await asyncio.sleep(0.005)


async def test_keys_are_cut() -> None:
    stream = io.StringIO()
    log = RequestLog(LogSettings(format="json"), Kept(), stream)
    log.record(story("lmx_" + "x" * 43).record())
    log.flush()
    assert json.loads(stream.getvalue())["request_id"] == "lmx_…"


@pytest.mark.parametrize(("level", "lines"), [("debug", 1), ("info", 1), ("warning", 0)])
async def test_the_level_counts(level: str, lines: int) -> None:
    stream, kept = io.StringIO(), Kept()
    log = RequestLog(LogSettings(format="json", level=level), kept, stream)  # type: ignore[arg-type]
    log.record(story().record())
    log.flush()
    assert (stream.getvalue().count("\n"), len(kept.records)) == (lines, 1)


async def test_for_people_it_is_one_of_structlogs() -> None:
    with structlog.testing.capture_logs() as lines:
        RequestLog(LogSettings(format="console"), Kept(), io.StringIO()).record(story().record())
    assert [(line["event"], line["status"]) for line in lines] == [("request", 200)]


async def test_requests_are_recorded_some_at_a_time() -> None:
    kept = Kept()
    batch = RecordBatch(kept)
    for number in range(MOST - 1):
        batch.tell(story(str(number)))
    assert kept.records == []
    batch.tell(story("last"))
    assert [record.request_id for record in kept.records] == [*map(str, range(MOST - 1)), "last"]


async def test_one_is_recorded_when_asked_for_or_soon_and_as_of_its_end() -> None:
    kept = Kept()
    batch = RecordBatch(kept)
    first = story("first")
    batch.tell(first)
    ended_at = first.ended_at
    batch.flush()
    batch.tell(story("second"))
    async with asyncio.timeout(5):
        while len(kept.records) < 2:  # noqa: ASYNC110 - a list has no event
            await asyncio.sleep(0.005)
    assert [record.request_id for record in kept.records] == ["first", "second"]
    assert kept.records[0].duration_s == round(ended_at or 0.0, 6)


def _seconds(timestamp: str) -> float:
    hours, minutes, seconds = timestamp.rstrip("Z").partition("T")[2].split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
