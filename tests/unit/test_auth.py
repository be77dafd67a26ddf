import dataclasses
import hashlib

import pytest

from loramux_adapters.errors import Forbidden, Unauthenticated
from loramux_adapters.model import ApiKey, Role
from loramux_serving.auth.api_keys import digest, issue
from loramux_serving.auth.keyring import ADMIN, ANONYMOUS, KeyRing
from loramux_serving.relay.ports import Authenticator
from tests.fakes.clock import FakeClock

CLOCK = FakeClock()


def made(role: Role = Role.INFERENCE, *adapters: str) -> tuple[ApiKey, str]:
    return issue("app", role, CLOCK, adapters=adapters)


def test_issue_makes_a_key_that_keeps_only_the_digest() -> None:
    key, secret = issue(
        "app",
        Role.INFERENCE,
        CLOCK,
        adapters=["billing-*"],
        requests_per_minute=10,
        tokens_per_minute=0,
        random_bytes=lambda size: bytes(range(size)),
    )
    assert secret == "lmx_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert key == ApiKey(
        id="key_0001020304050607",
        name="app",
        role=Role.INFERENCE,
        digest=hashlib.sha256(secret.encode()).hexdigest(),
        created_at=CLOCK.now(),
        adapters=("billing-*",),
        requests_per_minute=10,
        tokens_per_minute=0,
    )
    assert secret not in repr(key)


def test_no_two_keys_are_alike() -> None:
    keys = [made() for _ in range(100)]
    assert len({secret for _, secret in keys}) == len({key.id for key, _ in keys}) == 100


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  ", " Bearer"])
def test_a_known_key_is_its_principal(scheme: str) -> None:
    key, secret = made(Role.INFERENCE, "a*")
    ring: Authenticator = KeyRing([key])
    principal = ring.authenticate(f"{scheme} {secret} ")
    assert (principal.key_id, principal.name, principal.role, principal.adapters) == (key.id, "app", key.role, ("a*",))


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "lmx_alone", "Bearer lmx_unknown", "Bearer \udcff\u20ac"],
)
def test_whatever_else_is_refused_and_not_repeated(authorization: str | None) -> None:
    key, _ = made()
    with pytest.raises(Unauthenticated) as refused:
        KeyRing([key]).authenticate(authorization)
    assert refused.value.message.endswith(".")
    assert "lmx_" not in refused.value.message


@pytest.mark.parametrize("anonymous", [False, True])
def test_a_revoked_key_is_refused(anonymous: bool) -> None:
    key, secret = made()
    ring = KeyRing([dataclasses.replace(key, revoked_at=1.0)], anonymous=anonymous)
    with pytest.raises(Unauthenticated, match="revoked"):
        ring.authenticate(f"Bearer {secret}")


def test_replace_swaps_all_keys_but_not_the_admin() -> None:
    (old, old_secret), (new, new_secret) = made(), made()
    ring = KeyRing([old], admin_digest=digest("root"))
    ring.replace([new])
    assert ring.authenticate(f"Bearer {new_secret}").key_id == new.id
    assert ring.authenticate("Bearer root") is ADMIN
    with pytest.raises(Unauthenticated):
        ring.authenticate(f"Bearer {old_secret}")


@pytest.mark.parametrize("authorization", [None, "Bearer whatever", "Basic eHg="])
def test_anonymous_callers_may_do_inference_only(authorization: str | None) -> None:
    ring = KeyRing(anonymous=True)
    principal = ring.authenticate(authorization)
    assert principal is ANONYMOUS
    ring.require_adapter(principal, "anything")
    with pytest.raises(Forbidden):
        ring.require_admin(principal)


def test_a_known_key_counts_where_anonymous_callers_are_served() -> None:
    key, secret = made()
    assert KeyRing([key], anonymous=True).authenticate(f"Bearer {secret}").key_id == key.id


@pytest.mark.parametrize(
    ("patterns", "name", "allowed"),
    [
        ((), "anything", True),
        (("billing",), "billing", True),
        (("billing",), "billing-2", False),
        (("billing-*", "law"), "billing-2", True),
        (("billing-*", "law"), "law", True),
        (("Law",), "law", False),
        (("v[12]",), "v2", True),
        (("v?",), "v12", False),
    ],
)
def test_require_adapter_matches_shell_style(patterns: tuple[str, ...], name: str, allowed: bool) -> None:
    key, secret = made(Role.INFERENCE, *patterns)
    ring = KeyRing([key])
    principal = ring.authenticate(f"Bearer {secret}")
    if allowed:
        ring.require_adapter(principal, name)
    else:
        with pytest.raises(Forbidden, match=name):
            ring.require_adapter(principal, name)


def test_an_admin_may_call_everything() -> None:
    key, secret = made(Role.ADMIN, "nothing-else")
    ring = KeyRing([key])
    principal = ring.authenticate(f"Bearer {secret}")
    ring.require_adapter(principal, "law")
    ring.require_admin(principal)
