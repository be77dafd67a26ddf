"""Makes and revokes callers' keys: in the store first, then in the key ring, then the answer."""

import asyncio
from collections.abc import Sequence

from loramux_adapters.model import ApiKey, Role
from loramux_adapters.ports import Clock, KeyStore
from loramux_serving.auth.api_keys import issue
from loramux_serving.auth.keyring import KeyRing
from loramux_serving.auth.master_key import MasterKey


class KeyDesk:
    """One event loop. `open` fills the ring."""

    def __init__(self, store: KeyStore, ring: KeyRing, clock: Clock, master: MasterKey) -> None:
        """`master` is the one of the ring's signers."""
        self._store = store
        self._ring = ring
        self._clock = clock
        self._master = master
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        self._ring.replace(await self.list())

    async def create(
        self,
        name: str,
        role: Role,
        *,
        adapters: tuple[str, ...],
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        signing: bool = False,
    ) -> tuple[ApiKey, str]:
        """The key and its secret, good from now on. `signing`: it is one to sign requests with, as AWS' are; the master
        secret is made where there is none."""
        master = await asyncio.to_thread(self._master.made) if signing else None
        key, secret = issue(
            name,
            role,
            self._clock,
            adapters=adapters,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            master=master,
        )
        async with self._turn:
            await asyncio.to_thread(self._store.create_key, key)
            await self.open()
        return key, secret

    async def list(self) -> Sequence[ApiKey]:
        return await asyncio.to_thread(self._store.list_keys)

    async def revoke(self, key_id: str) -> ApiKey:
        """Refused from now on. Raises `KeyNotFound`."""
        async with self._turn:
            key = await asyncio.to_thread(self._store.revoke_key, key_id, self._clock.now())
            await self.open()
        return key
