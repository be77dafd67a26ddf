"""Whether runs can be compared at all: the same load, the same surroundings, whole, and not held back."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loramux_bench.decide.round import Round

_OF_NO_LOAD = ("name", "about", "seed", "slos", "cost", "scrape")
"""What does not change how hard the load is; rounds of a side have a seed each."""
_OF_NO_TARGET = ("name", "url", "key_env", "admin")
"""Two builds at two addresses get the same load."""
_CHANGING = ("load_average", "command", "time")
"""They differ between any two runs."""
_MOST_NAMED = 5


def differences(a: Sequence[Round], b: Sequence[Round]) -> list[str]:
    """Why a ratio would mean nothing; whole sentences, empty for runs of the same load."""
    return _different("scenarios", [_load(one.info.scenario) for one in (*a, *b)])


def cautions(a: Sequence[Round], b: Sequence[Round]) -> list[str]:
    """What to know when reading the ratios; whole sentences."""
    found = _different("environments", [_steady(one.info.environment) for one in (*a, *b)])
    for one in (*a, *b):
        if one.info.outcome != "done":
            found.append(f"The run {one.name} is not whole: {unfinished(one)}.")
        found.extend(f"In the run {one.name} the load generator was the limit: {reason}" for reason in one.limits)
    return found


def unfinished(one: Round) -> str:
    """How it ended, if not well; to follow a colon."""
    if one.info.outcome == "failed" and one.info.failure:
        return one.info.failure.rstrip(".")
    return {"running": "it is still running, or was killed", "interrupted": "it was interrupted"}.get(
        one.info.outcome, f"its outcome is {one.info.outcome!r}"
    )


def interleaved(a: Sequence[Round], b: Sequence[Round]) -> bool:
    """Whether the k-th rounds of both ran next to each other, all of a pair before the next pair began."""
    if len(a) != len(b) or any(not one.info.started_at for one in (*a, *b)):
        return False
    pairs = sorted(zip(in_order(a), in_order(b), strict=True), key=lambda pair: pair[0].info.started_at)
    return all(
        max(one.info.started_at for one in before) < min(one.info.started_at for one in after)
        for before, after in itertools.pairwise(pairs)
    )


def in_order(rounds: Sequence[Round]) -> list[Round]:
    """As they were run."""
    return sorted(rounds, key=lambda one: one.info.started_at)


def _different(what: str, contents: Sequence[Mapping[str, Any]]) -> list[str]:
    flat = [dict(_flat(content)) for content in contents]
    places = sorted({place for one in flat for place in one})
    named = []
    for place in places:
        values = list(dict.fromkeys(repr(one.get(place, "not set")) for one in flat))
        if len(values) > 1:
            named.append(f"{place} ({' and '.join(value[:60] for value in values[:3])})")
    if not named:
        return []
    more = f", and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return [f"The {what} of the runs differ in {', '.join(named[:_MOST_NAMED])}{more}."]


def _load(scenario: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in scenario.items() if key not in _OF_NO_LOAD}
    kept["prompts"] = {key: value for key, value in scenario.get("prompts", {}).items() if key != "mark"}
    kept["targets"] = [
        {key: value for key, value in target.items() if key not in _OF_NO_TARGET}
        for target in scenario.get("targets", ())
    ]
    return kept


def _steady(environment: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _steady(value) if isinstance(value, Mapping) else value
        for key, value in environment.items()
        if key not in _CHANGING
    }


def _flat(content: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flat(value, f"{place}.{key}" if place else str(key))
    elif isinstance(content, list | tuple):
        for number, value in enumerate(content):
            yield from _flat(value, f"{place}.{number}")
    else:
        yield place, content
