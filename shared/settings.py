"""Settings from the environment: frozen, validated once, passed in. Every variable starts with OPPORTUNE_."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from shared.addresses import shown
from shared.contracts import Cloud, ServiceName
from shared.errors import ConfigurationError

PREFIX = "OPPORTUNE_"

Positive = Annotated[float, Meta(gt=0)]


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
    prometheus_auth: Literal["none", "bearer", "sigv4"] = "bearer"  # sigv4: Amazon Managed Service for Prometheus
    prometheus_token: str = ""
    pushgateway_url: str = ""
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
    price_usd_per_hour_aws: Positive = 0.736
    price_usd_per_hour_azure: Positive = 0.752
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
    azureml_environment: str = "opportune-training:1"
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
        return cls(**values)

    def price_usd_per_hour(self, cloud: Cloud) -> float:
        """List price of the training instance on `cloud`."""
        return self.price_usd_per_hour_aws if cloud == "aws" else self.price_usd_per_hour_azure

    def train_hours(self, cloud: Cloud) -> float:
        """Expected wall time of one retrain on `cloud`."""
        return self.train_hours_aws if cloud == "aws" else self.train_hours_azure

    def redacted(self) -> dict[str, Any]:
        """Every setting, secrets hidden, addresses without user and password: safe to log and to show."""
        return {k: _shown(k, v) for k, v in msgspec.structs.asdict(self).items()}


def _secret(name: str) -> bool:
    return name.endswith(("_token", "_connection"))


def _shown(name: str, value: Any) -> Any:
    if _secret(name) and value:
        return "(hidden)"
    address = isinstance(value, str) and (name.endswith("_url") or "://" in value)
    return shown(value) if address else value


def _allowed(hint: Any, fallback: str) -> str:
    base = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if get_origin(base) is Literal:
        return ", ".join(get_args(base))
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
