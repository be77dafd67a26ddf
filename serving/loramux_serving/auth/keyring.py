"""Who calls, and what they may do."""

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from loramux_adapters.errors import Forbidden, Unauthenticated
from loramux_adapters.model import ApiKey, Role
from loramux_serving.auth.api_keys import digest
from loramux_serving.auth.signers import Signers
from loramux_serving.auth.sigv4 import UNRECOGNIZED
from loramux_serving.relay.ports import Principal
from loramux_serving.relay.signed_request import Credentials, SignedRequest

ADMIN = Principal(key_id="admin", name="admin", role=Role.ADMIN)
"""Who holds the bootstrap admin key."""

ANONYMOUS = Principal(key_id="anonymous", name="anonymous", role=Role.INFERENCE)
"""Who gives no key that is known, where the operator allows that. All of them share one set of limits."""


class KeyRing:
    """`relay.ports.Authenticator` over a map from digest to caller that is replaced whole and never changed.

    A secret is hashed before it is looked up, so the time of a look-up says nothing of how much of a guess was
    right. No method does I/O, and no message repeats what the caller sent.
    """

    def __init__(
        self,
        keys: Iterable[ApiKey] = (),
        *,
        admin_digest: str | None = None,
        anonymous: bool = False,
        signers: Signers | None = None,
    ) -> None:
        """`admin_digest` is the digest of a secret that is an admin's besides `keys`. With `anonymous`, a call
        without a known key is `ANONYMOUS`: it may do inference and nothing else. Without `signers` no signature is
        good."""
        self._admin_digest = admin_digest
        self._anonymous = anonymous
        self._signers = signers
        self._replaced: list[Callable[[], object]] = []
        self.replace(keys)

    def replace(self, keys: Iterable[ApiKey]) -> None:
        """From the next call on, these keys and no others count (and the bootstrap admin's)."""
        known = [(key, None if key.revoked_at is not None else _principal(key)) for key in keys]
        principals = {key.digest: principal for key, principal in known if key.access_key_id is None}
        if self._admin_digest is not None:
            principals[self._admin_digest] = ADMIN
        self._principals = principals
        if self._signers is not None:
            self._signers.replace(known)
        for listener in self._replaced:
            listener()

    def on_replace(self, listener: Callable[[], object]) -> None:
        """`listener` hears of each replacement, within it."""
        self._replaced.append(listener)

    def authenticate(self, credentials: Credentials) -> Principal:
        """The caller, from the value of the `Authorization` header, or from a signature, which passes once where it is
        for a single use. Raises `Unauthenticated`; a revoked key and a wrong signature are refused even where anonymous
        callers are served, so that their owners notice."""
        if not credentials:
            return self._unknown("This call needs a key: send the header `Authorization: Bearer <key>`.")
        if not isinstance(credentials, str):
            return self._signer(credentials)
        scheme, _, shown = credentials.strip().partition(" ")
        secret = shown.strip()
        if not secret or (scheme != "Bearer" and scheme.lower() != "bearer"):
            return self._unknown("The Authorization header must read `Bearer <key>`.")
        try:
            principal = self._principals[digest(secret)]
        except KeyError:
            return self._unknown("The key is not known here.")
        if principal is None:
            raise Unauthenticated("The key was revoked.")
        return principal

    def require_adapter(self, principal: Principal, name: str) -> None:
        """Raises `Forbidden` where none of the key's patterns matches `name`, upper and lower case told apart. An
        admin's key is for all names."""
        if not principal.adapters or principal.role is Role.ADMIN:
            return
        if not any(fnmatchcase(name, pattern) for pattern in principal.adapters):
            raise Forbidden(f"The key {principal.name!r} is not for {name!r}.", details={"key": principal.key_id})

    def require_admin(self, principal: Principal) -> None:
        """Raises `Forbidden` where the caller's key is not an admin's."""
        if principal.role is not Role.ADMIN:
            raise Forbidden("This call needs an admin key.", details={"key": principal.key_id})

    def _signer(self, signed: SignedRequest) -> Principal:
        if self._signers is None:
            raise Unauthenticated("No signature is served here.", details={"aws_code": UNRECOGNIZED})
        return self._signers.authenticate(signed)

    def _unknown(self, message: str) -> Principal:
        if self._anonymous:
            return ANONYMOUS
        raise Unauthenticated(message)


def _principal(key: ApiKey) -> Principal:
    return Principal(
        key_id=key.id,
        name=key.name,
        role=key.role,
        adapters=key.adapters,
        requests_per_minute=key.requests_per_minute,
        tokens_per_minute=key.tokens_per_minute,
    )
