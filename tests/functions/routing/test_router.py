import math
import random
from collections import Counter

import pytest

from functions.routing.router import Router, cost, smoothed
from shared.contracts import Endpoint

AWS = Endpoint(cloud="aws", url="http://aws", model_version="m1")
AZURE = Endpoint(cloud="azure", url="http://azure", model_version="m1")
BOTH = (AWS, AZURE)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def router(clock):
    return Router(clock, random.Random(1))


def answer(router, endpoint, latency_s):
    router.started(endpoint)
    router.answered(endpoint, latency_s)


def fail(router, endpoint, latency_s=5.0):
    router.started(endpoint)
    router.failed(endpoint, latency_s)


def first_choices(router, number=1000):
    return Counter(router.order(BOTH)[0].cloud for _ in range(number))


def test_cost_as_in_envoys_peak_ewma():
    # Published by Envoy's tests: rtt 20 with 5 active requests; no rtt yet with 3.
    assert cost(20, 5) == 120
    assert cost(None, 3) == 1_000_003


def test_an_estimate_decays_by_1_over_e_in_one_tau_as_in_linkerd():
    assert smoothed(100.0, 0.0, 10.0, 10.0) == pytest.approx(100.0 * math.exp(-1))


def test_a_slower_sample_counts_at_once():
    assert smoothed(1.0, 7.0, 0.0, 10.0) == 7.0


def test_old_samples_are_forgotten(router, clock):
    answer(router, AWS, 9.0)
    for _ in range(30):
        clock.now += 2.0
        answer(router, AWS, 0.1)
    assert router.latency_s(AWS) == pytest.approx(0.1, rel=0.25)


def test_the_faster_cloud_gets_almost_all_requests_and_the_other_enough_to_be_measured(router):
    answer(router, AWS, 0.4)
    answer(router, AZURE, 0.1)
    chosen = first_choices(router)
    assert chosen["azure"] > 970
    assert chosen["aws"] > 0


def test_nearly_equal_clouds_share(router):
    answer(router, AWS, 0.100)
    answer(router, AZURE, 0.104)
    assert 250 < first_choices(router)["azure"] < 480


def test_the_choice_turns_when_latency_does(router, clock):
    answer(router, AWS, 0.1)
    answer(router, AZURE, 0.3)
    clock.now += 60
    answer(router, AWS, 2.0)
    assert first_choices(router)["azure"] > 950


def test_latency_of_the_route_table_seeds_a_cold_instance(router):
    warm = Endpoint(cloud="azure", url="http://azure", model_version="m1", latency_s=0.1)
    slow = Endpoint(cloud="aws", url="http://aws", model_version="m1", latency_s=0.5)
    chosen = Counter(router.order((slow, warm))[0].cloud for _ in range(200))
    assert chosen["azure"] > 180


def test_a_failure_looks_slow_however_fast_it_was(router):
    answer(router, AWS, 0.2)
    answer(router, AZURE, 0.3)
    fail(router, AWS, latency_s=6.0)
    assert first_choices(router)["azure"] > 950


def test_requests_in_flight_count(router):
    answer(router, AWS, 0.10)
    answer(router, AZURE, 0.15)
    router.started(AWS)
    assert first_choices(router)["azure"] > 900


def test_the_other_cloud_is_the_fallback(router):
    assert {e.cloud for e in router.order(BOTH)} == {"aws", "azure"}


def test_the_breaker_opens_after_three_failures_in_a_row(router):
    for _ in range(2):
        fail(router, AWS)
    answer(router, AWS, 0.1)
    for _ in range(2):
        fail(router, AWS)
    assert not router.is_open(AWS), "an answer in between starts the count anew"
    fail(router, AWS)
    assert router.is_open(AWS)
    assert all(router.order(BOTH) == [AZURE] for _ in range(200)), "not even explored"


def test_one_request_probes_a_half_open_endpoint_and_its_success_closes_the_breaker(router, clock):
    for _ in range(3):
        fail(router, AWS)
    clock.now += 7.0
    assert router.order(BOTH) == [AWS, AZURE], "the prober, with a fallback"
    assert router.order(BOTH) == [AZURE], "everybody else waits for it"
    answer(router, AWS, 0.1)
    assert not router.is_open(AWS)


def test_a_failed_probe_opens_it_for_longer(router, clock):
    for _ in range(3):
        fail(router, AWS)
    clock.now += 7.0
    router.order(BOTH)
    fail(router, AWS)
    clock.now += 7.0
    assert router.order(BOTH) == [AZURE]
    clock.now += 7.0
    assert router.order(BOTH)[0] == AWS


def test_all_open_fails_open(router):
    for endpoint in BOTH:
        for _ in range(3):
            fail(router, endpoint)
    assert {e.cloud for e in router.order(BOTH)} == {"aws", "azure"}


def test_unhealthy_and_weightless_endpoints_are_used_only_when_there_is_nothing_else(router):
    sick = Endpoint(cloud="aws", url="http://aws", model_version="m1", healthy=False)
    assert all(router.order((sick, AZURE)) == [AZURE] for _ in range(100))
    assert router.order((sick,)) == [sick]


def test_the_same_seed_makes_the_same_choices(clock):
    one, two = (Router(clock, random.Random(5)) for _ in range(2))
    assert [one.order(BOTH) for _ in range(50)] == [two.order(BOTH) for _ in range(50)]
