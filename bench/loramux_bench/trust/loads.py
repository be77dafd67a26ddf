"""The loads that the bench measures itself with."""

from loramux_bench.scenario import Load, Normal, Prompts, Scenario, Scrape, Target

PROMPT_TOKENS = 32


def mock_load(name: str, url: str, *, users: int, requests: int, tokens: int, ramp_s: float) -> Scenario:
    """A closed loop on a mock at `url`, answers of so many tokens. Users begin one after the other within `ramp_s`. All
    at once, the mock would read the last of them some milliseconds after it came: true for a caller, and not in what
    the mock knows."""
    return Scenario(
        name=name,
        targets=(Target(name="mock", url=url, model="mock-base"),),
        load=Load(users=users, requests=requests, ramp_s=ramp_s),
        prompts=Prompts(input_tokens=Normal(mean=PROMPT_TOKENS), output_tokens=Normal(mean=tokens), temperature=None),
        scrape=Scrape(metrics=False, admin=False),
    )
