"""The servers of `loramux bench tiers`: how an adapter is brought to a place there, and who says where it is."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import httpx
import msgspec

from loramux_bench.admin.answers import AdapterPage, AdapterView
from loramux_bench.admin.artifact import WEIGHTS
from loramux_bench.admin.client import ADMIN
from loramux_bench.studies import disk_tier, page_cache
from loramux_bench.studies.calls import call
from loramux_bench.studies.first_token import first_token_s
from loramux_bench.studies.tiers import Place
from loramux_bench.studies.use_order import UseOrder


class StockServer:
    """A plain vLLM with these adapters, each loaded once. It does not tell where they are: the order of use does."""

    places: tuple[Place, ...] = ("base", "gpu", "cpu", "disk", "disk-dropped", "disk-load")

    def __init__(self, http: httpx.AsyncClient, base: str, adapters: Mapping[str, Path], order: UseOrder) -> None:
        """`order` knows of their loads."""
        self._http = http
        self._base = base
        self._adapters = adapters
        self._order = order

    async def bring(self, place: Place, rng: random.Random) -> str:
        name = self._base if place == "base" else self._drawn(place, rng)
        if not name:
            # Loads under other names have pushed these out: those that are used now are in front again.
            for other in rng.sample(sorted(self._adapters), len(self._adapters)):
                await self.ask(other, "gpu", rng.randrange(_ELSE, 2 * _ELSE))
            name = self._drawn(place, rng)
        if name:
            if place.startswith("disk"):
                await _prepare(self._adapters[name] / WEIGHTS, place)
            await call(self._http, "GET", "/health")  # the connection is open when the request comes
        return name

    async def is_at(self, name: str, place: Place) -> bool:
        return place in ("base", "disk-load") or self._order.where(name) == place.partition("-")[0]

    async def ask(self, name: str, place: Place, number: int) -> float:
        if place != "disk-load":
            self._order.used(name)
            return await first_token_s(self._http, name, number)
        new = f"{name}-{number}"
        self._order.used(new)
        body = {"lora_name": new, "lora_path": str(self._adapters[name].absolute())}
        began = asyncio.get_running_loop().time()
        await call(self._http, "POST", "/v1/load_lora_adapter", body)
        loaded_s = asyncio.get_running_loop().time() - began
        found = loaded_s + await first_token_s(self._http, new, number)
        await call(self._http, "POST", "/v1/unload_lora_adapter", {"lora_name": new})
        return found

    def _drawn(self, place: Place, rng: random.Random) -> str:
        tier = place.partition("-")[0]
        found = [name for name in self._adapters if self._order.where(name) == tier]
        return rng.choice(found) if found else ""


class LoramuxServer:
    """A gateway with these adapters, which says where they are; `home` is its directory. With `remote`, what leaves its
    disk tier comes again from a store."""

    def __init__(self, http: httpx.AsyncClient, base: str, names: Sequence[str], home: Path, *, remote: bool) -> None:
        self._http = http
        self._base = base
        self._names = frozenset(names)
        self._home = home
        self.places: tuple[Place, ...] = ("base", "gpu", "cpu", "disk", "disk-dropped", *(("s3",) if remote else ()))

    async def bring(self, place: Place, rng: random.Random) -> str:
        if place == "base":
            await call(self._http, "GET", "/healthz")
            return self._base
        adapters = await self._adapters()
        found = [name for name, one in adapters.items() if _tier(one) == _TIERS[place]]
        if found:
            name = rng.choice(found)
        else:
            name = await self._moved(place, adapters, rng)
        if place.startswith("disk"):
            await _prepare(disk_tier.weights_of(self._home, await self._adapter(name)), place)
        return name

    async def is_at(self, name: str, place: Place) -> bool:
        if place == "base":
            return True
        return _tier(await self._adapter(name)) == _TIERS[place]

    async def ask(self, name: str, place: Place, number: int) -> float:
        return await first_token_s(self._http, name, number)

    async def _adapter(self, name: str) -> AdapterView:
        said = await call(self._http, "GET", f"{ADMIN}/adapters/{quote(name, safe='')}")
        return msgspec.json.decode(said, type=AdapterView)

    async def _adapters(self) -> dict[str, AdapterView]:
        said = await call(self._http, "GET", f"{ADMIN}/adapters?limit=1000")
        page = msgspec.json.decode(said, type=AdapterPage)
        return {one.name: one for one in page.adapters if one.name in self._names}

    async def _moved(self, place: Place, adapters: Mapping[str, AdapterView], rng: random.Random) -> str:
        """An adapter that was somewhere else, and has been sent to a place where none was."""
        on_disk = [name for name, one in adapters.items() if _tier(one) == "disk"]
        if not on_disk:
            # All are in the engine, or all are remote: one that comes in pushes another out.
            name = rng.choice(sorted(adapters))
            await self._prefetch(name, "disk" if _TIERS[place] == "disk" else "gpu")
            return name
        name = rng.choice(on_disk)
        if place == "s3":
            await asyncio.to_thread(disk_tier.remove, self._home, adapters[name])
        elif place in ("gpu", "cpu"):
            await self._prefetch(name, place)
        return name

    async def _prefetch(self, name: str, tier: str) -> None:
        await call(self._http, "POST", f"{ADMIN}/adapters/{quote(name, safe='')}/prefetch", {"tier": tier})


_ELSE = 1_000_000
"""Prompts from this number on are not measured."""

_TIERS: Mapping[Place, str] = {"gpu": "gpu", "cpu": "cpu", "disk": "disk", "disk-dropped": "disk", "s3": "remote"}


def _tier(adapter: AdapterView) -> str:
    """On the only replica; empty where it is not known."""
    return next(iter(adapter.tiers.values()), "")


async def _prepare(weights: Path, place: Place) -> None:
    """The page cache as the place wants it."""
    if place == "disk-dropped":
        await asyncio.to_thread(page_cache.drop, [weights])
    else:
        await asyncio.to_thread(weights.read_bytes)
