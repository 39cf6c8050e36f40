"""Settings from the environment: frozen, validated once, passed in. Every variable starts with OPPORTUNE_."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from shared.addresses import shown
from shared.contracts import CLOUDS, Cloud, ServiceName
from shared.errors import ConfigurationError
from shared.prices import list_price, spot_share

PREFIX = "OPPORTUNE_"

Positive = Annotated[float, Meta(gt=0)]
NonNegative = Annotated[float, Meta(ge=0)]
#: how a query proves who asks
MetricsAuth = Literal["none", "bearer", "basic", "sigv4", "entra"]
OwnMetricsAuth = Literal["", "none", "bearer", "basic", "sigv4", "entra"]


class MetricStore(NamedTuple):
    """One address where metrics are asked for."""

    url: str
    auth: MetricsAuth = "bearer"
    token: str = ""
    cloud: Cloud | None = None  # whose metrics are there; None: every cloud's
    sigv4_service: str = ""  # the name that a signature is for; empty: by the address

    def variable(self, what: str) -> str:
        """The setting that says this of the store: `URL`, `AUTH`, `TOKEN`."""
        return f"{PREFIX}PROMETHEUS_{what}" + (f"_{self.cloud.upper()}" if self.cloud else "")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One field per variable: `slot_seconds` is OPPORTUNE_SLOT_SECONDS. docs/configuration.md is built from this."""

    # --- what and where
    service: ServiceName = "qa"
    cloud: Cloud = "aws"
    mode: Literal["act", "watch"] = "act"
    scheduler: Cloud = "aws"  # which cloud's clock is in charge; the other stands by
    slot_seconds: Positive = 60.0
    time_scale: Positive = 1.0  # simulated seconds per real second; 1 outside demos. Costs are of simulated time
    # --- metrics
    prometheus_url: str = "http://127.0.0.1:9090"
    prometheus_auth: MetricsAuth = "bearer"  # sigv4: the AWS identity; entra: the Azure one
    prometheus_token: str = ""
    prometheus_sigv4_service: str = ""
    # one store per cloud: as soon as one of the two is set, the address above is not asked
    prometheus_url_aws: str = ""
    prometheus_auth_aws: OwnMetricsAuth = ""  # empty: as prometheus_auth
    prometheus_token_aws: str = ""  # empty: as prometheus_token
    prometheus_url_azure: str = ""
    prometheus_auth_azure: OwnMetricsAuth = ""
    prometheus_token_azure: str = ""
    # where the serving containers send their metrics (Prometheus remote write); empty = nowhere, they are scraped
    metrics_write_url_aws: str = ""
    metrics_write_url_azure: str = ""
    metrics_write_auth_aws: Literal["none", "basic", "bearer", "sigv4", "entra"] = "sigv4"
    metrics_write_auth_azure: Literal["none", "basic", "bearer", "sigv4", "entra"] = "entra"
    metrics_write_token: str = ""  # of bearer, or USER:PASSWORD of basic
    serve_environment: str = ""  # what else the serving containers are told: NAME=VALUE NAME=VALUE
    window_slots: Annotated[int, Meta(ge=3)] = 120  # a decision looks back on one to two times as many
    max_metric_age_slots: Positive = 5.0
    # --- policy
    policy: str = "ppo"  # a shipped policy's name, a rule's name, or the path of an ONNX file
    static_every_slots: Annotated[int, Meta(ge=1)] = 15
    value_usd_per_quality_hour: Positive = 6.0
    # --- guardrails
    cooldown_slots: Annotated[float, Meta(ge=0)] = 5.0
    budget_usd_per_day: Annotated[float, Meta(ge=0)] = 50.0
    cost_ceiling_usd: Annotated[float, Meta(gt=0)] = 10.0
    job_deadline_seconds: Positive = 3600.0
    standby_after_slots: Positive = 3.0
    tick_deadline_seconds: Positive = 45.0  # wall time of one run of a function; below its platform's own limit
    # --- prices and sizes of one retrain
    aws_region: str = "eu-west-1"  # also read from AWS_REGION and AWS_DEFAULT_REGION
    azureml_region: str = "westeurope"
    # of the training instance; 0 = what shared/prices.json says of its type, region and spot
    price_usd_per_hour_aws: NonNegative = 0.0
    price_usd_per_hour_azure: NonNegative = 0.0
    train_hours_aws: Positive = 0.25
    train_hours_azure: Positive = 0.25
    # --- training
    base_model: str = "distilgpt2"
    epochs: Annotated[int, Meta(ge=1)] = 5
    learning_rate: Positive = 5e-5
    batch_size: Annotated[int, Meta(ge=1)] = 16
    data_window_slots: Positive = 1440.0  # feedback of the last this many slots is trained and evaluated on
    min_new_pairs: Annotated[int, Meta(ge=1)] = 32
    max_training_pairs: Annotated[int, Meta(ge=1)] = 20_000  # the newest ones of the window
    max_training_mb: Positive = 64.0
    # --- gate
    gate_min_examples: Annotated[int, Meta(ge=1)] = 8
    gate_margin: Annotated[float, Meta(ge=0)] = 0.0  # candidate quality may be this much below the serving model's
    # --- routing
    request_timeout_seconds: Positive = 10.0
    max_body_bytes: Annotated[int, Meta(ge=1)] = 65536
    route_ttl_seconds: Positive = 2.0
    # --- records: GET /decisions, /jobs, /routes of the HTTP function
    operator_token: str = ""  # bearer token that reads them; empty = nobody does, unless they are open
    open_records: bool = False  # without a token, show them to everybody: for a machine of your own
    # --- cloud resources (names made by serverless.yml / the Azure templates)
    bucket: str = "opportune"
    container: str = "opportune"
    table: str = "opportune"
    decision_ttl_days: Positive = 90.0
    queue: str = "opportune-retrain"
    dead_letter_queue: str = "opportune-retrain-dlq"
    poison_queue: str = "opportune-retrain-poison"
    sagemaker_role_arn: str = "arn:aws:iam::123456789012:role/opportune-sagemaker"
    sagemaker_serve_role_arn: str = ""  # of the endpoint's containers; empty = the one above
    sagemaker_image: str = "opportune-training:latest"
    sagemaker_instance_type: str = "ml.g4dn.xlarge"
    sagemaker_spot: bool = True
    sagemaker_endpoint: str = "opportune-qa"
    sagemaker_serve_instance_type: str = "ml.c6i.xlarge"
    aws_endpoint_url: str = ""  # where the AWS endpoint's HTTP face is, when it is not SageMaker runtime itself
    azure_storage_connection: str = ""  # connection string; empty = managed identity with azure_storage_account
    azure_storage_account: str = ""
    azureml_url: str = "https://management.azure.com"
    azureml_subscription: str = "00000000-0000-0000-0000-000000000000"
    azureml_resource_group: str = "opportune"
    azureml_workspace: str = "opportune"
    azureml_compute: str = "gpu"
    azureml_instance_type: str = "Standard_NC4as_T4_v3"  # the size of that compute's nodes
    azureml_environment: str = "opportune-training:1"
    azureml_image: str = ""  # in a registry; what that environment is made of where it is not there yet
    azureml_serve_identity: str = ""  # resource id of the endpoint's identity; empty = one that Azure makes with it
    azureml_serve_client_id: str = ""  # that identity's client id, by which its containers name it
    azureml_datastore: str = "opportune"  # the workspace's datastore over the container above
    azureml_endpoint: str = "opportune-qa"
    azureml_serve_instance_type: str = "Standard_F4s_v2"
    azureml_token: str = ""  # static bearer token; empty = managed identity
    azure_endpoint_url: str = ""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Read and validate every OPPORTUNE_ variable of `env`.

        Raises:
            ConfigurationError: names the variable, its value and what is allowed.
        """
        hints = get_type_hints(cls, include_extras=True)
        values: dict[str, Any] = {}
        for field in msgspec.structs.fields(cls):
            variable = PREFIX + field.name.upper()
            raw = env.get(variable)
            if raw is None:
                continue
            hint = hints[field.name]
            try:
                values[field.name] = msgspec.convert(raw, hint, strict=False)
            except msgspec.ValidationError as exc:
                shown = "(hidden)" if _secret(field.name) else raw
                raise ConfigurationError(variable, shown, _allowed(hint, str(exc))) from exc
        region = env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION")
        if region and "aws_region" not in values:
            values["aws_region"] = region
        return cls(**values)

    def train_instance(self, cloud: Cloud) -> tuple[str, str]:
        """Type and region of the training instance on `cloud`."""
        if cloud == "aws":
            return self.sagemaker_instance_type, self.aws_region
        return self.azureml_instance_type, self.azureml_region

    def price_usd_per_hour(self, cloud: Cloud) -> float:
        """What an hour of the training instance on `cloud` is expected to cost: less on spot.

        Raises:
            ConfigurationError: the table has no price of that type and region; names both and the variable to set.
        """
        kind, region = self.train_instance(cloud)
        spot = spot_share(kind, region) if cloud == "aws" and self.sagemaker_spot else 1.0
        return self._price_set(cloud) or self.list_price_usd_per_hour(cloud) * spot

    def list_price_usd_per_hour(self, cloud: Cloud) -> float:
        """The most that an hour of it costs, and what each billed second does: for spot, SageMaker bills fewer seconds.

        Raises:
            ConfigurationError: as above.
        """
        kind, region = self.train_instance(cloud)
        price = self._price_set(cloud) or list_price(cloud, kind, region)
        if price is None:
            what = "SAGEMAKER_INSTANCE_TYPE" if cloud == "aws" else "AZUREML_INSTANCE_TYPE"
            variable = f"{PREFIX}PRICE_USD_PER_HOUR_{cloud.upper()}"
            raise ConfigurationError(
                variable, None, f"dollars an hour: no price is known of {PREFIX}{what}={kind} in {region}"
            )
        return price

    def _price_set(self, cloud: Cloud) -> float:
        return self.price_usd_per_hour_aws if cloud == "aws" else self.price_usd_per_hour_azure

    def train_hours(self, cloud: Cloud) -> float:
        """Expected wall time of one retrain on `cloud`."""
        return self.train_hours_aws if cloud == "aws" else self.train_hours_azure

    def metric_stores(self) -> tuple[MetricStore, ...]:
        """Where the metrics are: one address, or one per cloud."""
        common = MetricStore(
            self.prometheus_url, self.prometheus_auth, self.prometheus_token, None, self.prometheus_sigv4_service
        )
        own = {
            "aws": (self.prometheus_url_aws, self.prometheus_auth_aws, self.prometheus_token_aws),
            "azure": (self.prometheus_url_azure, self.prometheus_auth_azure, self.prometheus_token_azure),
        }
        found = tuple(
            common._replace(url=url, auth=auth or common.auth, token=token or common.token, cloud=cloud)
            for cloud in CLOUDS
            for url, auth, token in [own[cloud]]
            if url
        )
        return found or (common,)

    def asking(self, url: str) -> Settings:
        """The same, with the metrics of every cloud asked for at `url`."""
        return msgspec.structs.replace(self, prometheus_url=url, prometheus_url_aws="", prometheus_url_azure="")

    def redacted(self) -> dict[str, Any]:
        """Every setting, secrets hidden, addresses without user and password: safe to log and to show."""
        return {k: _shown(k, v) for k, v in msgspec.structs.asdict(self).items()}


def _common(name: str) -> str:
    """The setting's name without the cloud that it is of."""
    for cloud in CLOUDS:
        name = name.removesuffix(f"_{cloud}")
    return name


def _secret(name: str) -> bool:
    return _common(name).endswith(("_token", "_connection"))


def _shown(name: str, value: Any) -> Any:
    if _secret(name) and value:
        return "(hidden)"
    address = isinstance(value, str) and (_common(name).endswith("_url") or "://" in value)
    return shown(value) if address else value


def _allowed(hint: Any, fallback: str) -> str:
    base = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if get_origin(base) is Literal:
        return ", ".join(filter(None, get_args(base)))
    metas: list[Callable[..., Any] | Meta] = [m for m in get_args(hint)[1:] if isinstance(m, Meta)]
    for meta in metas:
        if isinstance(meta, Meta):
            if meta.pattern:
                most = f" of at most {meta.max_length} characters" if meta.max_length else ""
                return f"text matching {meta.pattern}{most}"
            bounds = [
                f"{sign} {bound}"
                for sign, bound in ((">", meta.gt), (">=", meta.ge), ("<=", meta.le))
                if bound is not None
            ]
            if bounds:
                kind = "a whole number" if base is int else "a number"
                return f"{kind} {' and '.join(bounds)}"
    return {int: "a whole number", float: "a number"}.get(base, fallback)
