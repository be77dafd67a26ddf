"""SageMaker's control plane over the real registry, lifecycle and database."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loramux_adapters.errors import (
    ComponentNotFound,
    ComponentNotReady,
    EndpointNotFound,
    ModelNotFound,
    RequestInvalid,
    StorageFailed,
)
from loramux_adapters.model import Resource, ResourceKind, ResourceState
from loramux_serving.relay.dialect import Component
from loramux_serving.sagemaker.records import AdapterRecord, body_of
from tests.fakes.sagemaker import ACCOUNT, IMAGE, REGION, ClientError, FakeCopies, Plane
from tests.fixtures.sagemaker_model import service

ARN = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}"


@contextlib.asynccontextmanager
async def running(plane: Plane) -> AsyncIterator[Plane]:
    await plane.start()
    tending = asyncio.create_task(plane.plane.run())
    try:
        yield plane
    finally:
        tending.cancel()
        await asyncio.gather(tending, return_exceptions=True)
        await plane.domain.close()


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    async with running(Plane(tmp_path)) as plane:
        yield plane


@pytest.fixture
async def served(plane: Plane) -> Plane:
    """With an endpoint and a base component in service."""
    await plane.endpoint()
    await plane.base()
    await comes(lambda: plane.status("base"), "InService")
    return plane


async def comes(look: Callable[[], Awaitable[object]], wanted: object) -> None:
    async with asyncio.timeout(10):
        while await look() != wanted:  # noqa: ASYNC110 - any look at all, not one event
            await asyncio.sleep(0.01)


@contextlib.contextmanager
def refused(code: str, *words: str) -> Iterator[None]:
    with pytest.raises(ClientError) as raised:
        yield
    assert raised.value.code == code
    for word in words:
        assert word in raised.value.message


# --- models, configurations, endpoints ---


async def test_a_model_is_described_as_it_came(plane: Plane) -> None:
    container = {
        "Image": IMAGE,
        "Environment": {"HF_MODEL_ID": "a/b", "OPTION_MAX_LORAS": "8"},
        "ModelDataSource": {
            "S3DataSource": {"S3Uri": "s3://a/b/", "S3DataType": "S3Prefix", "CompressionType": "None"}
        },
    }
    role = "arn:aws:iam::123456789012:role/me"
    created = await plane.call("CreateModel", ModelName="m", PrimaryContainer=container, ExecutionRoleArn=role)
    assert created == {"ModelArn": f"{ARN}:model/m"}
    described = await plane.call("DescribeModel", ModelName="m")
    assert described["PrimaryContainer"] == container
    assert (described["ExecutionRoleArn"], described["EnableNetworkIsolation"]) == (role, False)


async def test_taken_and_unknown_names_have_the_words_that_clients_look_for(plane: Plane) -> None:
    await plane.endpoint()
    container = {"Image": IMAGE}
    with refused("ValidationException", f'Cannot create already existing model "{ARN}:model/end-model".'):
        await plane.call("CreateModel", ModelName="end-model", PrimaryContainer=container)
    variants = [{"VariantName": "a"}]
    with refused("ValidationException", "Cannot create already existing endpoint configuration"):
        await plane.call("CreateEndpointConfig", EndpointConfigName="end", ProductionVariants=variants)
    with refused("ValidationException", f'Cannot create already existing endpoint "{ARN}:endpoint/end".'):
        await plane.call("CreateEndpoint", EndpointName="end", EndpointConfigName="end")
    for verb in ("Describe", "Delete"):
        with refused("ValidationException", f'Could not find model "{ARN}:model/no".'):
            await plane.call(f"{verb}Model", ModelName="no")
        with refused("ValidationException", f'Could not find endpoint configuration "{ARN}:endpoint-config/no".'):
            await plane.call(f"{verb}EndpointConfig", EndpointConfigName="no")
        with refused("ValidationException", f'Could not find endpoint "{ARN}:endpoint/no".'):
            await plane.call(f"{verb}Endpoint", EndpointName="no")
        with refused("ValidationException", f'Could not find inference component "{ARN}:inference-component/no".'):
            await plane.call(f"{verb}InferenceComponent", InferenceComponentName="no")
    with refused("ValidationException", "Could not find model"):
        variants = [{"VariantName": "a", "ModelName": "no"}]
        await plane.call("CreateEndpointConfig", EndpointConfigName="x", ProductionVariants=variants)
    with refused("ValidationException", "Could not find endpoint configuration"):
        await plane.call("CreateEndpoint", EndpointName="x", EndpointConfigName="no")


async def test_an_endpoint_outlives_its_configuration_and_its_model(served: Plane) -> None:
    await served.call("DeleteEndpointConfig", EndpointConfigName="end")
    await served.call("DeleteModel", ModelName="end-model")
    described = await served.call("DescribeEndpoint", EndpointName="end")
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", "end")
    assert described["ProductionVariants"][0]["VariantName"] == "AllTraffic"
    assert await served.status("base") == "InService"


@pytest.mark.parametrize(
    ("container", "word"),
    [
        ({}, "Image"),
        ({"ModelPackageName": "a"}, "package"),
        ({"Image": "a", "Mode": "MultiModel"}, "several models"),
    ],
)
async def test_models_that_can_not_be_served(plane: Plane, container: dict[str, str], word: str) -> None:
    with refused("ValidationException", word):
        await plane.call("CreateModel", ModelName="m", PrimaryContainer=container)


@pytest.mark.parametrize(
    "more",
    [
        {"DataCaptureConfig": {"EnableCapture": True, "InitialSamplingPercentage": 1}},
        {"AsyncInferenceConfig": {"OutputConfig": {}}},
        {"ExplainerConfig": {"ClarifyExplainerConfig": {}}},
        {"ShadowProductionVariants": [{"VariantName": "b"}]},
        {
            "ProductionVariants": [
                {"VariantName": "a", "ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}}
            ]
        },
        {"ProductionVariants": [{"VariantName": "a"}, {"VariantName": "a"}]},
    ],
)
async def test_what_would_be_silently_left_out_is_refused(plane: Plane, more: dict[str, object]) -> None:
    with refused("ValidationException"):
        given = {"EndpointConfigName": "c", "ProductionVariants": [{"VariantName": "a"}], **more}
        await plane.call("CreateEndpointConfig", **given)
    assert (await plane.call("ListEndpointConfigs"))["EndpointConfigs"] == []


async def test_an_endpoint_moves_to_another_configuration(served: Plane) -> None:
    variants = [{"VariantName": "AllTraffic", "InstanceType": "ml.g6.xlarge"}]
    await served.call("CreateEndpointConfig", EndpointConfigName="two", ProductionVariants=variants)
    await served.call("UpdateEndpoint", EndpointName="end", EndpointConfigName="two")
    assert (await served.call("DescribeEndpoint", EndpointName="end"))["EndpointConfigName"] == "two"
    variants = [{"VariantName": "Other"}]
    await served.call("CreateEndpointConfig", EndpointConfigName="three", ProductionVariants=variants)
    with refused("ValidationException", "AllTraffic"):
        await served.call("UpdateEndpoint", EndpointName="end", EndpointConfigName="three")


async def test_an_endpoint_with_components_stays(served: Plane) -> None:
    await served.adapter("tone")
    with refused("ValidationException", "base", "tone"):
        await served.call("DeleteEndpoint", EndpointName="end")
    await served.call("DeleteInferenceComponent", InferenceComponentName="base")
    await comes(lambda: served.status("base"), None)
    await served.call("DeleteEndpoint", EndpointName="end")
    with refused("ValidationException", "Could not find"):
        await served.call("DescribeEndpoint", EndpointName="end")


async def test_an_endpoint_with_a_model_has_the_fleet(plane: Plane) -> None:
    plane.copies.able = 1
    await plane.call("CreateModel", ModelName="m", PrimaryContainer={"Image": IMAGE})
    variants = [{"VariantName": "a", "ModelName": "m", "InitialInstanceCount": 2}]
    await plane.call("CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=variants)
    await plane.call("CreateEndpoint", EndpointName="e", EndpointConfigName="c")
    assert (await plane.call("DescribeEndpoint", EndpointName="e"))["EndpointStatus"] == "Creating"
    with pytest.raises(EndpointNotFound):
        plane.names.resolve(Component("e", None))
    with refused("ResourceLimitExceeded", f"{ARN}:endpoint/e"):
        await plane.call("CreateEndpoint", EndpointName="f", EndpointConfigName="c")
    plane.copies.able = 2
    assert plane.copies.wanted == 2

    async def status() -> str:
        return str((await plane.call("DescribeEndpoint", EndpointName="e"))["EndpointStatus"])

    await comes(status, "InService")
    described = await plane.call("DescribeEndpoint", EndpointName="e")
    assert described["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    assert described["ProductionVariants"][0]["DeployedImages"][0]["SpecifiedImage"] == IMAGE
    assert plane.names.resolve(Component("e", None)).is_base
    with pytest.raises(RequestInvalid, match="header is not allowed"):
        plane.names.resolve(Component("e", "tone"))
    await plane.domain.add("tone", plane.domain.source("a"))
    assert plane.names.resolve(Component("e", None, "tone")).version == 1, "as LMI's bodies name it"
    with pytest.raises(ModelNotFound) as missing:
        plane.names.resolve(Component("e", None, "nobody"))
    assert missing.value.details["aws_code"] == "ModelError"
    await plane.call("DeleteEndpoint", EndpointName="e")
    await comes(lambda: no_endpoint(plane), True)
    assert plane.copies.wanted == 1, "as it was before"


async def no_endpoint(plane: Plane) -> bool:
    return not (await plane.call("ListEndpoints"))["Endpoints"]


# --- the base ---


async def test_a_base_adopts_what_runs(plane: Plane) -> None:
    await plane.endpoint(OPTION_MAX_LORAS="8")
    await plane.base(Tags=[{"Key": "team", "Value": "a"}])
    await comes(lambda: plane.status("base"), "InService")
    described = await plane.describe("base")
    assert described["InferenceComponentArn"] == f"{ARN}:inference-component/base"
    assert described["EndpointArn"] == f"{ARN}:endpoint/end"
    assert described["RuntimeConfig"] == {"DesiredCopyCount": 1, "CurrentCopyCount": 1}
    assert described["Specification"]["ModelName"] == "end-model"
    assert described["VariantName"] == "AllTraffic"
    assert "FailureReason" not in described


async def test_a_base_says_all_that_does_not_fit(plane: Plane) -> None:
    await plane.endpoint(OPTION_MAX_LORAS="9", OPTION_X="1")
    with refused("ValidationException", "OPTION_MAX_LORAS is 9, and it runs with 8.", "OPTION_X is not known."):
        await plane.base()
    assert await plane.status("base") is None
    assert plane.copies.wanted == 1


async def test_a_base_that_can_not_be_read(plane: Plane) -> None:
    await plane.endpoint(OPTION_MAX_LORAS="x")
    with refused("ValidationException", "OPTION_MAX_LORAS=x"):
        await plane.base()


async def test_a_base_starts_the_fleet_and_stops_it(tmp_path: Path) -> None:
    async with running(Plane(tmp_path, FakeCopies(limit=2, wanted=0))) as plane:
        await plane.endpoint()
        plane.copies.able = 0
        await plane.base(copies=2)
        assert (plane.copies.wanted, await plane.status("base")) == (2, "Creating")
        with refused("ValidationException", "must be InService"):
            await plane.adapter("tone")
        plane.copies.able = 2
        await comes(lambda: plane.status("base"), "InService")
        await plane.adapter("tone")
        await plane.domain.add("other", plane.domain.source("b", seed=3))
        await plane.call("DeleteInferenceComponent", InferenceComponentName="base")
        await comes(lambda: plane.status("base"), None)
        assert plane.copies.wanted == 0
        assert set(plane.domain.registry.snapshot.state.adapters) == {"other"}, "what came by other ways stays"
        kept = {each.kind for each in plane.store.resources()}
        assert kept == {ResourceKind.MODEL, ResourceKind.ENDPOINT_CONFIG, ResourceKind.ENDPOINT}


async def test_a_container_is_a_base_too(plane: Plane) -> None:
    await plane.endpoint()
    specification = {
        "Container": {"Image": IMAGE, "Environment": {"OPTION_MAX_LORAS": "8"}},
        "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 128, "NumberOfAcceleratorDevicesRequired": 1},
        "StartupParameters": {"ContainerStartupHealthCheckTimeoutInSeconds": 300},
    }
    given = {"InferenceComponentName": "base", "EndpointName": "end", "Specification": specification}
    await plane.call("CreateInferenceComponent", **given)
    found = (await plane.describe("base"))["Specification"]
    assert found["Container"]["DeployedImage"]["ResolvedImage"] == IMAGE
    assert found["ComputeResourceRequirements"] == specification["ComputeResourceRequirements"]
    assert found["StartupParameters"] == specification["StartupParameters"]


async def test_copies(served: Plane) -> None:
    served.copies.able = 1
    name = {"InferenceComponentName": "base"}
    await served.call("UpdateInferenceComponentRuntimeConfig", **name, DesiredRuntimeConfig={"CopyCount": 2})
    described = await served.describe("base")
    assert described["InferenceComponentStatus"] == "Updating"
    assert described["RuntimeConfig"] == {"DesiredCopyCount": 2, "CurrentCopyCount": 1}
    served.copies.able = 2
    await comes(lambda: served.status("base"), "InService")
    with refused("ResourceLimitExceeded"):
        await served.call("UpdateInferenceComponentRuntimeConfig", **name, DesiredRuntimeConfig={"CopyCount": 3})
    await served.call("UpdateInferenceComponent", **name, RuntimeConfig={"CopyCount": 0})
    assert served.copies.wanted == 0
    await comes(lambda: served.status("base"), "InService")


async def test_an_update_of_a_base_keeps_what_it_does_not_name(served: Plane) -> None:
    async def update(**specification: object) -> dict[str, Any]:
        await served.call("UpdateInferenceComponent", InferenceComponentName="base", Specification=specification)
        await comes(lambda: served.status("base"), "InService")
        found: dict[str, Any] = (await served.describe("base"))["Specification"]
        return found

    found = await update(ComputeResourceRequirements={"MinMemoryRequiredInMb": 2048})
    assert found["ModelName"] == "end-model"
    assert found["ComputeResourceRequirements"] == {"MinMemoryRequiredInMb": 2048}
    found = await update(Container={"Image": IMAGE})
    assert ("ModelName" in found, found["Container"]["DeployedImage"]["SpecifiedImage"]) == (False, IMAGE)
    with refused("ValidationException", "OPTION_MAX_LORAS is 9"):
        await update(Container={"Image": IMAGE, "Environment": {"OPTION_MAX_LORAS": "9"}})
    assert (await update(ModelName="end-model"))["ModelName"] == "end-model"


async def test_more_copies_than_can_run(plane: Plane) -> None:
    await plane.endpoint()
    with refused("ResourceLimitExceeded", "2 Instances"):
        await plane.base(copies=3)
    assert await plane.status("base") is None


async def test_there_is_one_base(served: Plane) -> None:
    with refused("ResourceLimitExceeded", "inference-component/base"):
        await served.base("second")
    with refused("ValidationException", "Cannot create already existing inference component"):
        await served.base()


async def test_a_base_that_does_not_come_up_fails_and_may_come_up_later(plane: Plane) -> None:
    await plane.endpoint()
    plane.copies.able = 0
    await plane.base()
    plane.domain.clock.advance(61.0)
    described = await plane.describe("base")
    assert described["InferenceComponentStatus"] == "Failed"
    assert described["FailureReason"] == "0 of 1 copies are ready. The engine has no memory."
    plane.copies.able = 1
    await comes(lambda: plane.status("base"), "InService")
    assert "FailureReason" not in await plane.describe("base")


async def test_a_scale_up_that_fails_leaves_it_in_service(served: Plane) -> None:
    served.copies.able = 1
    await served.call("UpdateInferenceComponent", InferenceComponentName="base", RuntimeConfig={"CopyCount": 2})
    served.domain.clock.advance(61.0)
    described = await served.describe("base")
    assert (described["InferenceComponentStatus"], "1 of 2" in described["FailureReason"]) == ("InService", True)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"EndpointName": "no"}, ["Could not find endpoint"]),
        ({"VariantName": "no"}, ["Could not find variant"]),
        ({"Specification": {}}, ["ModelName", "Container"]),
        ({"Specification": {"ModelName": "no"}}, ["Could not find model"]),
        ({"Specification": {"ModelName": "end-model", "Container": {"Image": "a"}}}, ["one of"]),
        ({"Specification": None}, ["Specification"]),
        ({"Specifications": [{"ModelName": "end-model"}]}, ["not supported"]),
        ({"InferenceComponentName": "-a"}, ["failed to satisfy constraint", "regular expression"]),
        ({"InferenceComponentName": "a" * 64}, ["less than or equal to 63"]),
        ({"RuntimeConfig": {"CopyCount": -1}}, ["greater than or equal to 0"]),
        ({"Tags": [{"Key": "a", "Value": ""}, {"Key": "a", "Value": ""}]}, ["Duplicate"]),
    ],
)
async def test_a_base_that_is_asked_for_wrongly(plane: Plane, more: dict[str, object], words: list[str]) -> None:
    await plane.endpoint()
    given = {"InferenceComponentName": "base", "EndpointName": "end", "Specification": {"ModelName": "end-model"}}
    merged = {key: value for key, value in {**given, **more}.items() if value is not None}
    with refused("ValidationException", *words):
        await plane.call("CreateInferenceComponent", **merged)
    assert plane.inventory.of(ResourceKind.COMPONENT) == []


# --- adapters ---


async def test_the_life_of_an_adapter(served: Plane) -> None:
    await served.adapter("tone", "a")
    await comes(lambda: served.status("tone"), "InService")
    described = await served.describe("tone")
    assert described["Specification"] == {
        "BaseInferenceComponentName": "base",
        "Container": {"ArtifactUrl": "s3://bucket/a"},
    }
    assert described["RuntimeConfig"] == {"DesiredCopyCount": 1, "CurrentCopyCount": 1}
    first = served.names.resolve(Component("end", "tone"))
    served.domain.source("b", seed=5)
    specification = {"BaseInferenceComponentName": "base", "Container": {"ArtifactUrl": "s3://bucket/b"}}
    await served.call("UpdateInferenceComponent", InferenceComponentName="tone", Specification=specification)
    await served.settle()
    assert (await served.describe("tone"))["Specification"]["Container"]["ArtifactUrl"] == "s3://bucket/b"
    assert served.names.resolve(Component("end", "tone")).version == 2 != first.version
    await served.call("DeleteInferenceComponent", InferenceComponentName="tone")
    await comes(lambda: served.status("tone"), None)
    assert [each.name for each in served.inventory.of(ResourceKind.COMPONENT)] == ["base"]


async def test_an_adapter_that_can_not_be_fetched_fails_later(served: Plane) -> None:
    await served.create_adapter("tone", "nowhere")
    await served.settle()
    described = await served.describe("tone")
    assert described["InferenceComponentStatus"] == "Failed"
    assert "nothing at s3://bucket/nowhere" in described["FailureReason"]
    assert described["RuntimeConfig"]["CurrentCopyCount"] == 0
    with pytest.raises(ComponentNotReady):
        served.names.resolve(Component("end", "tone"))
    with refused("ValidationException", "already existing"):
        await served.adapter("tone")
    served.domain.source("a")
    specification = {"Container": {"ArtifactUrl": "s3://bucket/a"}}
    await served.call("UpdateInferenceComponent", InferenceComponentName="tone", Specification=specification)
    assert await served.status("tone") in ("Updating", "InService")
    await served.settle()
    assert await served.status("tone") == "InService"


async def test_a_failed_update_leaves_the_old_artifact_and_says_why(served: Plane) -> None:
    await served.adapter("tone", "a")
    await served.settle()
    specification = {"Container": {"ArtifactUrl": "s3://bucket/nowhere"}}
    await served.call("UpdateInferenceComponent", InferenceComponentName="tone", Specification=specification)
    await served.settle()
    described = await served.describe("tone")
    assert described["InferenceComponentStatus"] == "InService"
    assert described["Specification"]["Container"]["ArtifactUrl"] == "s3://bucket/a"
    assert "nowhere" in described["FailureReason"]
    assert served.names.resolve(Component("end", "tone")).version == 1


async def test_adapters_of_the_admin_interface_are_components(served: Plane) -> None:
    await served.domain.add("under_score.1", served.domain.source("a"))
    described = await served.describe("under_score.1")
    assert described["Specification"]["Container"]["ArtifactUrl"].endswith("/sources/a")
    assert described["EndpointName"] == "end"
    assert served.names.resolve(Component("end", "under_score.1")).version == 1
    with refused("ValidationException", "already existing"):
        await served.domain.add("plain", served.domain.source("b", seed=1))
        await served.adapter("plain", "a")
    await served.call("DeleteInferenceComponent", InferenceComponentName="under_score.1")
    await comes(lambda: served.status("under_score.1"), None)


async def test_without_a_base_there_are_no_components(plane: Plane) -> None:
    await plane.domain.add("tone", plane.domain.source("a"))
    await plane.endpoint()
    assert await plane.status("tone") is None
    assert (await plane.call("ListInferenceComponents"))["InferenceComponents"] == []
    with refused("ValidationException", 'Could not find inference component "'):
        await plane.adapter("other", "b")
    with pytest.raises(ComponentNotFound):
        plane.names.resolve(Component("end", "tone"))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"EndpointName": "other"}, ["is not on endpoint"]),
        ({"VariantName": "other"}, ["AllTraffic"]),
        ({"base": "no"}, ["Could not find inference component"]),
        ({"RuntimeConfig": {"CopyCount": 2}}, ["copies"]),
        ({"Specification": {"BaseInferenceComponentName": "base"}}, ["ArtifactUrl"]),
        (
            {"Specification": {"BaseInferenceComponentName": "base", "Container": {"ArtifactUrl": "/etc"}}},
            ["artifactUrl"],
        ),
        (
            {"Specification": {"BaseInferenceComponentName": "base", "Container": {"ArtifactUrl": "https://a/b"}}},
            ["s3://"],
        ),
        (
            {
                "Specification": {
                    "BaseInferenceComponentName": "base",
                    "Container": {"ArtifactUrl": "s3://a/b", "Image": "a"},
                }
            },
            ["Image"],
        ),
        ({"InferenceComponentName": "base"}, ["already existing"]),
    ],
)
async def test_an_adapter_that_is_asked_for_wrongly(served: Plane, more: dict[str, object], words: list[str]) -> None:
    base = str(more.pop("base", "base"))
    with refused("ValidationException", *words):
        await served.create_adapter("tone", "a", base=base, **more)
    assert "tone" not in served.domain.registry.snapshot.state.adapters


async def test_an_adapter_has_the_copies_of_its_base(served: Plane) -> None:
    await served.adapter("tone")
    with refused("ValidationException", "its base"):
        await served.call(
            "UpdateInferenceComponentRuntimeConfig",
            InferenceComponentName="tone",
            DesiredRuntimeConfig={"CopyCount": 1},
        )


async def test_of_many_who_make_the_same_component_one_does(served: Plane) -> None:
    served.domain.source("a")
    done = await asyncio.gather(*(served.create_adapter("tone", "a") for _ in range(8)), return_exceptions=True)
    errors = [each for each in done if each is not None]
    assert len(errors) == 7
    assert {each.code for each in errors if isinstance(each, ClientError)} == {"ValidationException"}
    await served.settle()
    assert await served.status("tone") == "InService"


async def test_deleting_while_it_is_created(served: Plane) -> None:
    await served.adapter("tone")
    await served.call("DeleteInferenceComponent", InferenceComponentName="tone")
    assert await served.status("tone") in ("Deleting", None)
    await comes(lambda: served.status("tone"), None)
    await served.adapter("tone")
    await served.settle()
    assert await served.status("tone") == "InService"


async def test_deleting_twice(served: Plane) -> None:
    await served.adapter("tone")
    for name in ("tone", "base"):
        for _ in range(2):
            with contextlib.suppress(ClientError):
                await served.call("DeleteInferenceComponent", InferenceComponentName=name)
    await comes(lambda: served.status("base"), None)
    assert served.domain.registry.snapshot.state.adapters == {}


async def test_while_the_base_goes_nothing_comes(served: Plane) -> None:
    await served.adapter("tone")
    await served.settle()
    async with served.plane._turn:  # the last step waits for this
        resource = served.inventory.get(ResourceKind.COMPONENT, "base")
        assert resource is not None
        deleting = asyncio.create_task(served.call("DeleteInferenceComponent", InferenceComponentName="base"))
        creating = asyncio.create_task(served.create_adapter("other", "a"))
        await asyncio.sleep(0)
    await deleting
    with refused("ValidationException", "Deleting"):
        await creating
    await comes(lambda: served.status("base"), None)


# --- lists ---


async def test_lists_are_filtered_sorted_and_paged(served: Plane) -> None:
    served.domain.source("a")
    for number in range(5):
        served.domain.clock.advance(10.0)
        await served.create_adapter(f"tone-{number}", "a")
    await served.settle()

    async def names(**query: object) -> list[str]:
        found = await served.call("ListInferenceComponents", **query)
        return [each["InferenceComponentName"] for each in found["InferenceComponents"]]

    assert await names() == ["tone-4", "tone-3", "tone-2", "tone-1", "tone-0", "base"]
    assert await names(SortBy="Name", SortOrder="Ascending") == ["base", *(f"tone-{number}" for number in range(5))]
    assert await names(NameContains="tone-3") == ["tone-3"]
    assert await names(StatusEquals="Failed") == []
    assert await names(EndpointNameEquals="other") == []
    assert len(await names(VariantNameEquals="AllTraffic", StatusEquals="InService")) == 6
    at = (await served.describe("tone-2"))["CreationTime"]
    assert await names(CreationTimeAfter=at) == ["tone-4", "tone-3"]
    assert await names(CreationTimeBefore=at) == ["tone-1", "tone-0", "base"]
    assert await names(LastModifiedTimeBefore=0) == []

    seen: list[str] = []
    token: dict[str, str] = {}
    while True:
        found = await served.call("ListInferenceComponents", MaxResults=2, SortBy="Name", **token)
        seen += [each["InferenceComponentName"] for each in found["InferenceComponents"]]
        if "NextToken" not in found:
            break
        token = {"NextToken": found["NextToken"]}
        if len(seen) == 2:
            await served.call("DeleteInferenceComponent", InferenceComponentName=seen[-1])
    assert sorted(set(seen)) == sorted(seen)
    assert len(seen) == 6
    for bad in ("x", "W10=", "ImEi", "é"):
        with refused("ValidationException", "token"):
            await names(NextToken=bad)
    with refused("ValidationException", "less than or equal to 100"):
        await names(MaxResults=101)


async def test_all_kinds_are_listed(served: Plane) -> None:
    for operation, key in (
        ("ListModels", "Models"),
        ("ListEndpointConfigs", "EndpointConfigs"),
        ("ListEndpoints", "Endpoints"),
    ):
        assert len((await served.call(operation))[key]) == 1
        assert (await served.call(operation, NameContains="other"))[key] == []
    assert len((await served.call("ListEndpoints", StatusEquals="InService", SortBy="Status"))["Endpoints"]) == 1


# --- tags ---


async def test_tags(served: Plane) -> None:
    await served.adapter("tone", Tags=[{"Key": "a", "Value": "1"}])
    await served.domain.add("other", served.domain.source("b", seed=2))
    for arn in (f"{ARN}:inference-component/{name}" for name in ("tone", "other", "base")):
        await served.call("AddTags", ResourceArn=arn, Tags=[{"Key": "b", "Value": "2"}])
        told = (await served.call("ListTags", ResourceArn=arn))["Tags"]
        assert {"Key": "b", "Value": "2"} in told
        await served.call("DeleteTags", ResourceArn=arn, TagKeys=["a", "b"])
        assert (await served.call("ListTags", ResourceArn=arn))["Tags"] == []
    with refused("ValidationException", "Could not find model"):
        await served.call("ListTags", ResourceArn=f"{ARN}:model/no")
    with refused("ValidationException", "not kept"):
        await served.call("ListTags", ResourceArn=f"{ARN}:training-job/no")
    tags = [{"Key": f"k{number}", "Value": ""} for number in range(50)]
    await served.call("AddTags", ResourceArn=f"{ARN}:endpoint/end", Tags=tags)
    with refused("ResourceLimitExceeded"):
        await served.call("AddTags", ResourceArn=f"{ARN}:endpoint/end", Tags=[{"Key": "one", "Value": "more"}])


# --- bad requests ---


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b"{", "SerializationException", []),
        (b"\xff", "SerializationException", []),
        (b"[]", "SerializationException", []),
        (b"[" * 100_000, "SerializationException", []),
        (b'{"EndpointName": 5}', "SerializationException", ["endpointName"]),
        (b"{}", "ValidationException", ["Value null at 'endpointName'", "must not be null"]),
        (b"", "ValidationException", ["must not be null"]),
        (b'{"EndpointName": null}', "ValidationException", ["must not be null"]),
        (b'{"EndpointName": "a b"}', "ValidationException", ["Value 'a b' at 'endpointName'"]),
        (b'{"EndpointName": "a", "Unknown": {"a": [1]}}', "ValidationException", ["Could not find"]),
    ],
)
async def test_bodies_that_are_wrong(plane: Plane, body: bytes, code: str, words: list[str]) -> None:
    with refused(code, *words):
        await plane.send("DescribeEndpoint", body)


async def test_constraints_are_told_as_the_service_does(plane: Plane) -> None:
    with refused("ValidationException", "enum value set: [Ascending, Descending]", "at 'sortOrder'"):
        await plane.call("ListModels", SortOrder="Up")
    container = {"Image": "a", "Environment": {"HF_TOKEN": "hf_secret" + "x" * 1100}}
    with pytest.raises(ClientError) as raised:
        await plane.call("CreateModel", ModelName="m", PrimaryContainer=container)
    assert "primaryContainer.environment" in raised.value.message
    assert "hf_secret" not in str(raised.value)
    with refused("ValidationException", "tags.1.member.key"):
        await plane.call("AddTags", ResourceArn=f"{ARN}:model/m", Tags=[{"Key": "", "Value": ""}])


JUNK: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    5,
    2**70,
    1.5,
    1e300,
    "",
    "a",
    "a b",
    "-",
    "a" * 70,
    "\0",
    "\ud7ff",
    "名",
    "s3://a",
    [],
    [[]],
)
_TOLD = {"ValidationException", "SerializationException", "ResourceLimitExceeded"}


def junk(shape: Any, chance: random.Random, depth: int = 0) -> Any:
    """Something like what the model asks for, or not at all."""
    if chance.random() < 0.15 or depth > 6:
        return chance.choice((*JUNK, {"a": 1}, {"": ""}, [{}], ["a", 1], {"Key": "a"}))
    match shape.type_name:
        case "structure":
            members = shape.members.items()
            given = {key for key, _ in members if key in shape.required_members or chance.random() < 0.4}
            return {key: junk(member, chance, depth + 1) for key, member in members if key in given}
        case "list":
            return [junk(shape.member, chance, depth + 1) for _ in range(chance.randrange(3))]
        case "map":
            return {chance.choice(("A", "OPTION_MAX_LORAS", "a-", "")): junk(shape.value, chance, depth + 1)}
        case "string":
            return chance.choice(getattr(shape, "enum", None) or ("end", "base", "a", "end-model", "s3://bucket/a"))
        case "boolean":
            return chance.random() < 0.5
        case _:
            return chance.choice((0, 1, 2, 60, 128, 300, 0.5))


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_is_asked_is_answered_or_refused(served: Plane, seed: int) -> None:
    chance = random.Random(seed)
    errors = []
    operations = sorted(served.plane.operations) * 60
    for operation in operations:
        asked = junk(service().operation_model(operation).input_shape, chance)
        try:
            await served.send(operation, json.dumps(asked).encode())
        except ClientError as error:
            errors.append(error)
    assert {error.code for error in errors} <= _TOLD
    assert all(error.message.isprintable() and len(error.message) < 2000 for error in errors)
    assert len(errors) < len(operations) - 50


async def test_operations_that_are_not_served(plane: Plane) -> None:
    for target in ("SageMaker.CreateTrainingJob", "DynamoDB.CreateModel", "SageMaker.", ""):
        with pytest.raises(RequestInvalid, match="not supported"):
            await plane.plane.answer(target, b"{}", REGION)


# --- names on the hot path ---


async def test_names(served: Plane) -> None:
    await served.adapter("tone")
    await served.settle()
    resolve = served.names.resolve
    assert resolve("tone").version == 1
    assert resolve(Component("end", "base")).is_base
    assert resolve(Component("end", "tone")).version == 1
    for endpoint in ("no", "", "x" * 5000, "\u00e9"):
        with pytest.raises(EndpointNotFound, match=f"of account {ACCOUNT} not found"):
            resolve(Component(endpoint, "tone"))
    with pytest.raises(RequestInvalid, match="header is required"):
        resolve(Component("end", None))
    with pytest.raises(RequestInvalid, match="header is required"):
        resolve(Component("end", None, "tone"))
    for name in ("no", "tiny", "tone@9"):
        with pytest.raises(ComponentNotFound, match="not found"):
            resolve(Component("end", name))
    await served.endpoint("second")
    for name in ("base", "tone"):
        with pytest.raises(ComponentNotFound):
            resolve(Component("second", name))


async def test_where_no_endpoint_was_made_the_gateway_is_every_one(plane: Plane) -> None:
    await plane.domain.add("tone", plane.domain.source("a"))
    assert plane.names.resolve(Component("any", None)).is_base
    assert plane.names.resolve(Component("any", "tone")).version == 1
    with pytest.raises(ModelNotFound):
        plane.names.resolve(Component("any", "no"))


# --- crashes ---


async def test_all_is_there_after_a_restart(tmp_path: Path) -> None:
    async with running(Plane(tmp_path)) as plane:
        await plane.endpoint()
        await plane.base(copies=2)
        await comes(lambda: plane.status("base"), "InService")
        await plane.adapter("tone", Tags=[{"Key": "a", "Value": "1"}])
        await plane.settle()
        before = await plane.describe("tone")
    async with running(Plane(tmp_path)) as plane:
        assert await plane.describe("tone") == before
        assert await plane.status("base") == "InService"
        assert plane.copies.wanted == 2, "as the base component has said"
        assert plane.names.resolve(Component("end", "tone")).version == 1
        assert (await plane.call("ListTags", ResourceArn=before["InferenceComponentArn"]))["Tags"]


@pytest.mark.parametrize("when", ["begun", "adapters gone"])
async def test_a_deletion_goes_on_after_a_crash(tmp_path: Path, when: str) -> None:
    copies = FakeCopies(limit=2, wanted=0)
    plane = Plane(tmp_path, copies)
    await plane.start()  # nobody tends: it dies before it goes on
    await plane.endpoint()
    await plane.base()
    base = plane.inventory.get(ResourceKind.COMPONENT, "base")
    assert base is not None
    record = AdapterRecord(endpoint_name="end", variant_name="AllTraffic", made_here=True)
    now = plane.domain.clock.now()
    component = Resource(ResourceKind.COMPONENT, "tone", body_of(record), now, now, of_adapter=True)
    _, _, operation = await plane.inventory.add_adapter(component, plane.domain.source("a"))
    plane.domain.lifecycle.begin(operation)
    await plane.domain.lifecycle.wait(operation.id)
    await plane.call("DeleteInferenceComponent", InferenceComponentName="base")
    assert await plane.status("base") == "Deleting"
    if when == "adapters gone":
        await plane.domain.delete("tone")
    await plane.domain.close()
    async with running(Plane(tmp_path, FakeCopies(limit=2, wanted=1))) as plane:
        await comes(lambda: plane.status("base"), None)
        assert plane.copies.wanted == 0
        assert plane.domain.registry.snapshot.state.adapters == {}
        assert not [each for each in plane.store.resources() if each.state is ResourceState.DELETING]


async def test_a_base_under_way_has_its_time_again_after_a_crash(tmp_path: Path) -> None:
    plane = Plane(tmp_path, FakeCopies(limit=2, wanted=0))
    await plane.start()
    await plane.endpoint()
    plane.copies.able = 0
    await plane.base(copies=2)
    await plane.domain.close()
    copies = FakeCopies(limit=2, wanted=0)
    copies.able = 0
    plane = Plane(tmp_path, copies)
    plane.domain.clock.advance(1000.0)
    async with running(plane):
        assert (await plane.status("base"), copies.wanted) == ("Creating", 2)
        plane.domain.clock.advance(61.0)
        assert await plane.status("base") == "Failed"
        copies.able = 2
        await comes(lambda: plane.status("base"), "InService")


@pytest.mark.parametrize("done", [False, True])
async def test_a_database_that_fails_leaves_no_doubt(plane: Plane, monkeypatch: pytest.MonkeyPatch, done: bool) -> None:
    """Whether the change was done or not: from the next call on, what is told is what is there."""
    create = plane.store.create_resource

    def fail(resource: Resource) -> None:
        if done:
            create(resource)
        raise StorageFailed("The registry's database did not do its work.")

    with monkeypatch.context() as patch:
        patch.setattr(plane.store, "create_resource", fail)
        with refused("ServiceUnavailable"):
            await plane.call("CreateModel", ModelName="m", PrimaryContainer={"Image": "a"})
    assert len((await plane.call("ListModels"))["Models"]) == done


async def test_a_base_whose_creation_was_in_doubt_is_started(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    await plane.endpoint()
    create = plane.store.create_resource

    def fail(resource: Resource) -> None:
        create(resource)
        raise StorageFailed("The registry's database did not do its work.")

    with monkeypatch.context() as patch:
        patch.setattr(plane.store, "create_resource", fail)
        with refused("ServiceUnavailable"):
            await plane.base(copies=2)
    await comes(lambda: plane.status("base"), "InService")
    assert plane.copies.wanted == 2


async def test_an_adapter_under_way_goes_on_after_a_crash(tmp_path: Path) -> None:
    async with running(Plane(tmp_path)) as plane:
        await plane.endpoint()
        await plane.base()
        await comes(lambda: plane.status("base"), "InService")
        plane.domain.source("a")
        await plane.domain.lifecycle.close()  # from here on nothing is done, only acknowledged
        await plane.create_adapter("tone", "a")
        assert await plane.status("tone") == "Creating"
    async with running(Plane(tmp_path)) as plane:
        await comes(lambda: plane.status("tone"), "InService")


async def test_nobody_who_leaves_parts_memory_from_the_database(served: Plane) -> None:
    call = asyncio.create_task(served.call("CreateModel", ModelName="m", PrimaryContainer={"Image": "a"}))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)

    async def known() -> bool:
        return any(each.name == "m" for each in served.inventory.of(ResourceKind.MODEL))

    await comes(known, True)
    assert "m" in [each.name for each in served.store.resources()]
