"""What Azure ML takes in a body, as its management models say: an unknown property or a missing one is a 400."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

Tags = dict[str, str]
_Text = Annotated[str, Meta(min_length=1)]
_Count = Annotated[int, Meta(ge=1)]


class _Body(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Part of a request."""


class _Resource(_Body, kw_only=True):
    """What every resource may carry; what only the service writes is taken and left alone."""

    id: Any = UNSET
    name: Any = UNSET
    type: Any = UNSET
    system_data: Any = UNSET


class Identity(_Body, kw_only=True):
    """Who the containers are."""

    type: Literal["None", "SystemAssigned", "UserAssigned", "SystemAssigned,UserAssigned"]
    user_assigned_identities: dict[str, dict[str, Any] | None] | UnsetType = UNSET
    principal_id: Any = UNSET
    tenant_id: Any = UNSET


class Sku(_Body, kw_only=True):
    """How many instances."""

    name: _Text
    capacity: _Count | UnsetType = UNSET
    family: str | UnsetType = UNSET
    size: str | UnsetType = UNSET
    tier: str | UnsetType = UNSET


class EndpointProperties(_Body, kw_only=True):
    """Of an online endpoint."""

    auth_mode: Literal["AMLToken", "Key", "AADToken"]
    compute: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    keys: Any = UNSET
    mirror_traffic: dict[str, int] | UnsetType = UNSET
    properties: Tags | UnsetType = UNSET
    public_network_access: Literal["Enabled", "Disabled"] | UnsetType = UNSET
    traffic: dict[str, Annotated[int, Meta(ge=0, le=100)]] = msgspec.field(default_factory=dict)
    scoring_uri: Any = UNSET
    swagger_uri: Any = UNSET
    provisioning_state: Any = UNSET


class Endpoint(_Resource, kw_only=True):
    """PUT onlineEndpoints/NAME."""

    location: _Text
    properties: EndpointProperties
    identity: Identity | UnsetType = UNSET
    kind: str | UnsetType = UNSET
    sku: Sku | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET


class EndpointPatch(_Body, kw_only=True):
    """PATCH onlineEndpoints/NAME: no property of it can be changed so."""

    identity: Identity | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET


class Probe(_Body, kw_only=True):
    """When a container counts as alive, or as ready."""

    initial_delay: str | UnsetType = UNSET
    period: str | UnsetType = UNSET
    timeout: str | UnsetType = UNSET
    failure_threshold: _Count | UnsetType = UNSET
    success_threshold: _Count | UnsetType = UNSET


class RequestSettings(_Body, kw_only=True):
    """Limits of a deployment's route."""

    max_concurrent_requests_per_instance: _Count = 1
    request_timeout: str = "PT5S"
    max_queue_wait: str | UnsetType = UNSET


class DeploymentProperties(_Body, kw_only=True):
    """Of a managed online deployment."""

    endpoint_compute_type: Literal["Managed"]
    instance_type: _Text
    environment_id: _Text
    app_insights_enabled: bool | UnsetType = UNSET
    code_configuration: Any = UNSET
    data_collector: Any = UNSET
    description: str | UnsetType = UNSET
    egress_public_network_access: Literal["Enabled", "Disabled"] | UnsetType = UNSET
    environment_variables: dict[str, str] = msgspec.field(default_factory=dict)
    liveness_probe: Probe = msgspec.field(default_factory=Probe)
    model: str | UnsetType = UNSET
    model_mount_path: str | UnsetType = UNSET
    properties: Tags | UnsetType = UNSET
    readiness_probe: Probe = msgspec.field(default_factory=Probe)
    request_settings: RequestSettings = msgspec.field(default_factory=RequestSettings)
    scale_settings: Any = UNSET
    provisioning_state: Any = UNSET


class Deployment(_Resource, kw_only=True):
    """PUT onlineEndpoints/NAME/deployments/NAME."""

    location: _Text
    properties: DeploymentProperties
    sku: Sku
    identity: Identity | UnsetType = UNSET
    kind: str | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET


class Route(_Body, kw_only=True):
    """Where an image answers."""

    path: Annotated[str, Meta(pattern="^/")]
    port: Annotated[int, Meta(ge=1, le=65535)]


class InferenceConfig(_Body, kw_only=True):
    """The routes of an image that serves by itself."""

    liveness_route: Route
    readiness_route: Route
    scoring_route: Route


