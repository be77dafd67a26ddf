"""Python's cyclic collector, kept from stopping every stream.

A full collection of the gateway's heap takes a tenth of a second or more, nearly all of it over what was made at the
start and never goes: modules, tables, routes. That is set aside; what requests leave behind is little, and is looked at
less often.
"""

import gc

_YOUNG = 10_000
"""Objects made and not freed, before the youngest are looked at. Python's own number is 700."""


def settle() -> None:
    """To be called when the process has made what it will keep."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
