"""Who signs requests: the keys that are made for it, by their access key ids."""

from collections.abc import Iterable
from typing import NamedTuple

import structlog

from loramux_adapters.errors import Unauthenticated
from loramux_adapters.model import ApiKey
from loramux_serving.auth.access_keys import secret_access_key
from loramux_serving.auth.api_keys import digest
from loramux_serving.auth.master_key import MasterKey
from loramux_serving.auth.sigv4 import UNRECOGNIZED
from loramux_serving.auth.verifier import Verifier
from loramux_serving.relay.ports import Principal
from loramux_serving.relay.signed_request import SignedRequest

_log = structlog.get_logger(__name__)


class _Signer(NamedTuple):
    """`secret` is None where the key was made under another master secret."""

    principal: Principal | None
    secret: str | None


class Signers:
    """A map that is replaced whole and never changed. One event loop."""

    def __init__(self, master: MasterKey, verifier: Verifier) -> None:
        self._master = master
        self._verifier = verifier
        self._signers: dict[str, _Signer] = {}
        self._warned: set[str] = set()

    def replace(self, keys: Iterable[tuple[ApiKey, Principal | None]]) -> None:
        """From the next call on, these count and no others; those without an access key id are passed over. A principal
        is None where the key was revoked. A key that is of another master secret is warned of once."""
        self._signers = {
            key.access_key_id: _Signer(principal, self._secret(key, key.access_key_id))
            for key, principal in keys
            if key.access_key_id is not None
        }

    def authenticate(self, signed: SignedRequest) -> Principal:
        """Who signed; counts as the request's one use. Raises `Unauthenticated`."""
        signer = self._signers.get(signed.access_key_id)
        if signer is None:
            raise _unrecognized("its access key id is not known here.")
        if signer.principal is None:
            raise _unrecognized("the key was revoked.")
        if signer.secret is None:
            raise _unrecognized("the key was made under another master secret. Make a new one.")
        self._verifier.verify(signed, signer.secret)
        return signer.principal

    def _secret(self, key: ApiKey, access_key_id: str) -> str | None:
        master = self._master.secret
        secret = None if master is None else secret_access_key(master, access_key_id)
        if secret is not None and digest(secret) == key.digest:
            return secret
        if key.revoked_at is None and key.id not in self._warned:
            self._warned.add(key.id)
            _log.warning("AWS key is of another master secret; it is refused", key=key.id, name=key.name)
        return None


def _unrecognized(reason: str) -> Unauthenticated:
    return Unauthenticated(
        f"The security token included in the request is invalid: {reason}", details={"aws_code": UNRECOGNIZED}
    )
