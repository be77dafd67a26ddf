"""One look at where everything is, for one call."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from loramux_serving.services import Services
from loramux_serving.whereabouts import Held, Whereabouts

_ANSWER_S = 1.0


async def look(services: Services) -> Whereabouts:
    """By the engines' last reports, which have their age with them. Raises `StorageError` where the disk tier can not
    be read."""
    disk = {artifact.digest: artifact.size_bytes for artifact in await services.library.entries()}
    return Whereabouts(reports(services), disk)


def reports(services: Services) -> Mapping[str, Held]:
    """By replica in service, what its engine said last."""
    now = services.clock.now()
    return {
        replica: Held(max(0.0, now - report.at), report.residents)
        for replica, report in services.manager.reports().items()
    }


async def ask(services: Services) -> None:
    """Have the engines report anew. One that does not answer within a second keeps its last report."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_ANSWER_S):
            await services.manager.residents()
