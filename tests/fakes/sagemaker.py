"""SageMaker's control plane over a whole domain, as far as its wire: what is answered is checked against the model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from loramux_adapters.errors import LoramuxError, RequestInvalid
from loramux_adapters.model import Operation
from loramux_adapters.store.resources import SqlResourceStore
from loramux_serving.sagemaker.assembly import build_control_plane
from loramux_serving.sagemaker.faults import fault_of
from loramux_serving.sagemaker.inventory import Inventory
from loramux_serving.sagemaker.names import ComponentNames
from tests.fakes.domain import Domain, engines
from tests.fixtures.sagemaker_model import faults, service

ACCOUNT = "123456789012"
REGION = "eu-west-1"
IMAGE = "763104351884.dkr.ecr.eu-west-1.amazonaws.com/djl-inference:lmi"


class FakeCopies:
    """`sagemaker.ports.Copies`. `ready` follows `wanted` as far as `able`."""

    def __init__(self, limit: int = 2, wanted: int = 1) -> None:
        self.limit = limit
        self.wanted = wanted
        self.able = limit

    @property
    def ready(self) -> int:
        return min(self.wanted, self.able)

    async def set(self, count: int) -> None:
        if not 0 <= count <= self.limit:
            raise RequestInvalid(f"{count} copies can not run here.")
        self.wanted = count


class ClientError(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Plane:
    """What runs here has the environment OPTION_MAX_LORAS=8. The state in `home` outlives it."""

    def __init__(self, home: Path, copies: FakeCopies | None = None) -> None:
        self.home = home
        self.domain = Domain(home, engines("one"))
        self.copies = copies or FakeCopies()
        self.store = SqlResourceStore(self.domain.database)
        self.inventory = Inventory(self.store, self.domain.registry)
        self.names = ComponentNames(self.domain.registry, self.inventory, account=ACCOUNT)
        self.plane = build_control_plane(
            self.inventory,
            self.domain.registry,
            self.domain.lifecycle,
            self.copies,
            _misfits,
            lambda: "The engine has no memory.",
            self.domain.clock,
            start_timeout_s=60.0,
            account=ACCOUNT,
        )

    async def start(self) -> None:
        await self.domain.registry.open()
        await self.plane.open()
        await self.domain.start()

    async def call(self, operation: str, **body: Any) -> dict[str, Any]:
        return await self.send(operation, msgspec.json.encode(body))

    async def send(self, operation: str, body: bytes) -> dict[str, Any]:
        try:
            answer = await self.plane.answer(f"SageMaker.{operation}", body, REGION)
        except LoramuxError as error:
            fault = fault_of(error)
            raise ClientError(fault.code, fault.message) from error
        shape = service().operation_model(operation).output_shape
        if shape is None:
            assert answer == b""
            return {}
        found: dict[str, Any] = msgspec.json.decode(answer)
        assert faults(found, shape) == []
        return found

    # --- what the tests begin with ---

    async def endpoint(self, name: str = "end", **environment: str) -> None:
        """With a model `name`-model."""
        container = {"Image": IMAGE, "Environment": environment}
        await self.call("CreateModel", ModelName=f"{name}-model", PrimaryContainer=container)
        variants = [{"VariantName": "AllTraffic", "InstanceType": "ml.g5.xlarge", "InitialInstanceCount": 1}]
        await self.call("CreateEndpointConfig", EndpointConfigName=name, ProductionVariants=variants)
        await self.call("CreateEndpoint", EndpointName=name, EndpointConfigName=name)

    async def base(self, name: str = "base", *, copies: int = 1, endpoint: str = "end", **more: Any) -> None:
        specification = {
            "ModelName": f"{endpoint}-model",
            "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 1024},
        }
        await self.call(
            "CreateInferenceComponent",
            InferenceComponentName=name,
            EndpointName=endpoint,
            VariantName="AllTraffic",
            Specification=specification,
            RuntimeConfig={"CopyCount": copies},
            **more,
        )

    async def adapter(self, name: str, source: str = "a", *, base: str = "base", **more: Any) -> None:
        self.domain.source(source, seed=sum(source.encode()))
        await self.create_adapter(name, source, base=base, **more)

    async def create_adapter(self, name: str, source: str, *, base: str = "base", **more: Any) -> None:
        specification = {"BaseInferenceComponentName": base, "Container": {"ArtifactUrl": f"s3://bucket/{source}"}}
        given = {"InferenceComponentName": name, "EndpointName": "end", "Specification": specification}
        await self.call("CreateInferenceComponent", **{**given, **more})

    async def describe(self, name: str) -> dict[str, Any]:
        return await self.call("DescribeInferenceComponent", InferenceComponentName=name)

    async def status(self, name: str) -> str | None:
        """None where there is none."""
        try:
            return str((await self.describe(name))["InferenceComponentStatus"])
        except ClientError as error:
            if error.code == "ValidationException" and "Could not find inference component" in error.message:
                return None
            raise

    async def settle(self) -> None:
        """All that was begun in the registry has ended."""
        pending: list[Operation] = list(self.domain.store.unfinished_operations())
        for operation in pending:
            await self.domain.lifecycle.wait(operation.id)


def _misfits(environment: Mapping[str, str]) -> Sequence[str]:
    given = environment.get("OPTION_MAX_LORAS", "8")
    if not given.isdigit():
        raise RequestInvalid(f"OPTION_MAX_LORAS={given} is not a number.")
    found = [] if given == "8" else [f"OPTION_MAX_LORAS is {given}, and it runs with 8."]
    return [*found, *(f"{name} is not known." for name in environment if name.startswith("OPTION_X"))]
