"""The command line against an admin interface of the same wire types."""

import io
import json
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from loramux_serving.api.admin import views
from loramux_serving.cli import app, waiting
from loramux_serving.cli.adapters import absolute
from loramux_serving.cli.events import parse
from loramux_serving.cli.prompts import BUILT_IN, load_prompts
from loramux_serving.cli.root import global_first
from loramux_serving.cli.session import admin_key, default_url
from loramux_serving.cli.tier_columns import TierColumns
from loramux_serving.cli.trial import plan_of
from loramux_serving.cli.units import ago, places, size
from tests.fakes.admin_server import KEY, AdminServer, adapter, version

Run = Callable[..., Result]


@pytest.fixture
def server() -> AdminServer:
    return AdminServer()


@pytest.fixture
def run(server: AdminServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs `loramux …` with a good key, in an empty directory."""
    monkeypatch.setattr(waiting, "POLL_S", 0.0)
    monkeypatch.chdir(tmp_path)
    for name in ("LORAMUX_URL", "LORAMUX_HOST", "LORAMUX_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LORAMUX_ADMIN_KEY", KEY)
    monkeypatch.setenv("LORAMUX_HOME", str(tmp_path / "home"))

    def invoke(*args: str) -> Result:
        return CliRunner().invoke(app, list(args), obj=server.transport)

    return invoke


def ok(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def test_list_shows_what_operators_look_for(run: Run, server: AdminServer) -> None:
    server.adapters["pirate"] = adapter(
        "pirate", aliases=["captain"], canary=views.CanaryView(version=2, weight=0.25), last_used_at=1.7e9
    )
    header, row = ok(run("adapters", "list")).splitlines()
    assert header.split()[:7] == ["NAME", "STATE", "LIVE", "CANARY", "engine-0", "engine-1", "PIN"]
    assert row.split()[4:8] == ["(25%)", "gpu*", "disk", "-"]
    for part in ("pirate", "ready", "2 (25%)", "3.0 MiB", "7", "d ago", "captain"):
        assert part in row


def test_list_has_one_column_for_one_replica_and_counts_many(run: Run, server: AdminServer) -> None:
    server.adapters = {"a": adapter("a", tiers={"engine-0": "cpu"}, residency={})}
    header, row = ok(run("adapters", "list")).splitlines()
    assert (header.split()[4], row.split()[4]) == ("TIER", "cpu")
    tiers = {f"engine-{number}": "disk" if number else "gpu" for number in range(7)}
    server.adapters["b"] = adapter("b", tiers=tiers, residency={})
    assert "1 gpu, 6 disk" in ok(run("adapters", "list"))
    server.adapters = {"a": adapter("a", tiers={}, residency={})}
    assert ok(run("adapters", "list")).splitlines()[1].split()[4] == "-"


def test_tier_columns_are_in_the_order_of_numbers() -> None:
    tiers = [{"engine-10": "gpu", "engine-2": "cpu"}, {"engine-1": "disk"}]
    columns = TierColumns.of(tiers)
    assert columns.names == ("engine-1", "engine-2", "engine-10")
    assert [columns.cells(each, {}) for each in tiers] == [["-", "cpu", "gpu"], ["disk", "-", "-"]]
    assert TierColumns.of(tiers, at_most=2).cells(tiers[0], {}) == ["1 gpu, 1 cpu"]
    assert TierColumns.of([]).names == ("TIER",)


def test_what_a_replica_is_called_moves_no_cursor(run: Run, server: AdminServer) -> None:
    tiers = {"e\x1b[2J": "gpu", "f": "cpu"}
    server.adapters = {"a\x1b[31m": adapter("a\x1b[31m", tiers=tiers, residency={})}
    assert "\x1b" not in ok(run("adapters", "list"))


def test_list_passes_filters_on(run: Run, server: AdminServer) -> None:
    ok(run("adapters", "list", "--state", "failed", "--tier", "cpu", "--limit", "5"))
    assert server.last == {"limit": "5", "state": "failed", "tier": "cpu"}


def test_list_follows_the_cursor_only_when_told(run: Run, server: AdminServer) -> None:
    server.adapters = {name: adapter(name) for name in ("a", "b", "c", "d", "e")}
    first = run("adapters", "list", "--limit", "2")
    assert len(ok(first).splitlines()) == 3
    assert "2 of 5" in first.stderr
    assert len(ok(run("adapters", "list", "--limit", "2", "--all")).splitlines()) == 6
    page = json.loads(ok(run("--json", "adapters", "list", "--limit", "2", "--all")))
    assert [view["name"] for view in page["adapters"]] == ["a", "b", "c", "d", "e"]
    assert page["next_cursor"] is None


def test_describe_shows_versions_and_reasons(run: Run, server: AdminServer) -> None:
    failure = views.FailureView(code="rank_too_large", message="Rank 64 is over 16.", retryable=False)
    failed = version(2, state="failed", reason=failure, rank=None, bytes=None, sha256=None, tiers={}, modules=[])
    good = version(1, warnings=["trained on another base"])
    server.adapters["pirate"] = adapter("pirate", versions=[good, failed], reason=failure)
    text = ok(run("adapters", "describe", "pirate"))
    assert "rank_too_large: Rank 64 is over 16." in text
    assert "trained on another base" in text
    assert "abababababab" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["engine-0", "gpu", "gpu", "3.0", "MiB", "0.4", "s"] in lines
    assert ["engine-1", "disk", "-", "-", "1.2", "s"] in lines


def test_add_waits_and_says_what_came_of_it(run: Run, server: AdminServer) -> None:
    assert ok(run("adapters", "add", "sql", "s3://b/k", "--pin", "cpu")) == "sql version 1 is live\n"
    assert server.last == views.AddAdapter(name="sql", source="s3://b/k", pin="cpu")
    assert [path for method, path in server.requests if method == "GET"][:2] == ["/admin/v1/operations/op0"] * 2


def test_add_without_waiting_prints_the_operation(run: Run, server: AdminServer) -> None:
    assert ok(run("adapters", "add", "sql", "hf://o/r", "--no-promote", "--no-wait")) == "op0\n"
    assert server.last.promote is False
    assert json.loads(ok(run("--json", "adapters", "add", "x", "/y", "--no-wait")))["operation"]["id"] == "op1"


def test_a_failed_operation_is_one_line_and_exit_1(run: Run, server: AdminServer) -> None:
    error = views.FailureView(code="config_invalid", message="There is no\nadapter_config.json.", retryable=False)
    server.ending = {"state": "failed", "error": error}
    result = run("adapters", "add", "sql", "/x")
    assert result.exit_code == 1
    assert result.stderr == "error: There is no adapter_config.json. (config_invalid)\n"
    result = run("adapters", "update", "pirate", "/x", "--json")
    assert (result.exit_code, json.loads(result.stdout)["state"]) == (1, "failed")


def test_update_promotes_or_waits_or_splits(run: Run, server: AdminServer) -> None:
    assert ok(run("adapters", "update", "pirate", "/v2")) == "pirate version 2 is live\n"
    assert ok(run("adapters", "update", "pirate", "/v3", "--no-promote")) == "pirate version 3 is ready; live is 2\n"
    text = ok(run("adapters", "update", "pirate", "/v4", "--canary", "0.1"))
    assert text == "pirate version 4 is ready; it takes 10% of the requests\n"
    assert server.last.promote == 0.1


@pytest.mark.parametrize(
    "args",
    [
        ("adapters", "update", "pirate", "/x", "--canary", "0.5", "--no-promote"),
        ("adapters", "update", "pirate", "/x", "--canary", "1.5"),
        ("adapters", "canary", "pirate", "2"),
        ("adapters", "canary", "pirate", "2", "--weight", "0.5", "--end"),
        ("adapters", "canary", "pirate", "2", "--weight", "0"),
        ("adapters", "delete", "pirate"),
        ("adapters", "upload", "pirate", "not-there"),
        ("adapters", "pin", "pirate", "remote"),
        ("adapters", "list", "--limit", "0"),
        ("nonsense",),
    ],
)
def test_usage_errors_are_exit_2_and_reach_no_gateway(run: Run, server: AdminServer, args: tuple[str, ...]) -> None:
    assert run(*args).exit_code == 2
    assert server.requests == []


def test_upload_streams_an_archive(run: Run, server: AdminServer, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("adapter_config.json")
        member.size = 2
        tar.addfile(member, io.BytesIO(b"{}"))
    assert ok(run("adapters", "upload", "sql", str(archive))) == "sql version 1 is live\n"
    assert server.upload == archive.read_bytes()
    assert server.last == {"promote": "true"}


def test_upload_sends_a_directory_as_multipart(run: Run, server: AdminServer, tmp_path: Path) -> None:
    directory = tmp_path / "adapter"
    (directory / "checkpoint-1").mkdir(parents=True)
    (directory / "adapter_config.json").write_text("{}")
    (directory / "adapter_model.safetensors").write_bytes(b"weights")
    (directory / "README.md").write_text("not sent")
    ok(run("adapters", "upload", "sql", str(directory), "--no-promote"))
    assert server.upload.count(b"filename=") == 2
    assert b'filename="adapter_model.safetensors"' in server.upload
    assert b"not sent" not in server.upload
    assert server.last == {"promote": "false"}


def test_upload_of_a_directory_that_is_no_adapter(run: Run, server: AdminServer, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run("adapters", "upload", "sql", "empty")
    assert result.exit_code == 1
    assert "has no adapter_config.json" in result.stderr
    assert server.requests == []


def test_pointers_and_tiers(run: Run, server: AdminServer) -> None:
    assert "live 3" in ok(run("adapters", "promote", "pirate", "3"))
    assert "canary 4 (10%)" in ok(run("adapters", "canary", "pirate", "4", "--weight", "0.1"))
    assert "canary -" in ok(run("adapters", "canary", "pirate", "--end"))


def test_a_canary_with_a_rule(run: Run, server: AdminServer) -> None:
    server.adapters["pirate"] = adapter("pirate")
    limits = ("--max-error-rate", "0.02", "--max-p95-ratio", "1.5", "--promote-after", "3600", "--min-requests", "20")
    told = run("adapters", "canary", "pirate", "4", "--weight", "0.1", "--sticky", "key", "--window", "60", *limits)
    assert "canary 4 (10%, by key)" in ok(told)
    text = ok(run("adapters", "describe", "pirate"))
    rule = "at most 0.02 of them fail, p95 at most 1.5 times the live version's, live after 3600 s; over 60 s"
    assert rule in " ".join(text.split())
    for wrong in ((), ("4", *limits), ("--end", *limits), ("4", "--weight", "0.1", "--sticky", "header")):
        assert run("adapters", "canary", "pirate", *wrong).exit_code == 2


def test_describe_shows_how_a_canary_does_and_how_the_last_one_ended(run: Run, server: AdminServer) -> None:
    figures = views.FiguresView(requests=31, errors=2, p95_s=1.234, live_requests=280, live_errors=0, live_p95_s=None)
    rule = views.RuleView(
        window_s=300.0, min_requests=50, max_error_rate=0.05, max_p95_s=2.0, max_p95_ratio=None, promote_after_s=None
    )
    end = views.CanaryEndView(version=2, promoted=False, by_rule=True, reason="p95 was 3 s.", at=1.7e9, figures=figures)
    canary = views.CanaryView(version=3, weight=0.1, rule=rule, figures=figures, since=1.7e9)
    server.adapters["pirate"] = adapter("pirate", canary=canary, canary_end=end, previous=2)
    text = " ".join(ok(run("adapters", "describe", "pirate")).split())
    assert "previous 2" in text
    assert "31 requests, 2 failed, p95 1.23 s; live: 280 requests, 0 failed" in text
    assert "last canary version 2 ended" in text
    assert "d ago: p95 was 3 s. (31 requests, 2 failed" in text
    assert "pin gpu" in ok(run("adapters", "pin", "pirate", "gpu"))
    assert "pin -" in ok(run("adapters", "unpin", "pirate"))
    assert "tier engine-0=gpu engine-1=disk" in ok(run("adapters", "prefetch", "pirate", "cpu"))
    assert json.loads(ok(run("--json", "adapters", "rollback", "pirate")))["name"] == "pirate"
    assert server.requests[-1] == ("POST", "/admin/v1/adapters/pirate/rollback")


def test_delete(run: Run, server: AdminServer) -> None:
    assert ok(run("adapters", "delete", "pirate", "--yes")) == "adapter pirate is deleted\n"
    assert ok(run("adapters", "delete", "pirate", "--version", "2", "-y")) == "version 2 of pirate is deleted\n"
    assert server.last == ("versions", "2")
    assert ok(run("adapters", "delete", "pirate", "--yes", "--no-wait")) == "op2\n"


def test_delete_asks_on_a_terminal(run: Run, server: AdminServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loramux_serving.cli.adapters.sys", _Terminal)
    monkeypatch.setattr("typer.confirm", lambda question, **_: question == "Delete adapter pirate?")
    assert ok(run("adapters", "delete", "pirate")) == "adapter pirate is deleted\n"


class _Terminal:
    class stdin:
        @staticmethod
        def isatty() -> bool:
            return True


def test_aliases(run: Run) -> None:
    assert ok(run("aliases", "set", "captain", "pirate")) == "captain leads to pirate@live\n"
    assert ok(run("aliases", "set", "old", "pirate", "--version", "1")) == "old leads to pirate@1\n"
    assert [line.split() for line in ok(run("aliases", "list")).splitlines()[1:]] == [
        ["captain", "pirate", "live"],
        ["old", "pirate", "1"],
    ]
    assert ok(run("aliases", "delete", "old")) == "alias old is deleted\n"


def test_a_key_is_printed_alone_for_scripts(run: Run, server: AdminServer) -> None:
    result = run("keys", "create", "team", "--adapter", "pirate*", "--adapter", "tiny", "--requests-per-minute", "60")
    assert ok(result) == "lmx_secret\n"
    assert "shown only now" in result.stderr
    assert server.last.adapters == ["pirate*", "tiny"]
    assert server.last.requests_per_minute == 60
    assert json.loads(ok(run("--json", "keys", "create", "root", "--role", "admin")))["key"] == "lmx_secret"
    assert "key_1" in ok(run("keys", "list"))
    assert ok(run("keys", "revoke", "key_1")) == "key key_1 (team) is revoked\n"


def test_an_aws_key_is_printed_as_sdks_read_it(run: Run, server: AdminServer) -> None:
    result = run("keys", "create", "notebook", "--aws", "--role", "admin")
    assert ok(result) == "AWS_ACCESS_KEY_ID=LMXA7\nAWS_SECRET_ACCESS_KEY=aws/secret\n"
    assert "shown only now" in result.stderr
    assert (server.last.aws, server.last.role) == (True, "admin")
    assert json.loads(ok(run("--json", "keys", "create", "notebook", "--aws")))["secret_access_key"] == "aws/secret"


def test_operations(run: Run) -> None:
    ok(run("adapters", "add", "sql", "/x", "--no-wait"))
    assert "staging" in ok(run("operations", "show", "op0"))
    assert json.loads(ok(run("--json", "operations", "show", "op0", "--wait")))["state"] == "succeeded"
    assert run("operations", "show", "nope").stderr == "error: There is no operation 'nope'. (operation_not_found)\n"


def test_whoever_waits_in_vain_learns_where_to_look(run: Run, server: AdminServer) -> None:
    server.operations = _Forgetful()
    result = run("adapters", "add", "sql", "/x")
    assert result.exit_code == 1
    assert "to look again: loramux operations show op0 --wait (operation_not_found)" in result.stderr


class _Forgetful(dict[str, views.OperationView]):
    def get(self, *_: object) -> None:  # type: ignore[override]
        return None


def test_operations_wait_fails_with_the_operation(run: Run, server: AdminServer) -> None:
    server.ending = {"state": "failed"}
    ok(run("adapters", "add", "sql", "/x", "--no-wait"))
    assert run("operations", "show", "op0", "--wait").exit_code == 1


def test_events_are_one_line_each(run: Run, server: AdminServer) -> None:
    event = {"id": 4, "at": 1.7e9, "type": "version.ready", "adapter": "pirate", "version": 2, "data": {"digest": "ab"}}
    server.events = f"id: 4\r\nevent: version.ready\r\ndata: {json.dumps(event)}\r\n\r\n: ping\r\n\r\n".encode()
    assert "version.ready  pirate@2  digest=ab" in ok(run("events", "--after", "3"))
    assert server.headers["last-event-id"] == "3"
    assert json.loads(ok(run("--json", "events"))) == event


def test_events_parse_takes_data_over_several_lines() -> None:
    assert list(parse([": hello", "data: {", 'data: "a": 1}', "", "data: {}"])) == [{"a": 1}]


def test_replicas(run: Run) -> None:
    text = ok(run("replicas", "list"))
    for part in ("1 gpu, 1 cpu", "1/8 1 pinned", "2/32 1 pinned", "5.0 MiB"):
        assert part in text
    assert ok(run("replicas", "drain", "engine-0")) == "engine-0 is draining, 2 requests under way\n"
    assert ok(run("replicas", "undrain", "engine-0")) == "engine-0 is ready, 2 requests under way\n"


def test_replicas_are_scaled(run: Run, server: AdminServer) -> None:
    assert ok(run("replicas", "scale", "0")) == "0 of at most 1 wanted, 1 ready\n"
    assert server.last.wanted == 0
    ok(run("replicas", "list"))
    assert ok(run("replicas", "scale", "1", "--wait")) == "1 of at most 1 wanted, 1 ready\n"
    assert json.loads(ok(run("--json", "replicas", "scale", "0", "--wait")))["replicas"][0]["state"] == "stopped"


def test_try_shows_base_and_adapters_side_by_side(run: Run, server: AdminServer) -> None:
    server.adapters["sql"] = adapter("sql")
    ok(run("aliases", "set", "captain", "pirate"))
    text = ok(run("try", "Hello?", "--max-tokens", "8"))
    for model in ("tiny", "pirate", "sql"):
        assert f"{model} says Hello?" in text
    assert "captain" not in text
    answers = json.loads(ok(run("--json", "try", "Hello?", "--adapter", "sql")))
    assert [answer["model"] for answer in answers] == ["tiny", "sql"]


def test_try_asks_each_adapter_its_own_prompts(run: Run, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.toml"
    prompts.write_text('[adapters.pirate]\nprompts = ["Tea?"]\n[adapters.gone]\nprompts = ["No?"]\n')
    answers = json.loads(ok(run("--json", "try", "--prompts", str(prompts))))
    assert [(answer["model"], answer["prompt"]) for answer in answers] == [("tiny", "Tea?"), ("pirate", "Tea?")]


def test_try_fails_where_an_adapter_does_not_answer(run: Run) -> None:
    result = run("try", "Hello?", "--adapter", "gone")
    assert result.exit_code == 1
    assert "tiny says Hello?" in result.stdout
    assert "(model_not_found)" in result.stderr


def test_plan_of_a_trial() -> None:
    assert plan_of("Hi", "base", ["a", "b"], {}) == {"Hi": ["base", "a", "b"]}
    assert plan_of(None, "base", ["a", "b"], {"a": ["1", "2"], "b": ["2"]}) == {
        "1": ["base", "a"],
        "2": ["base", "a", "b"],
    }
    assert plan_of(None, "base", [], {}) == {prompt: ["base"] for prompt in BUILT_IN}


def test_prompts_come_from_the_demo_of_a_checkout(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_prompts(None) == {}
    monkeypatch.chdir(Path(__file__).parents[2])
    assert load_prompts(None)["pirate"]


@pytest.mark.parametrize("content", ["not toml", "[adapters]\nx = 1\n", "a = 1\n"])
def test_prompts_that_are_none(run: Run, tmp_path: Path, content: str) -> None:
    (tmp_path / "p.toml").write_text(content)
    result = run("try", "--prompts", "p.toml")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: p.toml ")


# --- failures and global options ---


def test_the_gateways_error_is_one_line_with_its_code(run: Run) -> None:
    result = run("adapters", "describe", "gone")
    assert result.exit_code == 1
    assert result.stderr == "error: There is no adapter 'gone'. (adapter_not_found)\n"
    assert result.stdout == ""


def test_names_are_quoted_in_paths(run: Run, server: AdminServer) -> None:
    run("adapters", "describe", "../keys")
    assert server.requests == [("GET", "/admin/v1/adapters/..%2Fkeys")]


def test_global_options_may_stand_anywhere(run: Run) -> None:
    assert json.loads(ok(run("adapters", "list", "--json")))["total"] == 1
    result = run("adapters", "list", "--key", "wrong")
    assert (result.exit_code, result.stderr) == (1, "error: The key is not known here. (unauthenticated)\n")


def test_global_options_move_to_the_front() -> None:
    assert global_first(["a", "--url", "u", "b", "--json", "--key=k"]) == ["--url", "u", "--json", "--key=k", "a", "b"]
    assert global_first(["try", "--", "--json"]) == ["try", "--", "--json"]
    assert global_first(["--json", "serve", "--url", "x"]) == ["--json", "serve", "--url", "x"]
    assert global_first(["a", "--url"]) == ["a", "--url"]


def test_the_key_is_read_from_home(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LORAMUX_ADMIN_KEY")
    assert run("adapters", "list").exit_code == 1
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "admin.key").write_text(KEY + "\n")
    ok(run("adapters", "list"))
    assert admin_key({"LORAMUX_HOME": str(tmp_path)}) is None


def test_a_key_that_can_not_be_read(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LORAMUX_ADMIN_KEY")
    (tmp_path / "home" / "admin.key").mkdir(parents=True)
    assert "give one with --key" in run("adapters", "list").stderr


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, "http://127.0.0.1:8080"),
        ({"LORAMUX_PORT": "9"}, "http://127.0.0.1:9"),
        ({"LORAMUX_HOST": "0.0.0.0"}, "http://127.0.0.1:8080"),
        ({"LORAMUX_HOST": "::"}, "http://[::1]:8080"),
        ({"LORAMUX_HOST": "gpu7", "LORAMUX_PORT": "80"}, "http://gpu7:80"),
        ({"PORT": "9000"}, "http://127.0.0.1:9000"),
        ({"PORT": "9000", "LORAMUX_PORT": "9001"}, "http://127.0.0.1:9001"),
    ],
)
def test_default_url(environment: dict[str, str], url: str) -> None:
    assert default_url(environment) == url


def test_no_gateway(run: Run) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        result = CliRunner().invoke(app, ["--url", url, "adapters", "list"])
    assert result.exit_code == 1
    assert result.stderr == f"error: no gateway at {url}; start one with `make serve` or `loramux serve`\n"


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://x", "http://", "http://[::1"])
def test_an_address_that_is_none(run: Run, url: str) -> None:
    result = run("--url", url, "adapters", "list")
    assert result.exit_code == 1
    assert "is no address" in result.stderr


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (httpx.Response(200, text="<html>"), "its answer is no JSON"),
        (httpx.Response(502, text="<html>"), "answered 502 Bad Gateway. (http_502)"),
        (
            httpx.Response(400, json={"error": {"message": "a\x1b[2Jb\nc", "code": None}}),
            "a\N{REPLACEMENT CHARACTER}[2Jb c",
        ),
    ],
)
def test_answers_of_something_else(run: Run, answer: httpx.Response, message: str) -> None:
    result = CliRunner().invoke(app, ["adapters", "list"], obj=httpx.MockTransport(lambda _: answer))
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_silence_and_broken_connections(run: Run) -> None:
    def silent(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("", request=request)

    def broken(request: httpx.Request) -> httpx.Response:
        raise httpx.RemoteProtocolError("peer closed", request=request)

    for handler, message in ((silent, "said nothing for 60 s"), (broken, "broke: peer closed")):
        result = CliRunner().invoke(app, ["events"], obj=httpx.MockTransport(handler))
        assert (result.exit_code, message in result.stderr) == (1, True)


def test_serve_says_what_is_wrong_in_one_line(run: Run) -> None:
    result = run("serve", "--config", "not-there.toml")
    assert result.exit_code == 1
    assert result.stderr.endswith("does not exist. (settings_invalid)\n")


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    heavy = ("fastapi", "pydantic", "sqlalchemy", "boto3", "huggingface_hub", "numpy", "uvicorn")
    code = f"import sys, loramux_serving.cli; sys.exit(','.join(m for m in {heavy} if m in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_units(tmp_path: Path) -> None:
    assert [size(n) for n in (None, 0, 1023, 1536, 200 * 1024, 3 * 1024**3)] == [
        "-",
        "0 B",
        "1023 B",
        "1.5 KiB",
        "200 KiB",
        "3.0 GiB",
    ]
    assert [ago(at, 100_000.0) for at in (None, 100_000.0, 99_958.0, 99_000.0, 90_000.0, 0.0)] == [
        "-",
        "now",
        "42 s ago",
        "16 min ago",
        "2 h ago",
        "1 d ago",
    ]
    assert places({}) == "-"
    assert places({"engine-0": "gpu", "engine-1": "disk"}) == "engine-0=gpu engine-1=disk"
    assert absolute("s3://b/k") == "s3://b/k"
    assert absolute("not-there") == "not-there"
    assert absolute(str(tmp_path)) == str(tmp_path)
