"""How each demo adapter is trained. Rank and modules differ on purpose: a fleet of adapters is never uniform."""

from dataclasses import dataclass

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL_LINEAR = (*ATTENTION, "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Recipe:
    rank: int
    modules: tuple[str, ...]
    epochs: int
    learning_rate: float
    batch: int = 8


RECIPES = {
    "ticket-json": Recipe(rank=8, modules=ATTENTION, epochs=3, learning_rate=2e-3),
    "shop-sql": Recipe(rank=4, modules=ALL_LINEAR, epochs=3, learning_rate=2e-3),
    "pirate": Recipe(rank=8, modules=("q_proj", "v_proj", "o_proj"), epochs=3, learning_rate=1e-3),
    "pirate-v2": Recipe(rank=8, modules=("q_proj", "v_proj", "o_proj"), epochs=3, learning_rate=1e-3),
}
