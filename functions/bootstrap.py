"""Composition root: settings -> adapters -> use cases, once per process, nothing at import.

SDKs load at the first call that needs them, so a function pays only for what it uses.
"""

from __future__ import annotations

import functools
import gc
import os
import random
import time
from typing import TYPE_CHECKING

from functions.clouds import Deps
from policy.catalogue import check_deployable
from shared.contracts import Cloud
from shared.ports import CloudServices, MetricsSource
from shared.records import State
from shared.settings import Settings

if TYPE_CHECKING:
    from flask import Flask

    from policy.policies import Policy


@functools.cache
def settings(cloud: Cloud) -> Settings:
    """The process's settings; `cloud` is the one this function runs in, whatever the environment says."""
    env = {**os.environ, "OPPORTUNE_CLOUD": cloud}
    if cloud == "aws":
        from functions.aws.secrets import resolved

        env = resolved(env)
    return Settings.from_env(env)


def cloud_services(cloud: Cloud, cfg: Settings) -> CloudServices:
    """Everything `cloud` offers, behind the ports."""
    if cloud == "aws":
        from shared.adapters.aws import S3Objects, SqsQueue
        from shared.adapters.dynamodb import DynamoDocuments
        from shared.adapters.sagemaker import SageMakerHost, SageMakerTraining

        return CloudServices(
            cloud="aws",
            documents=DynamoDocuments(cfg.table, cfg.decision_ttl_days),
            objects=S3Objects(cfg.bucket),
            queue=SqsQueue(cfg.queue, cfg.dead_letter_queue),
            training=SageMakerTraining(cfg),
            host=SageMakerHost(cfg),
        )
    from shared.adapters.azure import BlobObjects, StorageQueue, TableDocuments
    from shared.adapters.azureml import AzureMLHost, AzureMLTraining

    objects = BlobObjects(cfg)
    return CloudServices(
        cloud="azure",
        documents=TableDocuments(cfg),
        objects=objects,
        queue=StorageQueue(cfg),
        training=AzureMLTraining(cfg, objects),
        host=AzureMLHost(cfg),
    )


def configured_clouds(cfg: Settings) -> tuple[Cloud, ...]:
    """Azure takes part when its storage is configured, AWS when this is AWS or its region is known."""
    azure = cfg.cloud == "azure" or bool(cfg.azure_storage_connection or cfg.azure_storage_account)
    aws = cfg.cloud == "aws" or "AWS_REGION" in os.environ or "AWS_DEFAULT_REGION" in os.environ
    return (*(("aws",) if aws else ()), *(("azure",) if azure else ()))


@functools.cache
def deps(cloud: Cloud) -> Deps:
    """Dependencies of the scheduled and the training functions in `cloud`."""
    cfg = settings(cloud)
    check_deployable(cfg.policy)
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

    return PrometheusMetrics(cfg.prometheus_url, cfg.service, cfg.prometheus_token, cfg.prometheus_auth)


def _policy(cfg: Settings) -> Policy:
    from policy.policies import live_policy

    return live_policy(cfg.policy, cfg.static_every_slots)


@functools.cache
def web_app(cloud: Cloud) -> Flask:
    """The HTTP function in `cloud`."""
    from functions.routing.inference import Inference, RouteCache
    from functions.routing.router import Router
    from functions.web.app import create_app
    from shared.adapters.inference import CloudInference

    cfg = settings(cloud)
    state = State(cloud_services(cloud, cfg).documents)
    routes = RouteCache(lambda: state.routes(cfg.service), time.monotonic, cfg.route_ttl_seconds)
    return create_app(cfg, state, Inference(routes, Router(time.monotonic, random.Random()), CloudInference(cfg)))
