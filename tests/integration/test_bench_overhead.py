"""`loramux bench overhead`: the mock engine as vLLM, the generator, and the whole command with the real gateway."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from loramux_bench.errors import EndpointError, NotInstalled
from loramux_bench.overhead.cores import Cores
from loramux_bench.overhead.engine.answers import stamps
from loramux_bench.overhead.lineup import lineup
from loramux_bench.overhead.places import mock, peer
from loramux_bench.overhead.side import Side
from loramux_bench.overhead.streaming import paced, set_pace, unpaced
from loramux_bench.overhead.workplace import BASE, Workplace
from loramux_bench.studies.study import StudyDir
from tests.fixtures.gateway import eventually

pytestmark = pytest.mark.timeout(240)

COMMAND = Path(sys.executable).with_name("loramux")
ANSWERS = Path(__file__).parents[1] / "fixtures" / "vllm_answers"
"""Recorded from vLLM 0.32; see test_bench_mock.py."""

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not here")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    study = StudyDir.create(tmp_path_factory.mktemp("overhead"), "overhead")
    with Workplace.open(study, Cores.here(), study.path / "no-peers", lambda _: None) as made:
        yield made


@pytest.fixture(scope="module")
def engine(place: Workplace) -> Iterator[Side]:
    with mock(place) as side:
        yield side


def ask(engine: Side, **body: Any) -> httpx.Response:
    said = {"model": BASE, "messages": [{"role": "user", "content": "Count to ten."}], "max_tokens": 4, **body}
    return httpx.post(f"{engine.url}/v1/chat/completions", json=said, timeout=30.0)


def shape(value: Any, name: str = "") -> Any:
    """Keys in their order, kinds of values, and those texts that are the interface's own."""
    if isinstance(value, dict):
        return [(key, shape(inner, key)) for key, inner in value.items()]
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return value if name in ("object", "finish_reason", "role", "index") else type(value).__name__


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


class TestEngine:
    def test_an_answer_has_the_real_ones_form(self, engine: Side) -> None:
        said = ask(engine)
        assert said.headers["content-type"] == "application/json"
        assert shape(said.json()) == shape(json.loads((ANSWERS / "chat.json").read_text()))
        assert said.json()["model"] == BASE

    @pytest.mark.parametrize(
        ("name", "options"),
        [("chat_stream.txt", {"stream_options": {"include_usage": True}}), ("chat_stream_bare.txt", {})],
    )
    @pytest.mark.parametrize("itl_s", [0.0, 0.002])
    def test_a_stream_has_the_real_ones_form(
        self, engine: Side, name: str, options: dict[str, Any], itl_s: float
    ) -> None:
        set_pace(engine, ttft_s=itl_s, itl_s=itl_s)
        said = ask(engine, stream=True, **options)
        assert said.headers["content-type"] == "text/event-stream; charset=utf-8"
        real = events((ANSWERS / name).read_text())
        assert [shape(event) for event in events(said.text)] == [shape(event) for event in real]
        found = stamps(said.content)
        assert len(found) == 4
        if itl_s:
            gaps = [later - earlier for earlier, later in pairwise(written - late for written, late in found)]
            assert gaps[1:] == pytest.approx([itl_s] * 2, abs=1e-5)
            assert itl_s - 0.001 <= gaps[0] + 1e-5 <= itl_s + 2e-5, "the first is between two milliseconds"
        else:
            assert all(one != other for one, other in pairwise(found[:-1])), "LiteLLM ends a stream of equal frames"

    def test_models_are_listed_as_vllm_does(self, engine: Side) -> None:
        real = json.loads((ANSWERS / "models.json").read_text())
        said = httpx.get(f"{engine.url}/v1/models").json()
        assert shape(said["data"][0]) == shape(real["data"][0])

    def test_adapters_come_and_go(self, engine: Side, tmp_path: Path) -> None:
        (tmp_path / "adapter_config.json").write_text("{}")

        def order(what: str, **body: str) -> int:
            return httpx.post(f"{engine.url}/v1/{what}_lora_adapter", json={"lora_name": "new", **body}).status_code

        assert ask(engine, model="new").status_code == 404
        assert order("load", lora_path=str(tmp_path / "nothing")) == 404
        assert order("load", lora_path=str(tmp_path)) == 200
        assert order("load", lora_path=str(tmp_path)) == 400
        assert ask(engine, model="new").json()["model"] == "new"
        listed = {model["id"]: model for model in httpx.get(f"{engine.url}/v1/models").json()["data"]}
        assert (listed["new"]["root"], listed["new"]["parent"]) == (str(tmp_path), BASE)
        assert order("unload") == 200
        assert order("unload") == 404
        assert ask(engine, model="new").status_code == 404

    def test_a_request_may_come_in_any_pieces(self, engine: Side) -> None:
        body = json.dumps({"model": BASE, "messages": []}).encode()
        path = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
        whole = path + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        cut = len(body) // 2
        chunks = b"%x\r\n%b\r\n%x;why=not\r\n%b\r\n0\r\n\r\n" % (cut, body[:cut], len(body) - cut, body[cut:])
        chunked = path + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
        with socket.create_connection(engine.address, timeout=20.0) as connection:
            reader = connection.makefile("rb")
            for request in (whole, chunked):
                for at in range(0, len(request), 7):
                    connection.sendall(request[at : at + 7])
                assert self.answered(reader) == BASE
            connection.sendall(whole + chunked + whole)
            assert [self.answered(reader) for _ in range(3)] == [BASE] * 3

    def answered(self, reader: Any) -> str:
        """The model of the next answer."""
        assert reader.readline() == b"HTTP/1.1 200 OK\r\n"
        headers = dict(line.rstrip().split(b": ", 1) for line in iter(reader.readline, b"\r\n"))
        return str(json.loads(reader.read(int(headers[b"content-length"])))["model"])

    def test_what_is_no_request_is_refused(self, engine: Side) -> None:
        said = httpx.post(f"{engine.url}/v1/chat/completions", content=b"[]")
        assert said.status_code == 400
        assert httpx.get(f"{engine.url}/nowhere").status_code == 404


