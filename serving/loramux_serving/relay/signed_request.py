"""What is left of a request that was signed with AWS' Signature Version 4: all that is needed to check the signature
where the secrets are, and nothing of the body."""

import msgspec


class SignedRequest(msgspec.Struct, frozen=True, array_like=True):
    """`scope` is `<date>/<region>/<service>/aws4_request`, `string_to_sign` as AWS defines it, over the request as it
    came; `signature` is what the caller sent, 64 hex digits. `timestamp` (`YYYYMMDDTHHMMSSZ`) is the caller's clock.

    `single_use`: the signature covers a number that the caller's SDK gives to each request, so one that comes twice
    was recorded by somebody.
    """

    access_key_id: str
    timestamp: str
    scope: str
    string_to_sign: str
    signature: str
    single_use: bool


Credentials = str | SignedRequest | None
"""What a caller shows: the value of its `Authorization` header, or a signature; None where it shows nothing."""
