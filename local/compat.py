"""Inner names of moto that the embedded AWS builds on; everything else of it is used as documented.

moto (5.2, `moto[server]` in pyproject.toml) has no public way to change how a service behaves, and its SageMaker
answers without training or serving anything: a training job is Completed at once, UpdateEndpoint and StopTrainingJob do
not exist. So local/clouds/aws/sagemaker.py replaces methods of the classes below. tests/local/test_compat.py says when
an upgrade has moved them.

Azure's worker library (azure-functions-runtime 1.3.0) is used by its inner names in local/runtimes/azure_worker.py,
which runs in another interpreter and therefore imports nothing from here.
"""

from __future__ import annotations

from typing import Any, Final

from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import utcnow
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.sagemaker.exceptions import ResourceInUseException, ValidationError
from moto.sagemaker.models import FakeEndpointConfig, SageMakerModelBackend
from moto.sagemaker.responses import SageMakerResponse

#: the versions whose inner names these are
MOTO: Final = "5.2"

__all__ = [
    "MOTO",
    "ActionResult",
    "DomainDispatcherApplication",
    "EmptyResult",
    "FakeEndpointConfig",
    "MotoRequestHandler",
    "ResourceInUseException",
    "SageMakerModelBackend",
    "SageMakerResponse",
    "ValidationError",
    "create_backend_app",
    "model_named",
    "parameter",
    "running_variants",
    "utcnow",
]


def model_named(backend: Any, name: str) -> Any:
    """The model of that name, None when there is none; moto keeps models in `_models`."""
    return backend._models.get(name)


def running_variants(endpoint: Any, wanted: Any) -> Any:
    """A configuration's variants as DescribeEndpoint shows them (`_process_production_variants`)."""
    return endpoint._process_production_variants(wanted)


def parameter(response: Any, name: str) -> Any:
    """One parameter of the request that moto is answering (`_get_param`)."""
    return response._get_param(name)
