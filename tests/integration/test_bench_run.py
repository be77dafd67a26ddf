"""Whole runs, with real Locust processes, against the mock endpoint."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from loramux_bench.errors import EndpointError, NothingMeasured, ResultsError
from loramux_bench.launch import launch
from loramux_bench.process import LoadProcess
from loramux_bench.record import RequestRecord
from loramux_bench.results.write import write_results
from loramux_bench.run_dir import RunDir
from loramux_bench.scenario import Scenario, parse
from tests.fakes.inference_server import InferenceServer
from tests.fixtures.gateway import eventually, free_port
from tests.fixtures.mock_endpoint import MockEndpoint

LOCUSTFILE = Path(__file__).parents[2] / "bench" / "loramux_bench" / "locustfile.py"
COMMAND = Path(sys.executable).with_name("loramux")


@pytest.fixture(scope="module")
def mock() -> Iterator[MockEndpoint]:
    with MockEndpoint(ttft=0.05, itl=0.01) as endpoint:
        yield endpoint


def scenario(url: str, **content: Any) -> Scenario:
    load = {"users": 2, "requests": 8} | content.pop("load", {})
    prompts = {"output_tokens": {"mean": 5}} | content.pop("prompts", {})
    targets = content.pop("targets", [{"url": url}])
    scrape = {"metrics": False, "admin": False} | content.pop("scrape", {})
    made = {"name": "test", "targets": targets, "load": load, "prompts": prompts, "scrape": scrape, **content}
    return parse(made, "of the test")


def records_of(run: RunDir) -> list[RequestRecord]:
    return list(run.requests())


def test_a_closed_loop_sends_what_was_planned_and_no_more(mock: MockEndpoint, tmp_path: Path) -> None:
    mock.clear_log()
    run = launch(scenario(mock.url, load={"warmup_requests": 3}), tmp_path)

    records = records_of(run)
    assert sorted(record.index for record in records) == list(range(11))
    assert sum(record.warmup for record in records) == 3
    assert all(record.ok and record.output_tokens == 5 and record.chunks == 5 for record in records)
    assert {record.request_id for record in records} <= {entry["request_id"] for entry in mock.log()["requests"]}
    assert all(record.ttft_s is not None and record.ttft_s >= 0.05 for record in records)
    info = run.info()
    assert (info.outcome, info.workers, info.base) == ("done", 1, "mock-base")
    assert set(info.adapters) == {"mock-0", "mock-1", "mock-2", "mock-3"}
    assert write_results(run).total.answered == 8


def test_an_open_loop_counts_from_the_scheduled_time(tmp_path: Path) -> None:
    """An endpoint that takes one at a time, asked three times as often as it can."""
    with MockEndpoint(ttft=0.05, itl=0.05, concurrency=1) as slow:
        load = {"shape": "open", "requests": 12, "arrivals": {"kind": "constant", "rate_per_s": 12.0}}
        run = launch(scenario(slow.url, load=load), tmp_path)
    records = sorted(records_of(run), key=lambda record: record.index)
    dues = [record.scheduled_s for record in records]
    gaps = [later - earlier for earlier, later in itertools.pairwise(dues)]  # type: ignore[operator]
    assert gaps == pytest.approx([1 / 12] * 11, abs=1e-5)
    assert all(record.sent_s >= (record.scheduled_s or 0.0) for record in records)
    assert records[-1].e2e_s > 5 * records[0].e2e_s, "the queue at the endpoint is in the latency"


def test_an_open_loop_sends_all_that_is_due(mock: MockEndpoint, tmp_path: Path) -> None:
    """Also where it is idle between requests, and has drawn them all at the beginning."""
    load = {"shape": "open", "requests": 15, "arrivals": {"kind": "poisson", "rate_per_s": 5.0}}
    run = launch(scenario(mock.url, load=load), tmp_path)
    assert sorted(record.index for record in records_of(run)) == list(range(15))
    by_time = launch(
        scenario(
            mock.url,
            load={
                "shape": "open",
                "requests": None,
                "duration_s": 3.0,
                "arrivals": {"rate_per_s": 4.0, "kind": "constant"},
            },
        ),
        tmp_path,
    )
    assert len(records_of(by_time)) in (11, 12)


def test_what_waits_in_the_generator_is_counted_and_told(tmp_path: Path) -> None:
    with MockEndpoint(ttft=0.3, itl=0.0) as slow:
        arrivals = {"kind": "constant", "rate_per_s": 20.0, "max_in_flight": 1}
        run = launch(scenario(slow.url, load={"shape": "open", "requests": 10, "arrivals": arrivals}), tmp_path)
    last = max(records_of(run), key=lambda record: record.index)
    assert last.lag_s > 1.0
    assert last.ttft_s is not None
    assert last.ttft_s >= last.lag_s + 0.3
    summary = write_results(run)
    assert summary.generator.limited
    assert summary.lag is not None


def test_two_load_processes_share_the_work(mock: MockEndpoint, tmp_path: Path) -> None:
    run = launch(scenario(mock.url, load={"users": 4, "requests": 21}), tmp_path, processes=2)
    records = records_of(run)
    assert sorted(record.index for record in records) == list(range(21))
    assert {record.worker for record in records} == {0, 1}
    assert all(record.index % 2 == record.worker for record in records)
    assert run.info().workers == 2


def test_targets_are_asked_the_same_in_one_run(mock: MockEndpoint, tmp_path: Path) -> None:
    with MockEndpoint(ttft=0.1, itl=0.01) as other:
        targets = [{"name": "one", "url": mock.url}, {"name": "two", "url": other.url, "api": "openai-completions"}]
        run = launch(scenario("", targets=targets, load={"users": 2, "requests": 12}), tmp_path)
    asked = {
        name: {
            (record.index, record.adapter, record.output_tokens_wanted)
            for record in records_of(run)
            if record.target == name
        }
        for name in ("one", "two")
    }
    assert asked["one"] == asked["two"]
    assert len(asked["one"]) == 6
    assert set(write_results(run).by_target) == {"one", "two"}


def test_every_interface_in_one_run(server: InferenceServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One user class of Locust for each, in one run, against an endpoint that speaks them all."""
    monkeypatch.setenv("AWS_KEYS", "AKID:secret")
    monkeypatch.setenv("OTHER_KEY", "sk-other")
    targets = [
        {"name": "chat", "api": "openai-chat", "url": server.url},
        {"name": "completions", "api": "openai-completions", "url": server.url},
        {"name": "tgi", "api": "tgi", "url": server.url},
        {
            "name": "sagemaker",
            "api": "sagemaker",
            "url": server.url,
            "key_env": "AWS_KEYS",
            "extra": {"EndpointName": "shop", "region": "eu-west-1"},
        },
        {"name": "other", "api": "litellm", "url": f"{server.url}/v1", "key_env": "OTHER_KEY"},
    ]
    for target in targets:
        target["model"] = "openai/pirate" if target["api"] == "litellm" else "pirate"
    load = {"users": 5, "requests": 10}
    run = launch(scenario("", targets=targets, load=load, prompts={"output_tokens": {"mean": 4}}), tmp_path)

    records = records_of(run)
    assert [record.message for record in records if record.error] == []
    for target in targets:
        of_it = [record for record in records if record.target == target["name"]]
        assert len(of_it) == 2, target["name"]
        assert all(record.tokens == 4 and record.ttft_s is not None for record in of_it), target["name"]
    paths = {heard.path.split("?")[0] for heard in server.heard}
    assert {"/v1/chat/completions", "/v1/completions", "/generate_stream"} <= paths
    assert any("invocations-response-stream" in path for path in paths)
    assert set(write_results(run).by_target) == {target["name"] for target in targets}


