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


class Even(random.Random):
    """Chance without jitter, and without exploring unless told."""

    def uniform(self, a, b):
        return (a + b) / 2


@pytest.fixture
def even(clock):
    """A router whose open breakers last exactly as long as they should."""
    return Router(clock, Even(1))


def elsewhere(name, **changes):
    return Endpoint(**{"cloud": "aws", "url": f"http://{name}", "model_version": "m1"} | changes)


def test_a_sick_endpoint_is_tried_after_so_many_seconds_and_then_twice_as_many_up_to_a_minute(even, clock):
    for _ in range(3):
        fail(even, AWS)
    for seconds in (5.0, 10.0, 20.0, 40.0, 60.0, 60.0):
        clock.now += seconds - 1 / 1024
        assert even.order(BOTH) == [AZURE], f"before {seconds} s"
        clock.now += 1 / 1024
        assert even.order(BOTH) == [AWS, AZURE], f"after {seconds} s"
        fail(even, AWS)
    clock.now += 60.0
    even.order(BOTH)
    answer(even, AWS, 0.1)
    for _ in range(2):
        fail(even, AWS)
    assert not even.is_open(AWS), "it answered: three failures open it again"
    fail(even, AWS)
    clock.now += 5.0
    assert even.order(BOTH)[0] == AWS, "for five seconds again"


def test_instances_do_not_all_probe_in_the_same_moment(clock):
    waits = []
    for seed in range(60):
        clock.now = 0.0
        one = Router(clock, random.Random(seed))
        for _ in range(3):
            fail(one, AWS)
        while one.order(BOTH)[0] != AWS:
            clock.now += 0.05
        waits.append(clock.now)
    assert 3.95 <= min(waits) < 4.4 and 5.6 < max(waits) <= 6.05


def test_two_sick_endpoints_are_probed_one_after_the_other(even, clock):
    for endpoint in BOTH:
        for _ in range(3):
            fail(even, endpoint)
    clock.now += 5.0
    assert even.order(BOTH) == [AWS]
    assert even.order(BOTH) == [AZURE]
    assert set(even.order(BOTH)) == set(BOTH), "both are being probed: a guess beats a refusal"


def test_the_fallbacks_are_the_cheapest_first_whatever_was_chosen(clock):
    places = [elsewhere("a"), elsewhere("b"), elsewhere("c")]
    one = Router(clock, random.Random(3), exploration=1.0)
    for place, latency in zip(places, (0.3, 0.1, 0.2), strict=True):
        answer(one, place, latency)
    cheapest = [places[1], places[2], places[0]]
    seen = {tuple(e.url for e in one.order(places)) for _ in range(100)}
    assert seen == {tuple(e.url for e in [p, *(c for c in cheapest if c != p)]) for p in places}
    for _ in range(2):
        one.started(places[1])  # now 0.3 for one more request
    answer(one, places[1], 0.1)  # a third one came and went
    one.answered(places[2], 0.2)  # one that nobody saw start
    costs = {one.order(places)[-1].url for _ in range(50)}
    assert costs <= {"http://a", "http://b"}, "0.3 s each; the other costs 0.2 s"


def test_a_request_costs_its_latency_once_for_itself_and_for_each_that_waits(clock):
    """Two that wait make 0.1 s as dear as 0.3 s; what came back does not wait any more."""
    slow, fast = elsewhere("slow"), elsewhere("fast")

    def share_of_fast(waiting, back=0, unseen=0):
        one = Router(clock, random.Random(2), exploration=0.0)
        answer(one, slow, 0.3)
        answer(one, fast, 0.1)
        for _ in range(unseen):
            one.answered(fast, 0.1)  # sent before this instance counted
        for _ in range(waiting):
            one.started(fast)
        for _ in range(back):
            one.answered(fast, 0.1)
        return sum(one.order((slow, fast))[0] == fast for _ in range(400)) / 400

    assert share_of_fast(1) > 0.95
    assert 0.4 < share_of_fast(2) < 0.6
    assert share_of_fast(3) < 0.1
    assert 0.4 < share_of_fast(4, back=2) < 0.6
    assert 0.4 < share_of_fast(2, unseen=3) < 0.6, "never fewer than none"


def test_an_endpoint_a_tenth_slower_gets_1_over_e_of_the_chance(clock):
    one = Router(clock, random.Random(4), exploration=0.0)
    answer(one, AWS, 1.1)
    answer(one, AZURE, 1.0)
    share = first_choices(one, 4000)["aws"] / 4000
    assert share == pytest.approx(math.exp(-1) / (1 + math.exp(-1)), abs=0.02)


def test_one_request_in_fifty_explores(router):
    answer(router, AWS, 9.0)
    answer(router, AZURE, 0.1)
    assert 60 < first_choices(router, 8000)["aws"] < 105, "half of those that explore"


def test_weights_share_out_the_requests_and_decide_nothing_when_all_are_zero(clock):
    def share(first, second):
        one = Router(clock, random.Random(6))
        places = elsewhere("a", weight=first, latency_s=0.1), elsewhere("b", weight=second, latency_s=0.1)
        return sum(one.order(places)[0] is places[0] for _ in range(2000)) / 2000

    assert share(3.0, 1.0) == pytest.approx(0.75, abs=0.03)
    assert share(0.5, 0.5) == pytest.approx(0.5, abs=0.03), "a weight below one is a weight"
    assert share(0.0, 1.0) == 0.0, "no weight, no requests, not even to explore"
    assert share(0.0, 0.0) == pytest.approx(0.5, abs=0.03)


def test_an_endpoint_is_used_only_if_it_is_healthy_and_has_weight(router):
    unwanted = [elsewhere("sick", healthy=False), elsewhere("none", weight=0.0)]
    for one in unwanted:
        assert router.order((one, AZURE)) == [AZURE]
    assert router.order((AZURE, unwanted[0]))[0] == AZURE


def test_an_endpoint_that_answers_at_once_breaks_nothing(router):
    answer(router, AWS, 0.0)
    answer(router, AZURE, 0.5)
    assert first_choices(router)["aws"] > 950


def test_the_estimate_fades_with_the_time_since_the_last_answer(router, clock):
    clock.now = 1000.0
    answer(router, AWS, 8.0)
    clock.now += 10.0
    answer(router, AWS, 1.0)
    assert router.latency_s(AWS) == pytest.approx(1.0 + 7.0 / math.e)
    clock.now += 5.0
    answer(router, AWS, 1.0)
    assert router.latency_s(AWS) == pytest.approx(1.0 + 7.0 / math.e**1.5)


def test_what_the_route_table_says_counts_from_when_it_was_read_and_only_before_a_measurement(router, clock):
    warm = elsewhere("warm", latency_s=8.0)
    clock.now = 1000.0
    router.order((warm,))
    assert router.latency_s(warm) == 8.0
    clock.now += 10.0
    answer(router, warm, 0.0)
    assert router.latency_s(warm) == pytest.approx(8.0 / math.e)
    router.order((warm,))
    assert router.latency_s(warm) == pytest.approx(8.0 / math.e), "measured beats told"
    assert router.latency_s(AZURE) is None


def test_an_endpoint_nobody_measured_is_the_last_resort(router):
    answer(router, AWS, 30.0)
    assert first_choices(router)["aws"] > 950
