"""The SDK's errors as this project's."""

import pytest
from azure.core.exceptions import AzureError, HttpResponseError

from shared.adapters.azure.errors import translated
from shared.errors import CapacityError, ConflictError, NotFoundError, RefusedError, UnavailableError


class Answered(HttpResponseError):  # type: ignore[misc]
    def __init__(self, status, code="", message="the service's words"):
        super().__init__(message)
        self.status_code, self.error_code = status, code


@pytest.mark.parametrize(
    ("error", "conditional", "kind", "words"),
    [
        (
            Answered(404, "BlobNotFound"),
            True,
            NotFoundError,
            r"thing does not exist \(BlobNotFound: the service's words",
        ),
        (Answered(409, "EntityAlreadyExists"), True, ConflictError, "somebody else was first"),
        (Answered(412, "UpdateConditionNotSatisfied"), True, ConflictError, "UpdateConditionNotSatisfied"),
        (Answered(409), False, UnavailableError, "HTTP 409: the service's words"),
        (Answered(403, "AuthorizationFailure", "a\nb"), True, RefusedError, "HTTP 403: AuthorizationFailure: a b"),
        (Answered(400, "OutOfQuota"), False, RefusedError, "refused: HTTP 400: OutOfQuota"),
        (Answered(400, "AllocationFailed"), False, CapacityError, "no capacity: AllocationFailed"),
        (Answered(401), True, UnavailableError, "HTTP 401"),
        (Answered(429), False, UnavailableError, "HTTP 429"),
        (HttpResponseError("cut off"), True, UnavailableError, "thing is unavailable: HttpResponseError: cut off"),
        (AzureError("no signature"), True, UnavailableError, "thing is unavailable: AzureError: no signature"),
    ],
)
def test_each_error_says_what_it_means_here(error, conditional, kind, words):
    with pytest.raises(kind, match=words) as caught, translated("thing", conditional=conditional):
        raise error
    assert caught.value.__cause__ is error


def test_other_errors_pass():
    with pytest.raises(KeyError), translated("thing"):
        raise KeyError("ours")
