"""Scenarios are read whole or refused with the place of each fault; those that come with the bench are right."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from loramux_bench.errors import ScenarioError
from loramux_bench.load.plan import Plan
from loramux_bench.load.tokenizers import Calibration
from loramux_bench.results import slo
from loramux_bench.scenario import (
    Scenario,
    Target,
    available,
    endpoint_key,
    endpoint_url,
    find_source,
    load_scenario,
    parse,
)

LEAST: dict[str, Any] = {"name": "least", "load": {"requests": 1}}

SHIPPED = ("burst", "churn", "cold-start", "doors", "reference", "smoke", "soak", "steady", "zipf-100")


def wrong(content: dict[str, Any]) -> str:
    with pytest.raises(ScenarioError) as caught:
        parse(LEAST | content, "x.toml")
    return str(caught.value)


def test_the_least() -> None:
    scenario = parse(LEAST, "x.toml")
    assert (scenario.load.users, scenario.load.shape, scenario.targets[0].api) == (1, "closed", "openai-chat")


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"colour": 1}, "colour"),
        ({"load": {"requests": 1, "user": 2}}, "load.user"),
        ({"load": {"requests": 1, "arrivals": {"rate": 2}}}, "load.arrivals.rate"),
        (
            {"load": {"requests": 1, "arrivals": {"stages": [{"rate_per_s": 1, "duration_s": 1, "to": 3}]}}},
            "load.arrivals.stages.0.to",
        ),
        ({"targets": [{}, {"name": "b", "uri": "http://x"}]}, "targets.1.uri"),
        ({"prompts": {"tokens": 5}}, "prompts.tokens"),
        ({"prompts": {"input_tokens": {"mean": 5, "sd": 1}}}, "prompts.input_tokens.sd"),
        ({"adapters": {"name": "a"}}, "adapters.name"),
        ({"adapters": {"provision": {"count": 2, "rank": 8}}}, "adapters.provision.rank"),
        ({"churn": {"adds": 1}}, "churn.adds"),
        ({"tenants": [{"name": "a", "key": "secret"}]}, "tenants.0.key"),
        ({"not_ready": {"wait": 1}}, "not_ready.wait"),
        ({"scrape": {"every": 1}}, "scrape.every"),
        ({"cost": {"price": 1}}, "cost.price"),
    ],
)
def test_an_unknown_key_is_told_with_its_place(content: dict[str, Any], place: str) -> None:
    assert f" {place}: unknown key" in wrong(content)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"load": {"requests": "many"}}, "load.requests"),
        ({"load": {"requests": 0}}, "load.requests"),
        ({"load": {"requests": 1.5}}, "load.requests"),
        ({"load": 3}, "load"),
        ({"load": {"requests": 1, "users": -1}}, "load.users"),
        ({"load": {"requests": 1, "shape": "round"}}, "load.shape"),
        ({"load": {"duration_s": float("inf")}}, "load.duration_s"),
        ({"load": {"duration_s": float("nan")}}, "load.duration_s"),
        ({"load": {"requests": 1, "arrivals": {"rate_per_s": float("inf")}}}, "load.arrivals.rate_per_s"),
        ({"load": {"requests": 1, "arrivals": {"stages": {"rate_per_s": 1}}}}, "load.arrivals.stages"),
        ({"targets": [{"api": "grpc"}]}, "targets.0.api"),
        ({"targets": [{"weight": 0}]}, "targets.0.weight"),
        ({"prompts": {"input_tokens": {"mean": 0}}}, "prompts.input_tokens.mean"),
        ({"prompts": {"stream": False}}, "prompts.stream"),
        ({"adapters": {"base_share": 1.1}}, "adapters.base_share"),
        ({"adapters": {"choice": "zipf", "alpha": 0}}, "adapters.alpha"),
        ({"slos": "ttft:p99:1s"}, "slos"),
        ({"name": "../up"}, "name"),
    ],
)
def test_a_wrong_value_is_told_with_its_place(content: dict[str, Any], place: str) -> None:
    assert f" {place}: " in wrong(content)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"load": {}}, "a load needs an end"),
        ({"load": {"shape": "open"}}, "a load needs an end"),
        ({"load": {"arrivals": {"stages": [{"rate_per_s": 1, "duration_s": 1}]}}}, "a load needs an end"),
        ({"load": {"requests": 1, "arrivals": {"kind": "trace"}}}, "a trace needs"),
        ({"load": {"requests": 1, "arrivals": {"trace": "t.jsonl"}}}, "a trace needs"),
        (
            {
                "load": {
                    "requests": 1,
                    "arrivals": {"kind": "trace", "trace": "t", "stages": [{"rate_per_s": 1, "duration_s": 1}]},
                }
            },
            "exclude each other",
        ),
        ({"adapters": {"choice": "weights"}}, "weights belong to"),
        ({"adapters": {"weights": {"a": 1}}}, "weights belong to"),
        ({"adapters": {"choice": "weights", "weights": {"a": 0}}}, "above 0"),
        ({"adapters": {"names": ["a"], "provision": {"count": 1}}}, "exclude each other"),
        ({"targets": []}, "no target"),
        ({"targets": [{}, {}]}, "each target needs a name of its own"),
        ({"tenants": [{"name": "a"}, {"name": "a"}]}, "each tenant needs a name of its own"),
    ],
)
def test_what_does_not_fit_together_is_refused(content: dict[str, Any], why: str) -> None:
    assert why in wrong(content)


def test_all_faults_are_told_at_once() -> None:
    said = wrong({"seed": "x", "load": {"users": 0, "requests": 1}, "colour": 1})
    assert all(place in said for place in ("seed:", "load.users:", "colour: unknown key", "x.toml"))


@pytest.mark.parametrize(
    "arrivals", [{"stages": [{"rate_per_s": 1, "duration_s": 1}]}, {"kind": "trace", "trace": "t"}]
)
def test_stages_and_a_trace_are_an_end(arrivals: dict[str, Any]) -> None:
    assert parse({"name": "x", "load": {"shape": "open", "arrivals": arrivals}}, "x").load.requests is None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text('[load]\nrequests = 5\n[[targets]]\nname = "a"\n[[targets]]\nname = "b"\n')
    return path


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("load.users=4", lambda s: s.load.users == 4),
        ("load.requests = 7", lambda s: s.load.requests == 7),
        ("name=plain", lambda s: s.name == "plain"),
        ('name="quoted"', lambda s: s.name == "quoted"),
        ("adapters.provision.count=3", lambda s: s.adapters.provision.count == 3),
        ('adapters.names=["x", "y"]', lambda s: s.adapters.names == ("x", "y")),
        ("prompts.input_tokens={mean = 9}", lambda s: s.prompts.input_tokens.mean == 9),
        ("targets.1.url=http://x/?a=b", lambda s: s.targets[1].url == "http://x/?a=b"),
        ('targets.0={name = "c"}', lambda s: s.targets[0].name == "c"),
        ("about=", lambda s: s.about == ""),
    ],
)
def test_overrides(file: Path, override: str, read: Any) -> None:
    assert read(load_scenario(str(file), [override]))


def test_the_last_override_stands(file: Path) -> None:
    assert load_scenario(str(file), ["load.users=4", "load.users=6"]).load.users == 6


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("load.users", "form key.key=value"),
        ("=4", "form key.key=value"),
        ("", "form key.key=value"),
        ("load..users=4", "form key.key=value"),
        (".load=4", "form key.key=value"),
        ("load.requests.more=4", "holds a value"),
        ("load.requests.more.yet=4", "holds a value"),
        ("targets.2.url=x", "no position"),
        ("targets.2=x", "no position"),
        ("targets.-1.url=x", "no position"),
        ("targets.first.url=x", "no position"),
        ("targets.name=x", "no position"),
        ("targets.².url=x", "no position"),
        ("load.user=4", "load.user: unknown key"),
        ("load.users=some", "load.users: "),
        ("load.users=[", "load.users: "),
    ],
)
def test_an_override_that_leads_nowhere(file: Path, override: str, why: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        load_scenario(str(file), [override])
    assert why in str(caught.value)


def test_a_name_comes_from_the_file_unless_it_says_its_own(file: Path) -> None:
    assert load_scenario(str(file)).name == "mine"
    file.write_text('name = "other"\n[load]\nrequests = 5\n')
    assert load_scenario(str(file)).name == "other"


def test_a_wrong_file(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"no scenario 'smok'.*smoke, soak"):
        load_scenario("smok")
    with pytest.raises(ScenarioError, match="can not be read"):
        load_scenario(str(tmp_path))
    (tmp_path / "latin.toml").write_bytes('about = "é"\n'.encode("latin-1"))
    (tmp_path / "torn.toml").write_text("[load\n")
    for name in ("latin.toml", "torn.toml"):
        with pytest.raises(ScenarioError, match=rf"{name} can not be read"):
            load_scenario(str(tmp_path / name))


def test_these_scenarios_come_with_the_bench() -> None:
    assert tuple(sorted(available())) == SHIPPED


@pytest.fixture(params=SHIPPED)
def shipped(request: pytest.FixtureRequest) -> Scenario:
    return load_scenario(request.param)


def test_each_is_whole(shipped: Scenario) -> None:
    """It says what it shows, its objectives can be read, its sources are there, and it can be planned."""
    assert len(shipped.about) > 40
    assert shipped.about.endswith(".")
    assert [slo.parse(text).text for text in shipped.slos] == list(shipped.slos)
    if shipped.adapters.provision:
        assert (find_source(shipped.adapters.provision.source) / "adapter_config.json").exists()
    if shipped.churn.any:
        assert (find_source(shipped.churn.update_source) / "adapter_config.json").exists()
    plan = Plan.of(shipped, adapters=["a", "b"], base="base", ruler=Calibration())
    assert plan.shot(0).prompt
    if shipped.load.shape == "open":
        assert 50 < sum(1 for _ in plan.dues(0, 1)) < 500


def test_each_says_its_name_by_its_file(shipped: Scenario) -> None:
    assert "name" not in tomllib.loads(available()[shipped.name].read_text("utf-8"))


def test_the_reference_is_that_of_the_published_run() -> None:
    reference = load_scenario("reference")
    lengths = reference.prompts
    assert (reference.load.users, reference.load.requests) == (2, 100)
    assert (lengths.input_tokens.mean, lengths.input_tokens.stddev) == (500, 25)
    assert (lengths.output_tokens.mean, lengths.output_tokens.stddev) == (1000, 100)


def test_more_adapters_are_cold_than_an_engine_keeps() -> None:
    """`engine.max_cpu_loras` as docs/settings.md gives it."""
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text("utf-8")
    kept = next(line for line in page.splitlines() if line.startswith("| `engine.max_cpu_loras`")).split("|")[3]
    cold = load_scenario("cold-start")
    assert cold.adapters.provision is not None
    assert cold.adapters.provision.count > int(kept.strip(" `"))
    assert cold.adapters.choice == "round-robin"


def test_where_a_target_is() -> None:
    there = {"LORAMUX_URL": "http://there:1/", "LORAMUX_PORT": "9"}
    assert endpoint_url(Target(url="http://x/"), there) == "http://x"
    assert endpoint_url(Target(), there) == "http://there:1"
    assert endpoint_url(Target(), {"LORAMUX_PORT": "9"}) == "http://127.0.0.1:9"
    assert endpoint_url(Target(), {}) == "http://127.0.0.1:8080"
    assert endpoint_url(Target(api="litellm"), there) == ""


def test_the_key_of_a_target(tmp_path: Path) -> None:
    home = {"LORAMUX_HOME": str(tmp_path)}
    assert endpoint_key(Target(), home) == ""
    (tmp_path / "admin.key").write_text("from file\n")
    assert endpoint_key(Target(), home) == "from file"
    assert endpoint_key(Target(url="http://elsewhere"), home) == ""
    assert endpoint_key(Target(), home | {"LORAMUX_ADMIN_KEY": "admin"}) == "admin"
    assert endpoint_key(Target(), home | {"LORAMUX_ADMIN_KEY": "admin", "LORAMUX_API_KEY": "api"}) == "api"
    assert endpoint_key(Target(key_env="MINE"), home | {"MINE": "own", "LORAMUX_API_KEY": "api"}) == "own"
    assert endpoint_key(Target(api="litellm"), home | {"LORAMUX_API_KEY": "api"}) == ""
    other = Target(url="https://other.example")
    assert endpoint_key(other, home | {"LORAMUX_ADMIN_KEY": "admin"}, first=False) == "", "another's must not see it"
    assert endpoint_key(Target(url="http://127.0.0.1:9"), home | {"LORAMUX_API_KEY": "api"}, first=False) == "api"
    with pytest.raises(ScenarioError, match="MINE, which is not set"):
        endpoint_key(Target(key_env="MINE"), home)


def test_a_source_from_here_or_from_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    assert find_source("own") == tmp_path / "own"
    assert find_source("deploy/demo/adapters/pirate").is_dir()
    with pytest.raises(ScenarioError, match="'absent', which is not there"):
        find_source("absent")
