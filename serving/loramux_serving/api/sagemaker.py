"""The control plane of Amazon SageMaker: `POST /`, its operation named by `X-Amz-Target`, in the JSON 1.1 protocol."""

import re
from uuid import uuid4

from fastapi import APIRouter, Request, Response

from loramux_adapters.errors import LoramuxError, OperationUnknown
from loramux_serving.api.dependencies import BodyDep, ServicesDep, SignedPrincipalDep
from loramux_serving.sagemaker.faults import fault_of

router = APIRouter(tags=["sagemaker"])

_TARGET = "x-amz-target"
_CONTENT_TYPE = "application/x-amz-json-1.1"
_SCOPE = re.compile(r"Credential=[^/,\s]+/\d{8}/([a-z0-9-]{1,64})/")
_ANY_REGION = "us-east-1"


@router.post("/", include_in_schema=False)
async def operate(request: Request, services: ServicesDep, principal: SignedPrincipalDep, body: BodyDep) -> Response:
    """Needs an admin key. The region is the one that the caller signed for: every one is served here."""
    services.keyring.require_admin(principal)
    target = request.headers.get(_TARGET)
    if target is None:
        raise OperationUnknown("The request names no operation: there is no X-Amz-Target.")
    signed_for = _SCOPE.search(request.headers.get("authorization", ""))
    region = signed_for[1] if signed_for else _ANY_REGION
    return _response(200, await services.sagemaker.answer(target, body, region))


def asked_by(request: Request) -> bool:
    """Whether the caller expects answers of this shape."""
    return request.url.path == "/" and _TARGET in request.headers


def failure(error: LoramuxError, status: int | None = None) -> Response:
    """`status` where it is not the one that the error has for these callers."""
    fault = fault_of(error)
    answer = _response(status or fault.status, fault.body)
    answer.headers["x-amzn-errortype"] = fault.code
    return answer


def _response(status: int, body: bytes) -> Response:
    return Response(body, status_code=status, media_type=_CONTENT_TYPE, headers={"x-amzn-requestid": str(uuid4())})
