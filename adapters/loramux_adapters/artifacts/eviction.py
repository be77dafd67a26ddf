"""Which artifacts leave the disk tier for a new one. Pure."""

from collections.abc import Collection, Sequence

from loramux_adapters.model import Artifact


def plan_eviction(
    entries: Sequence[Artifact],
    keep: Collection[str],
    *,
    size_bytes: int,
    capacity_bytes: int,
    missing_free_bytes: int,
) -> list[Artifact] | None:
    """The fewest of the least recently used `entries` (given in that order) whose going makes room, or None where no
    choice does. Digests in `keep` stay.

    Room is made when `size_bytes` more fit in `capacity_bytes`, and `missing_free_bytes` more of the file system are
    free (0 or less: enough are).
    """
    used_bytes = sum(entry.size_bytes for entry in entries)
    needed_bytes = max(used_bytes + size_bytes - capacity_bytes, missing_free_bytes)
    if size_bytes > capacity_bytes:
        return None
    victims: list[Artifact] = []
    for entry in entries:
        if needed_bytes <= 0:
            break
        if entry.digest not in keep:
            victims.append(entry)
            needed_bytes -= entry.size_bytes
    return victims if needed_bytes <= 0 else None
