"""Composition root: settings -> adapters -> use cases, once per process, nothing at import.

SDKs load at the first call that needs them, so a function pays only for what it uses.
"""

from __future__ import annotations

import functools
import gc
import logging
import os
import random
import time
from typing import TYPE_CHECKING, Final

from functions.clouds import Deps
from policy.catalogue import check_deployable
from shared.contracts import CLOUDS, Cloud
from shared.errors import ConfigurationError
from shared.ports import CloudServices, MetricsSource
from shared.settings import Settings
from shared.state import State

if TYPE_CHECKING:
    from flask import Flask

    from policy.policies import Policy
    from shared.adapters.aws.session import AwsSession
    from shared.adapters.azure.credential import Credential


log = logging.getLogger("opportune.functions")

#: secrets that the environment only refers to are read again after so long: they may have been rotated
SECRETS_S: Final = 300.0
_last: dict[Cloud, Settings] = {}


def settings(cloud: Cloud) -> Settings:
    """The process's settings; `cloud` is the one this function runs in, whatever the environment says."""
    return _settings(cloud, int(time.monotonic() // SECRETS_S))


@functools.lru_cache(maxsize=2)
def _settings(cloud: Cloud, period: int) -> Settings:
    env = {**os.environ, "OPPORTUNE_CLOUD": cloud}
    if cloud == "aws":
        from functions.aws.secrets import resolved

        try:
            env = resolved(env)
        except ConfigurationError as exc:
            if cloud not in _last:
                raise
            log.warning("secrets not read again", extra={"action": "settings", "reason": str(exc)})
            return _last[cloud]
    _last[cloud] = Settings.from_env(env)
    return _last[cloud]


def forget() -> None:
    """As if the process had just begun."""
    _last.clear()
    for cached in (_settings, _deps, _web_app):
        cached.cache_clear()


@functools.cache
def aws_session() -> AwsSession:
    """The process's one way into AWS; in Azure its Entra token is exchanged for a role there."""
    from shared.adapters.aws.session import AwsSession

    scope = f"{os.environ.get('AWS_ROLE_AUDIENCE', 'api://opportune')}/.default"
    return AwsSession(lambda: azure_credential().get_token(scope).token)


@functools.cache
def azure_credential() -> Credential:
    """Who this process is to Azure; without Azure's own identity, its AWS one is exchanged."""
    from shared.adapters.azure import credential

    return credential.azure_credential(lambda audience: aws_session().identity_token(audience))


def cloud_services(cloud: Cloud, cfg: Settings) -> CloudServices:
    """Everything `cloud` offers, behind the ports."""
    from shared.adapters.released import ReleasedHost

    if cloud == "aws":
        from shared.adapters.aws.documents import DynamoDocuments
        from shared.adapters.aws.endpoint import SageMakerEndpoint
        from shared.adapters.aws.objects import S3Objects
        from shared.adapters.aws.queue import SqsQueue
        from shared.adapters.aws.training import SageMakerTraining

        session = aws_session()
        bucket = S3Objects(session, cfg.bucket)
        return CloudServices(
            cloud="aws",
            documents=DynamoDocuments(session, cfg.table, cfg.decision_ttl_days),
            objects=bucket,
            queue=SqsQueue(session, cfg.queue, cfg.dead_letter_queue),
            training=SageMakerTraining(session, cfg),
            host=ReleasedHost(cfg.service, SageMakerEndpoint(session, cfg), bucket),
        )
    from shared.adapters.azure.documents import TableDocuments
    from shared.adapters.azure.endpoint import AzureMLEndpoint
    from shared.adapters.azure.objects import BlobObjects
    from shared.adapters.azure.queue import StorageQueue
    from shared.adapters.azure.training import AzureMLTraining

    credential = azure_credential()
    objects = BlobObjects(cfg, credential)
    return CloudServices(
        cloud="azure",
        documents=TableDocuments(cfg, credential),
        objects=objects,
        queue=StorageQueue(cfg, credential),
        training=AzureMLTraining(cfg, credential, objects),
        host=ReleasedHost(cfg.service, AzureMLEndpoint(cfg, credential), objects),
    )


def configured_clouds(cfg: Settings) -> tuple[Cloud, ...]:
    """Azure takes part when its storage is configured, AWS when this is AWS or its region is known."""
    azure = cfg.cloud == "azure" or bool(cfg.azure_storage_connection or cfg.azure_storage_account)
    aws = cfg.cloud == "aws" or "AWS_REGION" in os.environ or "AWS_DEFAULT_REGION" in os.environ
    return (*(("aws",) if aws else ()), *(("azure",) if azure else ()))


def deps(cloud: Cloud) -> Deps:
    """Dependencies of the scheduled and the training functions in `cloud`; made again when a secret changed."""
    return _deps(cloud, settings(cloud))


@functools.lru_cache(maxsize=2)
def _deps(cloud: Cloud, cfg: Settings) -> Deps:
    check_deployable(cfg.policy)
    for name in CLOUDS:
        cfg.list_price_usd_per_hour(name)  # a budget of dollars bounds nothing where no price is known
    notifier = None
    if cfg.pushgateway_url:
        from shared.adapters.pushgateway import Pushgateway

        notifier = Pushgateway(cfg.pushgateway_url)
    return Deps(
        settings=cfg,
        clouds={name: cloud_services(name, cfg) for name in configured_clouds(cfg)},
        metrics=functools.cache(lambda: _metrics(cfg)),
        policy=functools.cache(lambda: _policy(cfg)),
        notifier=notifier,
    )


@functools.cache
def settle() -> None:
    """After a first tick: what is loaded by now stays, so the garbage collector need not look through it again.

    One look takes it longer than a tick, and would come every few hundred ticks.
    """
    gc.freeze()


def _metrics(cfg: Settings) -> MetricsSource:
    from shared.adapters.prometheus import PrometheusMetrics

    auth = cfg.prometheus_auth
    return PrometheusMetrics(cfg.prometheus_url, cfg.service, cfg.prometheus_token, auth, session=aws_session())


def _policy(cfg: Settings) -> Policy:
    from policy.policies import live_policy

    return live_policy(cfg.policy, cfg.static_every_slots)


def web_app(cloud: Cloud) -> Flask:
    """The HTTP function in `cloud`; made again when a secret changed."""
    return _web_app(cloud, settings(cloud))


@functools.lru_cache(maxsize=2)
def _web_app(cloud: Cloud, cfg: Settings) -> Flask:
    from functions.routing.inference import Inference, RouteCache
    from functions.routing.router import Router
    from functions.web.app import create_app
    from shared.adapters.inference import CloudInference

    state = State(cloud_services(cloud, cfg).documents)
    routes = RouteCache(lambda: state.routes(cfg.service), time.monotonic, cfg.route_ttl_seconds)
    client = CloudInference(cfg, aws_session(), azure_credential())
    return create_app(cfg, state, Inference(routes, Router(time.monotonic, random.Random()), client))
