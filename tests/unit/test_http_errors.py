import json

import pytest

from loramux_adapters import errors
from loramux_adapters.errors import LoramuxError
from loramux_serving.http_errors import admin_body, error_headers, openai_body, openai_dict, retry_after, status_of

CLASSES = list(errors.classes())

EXPECTED = {
    errors.RequestInvalid: 400,
    errors.NameInvalid: 400,
    errors.SourceNotAllowed: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.ModelNotFound: 404,
    errors.NameTaken: 409,
    errors.WeightsMismatch: 422,
    errors.SourceTooLarge: 413,
    errors.ArchiveTooLarge: 413,
    errors.SourceUnavailable: 502,
    errors.StorageFull: 507,
    errors.StorageFailed: 503,
    errors.EngineUnavailable: 503,
    errors.EngineTimeout: 504,
    errors.EngineRejected: 422,
    errors.EngineFailed: 502,
    errors.EngineConfigInvalid: 500,
    errors.RateLimited: 429,
    errors.QueueFull: 503,
    errors.QueueTimeout: 503,
    errors.OperationInterrupted: 503,
    errors.SettingsInvalid: 500,
    LoramuxError: 500,
}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_and_both_shapes(kind: type[LoramuxError]):
    error = kind("What is wrong.", details={"a": 1})
    assert 400 <= status_of(error) < 600
    assert (status_of(error) == 500) is (kind in (LoramuxError, errors.EngineConfigInvalid, errors.SettingsInvalid))
    body = json.loads(openai_body(error))
    assert body == openai_dict(error)
    assert body["error"]["message"] == "What is wrong."
    assert body["error"]["code"] == kind.code
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert admin_body(error) == {
        "error": {"code": kind.code, "message": "What is wrong.", "retryable": kind.retryable, "details": {"a": 1}}
    }


@pytest.mark.parametrize(("kind", "status"), EXPECTED.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_statuses(kind: type[LoramuxError], status: int):
    assert status_of(kind("x")) == status


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_who_may_try_again_is_told_when(kind: type[LoramuxError]):
    told = retry_after(kind("x"))
    assert told == ("1" if kind.retryable and status_of(kind("x")) in (429, 503) else None)


def test_headers():
    assert error_headers(errors.RateLimited("x", retry_after_s=2.1)) == {"retry-after": "3"}
    assert error_headers(errors.EngineUnavailable("x", retry_after_s=0.0)) == {"retry-after": "1"}
    assert error_headers(errors.Unauthenticated("x")) == {"www-authenticate": "Bearer"}
    assert error_headers(errors.Forbidden("x")) == {}


def test_the_parameter_at_fault_is_named():
    error = errors.RequestInvalid("x", details={"param": "model"})
    assert openai_dict(error)["error"]["param"] == "model"
    assert openai_dict(error)["error"]["type"] == "invalid_request_error"
    assert openai_dict(errors.EngineFailed("x"))["error"]["type"] == "server_error"