class EnvironmentProperties(_Body, kw_only=True):
    """Of an environment's version."""

    image: str | UnsetType = UNSET
    inference_config: InferenceConfig | UnsetType = UNSET
    auto_rebuild: str | UnsetType = UNSET
    build: Any = UNSET
    conda_file: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    is_anonymous: bool | UnsetType = UNSET
    is_archived: bool | UnsetType = UNSET
    os_type: Literal["Linux", "Windows"] | UnsetType = UNSET
    properties: Tags | UnsetType = UNSET
    stage: str | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET


class Environment(_Resource, kw_only=True):
    """PUT environments/NAME/versions/VERSION."""

    properties: EnvironmentProperties


class ModelProperties(_Body, kw_only=True):
    """Of a model's version."""

    model_uri: _Text
    description: str | UnsetType = UNSET
    flavors: Any = UNSET
    is_anonymous: bool | UnsetType = UNSET
    is_archived: bool | UnsetType = UNSET
    job_name: str | UnsetType = UNSET
    model_type: str | UnsetType = UNSET
    properties: Tags | UnsetType = UNSET
    stage: str | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET


class Model(_Resource, kw_only=True):
    """PUT models/NAME/versions/VERSION."""

    properties: ModelProperties


class JobInput(_Body, kw_only=True):
    """One input of a job."""

    job_input_type: Literal["uri_folder", "uri_file", "literal"]
    uri: str | UnsetType = UNSET
    value: str | UnsetType = UNSET
    mode: Literal["Download", "ReadOnlyMount", "ReadWriteMount", "Direct"] | UnsetType = UNSET
    description: str | UnsetType = UNSET


class JobOutput(_Body, kw_only=True):
    """One output of a job."""

    job_output_type: Literal["uri_folder", "uri_file"]
    uri: str | UnsetType = UNSET
    mode: Literal["Upload", "ReadWriteMount", "Direct"] | UnsetType = UNSET
    description: str | UnsetType = UNSET


class JobLimits(_Body, kw_only=True):
    """How long a job may run."""

    job_limits_type: Literal["Command"]
    timeout: str | UnsetType = UNSET


class JobResources(_Body, kw_only=True):
    """What a job runs on."""

    instance_count: _Count | UnsetType = UNSET
    instance_type: str | UnsetType = UNSET
    docker_args: str | UnsetType = UNSET
    shm_size: str | UnsetType = UNSET
    properties: Any = UNSET


class JobProperties(_Body, kw_only=True):
    """Of a command job."""

    job_type: Literal["Command"]
    command: _Text
    environment_id: _Text
    compute_id: _Text
    code_id: str | UnsetType = UNSET
    component_id: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    display_name: str | UnsetType = UNSET
    distribution: Any = UNSET
    environment_variables: dict[str, str] = msgspec.field(default_factory=dict)
    experiment_name: str = "Default"
    identity: Any = UNSET
    inputs: dict[str, JobInput] = msgspec.field(default_factory=dict)
    is_archived: bool | UnsetType = UNSET
    limits: JobLimits | UnsetType = UNSET
    notification_setting: Any = UNSET
    outputs: dict[str, JobOutput] = msgspec.field(default_factory=dict)
    properties: Tags | UnsetType = UNSET
    queue_settings: Any = UNSET
    resources: JobResources | UnsetType = UNSET
    services: Any = UNSET
    tags: Tags | UnsetType = UNSET


class CommandJob(_Resource, kw_only=True):
    """PUT jobs/NAME."""

    properties: JobProperties


#: collection -> what a PUT of one of its resources holds
BODIES: Final[dict[str, type[msgspec.Struct]]] = {
    "jobs": CommandJob,
    "models": Model,
    "environments": Environment,
    "onlineEndpoints": Endpoint,
    "deployments": Deployment,
}


def checked(kind: type[msgspec.Struct], body: Any) -> dict[str, Any]:
    """The body with the defaults that the service fills in, without what only the service writes.

    Raises:
        ValueError: it is not what the service takes; says which property.
    """
    found: dict[str, Any] = msgspec.to_builtins(msgspec.convert(body, kind))
    for name in ("id", "name", "type", "systemData"):
        found.pop(name, None)
    if isinstance(found.get("properties"), dict):
        for name in ("scoringUri", "swaggerUri", "provisioningState"):
            found["properties"].pop(name, None)
    return found
