"""Who may call what, remembered while it lasts."""

from collections.abc import Callable

import msgspec

from loramux_adapters.model import Target
from loramux_serving.relay.dialect import ModelName
from loramux_serving.relay.ports import Principal
from loramux_serving.relay.signed_request import Credentials

MOST = 4096


class Grant(msgspec.Struct, frozen=True, gc=False):
    """A caller who was found out, and what the name means that it gave, for which its key is. `slot` is None for the
    base, which takes none."""

    principal: Principal
    target: Target
    slot: str | None


class Grants:
    """By the header that the caller showed and the name that it gave; at most `MOST`, of which those kept first give
    way. Not kept are signatures, which may be for a single use, names that mean one thing or another by draw or by
    caller, and refusals.

    The header's own text is kept, in memory only, as requests that are under way keep it too. It is looked up by a hash
    of all of it that nobody outside can know, so the time of a look-up says nothing of how much of a guess was right.
    """

    def __init__(self, lasting: Callable[[str], bool]) -> None:
        """`lasting`: whether a name means the same for everybody until `forget` is called."""
        self._lasting = lasting
        self._kept: dict[tuple[Credentials, ModelName], Grant] = {}
        self.known = self._kept.get
        """The grant of credentials and a name, if it is kept."""

    def keep(self, credentials: Credentials, model: ModelName, grant: Grant) -> None:
        if not isinstance(model, str) or not isinstance(credentials, str | None) or not self._lasting(model):
            return
        if len(self._kept) >= MOST:
            del self._kept[next(iter(self._kept))]
        self._kept[credentials, model] = grant

    def forget(self, *_: object) -> None:
        """To be called whenever keys or names have changed, before that is acknowledged."""
        self._kept.clear()
