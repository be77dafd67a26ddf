"""Names of resources, as SageMaker writes them."""

import re
from dataclasses import dataclass

from loramux_adapters.model import ResourceKind
from loramux_adapters.names import shown

_PARTITIONS = (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov"))
_LONGEST = 128
_ARN = re.compile(r"arn:(aws[a-z-]*):sagemaker:([a-z0-9-]*):([0-9]{12}):([a-z-]+)/(.+)")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a caller believes that its resources are: they are here, whatever it says."""

    region: str
    account: str

    def arn(self, kind: ResourceKind, name: str) -> str:
        partition = next((name for prefix, name in _PARTITIONS if self.region.startswith(prefix)), "aws")
        return f"arn:{partition}:sagemaker:{self.region}:{self.account}:{kind.value}/{name}"


def readable(name: str) -> str:
    """For a message: as it came, where that could be a name, and else quoted and cut."""
    return name if name.isascii() and name.isprintable() and len(name) <= _LONGEST else shown(name)


def resource_of(arn: str) -> tuple[ResourceKind, str] | None:
    """What an ARN names; None for what is never here."""
    found = _ARN.fullmatch(arn)
    if found is None or found[4] not in [kind.value for kind in ResourceKind]:
        return None
    return ResourceKind(found[4]), found[5]
