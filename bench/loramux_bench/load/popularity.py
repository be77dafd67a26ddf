"""Which name a request asks for: adapters by their popularity, tenants and targets by their weights."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from loramux_bench.errors import ScenarioError
from loramux_bench.scenario import Adapters


@dataclass(frozen=True, slots=True)
class Popularity:
    """Names with cumulative weights, none of them twice."""

    names: tuple[str, ...]
    ends: tuple[float, ...] = ()
    """Ascending, the last above 0. Empty: the names come in turn."""

    @classmethod
    def of(cls, weights: Mapping[str, float]) -> "Popularity":
        """In proportion to weights ≥ 0, one of them above 0 at least."""
        return cls(tuple(weights), tuple(accumulate(weights.values())))

    def choose(self, index: int, rng: random.Random) -> str:
        """O(log n). In turn: the index alone decides, and nothing is drawn."""
        if not self.ends:
            return self.names[index % len(self.names)]
        return rng.choices(self.names, cum_weights=self.ends)[0]


def popularity(settings: Adapters, names: Sequence[str], allowed: Sequence[str] = ()) -> Popularity:
    """How often each of these names is asked for. Zipf: the k-th of all has the weight k to the power of minus alpha.

    Where only some are `allowed` (empty: all), they keep the weights that they have among all. Raises `ScenarioError`:
    no names, weights of names that are not there, nothing left that can be chosen.
    """
    if not names:
        raise ScenarioError("There is no adapter to ask for: load one, or set adapters.base_share to 1.")
    if strange := sorted(set(settings.weights) - set(names)):
        raise ScenarioError(f"adapters.weights names {', '.join(strange)}, which the load can not ask for.")
    kept = {name: weight for name, weight in _weights(settings, names).items() if not allowed or name in allowed}
    if settings.choice == "round-robin" and kept:
        return Popularity(tuple(kept))
    if not sum(kept.values()) > 0:
        raise ScenarioError(
            f"A tenant may call {', '.join(allowed)} only, of which adapters.choice asks for none: give it others."
        )
    return Popularity.of(kept)


def _weights(settings: Adapters, names: Sequence[str]) -> dict[str, float]:
    match settings.choice:
        case "one":
            return {name: float(position == 0) for position, name in enumerate(names)}
        case "zipf":
            return {name: rank**-settings.alpha for rank, name in enumerate(names, 1)}
        case "weights":
            return {name: settings.weights.get(name, 0.0) for name in names}
        case "uniform" | "round-robin":
            return dict.fromkeys(names, 1.0)
