"""Authorised requests to an Azure ML workspace, over azure-core.

The official package for it imports for seconds and weighs 67 MB or more, too much for a function; the few requests
we need are small. Requests and answers are those of Microsoft.MachineLearningServices, api-version below.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from shared.adapters.azure.credential import workspace_credential
from shared.adapters.azure.errors import answered
from shared.errors import NotFoundError, UnavailableError
from shared.settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

API_VERSION: Final = "2024-10-01"
#: what an identity's token must be for
SCOPE: Final = "https://management.azure.com/.default"
_PROVIDER: Final = "providers/Microsoft.MachineLearningServices/workspaces"
#: how Azure says that subscription, resource group or workspace are missing
_ABOVE: Final = re.compile(r"(Subscription|ResourceGroup|ParentResource)NotFound|/workspaces/[^/' ]+'", re.I)


class Workspace:
    """Authorised JSON requests to one Azure ML workspace."""

    def __init__(self, settings: Settings, credential: TokenCredential) -> None:
        self._url = settings.azureml_url
        self._credential = workspace_credential(settings, credential)
        self.path = (
            f"/subscriptions/{settings.azureml_subscription}/resourceGroups/{settings.azureml_resource_group}"
            f"/{_PROVIDER}/{settings.azureml_workspace}"
        )

    @functools.cached_property
    def _client(self) -> Any:
        from azure.core import PipelineClient
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy, RetryPolicy

        from shared.adapters.azure.sending import Transport

        policies = [RetryPolicy(retry_total=1), BearerTokenCredentialPolicy(self._credential, SCOPE)]
        return PipelineClient(self._url, policies=policies, transport=Transport())

    def call(self, method: str, resource: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """`method` on `resource` (a path below the workspace). What is not a GET is sent once.

        Raises:
            NotFoundError: 404, in Azure's own words.
            RefusedError, CapacityError, UnavailableError: any other status of 300 and up, or no answer to make use of.
        """
        return self._called(f"Azure ML {resource}", method, f"{self.path}/{resource}", body, API_VERSION)

    def group(self, resource: str, api_version: str) -> dict[str, Any]:
        """GET of another resource of the workspace's resource group. Raises as `call` does."""
        return self._called(
            f"Azure {resource}", "GET", f"{self.path.partition('/providers/')[0]}/{resource}", None, api_version
        )

    def _called(
        self, what: str, method: str, path: str, body: dict[str, Any] | None, api_version: str
    ) -> dict[str, Any]:
        with answered(what, conditional=False):
            answer = self._answer(method, path, body, api_version)
        if not answer.content:
            return {}
        try:
            return dict(answer.json())
        except (ValueError, TypeError) as exc:
            raise UnavailableError(what, "the answer is not a JSON object") from exc

    def _answer(self, method: str, path: str, body: dict[str, Any] | None, api_version: str) -> Any:
        from azure.core.exceptions import HttpResponseError
        from azure.core.rest import HttpRequest

        request = HttpRequest(method, f"{self._url}{path}", params={"api-version": api_version}, json=body)
        # Only the workspace on this machine, the embedded one, may see a token without TLS.
        here = urlsplit(self._url).hostname in ("127.0.0.1", "localhost")
        answer = self._client.send_request(request, retry_total=int(method == "GET"), enforce_https=not here)
        if answer.status_code >= 300:
            raise HttpResponseError(response=answer)
        return answer

    def get(self, resource: str) -> dict[str, Any] | None:
        """The resource, or None when there is none."""
        try:
            return self.call("GET", resource)
        except NotFoundError as exc:
            if _ABOVE.search(str(exc)):  # not this one but what it would be in: nothing is known of it
                raise
            return None