def test_tokens_are_counted_by_usage_and_by_the_models_tokenizer(mock: MockEndpoint, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    prompts = {"tokenizer": str(tmp_path / "tokenizer.json"), "input_tokens": {"mean": 40}}
    run = launch(scenario(mock.url, prompts=prompts), tmp_path)
    assert all(record.output_tokens_local == record.output_tokens == 5 for record in records_of(run))
    tokens = write_results(run).tokens
    assert tokens.output is not None
    assert tokens.output.equal_share == 1.0
    assert tokens.prompt_wanted is not None


def test_time_in_which_it_was_not_ready_is_apart(tmp_path: Path) -> None:
    with MockEndpoint(ttft=0.05, itl=0.01, not_ready_s=4.0) as waking:
        run = launch(scenario(waking.url), tmp_path)
    assert run.info().ready_wait_s > 0.5
    summary = write_results(run)
    assert summary.total.errors == 0
    assert summary.total.measures["ttft"].max < 0.5, "the wait is in no latency"


def test_failures_of_the_endpoint_are_recorded(tmp_path: Path) -> None:
    with MockEndpoint(ttft=0.02, itl=0.01, fault="break", fault_share=0.5, seed=3) as breaking:
        run = launch(scenario(breaking.url, load={"requests": 20}), tmp_path)
    failed = [record for record in records_of(run) if record.error]
    assert failed
    assert {record.error for record in failed} == {"broken_stream"}
    assert write_results(run).total.errors == len(failed)


def test_a_run_in_which_everything_fails_still_has_its_report(tmp_path: Path) -> None:
    with MockEndpoint(ttft=0.02, itl=0.01, fault="error-frame") as failing:
        run = launch(scenario(failing.url), tmp_path)
    with pytest.raises(NothingMeasured):
        write_results(run)
    assert run.report_path.stat().st_size > 1000


def test_an_endpoint_that_can_not_be_measured_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(EndpointError, match=nobody):
        launch(scenario(nobody), tmp_path)
    monkeypatch.setenv("LORAMUX_API_KEY", "wrong")
    with MockEndpoint(key="right") as locked, pytest.raises(EndpointError, match="key"):
        launch(scenario(locked.url), tmp_path)
    with MockEndpoint(fault="rubbish") as rubbish, pytest.raises(EndpointError, match="OpenAI"):
        launch(scenario(rubbish.url), tmp_path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"prompts": {"tokenizer": "no-such-tokenizer.json"}}, "no-such-tokenizer.json"),
        ({"targets": [{"api": "sagemaker", "model": "pirate"}]}, "EndpointName"),
    ],
)
def test_what_a_load_process_can_not_begin_with_ends_the_run(
    changed: dict[str, Any], said: str, mock: MockEndpoint, tmp_path: Path
) -> None:
    """Found by the workers: the master neither loads tokenizers nor makes clients."""
    targets = [{**target, "url": mock.url} for target in changed.get("targets", [{}])]
    with pytest.raises(EndpointError, match=said):
        launch(scenario(mock.url, **{**changed, "targets": targets}), tmp_path)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_was_recorded_and_writes_the_report(
    how: signal.Signals, mock: MockEndpoint, tmp_path: Path
) -> None:
    toml = tmp_path / "long.toml"
    toml.write_text(
        f'name = "long"\n[[targets]]\nurl = "{mock.url}"\n[load]\nusers = 3\nduration_s = 300\n'
        "[prompts]\noutput_tokens = {mean = 10}\n"
    )
    command = [COMMAND, "bench", "run", str(toml), "-o", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        eventually(lambda: any(path.stat().st_size > 5000 for path in tmp_path.glob("out/*/requests.jsonl")), 40.0)
        process.send_signal(how)
        out, err = process.communicate(timeout=40)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130, err
    (directory,) = (tmp_path / "out").iterdir()
    run = RunDir(directory)
    records = records_of(run)
    assert run.info().outcome == "interrupted"
    assert sum(record.ok for record in records) >= 5
    assert sum(record.cut for record in records) <= 3
    assert "interrupted" in run.report_path.read_text().lower()
    assert "answered" in out
    assert not [
        child for child in psutil.process_iter(["cmdline"]) if str(directory) in " ".join(child.info["cmdline"] or ())
    ]


def test_what_was_recorded_outlives_a_kill(mock: MockEndpoint, tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "killed")
    endless = scenario(mock.url, load={"requests": None, "duration_s": 300})
    with LoadProcess(endless, run) as process:
        eventually(lambda: run.requests_path.exists() and run.requests_path.stat().st_size > 2000, 40.0)
        process.kill()
    assert len(records_of(run)) >= 5
    assert run.info().outcome == "running"
    assert write_results(run).total.answered >= 5


def test_a_load_process_that_dies_ends_the_run(mock: MockEndpoint, tmp_path: Path) -> None:
    """kill -9 of the worker, while the master lives: what it had reported is kept, and nobody waits for ever."""
    run = RunDir.create(tmp_path, "orphaned")
    endless = scenario(mock.url, load={"requests": None, "duration_s": 300})
    with LoadProcess(endless, run) as process:
        eventually(lambda: run.requests_path.exists() and run.requests_path.stat().st_size > 2000, 40.0)
        workers = [child for child in psutil.Process(process.pid).children(recursive=True) if "python" in child.name()]
        for worker in workers:
            worker.kill()
        assert process.ended(60.0)
    assert run.info().outcome == "interrupted"
    assert any("load process" in note.lower() for note in run.info().notes)


def test_a_load_process_that_was_given_up_and_comes_back_does_not_keep_the_run(
    mock: MockEndpoint, tmp_path: Path
) -> None:
    """Stopped for longer than Locust's heartbeats allow, as a suspended machine is."""
    run = RunDir.create(tmp_path, "suspended")
    with LoadProcess(scenario(mock.url, load={"requests": None, "duration_s": 300}), run) as process:
        eventually(lambda: run.requests_path.exists() and run.requests_path.stat().st_size > 2000, 40.0)
        workers = psutil.Process(process.pid).children(recursive=True)
        for worker in workers:
            worker.suspend()
        eventually(lambda: run.info().outcome != "running", 30.0)
        for worker in workers:
            worker.resume()
        assert process.ended(60.0)
    assert run.info().outcome == "interrupted"


def test_a_load_whose_starter_is_killed_ends(mock: MockEndpoint, tmp_path: Path) -> None:
    command = [
        COMMAND,
        "bench",
        "run",
        "smoke",
        "--url",
        mock.url,
        "-o",
        str(tmp_path),
        "--set",
        "load.requests=100000",
    ]
    command += ["--set", 'adapters.names=["mock-0"]']
    starter = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually(lambda: any(path.stat().st_size > 2000 for path in tmp_path.glob("*/requests.jsonl")), 40.0)
    children = psutil.Process(starter.pid).children(recursive=True)
    starter.kill()
    starter.wait(10)
    gone, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    assert len(gone) >= 2
    (directory,) = tmp_path.iterdir()
    assert RunDir(directory).info().outcome == "interrupted"


def test_results_that_can_not_be_written_are_told(mock: MockEndpoint, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="file"):
        launch(scenario(mock.url), tmp_path / "file")


@pytest.fixture
def environment(mock: MockEndpoint, tmp_path: Path) -> dict[str, str]:
    toml = tmp_path / "plain.toml"
    toml.write_text(
        f'name = "plain"\n[[targets]]\nurl = "{mock.url}"\n[load]\nusers = 2\nrequests = 10\n'
        "[prompts]\noutput_tokens = {mean = 5}\n"
    )
    return {
        **os.environ,
        "LORAMUX_BENCH_SCENARIO": str(toml),
        "LORAMUX_BENCH_RESULTS": str(tmp_path / "results"),
    }


def test_plain_locust_headless(environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    (directory,) = (tmp_path / "results").iterdir()
    assert len(records_of(RunDir(directory))) == 10
    assert RunDir(directory).report_path.exists()
    for row in ("TTFT", "TPOT", "ITL", "tokens"):
        assert row in done.stdout + done.stderr


def test_locusts_page_shows_token_timings_and_counts_requests_alone(
    environment: dict[str, str], tmp_path: Path
) -> None:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "locust",
        "-f",
        str(LOCUSTFILE),
        "--web-host",
        "127.0.0.1",
        "--web-port",
        str(port),
    ]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10.0) as page:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path
        )
        try:
            eventually(lambda: _answers(page), 40.0)
            assert page.post("/swarm", data={"user_count": 2, "spawn_rate": 2}).json()["success"]
            eventually(lambda: _stats(page).get("Aggregated", 0) == 10, 40.0)
            counts = _stats(page)
            assert counts["TTFT"] == counts["TPOT"] == counts["tokens"] == 10
            eventually(lambda: _stats(page)["ITL"] == 40)
            eventually(lambda: any(path.exists() for path in (tmp_path / "results").glob("*/report.html")), 20.0)
        finally:
            process.terminate()
            process.wait(20)


def _answers(page: httpx.Client) -> bool:
    try:
        return page.get("/").status_code == 200
    except httpx.TransportError:
        return False


def _stats(page: httpx.Client) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in page.get("/stats/requests").json()["stats"]:
        name = row["method"] or row["name"]
        counts[name] = counts.get(name, 0) + row["num_requests"]
    return counts


def test_master_and_workers_that_were_started_apart(environment: dict[str, str], tmp_path: Path) -> None:
    port = str(free_port())
    locust = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE)]
    master = subprocess.Popen(
        [
            *locust,
            "--master",
            "--headless",
            "--expect-workers",
            "2",
            "--master-bind-host",
            "127.0.0.1",
            "--master-bind-port",
            port,
        ],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    workers = [
        subprocess.Popen(
            [*locust, "--worker", "--master-host", "127.0.0.1", "--master-port", port],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=tmp_path,
        )
        for _ in range(2)
    ]
    deadline = time.monotonic() + 60
    try:
        assert master.wait(deadline - time.monotonic()) == 0
    finally:
        for process in (master, *workers):
            process.terminate()
            process.wait(20)
    (directory,) = (tmp_path / "results").iterdir()
    assert {record.worker for record in records_of(RunDir(directory))} == {0, 1}