class TestGenerator:
    def test_streams_at_a_pace(self, place: Workplace, engine: Side) -> None:
        seen = paced(engine, engine, place.cores.both, streams=4, seconds=2.0)
        assert (seen.errors, seen.failure) == (0, "")
        assert seen.frames == pytest.approx(4 * 50 * 2, rel=0.25)
        assert seen.ended >= 4
        assert seen.ttft is not None
        assert seen.ttft.p50_s >= 0.02
        assert seen.gap is not None
        assert seen.gap.p50_s == pytest.approx(0.02, abs=0.01)

    def test_streams_as_fast_as_they_go(self, place: Workplace, engine: Side) -> None:
        seen = unpaced(engine, engine, place.cores.both, streams=2, tokens=100, seconds=0.5)
        assert (seen.errors, seen.late) == (0, 0)
        assert seen.frames > 1000

    def test_what_is_no_stream_is_told(self, place: Workplace, engine: Side) -> None:
        stranger = Side("stranger", engine.url, {}, "nobody", engine.pids)
        with pytest.raises(EndpointError, match="status 404"):
            paced(stranger, engine, place.cores.both, streams=2, seconds=0.5)


def test_a_gateway_that_is_not_installed_is_left_out(place: Workplace) -> None:
    with pytest.raises(NotInstalled, match="make bench-overhead"), peer(place, "litellm", "http://127.0.0.1:9"):
        pass
    sides = lineup(place, ("direct", "litellm"))
    assert [side.name for side in sides] == ["direct"]
    assert "litellm is not installed" in place.left_out["litellm"]


def bench(tmp_path: Path, *arguments: str) -> list[str]:
    return [str(COMMAND), "bench", "overhead", "--results", str(tmp_path / "results"), *arguments]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("LORAMUX_")}


@needs_wrk
def test_the_whole_command(tmp_path: Path) -> None:
    parts = "requests,streams,frames,capacity,adapters,workers"
    done = subprocess.run(
        bench(
            tmp_path,
            *("--parts", parts, "--sides", "direct,loramux,vllm-router", "--peers", str(tmp_path / "none")),
            *("--rounds", "1", "--seconds", "1", "--adapters", "8", "--most-streams", "16"),
        ),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=220,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (tmp_path / "results").iterdir()
    assert not (path / "scratch").exists()
    content = json.loads((path / "result.json").read_bytes())
    assert content["study"] == "overhead"
    result = content["result"]
    assert list(result["parts"]) == parts.split(","), result["left_out"]
    assert result["wrk"].startswith("wrk")
    assert list(result["left_out"]) == ["vllm-router"]
    assert "vllm-router was left out: vllm-router is not installed" in done.stdout
    rows = {name: part["result"]["rows"] for name, part in result["parts"].items()}
    for name in ("requests", "streams", "frames", "capacity"):
        assert [row["side"] for row in rows[name]] in (["direct", "loramux"], ["direct", "loramux"] * 2), name
    for name in ("requests", "streams", "frames", "adapters", "workers"):
        assert all(row["errors"] == 0 for row in rows[name]), rows[name]
    assert all(row["added_p50_s"] > 0 for row in rows["requests"] if row["side"] == "loramux")
    assert [row["side"] for row in rows["adapters"]] == ["direct", "one adapter", "one of many", "all of many"]
    assert rows["workers"][0]["workers"] == "1"
    assert "loramux" in result["servers"]
    assert "lmx_" not in (path / "result.json").read_text(), "no keys"
    goals = [goal["text"] for part in result["parts"].values() for goal in part["goals"]]
    assert "requests a second at 16 connections ≥ 1.5× vllm-router's" in goals
    assert all(goal.split(" ≥ ")[0] in done.stdout for goal in goals)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_all_that_it_started(how: signal.Signals, tmp_path: Path) -> None:
    command = bench(tmp_path, "--parts", "streams", "--sides", "direct,loramux", "--seconds", "60", "--rounds", "1")
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process:
        mine = psutil.Process(process.pid)
        while "loramux: starting" not in (line := process.stderr.readline()):
            assert line, "it ended"
        eventually(lambda: len(mine.children()) >= 3, 60.0)  # the mock, the gateway, the generator
        children = mine.children(recursive=True)
        process.send_signal(how)
        assert process.wait(60) == 130
        assert "Interrupted" in process.stderr.read()
    assert not [child for child in children if child.is_running()]
    assert not list((tmp_path / "results").glob("*/scratch"))
