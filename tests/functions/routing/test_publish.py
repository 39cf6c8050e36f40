"""The published table: what the hosts and the metrics say, for routers that start with nothing else."""

import random

import pytest

from functions.routing.router import Router
from functions.scheduling.tick import tick
from shared.errors import MetricsUnavailableError
from shared.values import Served


def faces(world):
    table = world.state("azure").routes("qa")
    return {endpoint.cloud: endpoint for endpoint in table.endpoints}, table.epoch


def test_a_cold_router_starts_from_the_latency_that_the_tick_saw(world, now):
    world.served = {"aws": Served(0.8, now - 1), "azure": Served(0.1, now - 1)}
    tick(world.deps(), now)
    endpoints, _ = faces(world)
    assert {cloud: endpoint.latency_s for cloud, endpoint in endpoints.items()} == {"aws": 0.8, "azure": 0.1}
    first = [
        Router(lambda: 0.0, random.Random(seed), exploration=0.0).order(list(endpoints.values()))[0].cloud
        for seed in range(50)
    ]
    assert set(first) == {"azure"}


def test_latency_alone_is_no_new_epoch_and_an_unknown_one_keeps_the_last(world, now):
    world.served = {"aws": Served(0.8, now), "azure": Served(0.1, now)}
    tick(world.deps(), now)
    world.served = {"aws": Served(0.7, now + 60), "azure": Served(None, now + 60)}
    tick(world.deps(), now + 60)
    endpoints, epoch = faces(world)
    assert epoch == 0
    assert (endpoints["aws"].latency_s, endpoints["azure"].latency_s) == (0.7, 0.1)


@pytest.mark.parametrize(
    ("aws_age_s", "azure_age_s", "healthy"),
    [
        (1.0, 1.0, {"aws", "azure"}),
        (299.0, 1.0, {"aws", "azure"}),
        (301.0, 1.0, {"azure"}),
        (301.0, 400.0, {"aws", "azure"}),  # nobody is scraped: Prometheus is what is ill
        (None, 1.0, {"aws", "azure"}),  # never scraped: nothing is known
    ],
)
def test_a_cloud_that_fell_silent_alone_is_not_healthy(world, now, aws_age_s, azure_age_s, healthy):
    seen_s = {"aws": aws_age_s, "azure": azure_age_s}
    world.served = {c: Served(0.1, None if age is None else now - age) for c, age in seen_s.items()}
    tick(world.deps(), now)
    assert {cloud for cloud, endpoint in faces(world)[0].items() if endpoint.healthy} == healthy


def test_a_silent_cloud_that_comes_back_gets_requests_again(world, now):
    world.served = {"aws": Served(0.1, now - 1000), "azure": Served(0.1, now)}
    tick(world.deps(), now)
    world.served = {"aws": Served(0.1, now + 60), "azure": Served(0.1, now + 60)}
    tick(world.deps(), now + 60)
    endpoints, epoch = faces(world)
    assert endpoints["aws"].healthy
    assert epoch == 1, "readers keep the newest epoch"


def test_a_demos_short_slots_do_not_make_a_busy_cloud_silent(world, now):
    world.served = {"aws": Served(0.1, now - 30), "azure": Served(0.1, now)}
    tick(world.deps(slot_seconds=1.0), now)
    assert faces(world)[0]["aws"].healthy


def test_without_metrics_the_routes_are_published_all_the_same(world, now):
    world.served = {"aws": Served(0.8, now), "azure": Served(0.1, now)}
    tick(world.deps(), now)
    world.metrics = MetricsUnavailableError("http://prometheus", "refused")
    tick(world.deps(), now + 60)
    endpoints, epoch = faces(world)
    assert epoch == 0
    assert endpoints["aws"].latency_s == 0.8
    assert world.state().routes("qa").heartbeat_s == now + 60


def test_one_cloud_alone_has_the_services_latency_and_is_not_asked_about_again(world, now):
    world.served = {"aws": Served(0.8, now)}
    tick(world.deps(clouds={"aws": world.clouds["aws"]}), now)
    (endpoint,) = world.state().routes("qa").endpoints
    assert endpoint.healthy and endpoint.latency_s == 0.2  # as `metric_window` has it
